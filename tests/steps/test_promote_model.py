"""Into service: what is published, in which order, by whom, and only once."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from evaluation_fakes import TrainedModels

from llmcoder_tasks.database import Database
from llmcoder_tasks.errors import ModelError, PromotionError
from llmcoder_tasks.evaluation.gate import Floor, Gate
from llmcoder_tasks.evaluation.registry import POINTER_KEY, read_promoted
from llmcoder_tasks.model.manifest import fetch_model, read_stored_manifest
from llmcoder_tasks.records import ModelRef, VerdictRef
from llmcoder_tasks.steps.judge_model import judge_model
from llmcoder_tasks.steps.promote_model import promote_model
from llmcoder_tasks.steps.record_approval import record_approval
from llmcoder_tasks.storage import FolderStorage, Storage, open_storage

pytestmark = pytest.mark.integration

GATE = Gate("test", 1, "together", None, 100, 0.05, (Floor("together", "base", "exact", 0.9),), "0" * 64)


class Crash(Exception):
    """The process dies here."""


class CrashingStorage(FolderStorage):
    """A store whose process dies before the call that `dies_at` picks."""

    def __init__(self, folder: Path, dies_at: Callable[[str, str], bool]) -> None:
        super().__init__(folder)
        self.dies_at = dies_at

    def publish_file(self, source: Path, key: str) -> None:
        if self.dies_at("publish", key):
            raise Crash
        super().publish_file(source, key)

    def write_pointer(self, key: str, data: bytes, *, replaces: str | None) -> None:
        if self.dies_at("move", key):
            raise Crash
        super().write_pointer(key, data, replaces=replaces)


@pytest.fixture
def models(database: Database, tmp_path: Path) -> TrainedModels:
    return TrainedModels(FolderStorage(tmp_path / "store"), database, tmp_path)


def judge(models: TrainedModels, model_id: str, *, wrong: int = 0, n: int = 200) -> VerdictRef:
    scorecard = models.evaluate(model_id, {"base": wrong}, n=n)
    return judge_model(scorecard, gate=GATE, storage=models.storage, database=models.database)


def promote(models: TrainedModels, verdict: VerdictRef, storage: Storage | None = None) -> ModelRef:
    return promote_model(verdict, promoted_by="A. Person", storage=storage or models.storage, database=models.database)


def history(models: TrainedModels) -> list[tuple[Any, ...]]:
    rows = models.database.fetch_all("list_promotions")
    return [(row["promotion_id"], row["kind"], row["model_id"], row["replaced_model_id"]) for row in rows]


def test_what_coded_notes_taught_is_published_with_the_model(models: TrainedModels) -> None:
    models.train("m1")
    models.storage.write_bytes("coders/m1/selection.json", b"{}")
    reference = promote(models, judge(models, "m1"))
    assert "selection.json" in read_stored_manifest(models.storage, reference.uri)["files"]


def test_a_promoted_model_is_published_whole_with_its_evidence_and_named_by_the_pointer(
    models: TrainedModels, tmp_path: Path
) -> None:
    models.train("m1")
    verdict = judge(models, "m1")
    assert read_promoted(models.storage) is None
    reference = promote(models, verdict)
    assert reference == ModelRef("m1", models.storage.uri_of("models/m1")) == read_promoted(models.storage)
    assert json.loads(models.storage.read_bytes(POINTER_KEY)) == {
        "promotion_id": 1,
        "kind": "promote",
        "model_id": "m1",
        "uri": reference.uri,
        "release_key": "FY2026-April",
        "verdict_id": verdict.verdict_id,
        "evaluation_id": verdict.verdict_id.rsplit("-", 1)[0],
        "replaced_model_id": None,
        "promoted_by": "A. Person",
    }
    folder = fetch_model(models.storage, reference.uri, tmp_path / "cache")
    names = {path.name for path in folder.iterdir()}
    assert names == {"model.safetensors", "config.json", "coder.json", "scorecard.json", "verdict.json", "manifest.json"}
    assert (folder / "model.safetensors").read_bytes() == b"m1"
    assert json.loads((folder / "verdict.json").read_text())["decision"] == "PROMOTE"
    assert json.loads((folder / "manifest.json").read_text())["recipe"] == "compact"
    assert history(models) == [(1, "promote", "m1", None)]


def test_promoting_twice_changes_nothing(models: TrainedModels, caplog: pytest.LogCaptureFixture) -> None:
    models.train("m1")
    verdict = judge(models, "m1")
    promote(models, verdict)
    before = {key: models.storage.read_bytes(key) for key in models.storage.list_keys("models")}
    with caplog.at_level("INFO"):
        promote(models, verdict)
    assert "m1 is in service already: nothing to do" in caplog.messages
    assert {key: models.storage.read_bytes(key) for key in models.storage.list_keys("models")} == before
    assert history(models) == [(1, "promote", "m1", None)]


@pytest.mark.parametrize(("wrong", "n", "decision"), [(100, 200, "REJECT"), (0, 50, "HOLD")])
def test_only_a_promote_verdict_promotes(models: TrainedModels, wrong: int, n: int, decision: str) -> None:
    models.train("m1")
    verdict = judge(models, "m1", wrong=wrong, n=n)
    with pytest.raises(PromotionError, match=f"the verdict is {decision}, because together on base"):
        # What the caller says of the verdict does not count: what was recorded does.
        promote(models, replace(verdict, decision="PROMOTE"))
    assert read_promoted(models.storage) is None
    assert models.storage.list_keys("models") == []


def test_no_model_is_promoted_without_a_verdict(models: TrainedModels) -> None:
    with pytest.raises(PromotionError, match="there is no verdict made-up"):
        promote(models, VerdictRef("made-up", "PROMOTE"))


def test_a_person_who_refuses_keeps_the_model_out_until_the_answer_changes(models: TrainedModels) -> None:
    models.train("m1")
    verdict = judge(models, "m1")
    record_approval(verdict, approved=False, answered_by="B. Careful", database=models.database)
    with pytest.raises(PromotionError, match="B. Careful refused it"):
        promote(models, verdict)
    record_approval(verdict, approved=True, answered_by="B. Careful", comment="seen", database=models.database)
    record_approval(verdict, approved=True, answered_by="B. Careful", comment="seen", database=models.database)
    assert promote(models, verdict).model_id == "m1"
    with models.database.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM approvals").scalar() == 2


def test_an_answer_on_no_verdict_is_refused(database: Database) -> None:
    with pytest.raises(PromotionError, match="there is no verdict made-up"):
        record_approval(VerdictRef("made-up", "PROMOTE"), approved=True, answered_by="A", database=database)


def test_a_verdict_against_another_model_than_the_one_in_service_is_stale(models: TrainedModels) -> None:
    for model_id in ("m1", "m2"):
        models.train(model_id)
    first, second = judge(models, "m1"), judge(models, "m2")
    promote(models, first)
    with pytest.raises(PromotionError, match="m2 was judged against no model, but m1 is in service now: judge the scorecard again"):
        promote(models, second)
    assert promote(models, judge(models, "m2")).model_id == "m2"
    assert history(models) == [(1, "promote", "m1", None), (2, "promote", "m2", "m1")]


def test_a_coder_fitted_anew_after_its_evaluation_is_not_promoted(models: TrainedModels) -> None:
    models.train("m1")
    verdict = judge(models, "m1")
    models.storage.write_bytes("coders/m1/coder.json", b'{"fitted": "anew"}')
    with pytest.raises(PromotionError, match="fitted anew after its evaluation"):
        promote(models, verdict)


def test_an_altered_weight_is_not_published(models: TrainedModels) -> None:
    models.train("m1")
    verdict = judge(models, "m1")
    models.storage.write_bytes("training/m1/model.safetensors", b"evil")
    with pytest.raises(ModelError, match="sha256 differs"):
        promote(models, verdict)
    assert read_promoted(models.storage) is None


def test_a_published_model_never_changes(models: TrainedModels) -> None:
    for model_id in ("m1", "m2"):
        models.train(model_id)
    promote(models, judge(models, "m1"))
    promote(models, judge(models, "m2"))
    models.coder_json = lambda model_id: b"{}"  # type: ignore[method-assign]
    models.storage.write_bytes("coders/m1/coder.json", b"{}")
    verdict = judge(models, "m1", wrong=1)
    with pytest.raises(PromotionError, match="published with other content of coder.json"):
        promote(models, verdict)


@pytest.mark.parametrize(
    "dies_at",
    [
        lambda call, key: call == "publish" and key.endswith("config.json"),
        lambda call, key: call == "publish" and key.endswith("manifest.json"),
        lambda call, key: call == "move",
    ],
    ids=["amid the files", "before the manifest", "before the pointer"],
)
def test_a_crash_before_the_pointer_moved_is_harmless(models: TrainedModels, dies_at: Callable[[str, str], bool]) -> None:
    models.train("m1")
    verdict = judge(models, "m1")
    with pytest.raises(Crash):
        promote(models, verdict, CrashingStorage(models.storage.folder, dies_at))  # type: ignore[attr-defined]
    assert read_promoted(models.storage) is None
    assert history(models) == []
    assert promote(models, verdict).model_id == "m1"
    assert history(models) == [(1, "promote", "m1", None)]


def test_a_crash_after_the_pointer_moved_is_mended_by_the_next_run(models: TrainedModels) -> None:
    models.train("m1")
    verdict = judge(models, "m1")
    promote(models, verdict)
    with models.database.transaction() as transaction:
        transaction.run_script("DELETE FROM promotions")
    promote(models, verdict)
    assert history(models) == [(1, "promote", "m1", None)]


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_of_two_promotions_at_once_exactly_one_wins(
    database: Database, tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    if kind == "folder":
        storage: Storage = FolderStorage(tmp_path / "store")
    else:
        storage = open_storage(f"s3://artifacts/{tmp_path.name}", endpoint_url=request.getfixturevalue("s3_endpoint"))
    models = TrainedModels(storage, database, tmp_path)
    verdicts = []
    for model_id in ("m1", "m2"):
        models.train(model_id)
        verdicts.append(judge(models, model_id))
    # Both have seen where the pointer stands before either moves it.
    barrier = threading.Barrier(2)
    moving = storage.write_pointer

    def write_pointer(key: str, data: bytes, *, replaces: str | None) -> None:
        barrier.wait()
        moving(key, data, replaces=replaces)

    storage.write_pointer = write_pointer  # type: ignore[method-assign]

    def run(verdict: VerdictRef) -> str:
        try:
            return promote(models, verdict).model_id
        except PromotionError as error:
            return str(error)

    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(run, verdicts))
    winner = read_promoted(storage)
    assert winner is not None
    loser = "m2" if winner.model_id == "m1" else "m1"
    assert winner.model_id in answers
    (message,) = [answer for answer in answers if answer != winner.model_id]
    assert message.startswith(f"{loser} was not put into service: another promotion moved")
    assert history(models) == [(1, "promote", winner.model_id, None)]


def test_a_damaged_pointer_is_named(models: TrainedModels) -> None:
    models.storage.write_bytes(POINTER_KEY, b'{"model_id": "m1"}')
    with pytest.raises(PromotionError, match="promoted.json is no pointer of this version"):
        read_promoted(models.storage)
