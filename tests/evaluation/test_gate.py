"""Gate files, and a coder that learnt nothing."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import yaml
from evaluation_fakes import answer_suite, make_scorecard, make_suite

from llmcoder_tasks.errors import EvaluationError
from llmcoder_tasks.evaluation.gate import GATES_FOLDER, compare_scores, judge, load_gate
from llmcoder_tasks.evaluation.outcomes import Outcome, score_suite
from llmcoder_tasks.evaluation.scorecard import Scorecard
from llmcoder_tasks.evaluation.suites import Suite
from llmcoder_tasks.records import SCENARIOS, Example


def test_the_default_gate_judges_the_whole_coder_on_every_scenario() -> None:
    gate = load_gate()
    assert (gate.name, gate.coder, gate.baseline) == ("default", "together", "lexical")
    assert tuple(gate.metrics) == SCENARIOS


def write_gate(folder: Path, **changes: object) -> Path:
    document = yaml.safe_load((GATES_FOLDER / "default.yaml").read_text(encoding="utf-8")) | changes
    path = folder / "gate.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"floor": {}}, "its keys must be"),
        ({"coder": "lexicl"}, "'lexicl' is none of"),
        ({"baseline": "nothing"}, "'nothing' is none of"),
        ({"minimum_items": 0}, "minimum_items must be positive"),
        ({"significance": 1.5}, "significance must lie between 0 and 1"),
        ({"floors": {"together": {"base": {"exact": 95}}}}, "must lie between 0 and 1"),
        ({"floors": {"together": {"basis": {"exact": 0.9}}}}, "'basis' is none of base"),
        ({"floors": {"together": {"base": {"accuracy": 0.9}}}}, "'accuracy' is none of exact, category, f1"),
        ({"floors": {"together": {"base": 0.9}}}, "malformed"),
        ({"floors": {"stage_two": {"base": {"exact": 0.9}}}}, "no floor for together"),
    ],
)
def test_a_malformed_gate_is_refused_with_the_reason(tmp_path: Path, changes: dict[str, object], reason: str) -> None:
    with pytest.raises(EvaluationError, match=reason):
        load_gate(write_gate(tmp_path, **changes))


def test_an_unknown_gate_lists_the_known_ones() -> None:
    with pytest.raises(EvaluationError, match="there is no gate .*strict.yaml: .* or use one of default"):
        load_gate("strict")


def test_a_changed_gate_is_another_gate(tmp_path: Path) -> None:
    assert load_gate(write_gate(tmp_path)).sha256 != load_gate(write_gate(tmp_path, minimum_items=7)).sha256
    assert load_gate(write_gate(tmp_path, baseline=None)).baseline is None


def evaluate(answer: dict[str, tuple[str, ...]], suites: list[Suite], known: set[str]) -> tuple[Scorecard, list[Outcome]]:
    outcomes = [
        outcome
        for coder in ("lexical", "together")
        for suite in suites
        for outcome in score_suite(coder, lambda texts: [answer[text] for text in texts], suite, known_codes=known)
    ]
    return make_scorecard(outcomes, suites, model_id="m", evaluation_id="m-1", coder_json=b""), outcomes


def test_a_model_of_shuffled_labels_is_rejected_and_the_true_one_is_promoted() -> None:
    codes = [f"A{number:02d}{character}" for number in range(100) for character in "0123456789"]
    suites = [
        Suite(name, tuple(Example(f"{name}-{code}", name, "test", f"{name} {code}", (code,)) for code in codes))
        for name in SCENARIOS
    ]
    learnt = {example.text: example.codes for suite in suites for example in suite.examples}
    decision, _ = judge(load_gate(), *evaluate(learnt, suites, set(codes)), None)
    assert decision == "PROMOTE"
    labels = list(learnt.values())
    random.Random(7).shuffle(labels)
    shuffled = dict(zip(learnt, labels, strict=True))
    decision, reasons = judge(load_gate(), *evaluate(shuffled, suites, set(codes)), None)
    assert decision == "REJECT"
    below = [reason for reason in reasons if "is below the floor of" in reason]
    assert [reason.split()[2].rstrip(":") for reason in below] == list(SCENARIOS)


@pytest.mark.parametrize("broken", SCENARIOS)
def test_any_one_broken_scenario_is_caught_and_named(broken: str) -> None:
    suites = [make_suite(scenario, 200) for scenario in SCENARIOS]
    outcomes = [outcome for suite in suites for outcome in answer_suite("together", suite, 150 if suite.scenario == broken else 0)]
    card = make_scorecard(outcomes, suites, model_id="m", evaluation_id="m-1", coder_json=b"")
    decision, reasons = judge(load_gate(), card, outcomes, None)
    assert decision == "REJECT"
    assert reasons[0].startswith(f"together on {broken}: ")
    assert sum("below the floor" in reason for reason in reasons) == 1


def test_graded_scores_are_compared_by_the_sign_of_their_difference() -> None:
    ours = {f"item {i}": 0.5 for i in range(10)}
    theirs = {f"item {i}": 0.6 if i < 8 else 0.4 if i == 8 else 0.5 for i in range(10)}
    comparison = compare_scores(ours, theirs, minimum_items=5)
    # 8 worse, 1 better: 2 (1 + 9) / 2^9.
    assert comparison.is_paired
    assert comparison.is_lower
    assert comparison.p_value == pytest.approx(20 / 512)


def test_two_small_suites_of_the_same_items_are_still_paired() -> None:
    assert compare_scores({"a": 1.0}, {"a": 0.0}, minimum_items=100).is_paired
    assert not compare_scores({"a": 1.0}, {"b": 0.0}, minimum_items=100).is_paired
