"""Learning from a hospital's coded notes: from the database or a file, only where it helps, and into the promoted model."""

from __future__ import annotations

import gzip
import json
import logging
from pathlib import Path

import pytest
from evaluation_fakes import TrainedModels

from llmcoder_tasks.coding.selection import Selection
from llmcoder_tasks.coding.title_coder import TitleCoder
from llmcoder_tasks.database import Database
from llmcoder_tasks.dataset.splits import is_judged_on
from llmcoder_tasks.errors import ModelError, NoteError
from llmcoder_tasks.icd10cm.code_set import CodeSet
from llmcoder_tasks.records import ModelRef
from llmcoder_tasks.steps.fit_selection import fit_selection
from llmcoder_tasks.storage import FolderStorage

pytestmark = pytest.mark.integration

PNEUMONIA, PRESSURE = "Pneumonia, unspecified organism", "Essential (primary) hypertension"
INFECTION = "Urinary tract infection, site not specified"
KEY = "coders/m1/selection.json"


def _rows(count: int) -> list[dict[str, object]]:
    """Coders here never code high blood pressure, and do code pneumonia."""
    rows: list[dict[str, object]] = []
    for number in range(count):
        text = f"Mrs. Zyxomma{number} was seen. She has {PNEUMONIA if number % 2 else INFECTION}. She has {PRESSURE}."
        rows.append({"id": f"p{number}-1", "text": text, "codes": ["J18.9"] if number % 2 else []})
    return rows


@pytest.fixture
def notes_file(tmp_path: Path) -> Path:
    path = tmp_path / "coded.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in _rows(240)), encoding="utf-8")
    return path


@pytest.fixture
def models(database: Database, tmp_path: Path) -> TrainedModels:
    trained = TrainedModels(FolderStorage(tmp_path / "store"), database, tmp_path)
    codes = (("I10", PRESSURE), ("J189", PNEUMONIA), ("N390", INFECTION))
    with database.transaction() as transaction:
        transaction.copy_rows(
            "codes",
            ["release_key", "code", "is_billable", "short_title", "long_title", "position"],
            [("FY2026-April", code, True, title, title, place) for place, (code, title) in enumerate(codes, start=1)],
        )
    trained.train("m1")
    return trained


def _open(folder: Path, code_set: CodeSet, coder_json: bytes) -> TitleCoder:
    assert json.loads(coder_json) == {"model_id": "m1"}
    return TitleCoder(code_set)


def _fit(models: TrainedModels, notes_file: Path | None = None) -> Selection | None:
    model = ModelRef("m1", models.storage.uri_of("training/m1"))
    cache = models.folder / "cache"
    stores = {"storage": models.storage, "database": models.database, "cache_folder": cache, "open_coder": _open}
    assert fit_selection(model, notes_file=notes_file, **stores) == model  # type: ignore[arg-type]
    return Selection.parse(models.storage.read_bytes(KEY)) if models.storage.exists(KEY) else None


def _admit(models: TrainedModels, rows: list[dict[str, object]]) -> None:
    with models.database.transaction() as transaction:
        transaction.copy_rows(
            "encounters",
            ["encounter_id", "patient_id", "discharge_date", "source"],
            [(row["id"], row["id"], "2026-04-02", "test") for row in rows],
        )
        transaction.copy_rows(
            "discharge_summaries",
            ["encounter_id", "note_sha256", "note_text", "version"],
            [(row["id"], f"{number:064x}", row["text"], 1) for number, row in enumerate(rows)],
        )
        transaction.copy_rows(
            "gold_codes",
            ["encounter_id", "code", "rank"],
            [(row["id"], str(code).replace(".", ""), 1) for row in rows for code in row["codes"]],  # type: ignore[attr-defined]
        )


def test_a_file_of_coded_notes_teaches_what_is_coded(
    models: TrainedModels, notes_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        selection = _fit(models, notes_file)
    assert selection is not None
    # Pneumonia alone is coded: of the constants' two codes a note one or none is right.
    assert selection.evidence["precision"] == selection.evidence["recall"] == 1.0
    assert selection.evidence["constants_precision"] == 0.25
    assert "learnt: on 240 coded notes" in caplog.text
    assert "zyxomma" not in caplog.text.casefold()
    assert b"zyxomma" not in models.storage.read_bytes(KEY)


def test_the_same_notes_change_nothing_also_when_they_come_packed(
    models: TrainedModels, notes_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _fit(models, notes_file)
    packed = notes_file.with_name("coded.jsonl.gz")
    packed.write_bytes(gzip.compress(notes_file.read_bytes()))
    with caplog.at_level(logging.INFO):
        _fit(models, packed)
    assert "nothing to do" in caplog.text


def test_notes_with_codes_in_the_database_teach_too(models: TrainedModels) -> None:
    rows = [row for row in _rows(560) if row["codes"]]
    _admit(models, rows)
    selection = _fit(models)
    assert selection is not None
    # A fifth of the encounters is kept to compare models on.
    assert selection.evidence["notes"] == sum(not is_judged_on(str(row["id"])) for row in rows) == 242


def test_too_few_notes_leave_the_constants(models: TrainedModels, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert _fit(models) is None
    assert "0 coded notes, and at least 200 are needed" in caplog.text


def test_what_is_not_better_than_the_constants_is_not_kept(
    models: TrainedModels, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{"id": f"p{n}", "text": f"She has {PNEUMONIA}. Seen {n}.", "codes": ["J18.9"]} for n in range(200)]
    path = tmp_path / "alike.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with caplog.at_level(logging.INFO):
        assert _fit(models, path) is None
    assert "not better, the constants stay" in caplog.text


@pytest.mark.parametrize("line", ["no json", '{"text": "a"}', '{"text": 5, "codes": []}', '{"text": "a", "codes": "I10"}', "[1]"])
def test_a_bad_line_is_named_by_its_place_and_not_quoted(models: TrainedModels, notes_file: Path, line: str) -> None:
    with notes_file.open("a", encoding="utf-8") as stream:
        stream.write(line + "\n")
    with pytest.raises(NoteError, match=r"coded\.jsonl:241.*mend or remove the line") as refused:
        _fit(models, notes_file)
    assert line not in str(refused.value)


def test_a_model_without_a_fitted_coder_is_refused(models: TrainedModels, tmp_path: Path) -> None:
    model = models.train("m2")
    (tmp_path / "store/coders/m2/coder.json").unlink()
    with pytest.raises(ModelError, match="run `llmcoder fit-coder` first"):
        fit_selection(model, storage=models.storage, database=models.database, cache_folder=tmp_path / "cache", open_coder=_open)
