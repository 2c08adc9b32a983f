"""A ward in a database: sample notes with the codes that their coders gave, as a model would propose them, waiting for review."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from reviewed_hospital import Hospital

from llmcoder_tasks.database import Database
from llmcoder_tasks.icd10cm.code_set import default_code_set
from llmcoder_tasks.records import parse_code
from llmcoder_tasks.settings import SAMPLES_FOLDER
from llmcoder_tasks.steps.review_encounters import open_reviews

RELEASE = "FY2027"


class Ward:
    """So many sample encounters in the queue, under a release of all codes in the categories that they need."""

    def __init__(self, database: Database, encounters: int) -> None:
        self.database = database
        self.hospital = Hospital(database)
        lines = (SAMPLES_FOLDER / "encounters.jsonl").read_text(encoding="utf-8").splitlines()[:encounters]
        self.samples: list[dict[str, Any]] = [json.loads(line) for line in lines]
        for sample in self.samples:
            sample["codes"] = sorted({parse_code(code) for code in sample["codes"]})
        self._admit_release()
        self.hospital.write(
            "INSERT INTO coding_runs (coding_run_id, from_date, to_date, model_id, status, encounter_count) "
            "VALUES ('ward', '2026-09-21', '2026-12-31', 'm1', 'running', 1)"
        )
        for number, sample in enumerate(self.samples):
            self._code(sample, number)
        open_reviews("ward", database)

    def _admit_release(self) -> None:
        wanted = {code[:3] for sample in self.samples for code in sample["codes"]} | {"E11", "I10", "N18", "J18"}
        codes = [code for code in default_code_set().codes if code.code[:3] in wanted]
        self.hospital.write(
            "INSERT INTO releases (release_key, effective_from, source, content_sha256, code_count, billable_count, uri) "
            "VALUES (:key, '2026-08-01', 'test', 'x', :n, :n, 'file:///x')",
            key=RELEASE, n=len(codes),
        )  # fmt: skip
        with self.database.transaction() as transaction:
            transaction.copy_rows(
                "codes", ["release_key", "code", "is_billable", "short_title", "long_title", "position"],
                [(RELEASE, one.code, one.is_billable, one.short_title, one.long_title, n) for n, one in enumerate(codes, start=1)],
            )  # fmt: skip

    def _code(self, sample: dict[str, Any], number: int) -> None:
        note, encounter = sample["text"], sample["encounter_id"]
        key = {"encounter": encounter, "sha": hashlib.sha256(note.encode()).hexdigest(), "key": RELEASE}
        write = self.hospital.write
        write(
            "INSERT INTO encounters (encounter_id, admission_date, discharge_date, sex, age_years, source) "
            "VALUES (:encounter, :admitted, :discharged, :sex, :age, 'samples')",
            admitted=sample.get("admission_date"), discharged=sample["discharge_date"], sex=sample.get("sex"),
            age=sample.get("age_years"), **key,
        )  # fmt: skip
        write("INSERT INTO discharge_summaries VALUES (:encounter, :sha, :note, 1)", note=note, **key)
        write("INSERT INTO coded_notes VALUES (:encounter, :sha, 'm1', :key, 'ward', 'coded')", **key)
        for rank, code in enumerate(sample["codes"], start=1):
            start, end = find_evidence(note, default_code_set().titles[code])
            decision = "review" if rank <= 2 else "auto"
            write(
                "INSERT INTO predictions (encounter_id, note_sha256, model_id, release_key, code, rank, confidence, decision, "
                "evidence_start, evidence_end) "
                "VALUES (:encounter, :sha, 'm1', :key, :code, :rank, :confidence, :decision, :start, :end)",
                code=code, rank=rank, decision=decision, start=start, end=end,
                confidence=0.35 + 0.01 * number + 0.05 * rank if decision == "review" else 0.98, **key,
            )  # fmt: skip
        first = sample["codes"][0]
        write(
            "INSERT INTO findings (encounter_id, note_sha256, model_id, release_key, rank, rule, action, code, related_code, "
            "reason, evidence_start, evidence_end) "
            "VALUES (:encounter, :sha, 'm1', :key, 1, 'excludes1', 'flagged', :code, 'R0789', "
            "'the release says that the two are never coded together: Excludes1 under the first', 0, 5)",
            code=first, **key,
        )  # fmt: skip
        for basis, drg, title in (
            ("all", 281, "Acute myocardial infarction with CC"),
            ("auto", 282, "Acute myocardial infarction without CC"),
        ):
            write(
                "INSERT INTO drgs VALUES (:encounter, :sha, 'm1', :key, :basis, 440, :drg, 5, :title)",
                basis=basis, drg=drg, title=title, **key,
            )  # fmt: skip


def find_evidence(note: str, title: str) -> tuple[int, int]:
    """Where the longest word of a title stands in a note, with a few words after it; its beginning where none does."""
    for word in sorted(title.lower().replace(",", " ").split(), key=len, reverse=True):
        place = note.lower().find(word)
        if place >= 0:
            return place, min(len(note), place + len(word))
    return 0, min(20, len(note))
