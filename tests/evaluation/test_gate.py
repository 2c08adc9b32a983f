"""Gate files, and a coder that learnt nothing."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import yaml
from evaluation_fakes import answer_suite, make_scorecard, make_suite

from llmcoder_tasks.errors import EvaluationError
from llmcoder_tasks.evaluation.gate import GATES_FOLDER, judge, load_gate
from llmcoder_tasks.evaluation.outcomes import Outcome, score_suite
from llmcoder_tasks.evaluation.scorecard import CalibrationFigures, Scorecard
from llmcoder_tasks.evaluation.suites import Suite
from llmcoder_tasks.records import SCENARIOS, Example


def test_the_default_gate_judges_the_whole_coder_on_every_scenario() -> None:
    gate = load_gate()
    assert (gate.name, gate.coder, gate.baseline) == ("default", "together", "lexical")
    assert tuple(gate.metrics) == SCENARIOS


IN_SERVICE = {"level": 0.05, "harm": 0.01, "power": 0.96, "slowest": 1.5, "slices": {"all": {"margin": 0.01, "required": True}}}


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
        ({"ceilings": {"together": {"typing": 0.1}}}, "'typing' is none of nonexistent, quantity, level, character"),
        ({"calibration": {"expected_error": 5, "error_bound": 0.01}}, "expected_error must lie between 0 and 1"),
        ({"calibration": {"expected_error": 0.05}}, "malformed"),
        ({"in_service": IN_SERVICE | {"slices": {"chapters": {"margin": 0.1, "required": True}}}}, "'chapters' is none of all"),
        ({"in_service": IN_SERVICE | {"slices": {"all": {"margin": 2, "required": True}}}}, "margin between 0 and 1"),
        ({"in_service": IN_SERVICE | {"slices": {"all": {"margin": 0.1, "required": "yes"}}}}, "required: true or false"),
        ({"in_service": IN_SERVICE | {"power": 1}}, "level, harm and power must lie between 0 and 1"),
        ({"in_service": IN_SERVICE | {"slowest": 0.5}}, "slowest must be 1 or more"),
        ({"in_service": IN_SERVICE | {"faster": 2}}, "malformed"),
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
    return make_scorecard(outcomes, suites, model_id="m", evaluation_id="m-1", coder_json=b"", calibration=HONEST), outcomes


HONEST = CalibrationFigures(expected_error=0.01, accepted=0.8, error_bound=0.008)


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
    card = make_scorecard(outcomes, suites, model_id="m", evaluation_id="m-1", coder_json=b"", calibration=HONEST)
    decision, reasons = judge(load_gate(), card, outcomes, None)
    assert decision == "REJECT"
    assert reasons[0].startswith(f"together on {broken}: ")
    assert sum("below the floor" in reason for reason in reasons) == 1


@pytest.mark.parametrize(
    ("figures", "decision", "reason"),
    [
        (None, "REJECT", "calibration: not measured"),
        (CalibrationFigures(0.06, 0.8, 0.008), "REJECT", "differ by 6.0% in the mean, more than the 5.0%"),
        (CalibrationFigures(0.01, 0.8, 0.02), "REJECT", "80.0% of phrases pass without a person, at most 2.00% of them wrong"),
        (CalibrationFigures(0.01, 0.0, 1.0), "HOLD", "nothing would pass without a person"),
    ],
)
def test_confidences_that_are_not_honest_keep_a_model_out(figures: CalibrationFigures | None, decision: str, reason: str) -> None:
    suites = [make_suite(scenario, 200) for scenario in SCENARIOS]
    outcomes = [outcome for suite in suites for outcome in answer_suite("together", suite, 0)]
    card = make_scorecard(outcomes, suites, model_id="m", evaluation_id="m-1", coder_json=b"", calibration=figures)

    found, reasons = judge(load_gate(), card, outcomes, None)

    assert found == decision
    assert reason in reasons[0]


def test_a_code_that_does_not_exist_rejects() -> None:
    suites = [make_suite(scenario, 200) for scenario in SCENARIOS]
    answers = {example.text: example.codes for suite in suites for example in suite.examples}
    answers[suites[3].examples[5].text] = ("E99999",)
    card, outcomes = evaluate(answers, suites, {"E119"})

    decision, reasons = judge(load_gate(), card, outcomes, None)

    assert (decision, reasons[0]) == (
        "REJECT",
        "together, errors of kind nonexistent: 1 of 1,400 items, above the ceiling of 0.0%",
    )
