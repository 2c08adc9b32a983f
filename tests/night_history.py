"""Nights in a database as a hospital has them after a month: measured runs, failures, quarantine, a night out of its band."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from typing import Any

from reviewed_hospital import Hospital
from sqlalchemy import text

from llmcoder_tasks.database import Database

CHAPTERS = {"4": 410, "9": 520, "10": 260, "11": 180, "14": 240, "18": 310, "21": 120}


def run_id_of(day: date, model_id: str = "m1") -> str:
    """The id of a scheduled night's coding run, whose last discharge date is `day`."""
    return f"scheduled__{day + timedelta(days=1)}T02:00:00+00:00 {model_id}"


def write_night(
    database: Database, day: date, *, notes: int = 1000, confidence: float = 0.86, auto: float = 0.72, review: float = 0.35,
    failed: float = 0.0, status: str = "finished", minutes: float = 6, nights_compared: int = 30,
    out_of_band: tuple[dict[str, Any], ...] = (), started_at: datetime | None = None,
) -> str:  # fmt: skip
    """A measured run of `day`, begun at 02:00 UTC of the next day unless said otherwise; its id."""
    run_id = run_id_of(day)
    started = started_at or datetime(day.year, day.month, day.day, 2, tzinfo=UTC) + timedelta(days=1)
    with database.engine.begin() as connection:
        connection.execute(
            text("INSERT INTO coding_runs (coding_run_id, from_date, to_date, model_id, status, encounter_count, started_at, "
                 "finished_at) VALUES (:id, :first, :last, 'm1', :status, :count, :started, :finished)"),
            {"id": run_id, "first": day - timedelta(days=6), "last": day, "status": status, "count": notes, "started": started,
             "finished": None if status == "running" else started + timedelta(minutes=minutes)},
        )  # fmt: skip
        if status != "running":
            chapters = {chapter: count * notes // 1000 for chapter, count in CHAPTERS.items()}
            connection.execute(
                text("INSERT INTO night_statistics (coding_run_id, notes, codes, mean_confidence, confidence_deviation, "
                     "auto_share, review_share, failed_share, unknown_word_share, chapters, nights_compared, stability_index, "
                     "out_of_band) VALUES (:id, :notes, :codes, :confidence, 0.2, :auto, :review, :failed, 0.03, "
                     "CAST(:chapters AS jsonb), :compared, :index, CAST(:out AS jsonb))"),
                {"id": run_id, "notes": notes, "codes": sum(chapters.values()), "confidence": confidence, "auto": auto,
                 "review": review, "failed": failed, "chapters": json.dumps(chapters), "compared": nights_compared,
                 "index": 0.012 if nights_compared >= 7 else None, "out": json.dumps(out_of_band)},
            )  # fmt: skip
    return run_id


def write_month(database: Database, last: date, *, nights: int = 35) -> str:
    """A hospital with that many nights; the last one lost confidence, failed on notes and left encounters uncoded. Its run id."""
    hospital = Hospital(database)
    for number in range(nights - 1, 0, -1):
        day = last - timedelta(days=number)
        weekend = day.weekday() >= 5
        write_night(
            database, day, notes=(520 if weekend else 1000) + 13 * (number % 7), confidence=0.86 + 0.004 * (number % 5 - 2),
            auto=0.72 + 0.006 * (number % 4 - 2), review=0.35 + 0.008 * (number % 3 - 1),
            nights_compared=min(30, nights - 1 - number),
        )  # fmt: skip
    left = (
        {"figure": "mean_confidence", "value": 0.743, "low": 0.836, "high": 0.884},
        {"figure": "chapter_9_share", "value": 0.402, "low": 0.211, "high": 0.298},
    )
    run_id = write_night(
        database, last, confidence=0.743, auto=0.58, review=0.52, failed=0.003, out_of_band=left,
        started_at=datetime.now(UTC) - timedelta(hours=3),
    )  # fmt: skip
    for number in range(3):
        hospital.code(f"F{number}", [], run_id=run_id, note=f"A note that cannot be coded, number {number}.")
    hospital.write("UPDATE coded_notes SET status = 'failed', failure = 'ValueError' WHERE encounter_id LIKE 'F%'")
    for number in range(40):
        hospital.write(
            "INSERT INTO encounters (encounter_id, discharge_date, source) VALUES (:id, :day, 'test')",
            id=f"U{number:03d}",
            day=last,
        )
        hospital.write(
            "INSERT INTO uncoded_encounters (coding_run_id, encounter_id, reason) VALUES (:run, :id, 'no_discharge_summary')",
            run=run_id, id=f"U{number:03d}",
        )  # fmt: skip
    hospital.write(
        "INSERT INTO quarantined_notes (content_sha256, place, source, encounter_id, reason, coding_date, coding_run_id) "
        "VALUES (:sha, 'night.csv:17', 'night.csv', NULL, 'rtf', :day, :run)",
        sha="a" * 64, day=last, run=run_id,
    )  # fmt: skip
    return run_id


def judge(hospital: Hospital, model_id: str = "m1") -> None:
    """A verdict that says PROMOTE."""
    hospital.write(
        "INSERT INTO scorecards (evaluation_id, model_id, dataset_id, suites_sha256, uri, scorecard) "
        "VALUES (:id, :model, 'd', 'x', 'file:///s', '{}')", id=f"e-{model_id}", model=model_id,
    )  # fmt: skip
    hospital.write(
        "INSERT INTO verdicts (verdict_id, evaluation_id, model_id, decision, reasons) "
        "VALUES (:id, :evaluation, :model, 'PROMOTE', '[]')",
        id=f"v-{model_id}", evaluation=f"e-{model_id}", model=model_id,
    )  # fmt: skip


def promote(hospital: Hospital, model_id: str = "m1", by: str = "Ann Approver") -> None:
    """Put a judged model into service."""
    hospital.write(
        "INSERT INTO promotions (promotion_id, model_id, kind, verdict_id, promoted_by) "
        "SELECT 1 + coalesce(max(promotion_id), 0), :model, 'promote', :verdict, :by FROM promotions",
        model=model_id, verdict=f"v-{model_id}", by=by,
    )  # fmt: skip
