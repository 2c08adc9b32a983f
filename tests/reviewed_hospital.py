"""A small hospital in a database: a release, two models, coded notes. Shared by the tests of reviews, exports and corrections."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import date
from typing import Any

from sqlalchemy import text

from llmcoder_tasks.database import Database

RELEASE = "FY2026"
CODES = [
    ("E11", False, "Type 2 diabetes mellitus"),
    ("E119", True, "Type 2 diabetes mellitus without complications"),
    ("E1122", True, "Type 2 diabetes mellitus with diabetic chronic kidney disease"),
    ("I10", True, "Essential (primary) hypertension"),
    ("J189", True, "Pneumonia, unspecified organism"),
    ("N390", True, "Urinary tract infection, site not specified"),
]
NOTE = "Sugar disease with bad kidneys; high blood pressure; chest infection."
EVIDENCE = {"E119": (0, 13), "I10": (32, 51), "J189": (53, 68)}


class Hospital:
    """Writes what loading and coding would, without a coder."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.write(
            "INSERT INTO releases (release_key, effective_from, source, content_sha256, code_count, billable_count, uri) "
            "VALUES (:key, '2025-10-01', 'test', 'x', 6, 5, 'file:///x')",
            key=RELEASE,
        )
        for position, (code, is_billable, title) in enumerate(CODES, start=1):
            self.write(
                "INSERT INTO codes VALUES (:key, :code, :billable, :title, :title, :position)",
                key=RELEASE, code=code, billable=is_billable, title=title, position=position,
            )  # fmt: skip
        self.write(
            "INSERT INTO datasets (dataset_id, release_key, uri, manifest) VALUES ('d', :key, 'file:///d', '{}')", key=RELEASE
        )
        for model_id in ("m1", "m2"):
            self.write(
                "INSERT INTO models (model_id, release_key, dataset_id, recipe, stage, uri, manifest) "
                "VALUES (:id, :key, 'd', 'compact', 'stage_one', 'file:///m', '{}')",
                id=model_id, key=RELEASE,
            )  # fmt: skip

    def code(
        self,
        encounter_id: str,
        proposed: Sequence[tuple[str, float, str]],
        *,
        note: str = NOTE,
        model_id: str = "m1",
        run_id: str = "night",
    ) -> None:
        """Admit a patient with a note, or amend it, and code it: (code, confidence, decision)."""
        sha = hashlib.sha256(note.encode()).hexdigest()
        with self.database.engine.begin() as connection:

            def write(statement: str, **values: Any) -> None:
                connection.execute(
                    text(statement), {"encounter": encounter_id, "sha": sha, "model": model_id, "run": run_id, **values}
                )

            write(
                "INSERT INTO encounters (encounter_id, patient_id, discharge_date, source) "
                "VALUES (:encounter, :patient, :day, 'test') ON CONFLICT DO NOTHING",
                patient=f"P-{encounter_id}", day=date(2026, 1, 5),
            )  # fmt: skip
            write(
                "INSERT INTO discharge_summaries (encounter_id, note_sha256, note_text, version) SELECT :encounter, :sha, :note, "
                "1 + count(*) FROM discharge_summaries WHERE encounter_id = :encounter ON CONFLICT DO NOTHING",
                note=note,
            )
            write(
                "INSERT INTO coding_runs (coding_run_id, from_date, to_date, model_id, status, encounter_count) "
                "VALUES (:run, '2026-01-05', '2026-01-05', :model, 'running', 1) ON CONFLICT DO NOTHING"
            )
            write(
                "INSERT INTO coded_notes (encounter_id, note_sha256, model_id, release_key, coding_run_id, status) "
                "VALUES (:encounter, :sha, :model, 'FY2026', :run, 'coded')"
            )
            for rank, (code, confidence, decision) in enumerate(proposed, start=1):
                start, end = EVIDENCE[code]
                write(
                    "INSERT INTO predictions (encounter_id, note_sha256, model_id, release_key, code, rank, confidence, decision, "
                    "evidence_start, evidence_end) VALUES "
                    "(:encounter, :sha, :model, 'FY2026', :code, :rank, :confidence, :decision, :start, :end)",
                    code=code, rank=rank, confidence=confidence, decision=decision, start=start, end=end,
                )  # fmt: skip

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Rows of a statement."""
        with self.database.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(statement))]

    def write(self, statement: str, **values: Any) -> None:
        with self.database.engine.begin() as connection:
            connection.execute(text(statement), values)
