"""Into service: what is published, in which order, by whom, and only once."""

from __future__ import annotations

import json
import multiprocessing
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from evaluation_fakes import TrainedModels

from llmcoder_tasks.database import Database
from llmcoder_tasks.errors import DatabaseUnreachable, ModelError, PointerMoved, PromotionError
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
        "reason": "",
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
    with pytest.raises(
        PromotionError, match="m2 was judged against no model, but m1 is in service now: evaluate and judge it again"
    ):
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


def open_models(kind: str, database: Database, folder: Path, request: pytest.FixtureRequest) -> TrainedModels:
    if kind == "folder":
        return TrainedModels(FolderStorage(folder / "store"), database, folder)
    uri = f"s3://artifacts/{uuid.uuid4().hex}"
    return TrainedModels(open_storage(uri, endpoint_url=request.getfixturevalue("s3_endpoint")), database, folder)


def meet(storage: Storage, barrier: threading.Barrier) -> None:
    """Nobody moves the pointer before everybody has seen where it stands."""
    moving = storage.write_pointer

    def write_pointer(key: str, data: bytes, *, replaces: str | None) -> None:
        barrier.wait()
        moving(key, data, replaces=replaces)

    storage.write_pointer = write_pointer  # type: ignore[method-assign]


def attempt(models: TrainedModels, verdict: VerdictRef, storage: Storage | None = None) -> str:
    try:
        return promote(models, verdict, storage).model_id
    except PromotionError as error:
        return str(error)


MEETINGS = 20


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_of_two_promotions_at_once_exactly_one_wins_and_the_other_is_told(
    database: Database, tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    models = open_models(kind, database, tmp_path, request)
    meet(models.storage, threading.Barrier(2))
    for meeting in range(1, MEETINGS + 1):
        pair = {f"a{meeting}", f"b{meeting}"}
        for model_id in pair:
            models.train(model_id)
        before = read_promoted(models.storage)
        verdicts = [judge(models, model_id) for model_id in sorted(pair)]
        with ThreadPoolExecutor(2) as pool:
            answers = list(pool.map(lambda verdict: attempt(models, verdict), verdicts))
        winner = read_promoted(models.storage)
        assert winner is not None
        (loser,) = pair - {winner.model_id}
        (told,) = [answer for answer in answers if answer != winner.model_id]
        assert told.startswith(f"{loser} was not put into service: another promotion moved ")
        assert f"{winner.model_id} is in service now, by A. Person. Evaluate the model against that one" in told
        assert history(models)[meeting - 1 :] == [(meeting, "promote", winner.model_id, before.model_id if before else None)]


def promote_in_a_process(uri: str, endpoint: str | None, url: str, verdict: VerdictRef, barrier: Any, answers: Any) -> None:
    storage = open_storage(uri, endpoint_url=endpoint)
    meet(storage, barrier)
    try:
        answers.put(promote_model(verdict, promoted_by="A. Person", storage=storage, database=Database(url)).model_id)
    except PromotionError as error:
        answers.put(str(error))


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_of_two_processes_that_promote_at_once_exactly_one_wins(
    database: Database, tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    models = open_models(kind, database, tmp_path, request)
    endpoint = request.getfixturevalue("s3_endpoint") if kind == "s3" else None
    for model_id in ("m1", "m2"):
        models.train(model_id)
    verdicts = [judge(models, "m1"), judge(models, "m2")]
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(2), context.Queue()
    url = database.engine.url.render_as_string(hide_password=False)
    processes = [
        context.Process(target=promote_in_a_process, args=(models.storage.uri, endpoint, url, verdict, barrier, answers))
        for verdict in verdicts
    ]
    for process in processes:
        process.start()
    given = [answers.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    winner = read_promoted(models.storage)
    assert winner is not None
    assert sorted(answer == winner.model_id for answer in given) == [False, True]
    assert any(f"{winner.model_id} is in service now" in answer for answer in given)
    assert history(models) == [(1, "promote", winner.model_id, None)]


def test_whoever_loses_writes_the_row_of_a_winner_that_died_before_it_could(models: TrainedModels) -> None:
    for model_id in ("m1", "m2"):
        models.train(model_id)
    first, second = judge(models, "m1"), judge(models, "m2")
    overtaken = FolderStorage(models.storage.folder)  # type: ignore[attr-defined]
    moving = overtaken.write_pointer

    def write_pointer(key: str, data: bytes, *, replaces: str | None) -> None:
        promote(models, first)
        with models.database.transaction() as transaction:
            transaction.run_script("DELETE FROM promotions")
        moving(key, data, replaces=replaces)

    overtaken.write_pointer = write_pointer  # type: ignore[method-assign]
    assert "m1 is in service now" in attempt(models, second, overtaken)
    assert history(models) == [(1, "promote", "m1", None)]


def test_a_store_that_took_the_move_and_lost_its_answer_has_made_a_winner(models: TrainedModels) -> None:
    """S3 clients repeat a request whose answer did not come, and the repetition meets its own write."""
    models.train("m1")
    verdict = judge(models, "m1")
    twice = FolderStorage(models.storage.folder)  # type: ignore[attr-defined]
    moving = twice.write_pointer

    def write_pointer(key: str, data: bytes, *, replaces: str | None) -> None:
        moving(key, data, replaces=replaces)
        moving(key, data, replaces=replaces)

    twice.write_pointer = write_pointer  # type: ignore[method-assign]
    assert attempt(models, verdict, twice) == "m1"
    assert history(models) == [(1, "promote", "m1", None)]


def test_a_store_that_refuses_both_of_two_moves_is_asked_again(models: TrainedModels) -> None:
    models.train("m1")
    verdict = judge(models, "m1")
    shy = FolderStorage(models.storage.folder)  # type: ignore[attr-defined]
    moving, refusals = shy.write_pointer, iter([PointerMoved("409"), PointerMoved("409")])

    def write_pointer(key: str, data: bytes, *, replaces: str | None) -> None:
        for refusal in refusals:
            raise refusal
        moving(key, data, replaces=replaces)

    shy.write_pointer = write_pointer  # type: ignore[method-assign]
    assert attempt(models, verdict, shy) == "m1"


def test_a_database_that_goes_away_after_the_move_leaves_a_message_that_says_what_is_in_service(
    models: TrainedModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    models.train("m1")
    verdict = judge(models, "m1")
    writing = models.database.execute

    def execute(query: str, parameters: Any = ()) -> int:
        if query == "record_promotion":
            raise DatabaseUnreachable("no answer")
        return writing(query, parameters)

    with monkeypatch.context() as patch:
        patch.setattr(models.database, "execute", execute)
        with pytest.raises(DatabaseUnreachable, match="m1 is in service now, but the table promotions has no row of it: no answer"):
            promote(models, verdict)
    promote(models, verdict)
    assert history(models) == [(1, "promote", "m1", None)]


def test_a_pointer_and_a_table_that_say_different_things_are_named(models: TrainedModels) -> None:
    for model_id in ("m1", "m2"):
        models.train(model_id)
    promote(models, judge(models, "m1"))
    verdict = judge(models, "m2")
    with models.database.transaction() as transaction:
        transaction.run_script("UPDATE promotions SET model_id = 'm2'")
    with pytest.raises(PromotionError, match="a promote of m1 in the pointer .* but a promote of m2 in the table promotions"):
        promote(models, verdict)


def test_a_damaged_pointer_is_named(models: TrainedModels) -> None:
    models.storage.write_bytes(POINTER_KEY, b'{"model_id": "m1"}')
    with pytest.raises(PromotionError, match="promoted.json is no pointer of this version"):
        read_promoted(models.storage)
