"""Back to a model that was in service before."""

from __future__ import annotations

from pathlib import Path

import pytest
from evaluation_fakes import TrainedModels

from llmcoder_tasks.database import Database
from llmcoder_tasks.errors import ArtifactMissing, PromotionError
from llmcoder_tasks.evaluation.gate import Floor, Gate
from llmcoder_tasks.evaluation.registry import read_promoted, read_standing
from llmcoder_tasks.steps.judge_model import judge_model
from llmcoder_tasks.steps.promote_model import promote_model
from llmcoder_tasks.steps.rollback_model import Rollback, plan_rollback, rollback_model
from llmcoder_tasks.storage import FolderStorage

pytestmark = pytest.mark.integration

GATE = Gate("test", 1, "together", None, 100, 0.05, (Floor("together", "base", "exact", 0.9),), "0" * 64)


@pytest.fixture
def models(database: Database, tmp_path: Path) -> TrainedModels:
    return TrainedModels(FolderStorage(tmp_path / "store"), database, tmp_path)


def serve(models: TrainedModels, *model_ids: str) -> None:
    for model_id in model_ids:
        models.train(model_id)
        verdict = judge_model(models.evaluate(model_id, {"base": 0}), gate=GATE, storage=models.storage, database=models.database)
        promote_model(verdict, promoted_by="test", storage=models.storage, database=models.database)


def roll_back(models: TrainedModels, to_model_id: str | None = None) -> str:
    return follow(models, plan_rollback(to_model_id, storage=models.storage, database=models.database))


def follow(models: TrainedModels, plan: Rollback, reason: str = "codes nothing on ward 3") -> str:
    return rollback_model(plan, promoted_by="A. Person", reason=reason, storage=models.storage, database=models.database).model_id


def test_each_rollback_without_a_name_goes_one_model_further_back(models: TrainedModels) -> None:
    serve(models, "m1", "m2", "m3")
    assert roll_back(models) == "m2"
    assert roll_back(models) == "m1"
    with pytest.raises(PromotionError, match="m1 is the first model in service"):
        roll_back(models)
    rows = models.database.fetch_all("list_promotions")
    assert [(row["promotion_id"], row["kind"], row["model_id"], row["replaced_model_id"]) for row in rows] == [
        (1, "promote", "m1", None),
        (2, "promote", "m2", "m1"),
        (3, "promote", "m3", "m2"),
        (4, "rollback", "m2", "m3"),
        (5, "rollback", "m1", "m2"),
    ]


def test_a_rollback_keeps_the_verdict_that_let_the_model_in(models: TrainedModels) -> None:
    serve(models, "m1")
    first = read_standing(models.storage).promotion
    serve(models, "m2")
    roll_back(models)
    back = read_standing(models.storage).promotion
    assert first is not None
    assert back is not None
    assert (back.kind, back.model_id, back.verdict_id, back.evaluation_id) == (
        "rollback",
        "m1",
        first.verdict_id,
        first.evaluation_id,
    )
    assert (back.uri, back.release_key, back.promoted_by) == (first.uri, first.release_key, "A. Person")


def test_a_rollback_to_a_named_model_is_done_once(models: TrainedModels, caplog: pytest.LogCaptureFixture) -> None:
    serve(models, "m1", "m2", "m3")
    assert roll_back(models, "m1") == "m1"
    with caplog.at_level("INFO"):
        assert roll_back(models, "m1") == "m1"
    assert "m1 is in service already: nothing to do" in caplog.messages
    assert len(models.database.fetch_all("list_promotions")) == 4


def test_a_promotion_after_a_rollback_is_judged_against_the_model_that_came_back(models: TrainedModels) -> None:
    serve(models, "m1", "m2")
    roll_back(models)
    serve(models, "m3")
    standing = read_standing(models.storage).promotion
    assert standing is not None
    assert (standing.model_id, standing.replaced_model_id, standing.promotion_id) == ("m3", "m1", 4)
    assert roll_back(models) == "m1"


def test_there_is_nothing_to_roll_back_from_before_the_first_promotion(models: TrainedModels) -> None:
    with pytest.raises(PromotionError, match="no model is in service"):
        roll_back(models)


def test_a_model_that_was_never_promoted_is_no_target(models: TrainedModels) -> None:
    serve(models, "m1")
    models.train("m2")
    with pytest.raises(PromotionError, match="m2 was never promoted"):
        roll_back(models, "m2")


def test_a_model_whose_files_are_gone_is_no_target(models: TrainedModels) -> None:
    serve(models, "m1", "m2")
    (models.storage.folder / "models" / "m1" / "manifest.json").unlink()  # type: ignore[attr-defined]
    with pytest.raises(ArtifactMissing, match="models/m1"):
        roll_back(models)
    assert read_promoted(models.storage) == promoted_as(models, "m2")


def promoted_as(models: TrainedModels, model_id: str) -> object:
    from llmcoder_tasks.records import ModelRef

    return ModelRef(model_id, models.storage.uri_of(f"models/{model_id}"))


def test_a_lost_row_of_the_history_is_written_before_the_rollback(models: TrainedModels) -> None:
    serve(models, "m1", "m2")
    with models.database.transaction() as transaction:
        transaction.run_script("DELETE FROM promotions WHERE promotion_id = 2")
    assert roll_back(models) == "m1"
    assert [row["model_id"] for row in models.database.fetch_all("list_promotions")] == ["m1", "m2", "m1"]


def test_who_rolled_back_and_why_is_kept_in_the_table_and_in_the_pointer(models: TrainedModels) -> None:
    serve(models, "m1", "m2")
    roll_back(models)
    row = models.database.fetch_all("list_promotions")[-1]
    standing = read_standing(models.storage).promotion
    assert standing is not None
    assert (
        (row["promoted_by"], row["reason"]) == (standing.promoted_by, standing.reason) == ("A. Person", "codes nothing on ward 3")
    )
    assert row["promoted_at"] is not None


def test_a_plan_that_is_followed_twice_goes_back_one_model_and_no_further(models: TrainedModels) -> None:
    serve(models, "m1", "m2", "m3")
    plan = plan_rollback(None, storage=models.storage, database=models.database)
    assert plan == Rollback("m3", "m2")
    assert [follow(models, plan), follow(models, plan)] == ["m2", "m2"]


def test_a_plan_is_dead_when_another_model_went_into_service_since(models: TrainedModels) -> None:
    serve(models, "m1", "m2")
    plan = plan_rollback(None, storage=models.storage, database=models.database)
    serve(models, "m3")
    with pytest.raises(PromotionError, match="m2 was to be rolled back, but m3 is in service now"):
        follow(models, plan)
    assert read_promoted(models.storage) == promoted_as(models, "m3")


@pytest.mark.parametrize("reason", ["", "  ", "x" * 1001])
def test_a_rollback_without_a_reason_that_can_be_kept_is_refused(models: TrainedModels, reason: str) -> None:
    serve(models, "m1", "m2")
    with pytest.raises(PromotionError, match="needs a reason of 1 to 1000 characters"):
        follow(models, Rollback("m2", "m1"), reason)
