"""A small hospital in a real PostgreSQL: two releases, two models, encounters with notes; and a store with the models."""

from __future__ import annotations

import hashlib
from datetime import date
from pathlib import Path
from typing import Any

from sqlalchemy import text

from llmcoder_tasks.database import Database
from llmcoder_tasks.model.manifest import write_manifest
from llmcoder_tasks.storage import FolderStorage

OLD, NEW = "FY2026", "FY2026-April"
PNEUMONIA, PRESSURE = "Pneumonia, unspecified organism", "Essential (primary) hypertension"
INFECTION = "Urinary tract infection, site not specified"
CODES = {
    OLD: [("A00", False, "Cholera"), ("I10", True, PRESSURE), ("J189", True, PNEUMONIA)],
    NEW: [("A00", False, "Cholera"), ("I10", True, PRESSURE), ("N390", True, INFECTION)],
}
NOTE = f"DISCHARGE DIAGNOSES:\n1. {PNEUMONIA}\n2. {PRESSURE}\n3. {INFECTION}\n"
MODELS = ("m1", "m2")


def publish_models(folder: Path) -> FolderStorage:
    """An artifact store with the published models."""
    storage = FolderStorage(folder / "artifacts")
    for model_id in MODELS:
        model = folder / model_id
        model.mkdir()
        (model / "coder.json").write_text("{}")
        write_manifest(model, {"model_id": model_id})
        storage.publish_folder(model, f"models/{model_id}", last="manifest.json")
    return storage


def open_hospital(database: Database) -> Database:
    """Releases and models, and no encounter yet."""
    with database.engine.begin() as connection:
        for key, effective in ((OLD, date(2025, 10, 1)), (NEW, date(2026, 4, 1))):
            connection.execute(
                text("INSERT INTO releases (release_key, effective_from, source, content_sha256, code_count, billable_count, uri) "
                     "VALUES (:key, :effective, 'test', 'x', 3, 2, 'file:///x')"),
                {"key": key, "effective": effective},
            )  # fmt: skip
            for position, (code, is_billable, title) in enumerate(CODES[key], start=1):
                connection.execute(
                    text("INSERT INTO codes VALUES (:key, :code, :is_billable, :title, :title, :position)"),
                    {"key": key, "code": code, "is_billable": is_billable, "title": title, "position": position},
                )
        connection.execute(
            text("INSERT INTO datasets (dataset_id, release_key, uri, manifest) VALUES ('d', 'FY2026', 'file:///d', '{}')")
        )
        for model_id in MODELS:
            connection.execute(
                text("INSERT INTO models (model_id, release_key, dataset_id, recipe, stage, uri, manifest) "
                     "VALUES (:id, 'FY2026', 'd', 'compact', 'stage_one', 'file:///m', '{}')"),
                {"id": model_id},
            )  # fmt: skip
    return database


def admit(database: Database, count: int, *, on: date = date(2026, 4, 2), note: str = NOTE, first: int = 0) -> None:
    """Encounters `E000`, `E001`, ... from `first` on, each with a text of its own that begins with the given one."""
    keys = {f"E{number:03d}": f"{note}Seen as number {number}." for number in range(first, first + count)}
    with database.engine.begin() as connection:
        connection.execute(
            text("INSERT INTO encounters (encounter_id, discharge_date, source) VALUES (:key, :on, 'test')"),
            [{"key": key, "on": on} for key in keys],
        )
        for key, whole in keys.items():
            write_note(connection, key, whole, 1)


def write_note(connection: Any, key: str, note: str, version: int) -> None:
    """A version of the note of an encounter, as a hospital would put it there by itself."""
    connection.execute(
        text("INSERT INTO discharge_summaries VALUES (:key, :sha, :note, :version)"),
        {"key": key, "sha": hashlib.sha256(note.encode()).hexdigest(), "note": note, "version": version},
    )


def query(database: Database, statement: str) -> list[tuple[Any, ...]]:
    """Rows of a statement."""
    with database.engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(statement))]


def results_of(database: Database) -> list[tuple[Any, ...]]:
    """All codes that were written, without ids and times."""
    return query(
        database,
        "SELECT encounter_id, note_sha256, model_id, release_key, code, rank, confidence, decision, evidence_start, evidence_end "
        "FROM predictions ORDER BY encounter_id, note_sha256, model_id, release_key, rank",
    )
