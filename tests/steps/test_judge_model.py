"""Verdicts: floors, baseline, the model in service, and what a second run does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from evaluation_fakes import TrainedModels

from llmcoder_tasks.database import Database
from llmcoder_tasks.errors import ArtifactMissing, EvaluationError
from llmcoder_tasks.evaluation.gate import Floor, Gate
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
    # 7 of 200 worse: p = 2 / 2^7 = 0.0156 < 0.05 / 2; both floors hold.
    verdict = judge(models, models.evaluate("m2", {"base": 0, "typos": 7}))
    assert verdict.decision == "REJECT"
    assert (
        "together on typos against m1 in service: better on 0 and worse on 7 of 200 common items, p 0.0156"
        in reasons(models, verdict)[0]
    )


def test_a_drop_within_noise_is_promoted(models: TrainedModels) -> None:
    serve(models, "m1", {"base": 0, "typos": 0})
    models.train("m2")
    # 6 of 200 worse: p = 2 / 2^6 = 0.031, not below 0.05 / 2 scenarios.
    assert judge(models, models.evaluate("m2", {"base": 0, "typos": 6})).decision == "PROMOTE"


def test_a_drop_on_other_items_holds_and_says_that_it_is_unpaired(models: TrainedModels) -> None:
    serve(models, "m1", {"base": 0, "typos": 0})
    models.train("m2")
    verdict = judge(models, models.evaluate("m2", {"base": 0, "typos": 20}, first=150))
    assert verdict.decision == "HOLD"
    (reason,) = [reason for reason in reasons(models, verdict) if "unpaired" in reason and "typos" in reason]
    assert "90.0% of 200 items against 100.0% of 200 others, unpaired, p below 0.0001 (noise from 0.0250)" in reason
    assert "lower, but the suites differ" in reason


def test_common_items_are_paired_even_when_the_suites_differ(models: TrainedModels) -> None:
    serve(models, "m1", {"base": 0, "typos": 0})
    models.train("m2")
    verdict = judge(models, models.evaluate("m2", {"base": 0, "typos": 10}, first=20))
    assert verdict.decision == "REJECT"
    assert "worse on 10 of 180 common items" in reasons(models, verdict)[0]


def test_judging_twice_gives_the_same_verdict_once(models: TrainedModels) -> None:
    models.train("m1")
    scorecard = models.evaluate("m1", {"base": 0, "typos": 0})
    first = judge(models, scorecard)
    files = {key: models.storage.read_bytes(key) for key in models.storage.list_keys("scorecards")}
    assert judge(models, scorecard) == first
    assert {key: models.storage.read_bytes(key) for key in models.storage.list_keys("scorecards")} == files


def test_judging_again_when_another_model_is_in_service_is_another_verdict(models: TrainedModels) -> None:
    models.train("m2")
    scorecard = models.evaluate("m2", {"base": 0, "typos": 0})
    before = judge(models, scorecard)
    serve(models, "m1", {"base": 0, "typos": 0})
    after = judge(models, scorecard)
    assert before.verdict_id != after.verdict_id
    assert any("m1 in service" in reason for reason in reasons(models, after))


def test_outcomes_that_are_gone_are_named_with_the_cure(models: TrainedModels) -> None:
    serve(models, "m1", {"base": 0, "typos": 0})
    models.train("m2")
    scorecard = models.evaluate("m2", {"base": 1, "typos": 0})
    for path in (models.storage.folder / "scorecards").glob("m1-*/outcomes.parquet"):  # type: ignore[attr-defined]
        path.unlink()
    with pytest.raises(ArtifactMissing, match="evaluate that model again"):
        judge(models, scorecard)


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
    models.storage.write_bytes(f"scorecards/{scorecard.evaluation_id}/scorecard.json", b'{"schema_version": 1}')
    with pytest.raises(EvaluationError, match="evaluate the model again"):
        judge(models, scorecard)
