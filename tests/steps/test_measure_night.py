"""The figures of a night in the database, against hand counts and the nights before."""

from __future__ import annotations

import hashlib
from datetime import date, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from llmcoder_tasks.database import Database
from llmcoder_tasks.errors import NoteError
from llmcoder_tasks.icd10cm.code_set import default_code_set
from llmcoder_tasks.records import ReleaseRef
from llmcoder_tasks.steps.measure_night import measure_night

pytestmark = pytest.mark.integration

FIRST_DAY = date(2026, 4, 10)
KNOWN_WORD = "cholera"


@pytest.fixture
def hospital(database: Database, release: ReleaseRef) -> Database:
    with database.transaction() as transaction:
        transaction.run_script(
            """
            INSERT INTO datasets (dataset_id, release_key, uri, manifest) VALUES ('d', 'FY2026-April', 'file:///d', '{}');
            INSERT INTO models (model_id, release_key, dataset_id, recipe, stage, uri, manifest)
            VALUES ('m1', 'FY2026-April', 'd', 'compact', 'stage_one', 'file:///m', '{}');
            """
        )
    return database


def _run_night(
    database: Database, day: int, *, notes: int = 40, confidence: float = 0.9, decision: str = "auto", failed: int = 0
) -> str:
    """A night of notes with two codes each, the first `failed` of them without any. Every third word is known."""
    run_id, on = f"night {day}", FIRST_DAY + timedelta(days=day)
    codes = [code.code for code in default_code_set().billable[::200]][:2]
    with database.engine.begin() as connection:
        connection.execute(
            text("INSERT INTO coding_runs (coding_run_id, from_date, to_date, model_id, status, encounter_count, finished_at) "
                 "VALUES (:run, :on, :on, 'm1', 'finished', :notes, now())"),
            {"run": run_id, "on": on, "notes": notes},
        )  # fmt: skip
        for number in range(notes):
            note = f"xxxyzzy {KNOWN_WORD} qqqqz {day}-{number}"
            key: dict[str, Any] = {"e": f"E{day}-{number}", "sha": hashlib.sha256(note.encode()).hexdigest(), "run": run_id}
            status, failure = ("failed", "ValueError") if number < failed else ("coded", None)
            for statement in (
                "INSERT INTO encounters (encounter_id, discharge_date, source) VALUES (:e, :on, 'test')",
                "INSERT INTO discharge_summaries (encounter_id, note_sha256, note_text, version) VALUES (:e, :sha, :note, 1)",
                "INSERT INTO coded_notes (encounter_id, note_sha256, model_id, release_key, coding_run_id, status, failure) "
                "VALUES (:e, :sha, 'm1', 'FY2026-April', :run, :status, :failure)",
            ):
                connection.execute(text(statement), {**key, "on": on, "note": note, "status": status, "failure": failure})
            for rank, code in enumerate(codes if status == "coded" else [], start=1):
                connection.execute(
                    text("INSERT INTO predictions (encounter_id, note_sha256, model_id, release_key, code, rank, confidence, "
                         "decision, evidence_start, evidence_end) VALUES (:e, :sha, 'm1', 'FY2026-April', :code, :rank, "
                         ":confidence, :decision, 0, 4)"),
                    {**key, "code": code, "rank": rank, "confidence": confidence, "decision": decision},
                )  # fmt: skip
    return run_id


def _rows(database: Database) -> list[dict[str, Any]]:
    with database.engine.connect() as connection:
        found = connection.execute(text("SELECT * FROM night_statistics ORDER BY coding_run_id")).mappings()
        return [{name: value for name, value in row.items() if name != "measured_at"} for row in found]


def test_a_night_is_counted(hospital: Database) -> None:
    _run_night(hospital, 1, notes=10, failed=1)
    measured = measure_night("night 1", hospital)
    (row,) = _rows(hospital)
    assert (row["notes"], row["codes"], row["failed_share"], row["auto_share"], row["review_share"]) == (10, 18, 0.1, 1.0, 0.0)
    assert row["mean_confidence"] == pytest.approx(0.9)
    assert row["unknown_word_share"] == pytest.approx(2 / 3)
    assert row["chapters"] == {"1": 18}
    assert (measured.out_of_band, measured.summary) == ((), "not enough nights to compare with: 0 of 7")


def test_a_night_measured_again_is_the_same_row(hospital: Database) -> None:
    _run_night(hospital, 1)
    first = measure_night("night 1", hospital)
    before = _rows(hospital)
    assert measure_night("night 1", hospital) == first
    assert _rows(hospital) == before


def test_a_night_on_which_the_coder_fell_back_is_out_of_band(hospital: Database) -> None:
    for day in range(8):
        assert measure_night(_run_night(hospital, day), hospital).out_of_band == ()
    measured = measure_night(_run_night(hospital, 8, confidence=0.2, decision="review"), hospital)
    assert {figure["figure"] for figure in measured.out_of_band} == {"mean_confidence", "auto_share", "review_share"}
    assert measured.nights_compared == 8
    assert "mean_confidence 0.2, expected" in measured.summary
    assert KNOWN_WORD not in str(measured)


def test_a_night_is_compared_with_those_before_it_only(hospital: Database) -> None:
    for day in range(9):
        measure_night(_run_night(hospital, day), hospital)
    assert measure_night("night 3", hospital).nights_compared == 3


def test_a_night_without_notes_is_kept_and_no_measure_for_others(hospital: Database) -> None:
    measured = measure_night(_run_night(hospital, 0, notes=0), hospital)
    assert (measured.notes, _rows(hospital)[0]["mean_confidence"]) == (0, None)
    assert measure_night(_run_night(hospital, 1), hospital).nights_compared == 0


def test_a_run_that_was_never_planned_is_named(hospital: Database) -> None:
    with pytest.raises(NoteError, match="coding run never is not planned"):
        measure_night("never", hospital)
