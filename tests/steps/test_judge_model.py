"""Verdicts: floors, baseline, the model in service, and what a second run does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from evaluation_fakes import TrainedModels

from llmcoder_tasks.database import Database
from llmcoder_tasks.errors import EvaluationError
from llmcoder_tasks.evaluation.against_service import ServiceRules, SliceRule
from llmcoder_tasks.evaluation.gate import Floor, Gate
from llmcoder_tasks.evaluation.scorecard import parse_scorecard
from llmcoder_tasks.evaluation.verdict import parse_verdict, verdict_key
from llmcoder_tasks.records import ScorecardRef, VerdictRef
from llmcoder_tasks.steps.judge_model import judge_model
from llmcoder_tasks.steps.promote_model import promote_model
from llmcoder_tasks.storage import FolderStorage

pytestmark = pytest.mark.integration

GATE = Gate(
    name="test",
    version=1,
    coder="together",
    baseline="lexical",
    minimum_items=100,
    significance=0.05,
    floors=(Floor("together", "base", "exact", 0.9), Floor("together", "typos", "exact", 0.8)),
    sha256="0" * 64,
    in_service=ServiceRules(0.05, 0.01, 0.96, 1.5, {"scenario": SliceRule(0.03, required=True)}),
)


@pytest.fixture
def models(database: Database, tmp_path: Path) -> TrainedModels:
    return TrainedModels(FolderStorage(tmp_path / "store"), database, tmp_path)


def judge(models: TrainedModels, scorecard: ScorecardRef) -> VerdictRef:
    return judge_model(scorecard, gate=GATE, storage=models.storage, database=models.database)


def serve(models: TrainedModels, model_id: str, wrong: dict[str, int]) -> None:
    models.train(model_id)
    promote_model(
        judge(models, models.evaluate(model_id, wrong)), promoted_by="test", storage=models.storage, database=models.database
    )


def reasons(models: TrainedModels, verdict: VerdictRef) -> list[str]:
    row = models.database.fetch_one("fetch_verdict", verdict_id=verdict.verdict_id)
    assert row is not None
    assert row["decision"] == verdict.decision
    return list(row["reasons"])


def test_a_first_good_model_is_promoted_with_a_reason_for_every_rule(models: TrainedModels) -> None:
    models.train("m1")
    verdict = judge(models, models.evaluate("m1", {"base": 10, "typos": 20}))
    assert verdict.decision == "PROMOTE"
    as_good = (
        "against the lexical baseline: better on 0 and worse on 0 of 200 common items, "
        "p 1.0000 (noise from 0.0250): not worse beyond noise"
    )
    assert reasons(models, verdict) == [
        "together on base: exact match 95.0% (n 200) reaches the floor of 90.0%",
        "together on typos: exact match 90.0% (n 200) reaches the floor of 80.0%",
        f"together on base {as_good}",
        f"together on typos {as_good}",
        "no model is in service: there is nothing to compare with",
    ]


def test_one_broken_scenario_rejects_and_is_the_first_reason(models: TrainedModels) -> None:
    models.train("m1")
    verdict = judge(models, models.evaluate("m1", {"base": 0, "typos": 150}))
    assert verdict.decision == "REJECT"
    assert reasons(models, verdict)[0] == "together on typos: exact match 25.0% (n 200) is below the floor of 80.0%"


def test_a_scenario_that_was_not_measured_rejects(models: TrainedModels) -> None:
    models.train("m1")
    verdict = judge(models, models.evaluate("m1", {"base": 0}))
    assert verdict.decision == "REJECT"
    assert reasons(models, verdict)[0] == "together on typos: not measured, but the gate asks for it"


def test_too_few_items_hold(models: TrainedModels) -> None:
    models.train("m1")
    verdict = judge(models, models.evaluate("m1", {"base": 0, "typos": 0}, n=60))
    assert verdict.decision == "HOLD"
    assert "100 items are needed to tell" in reasons(models, verdict)[0]


def test_a_model_worse_than_the_lexical_baseline_is_rejected(models: TrainedModels) -> None:
    models.train("m1")
    verdict = judge(models, models.evaluate("m1", {"base": 10, "typos": 10}, baseline_wrong=0))
    assert verdict.decision == "REJECT"
    (first, *_) = reasons(models, verdict)
    assert "against the lexical baseline: better on 0 and worse on 10 of 200 common items" in first
    assert first.endswith("p 0.0020 (noise from 0.0250): worse beyond noise")


def test_a_scenario_worse_than_in_service_beyond_noise_is_rejected(models: TrainedModels) -> None:
    serve(models, "m1", {"base": 0, "typos": 0})
    models.train("m2")
    # 8 of 200 worse: p = 1 / 2^8 = 0.0039 < 0.01 / 2 slices; a loss of 3 points is not ruled out, and both floors hold.
    verdict = judge(models, models.evaluate("m2", {"base": 0, "typos": 8}))
    assert verdict.decision == "REJECT"
    assert reasons(models, verdict)[0] == (
        "typos: 96.0% against 100.0% in service (better on 0 and worse on 8 of 200 items): worse beyond noise"
    )


def test_a_drop_that_may_be_noise_and_is_not_shown_to_be_none_holds(models: TrainedModels) -> None:
    serve(models, "m1", {"base": 0, "typos": 0})
    models.train("m2")
    # 7 of 400 worse: p = 1 / 2^7 = 0.0078, not below 0.01 / 2 slices.
    verdict = judge(models, models.evaluate("m2", {"base": 0, "typos": 7}, n=400))
    assert verdict.decision == "HOLD"
    assert reasons(models, verdict)[0].endswith("of 400 items): not shown to be no worse than the 3.0% that are allowed")


def test_a_model_as_good_as_the_one_in_service_is_promoted(models: TrainedModels) -> None:
    serve(models, "m1", {"base": 1, "typos": 10})
    models.train("m2")
    verdict = judge(models, models.evaluate("m2", {"base": 1, "typos": 10}))
    assert verdict.decision == "PROMOTE"
    assert (
        "typos: 95.0% against 95.0% in service (better on 0 and worse on 0 of 200 items): no worse than the 3.0% that are allowed"
    ) in reasons(models, verdict)
    assert "speed: 1.0 s of processor time against 1.0 s in service on the same items: at most 1.5 times as long" in reasons(
        models, verdict
    )


def test_too_few_items_to_tell_from_the_model_in_service_hold_and_say_how_many_are_needed(models: TrainedModels) -> None:
    serve(models, "m1", {"base": 0, "typos": 0})
    models.train("m2")
    verdict = judge(models, models.evaluate("m2", {"base": 0, "typos": 1}, n=60))
    assert verdict.decision == "HOLD"
    assert any("not enough data to tell: 60 codes or texts, about " in reason for reason in reasons(models, verdict))


def test_a_model_that_was_judged_beside_another_one_is_refused(models: TrainedModels) -> None:
    models.train("m2")
    alone = models.evaluate("m2", {"base": 0, "typos": 0})
    serve(models, "m1", {"base": 0, "typos": 0})
    with pytest.raises(EvaluationError, match="was judged beside no other model, and m1 is in service: evaluate m2 again"):
        judge(models, alone)
    beside_m1 = models.evaluate("m2", {"base": 0, "typos": 0}, n=199)
    serve(models, "m3", {"base": 0, "typos": 0})
    with pytest.raises(EvaluationError, match="was judged beside m1, and m3 is in service: evaluate m2 again while m3 is in"):
        judge(models, beside_m1)
    rows = models.database.fetch_all("list_promotions")
    assert [row["model_id"] for row in rows] == ["m1", "m3"]


def test_a_model_that_was_judged_on_other_suites_than_the_one_in_service_is_refused(models: TrainedModels) -> None:
    serve(models, "m1", {"base": 0, "typos": 0})
    models.train("m2")
    scorecard = models.evaluate("m2", {"base": 0, "typos": 0})
    key = f"scorecards/{scorecard.evaluation_id}/scorecard.json"
    document = json.loads(models.storage.read_bytes(key))
    document["comparison"]["against_items_sha256"] = "0" * 64
    models.storage.write_bytes(key, json.dumps(document).encode())
    with pytest.raises(EvaluationError, match="the model and m1 were judged on other suites: evaluate m2 again"):
        judge(models, scorecard)


def test_a_verdict_says_what_was_judged_to_the_byte(models: TrainedModels) -> None:
    serve(models, "m1", {"base": 0, "typos": 0})
    models.train("m2")
    scorecard = models.evaluate("m2", {"base": 0, "typos": 0})
    verdict = judge(models, scorecard)
    card = parse_scorecard(models.storage.read_bytes(f"scorecards/{scorecard.evaluation_id}/scorecard.json"))
    kept = parse_verdict(models.storage.read_bytes(verdict_key(scorecard.evaluation_id, verdict.verdict_id)))
    assert card.comparison is not None
    assert (kept.suites_sha256, kept.items_sha256) == (card.suites_sha256, card.comparison.items_sha256)
    assert (kept.dataset_id, kept.coder_sha256, kept.against_model_id) == ("d1", card.coder_sha256, "m1")
    assert kept.provenance == card.provenance
    assert kept.provenance is not None
    assert (kept.provenance.dataset_seed, kept.provenance.training_seed) == (0, 20260401)
    assert (kept.gate_name, kept.gate_version, kept.gate_sha256) == ("test", 1, GATE.sha256)


def test_judging_twice_gives_the_same_verdict_once(models: TrainedModels) -> None:
    models.train("m1")
    scorecard = models.evaluate("m1", {"base": 0, "typos": 0})
    first = judge(models, scorecard)
    files = {key: models.storage.read_bytes(key) for key in models.storage.list_keys("scorecards")}
    assert judge(models, scorecard) == first
    assert {key: models.storage.read_bytes(key) for key in models.storage.list_keys("scorecards")} == files


def test_a_figure_that_is_not_a_number_rejects(models: TrainedModels) -> None:
    models.train("m1")
    scorecard = models.evaluate("m1", {"base": 0, "typos": 0})
    key = f"scorecards/{scorecard.evaluation_id}/scorecard.json"
    document = json.loads(models.storage.read_bytes(key))
    document["cells"][-1]["exact"]["value"] = float("nan")
    models.storage.write_bytes(key, json.dumps(document).encode())
    verdict = judge(models, scorecard)
    assert verdict.decision == "REJECT"
    assert reasons(models, verdict)[0] == "together on typos: exact match is nan, not a number"


def test_a_damaged_scorecard_is_no_ground_for_a_verdict(models: TrainedModels) -> None:
    models.train("m1")
    scorecard = models.evaluate("m1", {"base": 0, "typos": 0})
    models.storage.write_bytes(f"scorecards/{scorecard.evaluation_id}/scorecard.json", b'{"schema_version": 2}')
    with pytest.raises(EvaluationError, match="evaluate the model again"):
        judge(models, scorecard)
