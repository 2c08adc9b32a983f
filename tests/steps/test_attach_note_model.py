"""A language model for notes, attached to a trained model: a model of its own that codes a night through a real server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from evaluation_fakes import TrainedModels
from llm_server import Behaviour, FakeLanguageModel, serve_language_model

from llmcoder_tasks.coding.claims import Pace
from llmcoder_tasks.coding.note_reader import NOTE_MODEL_NAME, NoteModel, open_note_reader
from llmcoder_tasks.coding.title_coder import TitleCoder
from llmcoder_tasks.database import Database
from llmcoder_tasks.errors import LanguageModelUnreachable, ModelError
from llmcoder_tasks.icd10cm.code_set import CodeSet
from llmcoder_tasks.model.manifest import fetch_model
from llmcoder_tasks.records import ModelRef
from llmcoder_tasks.settings import LanguageModel
from llmcoder_tasks.steps.attach_note_model import attach_note_model
from llmcoder_tasks.steps.code_encounters import CodedNight, code_encounters
from llmcoder_tasks.storage import FolderStorage

pytestmark = pytest.mark.integration

DAY = date(2026, 4, 2)
GOUT = json.dumps({"diagnoses": [{"code": "M10.9", "quote": "gout", "uncertain": False}]})


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeLanguageModel]:
    monkeypatch.setattr("llmcoder_tasks.coding.note_reader.SERVER_RETRIES", 0)
    with serve_language_model() as server:
        server.always = Behaviour(text=GOUT)
        yield server


@pytest.fixture
def models(database: Database, tmp_path: Path) -> TrainedModels:
    trained = TrainedModels(FolderStorage(tmp_path / "store"), database, tmp_path)
    with database.transaction() as transaction:
        transaction.copy_rows(
            "codes",
            ["release_key", "code", "is_billable", "short_title", "long_title", "position"],
            [("FY2026-April", "M109", True, "Gout, unspecified", "Gout, unspecified", 1)],
        )
    trained.train("m1")
    return trained


def _attach(models: TrainedModels, source: LanguageModel) -> ModelRef:
    base = ModelRef("m1", models.storage.uri_of("training/m1"))
    return attach_note_model(base, source, storage=models.storage, database=models.database)


def _source(server: FakeLanguageModel) -> LanguageModel:
    return LanguageModel(server.url, "reader", prefix="LLMCODER_NOTE_LLM")


def _admit(models: TrainedModels, texts: list[str]) -> None:
    with models.database.transaction() as transaction:
        transaction.copy_rows(
            "encounters",
            ["encounter_id", "patient_id", "discharge_date", "source"],
            [(f"e{number}", f"p{number}", str(DAY), "test") for number in range(len(texts))],
        )
        transaction.copy_rows(
            "discharge_summaries",
            ["encounter_id", "note_sha256", "note_text", "version"],
            [(f"e{number}", f"{number:064x}", text, 1) for number, text in enumerate(texts)],
        )


def _publish(models: TrainedModels, model: ModelRef) -> None:
    """Under the prefix of published models, as a promotion does."""
    prefix = f"models/{model.model_id}"
    folder = fetch_model(models.storage, model.uri, models.folder / "published")
    models.storage.publish_folder(folder, prefix, last="manifest.json")


def _code_night(models: TrainedModels, model: ModelRef, source: LanguageModel) -> CodedNight:
    _publish(models, model)

    def open_coder(folder: Path, code_set: CodeSet) -> TitleCoder:
        coder = TitleCoder(code_set)
        coder.note_reader = open_note_reader(NoteModel.parse((folder / NOTE_MODEL_NAME).read_bytes()), source)
        return coder

    return code_encounters(
        DAY,
        DAY,
        model=model,
        coding_run_id=f"night {model.model_id}",
        storage=models.storage,
        database=models.database,
        cache_folder=models.folder / "cache",
        open_coder=open_coder,
        pace=Pace.of_lease(5),
    )


def test_it_is_a_model_of_its_own_with_the_same_weights_and_coder(models: TrainedModels, server: FakeLanguageModel) -> None:
    model = _attach(models, _source(server))
    assert model.model_id.startswith("m1-notes-")
    manifest = json.loads(models.storage.read_bytes(f"training/{model.model_id}/manifest.json"))
    base = json.loads(models.storage.read_bytes("training/m1/manifest.json"))
    assert manifest["files"].keys() - base["files"].keys() == {NOTE_MODEL_NAME}
    assert manifest["files"]["model.safetensors"] == base["files"]["model.safetensors"]
    assert models.storage.read_bytes(f"coders/{model.model_id}/coder.json") == models.coder_json("m1")
    row = models.database.fetch_one("fetch_model", model_id=model.model_id) or {}
    assert (row["release_key"], row["dataset_id"], row["stage"]) == ("FY2026-April", "d1", "stage_one")
    assert _attach(models, _source(server)) == model, "a second run changes nothing"


def test_another_language_model_is_another_model(models: TrainedModels, server: FakeLanguageModel) -> None:
    assert _attach(models, _source(server)) != _attach(models, LanguageModel(server.url, "newer"))


def test_two_language_models_for_one_model_are_refused(models: TrainedModels, server: FakeLanguageModel) -> None:
    model = _attach(models, _source(server))
    with pytest.raises(ModelError, match="has a language model for notes already"):
        attach_note_model(model, LanguageModel(server.url, "newer"), storage=models.storage, database=models.database)
    with pytest.raises(ModelError, match="does not know m7: train it"):
        attach_note_model(ModelRef("m7", "file:///m7"), _source(server), storage=models.storage, database=models.database)


def test_a_night_is_read_by_the_server_and_one_refused_note_stops_no_other(
    models: TrainedModels, server: FakeLanguageModel
) -> None:
    texts = [f"DISCHARGE DIAGNOSES:\n1. gout\n\nSeen in room {number}." for number in range(20)]
    texts[7] += " Not to be read."
    _admit(models, texts)
    refused = '{"nothing": 1}'
    server.always = Behaviour(write=lambda question: refused if "Not to be read" in question else GOUT)
    model = _attach(models, _source(server))

    night = _code_night(models, model, _source(server))

    assert (night.coded, night.failed, night.predictions) == (19, 1, 19)
    notes = models.database.fetch_all("list_coded_encounters", coding_run_id=f"night {model.model_id}")
    failures = {note["encounter_id"]: note["failure"] for note in notes if note["status"] == "failed"}
    assert failures == {"e7": "UnreadableAnswer while coding"}
    assert len(server.requests) == 21, "of a batch with a bad note, only that note is asked again"


def test_a_server_that_goes_away_leaves_a_night_that_goes_on_where_it_stopped(
    models: TrainedModels, server: FakeLanguageModel
) -> None:
    _admit(models, [f"DISCHARGE DIAGNOSES:\n1. gout\n\nSeen in room {number}." for number in range(40)])
    model = _attach(models, _source(server))
    server.behave(*[Behaviour(text=GOUT)] * 16, *[Behaviour(status=503)] * 16)

    with pytest.raises(LanguageModelUnreachable):
        _code_night(models, model, _source(server))
    night = _code_night(models, model, _source(server))

    assert (night.encounters, night.coded, night.failed) == (40, 40, 0)
    notes = [request["messages"][1]["content"] for request in server.requests[:16]]
    assert not set(notes) & {request["messages"][1]["content"] for request in server.requests[16:]}, (
        "coded notes are not asked again"
    )
