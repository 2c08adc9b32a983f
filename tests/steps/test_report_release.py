"""The release report against a real PostgreSQL: what it says, once, and that it follows what arrives in any order."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hospital import admit
from release_files import order_file, write_folder
from reviewed_hospital import Hospital
from sqlalchemy import text

from llmcoder_tasks.coding.title_coder import TitleCoder
from llmcoder_tasks.database import Database
from llmcoder_tasks.errors import ReleaseError
from llmcoder_tasks.model.manifest import write_manifest
from llmcoder_tasks.records import ModelRef
from llmcoder_tasks.steps.code_encounters import code_encounters, recode_encounters
from llmcoder_tasks.steps.ingest_release import ingest_release
from llmcoder_tasks.steps.report_release import ReportRef, report_release
from llmcoder_tasks.steps.review_encounters import claim_next, finish_review, open_reviews, replace_by
from llmcoder_tasks.storage import FolderStorage

pytestmark = pytest.mark.integration

BEFORE = (
    ("A00", "0", "Cholera"),
    ("A000", "1", "Cholera, classical"),
    ("A009", "1", "Cholera, unspecified"),
    ("E668", "1", "Other obesity"),
    ("I10", "1", "Essential hypertension"),
    ("QA00", "1", "Neurodevelopmental disorder"),
)
AFTER = (
    ("A00", "0", "Cholera"),
    ("A000", "1", "Cholera, classical"),
    ("E668", "0", "Other obesity"),
    ("E6681", "1", "Obesity class one"),
    ("E6689", "1", "Other obesity not elsewhere classified"),
    ("I10", "1", "Primary hypertension"),
    ("QA00", "1", "Neurodevelopmental disorder"),
)
NOTE = "DISCHARGE DIAGNOSES:\n1. Other obesity\n2. Cholera, classical\n"

Ingest = Callable[..., ReportRef]


@pytest.fixture
def storage(tmp_path: Path) -> FolderStorage:
    return FolderStorage(tmp_path / "artifacts")


@pytest.fixture
def ingest(database: Database, storage: FolderStorage, tmp_path: Path) -> Ingest:
    """Load a release and report it."""

    def run(key: str, rows: Any, *, replace: bool = False) -> ReportRef:
        folder = write_folder(tmp_path / "source" / key / str(len(rows)), {"order.txt": order_file(rows)})
        ingest_release(
            str(folder), release_key=key, replace=replace, storage=storage, database=database, docs_folder=tmp_path / "docs"
        )
        return report_release(key, storage=storage, database=database)

    return run


def _read(storage: FolderStorage, reference: ReportRef) -> dict[str, Any]:
    key = reference.uri.removeprefix(f"{storage.uri}/")
    report: dict[str, Any] = json.loads(storage.read_bytes(f"{key}/report.json"))
    return report


def _newest(database: Database, key: str) -> dict[str, Any]:
    return next(row for row in database.fetch_all("list_release_reports") if row["release_key"] == key)


def test_the_first_release_is_compared_with_nothing_and_says_so(ingest: Ingest, storage: FolderStorage, database: Database) -> None:
    report = ingest("FY2026", BEFORE)
    found = _read(storage, report)
    assert (found["previous"], found["changes"]) == (None, [])
    key = report.uri.removeprefix(f"{storage.uri}/")
    assert b"there is none before it" in storage.read_bytes(f"{key}/report.html")
    assert _newest(database, "FY2026")["previous_release_key"] is None
    with pytest.raises(ReleaseError, match="FY2031 is not loaded"):
        report_release("FY2031", storage=storage, database=database)


def _code(database: Database, storage: FolderStorage, tmp_path: Path, recode: str | None = None) -> None:
    """Twelve encounters around 1 October 2026, coded by what is loaded; or coded again."""
    if recode is None:
        with database.engine.begin() as connection:
            connection.execute(
                text("INSERT INTO datasets (dataset_id, release_key, uri, manifest) VALUES ('d', 'FY2026', 'x', '{}')")
            )
            connection.execute(
                text("INSERT INTO models (model_id, release_key, dataset_id, recipe, stage, uri, manifest) "
                     "VALUES ('m1', 'FY2026', 'd', 'compact', 'stage_one', 'x', '{}')")
            )  # fmt: skip
        model = tmp_path / "m1"
        model.mkdir()
        (model / "coder.json").write_text("{}")
        write_manifest(model, {"model_id": "m1"})
        storage.publish_folder(model, "models/m1", last="manifest.json")
        admit(database, 1, on=date(2025, 10, 20), note=NOTE)  # more than twelve months before the last
        admit(database, 4, on=date(2026, 9, 30), note=NOTE, first=1)
        admit(database, 5, on=date(2026, 10, 1), note=NOTE, first=5)
        admit(database, 2, on=date(2026, 11, 2), note=NOTE, first=10)
    here: dict[str, Any] = {
        "model": ModelRef("m1", "x"), "storage": storage, "database": database, "cache_folder": tmp_path / "cache",
        "open_coder": TitleCoder.open,
    }  # fmt: skip
    if recode:
        recode_encounters(recode, coding_run_id="again", **here)
    else:
        code_encounters(date(2025, 10, 1), date(2026, 11, 30), coding_run_id="night", **here)


def test_a_report_says_what_changed_what_is_used_and_what_has_to_be_done(
    ingest: Ingest, storage: FolderStorage, database: Database, tmp_path: Path
) -> None:
    ingest("FY2026", BEFORE)
    _code(database, storage, tmp_path)
    reference = ingest("FY2027", AFTER)
    report = _read(storage, reference)
    assert {row["code"]: (row["kind"], row["followers"], row["used"]) for row in report["changes"]} == {
        "A009": ("deleted", [], 0),
        "E668": ("became_header", ["E6681", "E6689"], 11),  # E000 was discharged more than twelve months before
        "E6681": ("added", [], 0),
        "E6689": ("added", [], 0),
        "I10": ("revised", [], 0),
    }
    assert report["by_chapter"]["4"] == {"added": 2, "deleted": 0, "became_header": 1, "revised": 0}
    assert report["by_month"] == {"2026-10": 5, "2026-11": 2}
    assert [row["encounter_id"] for row in report["outdated"]] == [f"E{number:03d}" for number in range(5, 12)]
    assert report["counts"] == {
        "added": 2, "deleted": 1, "became_header": 1, "revised": 1, "to_learn": 3, "used": 1, "to_recode": 7,
        "reviews_to_reopen": 0, "dead_corrections": 0, "corrected": 0, "corrected_used": 0,
    }  # fmt: skip
    assert report["minutes"]["recode"] is not None
    assert (report["minutes"]["review"], report["minutes"]["full_training"]) == (None, None)
    page = storage.read_bytes(f"releases/FY2027/reports/{reference.report_id}/report.html").decode()
    assert "E66.81" in page
    assert "E005" not in page
    assert "Seen as number" not in page + json.dumps(report)
    assert "://" not in page


def test_a_second_report_writes_nothing_and_one_after_recoding_asks_for_no_more(
    ingest: Ingest, storage: FolderStorage, database: Database, tmp_path: Path
) -> None:
    ingest("FY2026", BEFORE)
    _code(database, storage, tmp_path)
    first = ingest("FY2027", AFTER)
    before = database.fetch_all("list_release_reports"), storage.list_versions("releases")
    assert ingest("FY2027", AFTER) == first  # it arrives twice
    assert (database.fetch_all("list_release_reports"), storage.list_versions("releases")) == before
    _code(database, storage, tmp_path, recode="FY2027")
    later = report_release("FY2027", storage=storage, database=database)
    assert _read(storage, later)["counts"]["to_recode"] == 0
    assert _newest(database, "FY2027")["report_id"] == later.report_id


def test_a_release_that_comes_late_or_corrected_changes_its_report_and_its_followers(
    ingest: Ingest, storage: FolderStorage, database: Database
) -> None:
    ingest("FY2025", BEFORE)
    against_2025 = ingest("FY2027", AFTER)
    assert _read(storage, against_2025)["previous"] == "FY2025"
    ingest("FY2026", AFTER)  # late, between the two
    newest = _newest(database, "FY2027")
    assert (newest["previous_release_key"], newest["counts"]["added"]) == ("FY2026", 0)
    assert _newest(database, "FY2026")["counts"]["added"] == 2
    ingest("FY2026", AFTER[:-1], replace=True)  # corrected: without QA00
    assert _newest(database, "FY2026")["counts"]["deleted"] == 2
    assert _newest(database, "FY2027")["counts"]["added"] == 1
    ingest("FY2026", AFTER, replace=True)  # and back: the report of before is the newest again
    assert _newest(database, "FY2027")["counts"]["added"] == 0
    days = [(row["release_key"], row["effective_to"]) for row in database.fetch_all("list_releases")]
    assert days == [("FY2025", date(2025, 9, 30)), ("FY2026", date(2026, 9, 30)), ("FY2027", None)]


def test_corrections_of_dead_codes_and_reviews_that_open_again_are_reported_without_a_word_of_the_note(
    database: Database, storage: FolderStorage
) -> None:
    hospital = Hospital(database)
    hospital.code("E1", [("E119", 0.4, "review"), ("I10", 0.99, "auto")])
    open_reviews("night", database)
    here: dict[str, Any] = {"person": "Ann Coder", "database": database}
    review = claim_next(**here)
    assert review is not None
    review = replace_by(review.review_id, "E119", "E1122", version=review.version, **here)
    finish_review(review.review_id, version=review.version, **here)
    hospital.write(
        "INSERT INTO releases (release_key, effective_from, source, content_sha256, code_count, billable_count, uri) "
        "VALUES ('FY2026-January', '2026-01-01', 'test', 'y', 5, 4, 'file:///y')"
    )
    hospital.write(
        "INSERT INTO codes SELECT 'FY2026-January', code, is_billable, short_title, long_title, position FROM codes "
        "WHERE code <> 'E1122'"
    )
    hospital.write("INSERT INTO code_conversions VALUES ('FY2026-January', 'E119', 'E1122', '2026-01-01')")
    report = _read(storage, report_release("FY2026-January", storage=storage, database=database))
    assert [(row["code"], row["successor"]) for row in report["dead_corrections"]] == [("E1122", "E119")]
    assert [(row["code"], row["kind"], row["used"], row["followers"]) for row in report["changes"]] == [
        ("E1122", "deleted", 1, ["E119"])  # as reviewed, not as coded
    ]
    assert report["outdated"] == [{"encounter_id": "E1", "discharge_date": "2026-01-05", "is_reviewed": True}]
    assert report["counts"]["reviews_to_reopen"] == 1
    assert report["minutes"]["review"] is not None
    assert "kidneys" not in json.dumps(report)
