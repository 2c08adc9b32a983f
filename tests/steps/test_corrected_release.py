"""A release that its publisher corrected after work was done under it: what stays, what takes its place, what is done again."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hospital import admit, query
from release_files import order_file, write_folder

from llmcoder_tasks.coding.title_coder import TitleCoder
from llmcoder_tasks.database import Database
from llmcoder_tasks.errors import ExpectationsFailed, ReleaseConflict, ReviewError
from llmcoder_tasks.evaluation.registry import Promotion, put_into_service, read_standing
from llmcoder_tasks.icd10cm.code_set import find_release, read_code_set
from llmcoder_tasks.model.manifest import write_manifest
from llmcoder_tasks.records import ModelRef, ReleaseRef
from llmcoder_tasks.steps.check_deadlines import check_deadlines
from llmcoder_tasks.steps.code_encounters import CodedNight, code_encounters, recode_encounters
from llmcoder_tasks.steps.find_code import find_code_on_date
from llmcoder_tasks.steps.ingest_release import ingest_release
from llmcoder_tasks.steps.report_release import report_release
from llmcoder_tasks.steps.review_encounters import claim_next, finish_review, open_reviews, replace_by
from llmcoder_tasks.storage import FolderStorage

pytestmark = pytest.mark.integration

Rows = tuple[tuple[str, str, str], ...]
Ingest = Callable[..., ReleaseRef]

BEFORE: Rows = (
    ("A00", "0", "Cholera"),
    ("A000", "1", "Cholera, classical"),
    ("E668", "1", "Other obesity"),
    ("I10", "1", "Essential hypertension"),
)
WITHDRAWN: Rows = (*BEFORE, ("QA00", "1", "Neurodevelopmental disorder"))
CORRECTED: Rows = (*BEFORE[:2], ("E668", "0", "Other obesity"), ("E6681", "1", "Other obesity, class one"), *WITHDRAWN[3:])
"""After WITHDRAWN: E668 became a header, E6681 is new."""
NOTE = "DISCHARGE DIAGNOSES:\n1. Other obesity\n2. Cholera, classical\n"
OCTOBER = date(2026, 10, 5)

MADE = (
    "datasets", "models", "coding_runs", "coded_notes", "predictions", "findings", "drgs", "reviews", "review_codes",
    "review_actions", "release_reports",
)  # fmt: skip
"""What stands on a release."""


@pytest.fixture
def storage(tmp_path: Path) -> FolderStorage:
    store = FolderStorage(tmp_path / "artifacts")
    model = tmp_path / "m1"
    model.mkdir()
    (model / "coder.json").write_text("{}")
    write_manifest(model, {"model_id": "m1", "release_key": "FY2027"})
    store.publish_folder(model, "models/m1", last="manifest.json")
    return store


@pytest.fixture
def ingest(database: Database, storage: FolderStorage, tmp_path: Path) -> Ingest:
    def run(key: str, rows: Rows, *, replace: bool = False) -> ReleaseRef:
        count = len(list(tmp_path.glob("source_*")))
        folder = write_folder(tmp_path / f"source_{count}", {"order.txt": order_file(rows)})
        return ingest_release(
            str(folder), release_key=key, replace=replace, storage=storage, database=database, docs_folder=tmp_path / "docs"
        )

    return run


def load(database: Database, key: str, effective_from: date, rows: Rows) -> None:
    """A release that an ingest loaded before, without the seconds that its validation takes."""
    with database.transaction() as transaction:
        release = (key, effective_from, "test", "x", len(rows), len(rows) - 1, "file:///x")
        columns = ["release_key", "effective_from", "source", "content_sha256", "code_count", "billable_count", "uri"]
        transaction.copy_rows("releases", columns, [release])
        transaction.copy_rows(
            "codes",
            ["release_key", "code", "is_billable", "short_title", "long_title", "position"],
            [(key, code, flag, title, title, place) for place, (code, flag, title) in enumerate(rows, start=1)],
        )


@pytest.fixture
def hospital(database: Database, storage: FolderStorage) -> Database:
    """FY2026 and FY2027 are loaded; a model learnt FY2027 and is in service."""
    for key, effective_from, rows in (("FY2026", date(2025, 10, 1), BEFORE), ("FY2027", date(2026, 10, 1), WITHDRAWN)):
        load(database, key, effective_from, rows)
    with database.transaction() as transaction:
        transaction.run_script(
            """INSERT INTO datasets (dataset_id, release_key, uri, manifest) VALUES ('d', 'FY2027', 'x', '{}');
            INSERT INTO models (model_id, release_key, dataset_id, recipe, stage, uri, manifest)
                VALUES ('m1', 'FY2027', 'd', 'compact', 'stage_one', 'x', '{}');"""
        )
    promotion = Promotion(1, "promote", "m1", storage.uri_of("models/m1"), "FY2027", "v", "e", None, "A. Person")
    put_into_service(storage, database, promotion, replaces=read_standing(storage))
    return database


@pytest.fixture
def night(hospital: Database, storage: FolderStorage, tmp_path: Path) -> Callable[..., CodedNight]:
    """Code October, or code again what a release outdated; then queue what people have to see."""

    def run(run_id: str = "night", recode: str | None = None, open_coder: Any = TitleCoder.open) -> CodedNight:
        here: dict[str, Any] = {
            "model": ModelRef("m1", "x"), "storage": storage, "database": hospital, "cache_folder": tmp_path / "cache",
            "open_coder": open_coder,
        }  # fmt: skip
        if recode:
            done = recode_encounters(recode, **here)
        else:
            done = code_encounters(date(2026, 9, 1), date(2026, 10, 31), coding_run_id=run_id, **here)
        open_reviews(done.coding_run_id, hospital)
        return done

    return run


def _dump(database: Database, tables: tuple[str, ...] = MADE) -> dict[str, set[tuple[str, ...]]]:
    """Every row of what stands on releases, whole, as text."""
    return {table: {tuple(map(str, row)) for row in query(database, f"SELECT * FROM {table}")} for table in tables}


def _codings(database: Database) -> list[tuple[Any, ...]]:
    return query(
        database,
        "SELECT encounter_id, release_key, string_agg(code, ' ' ORDER BY code) FROM coded_notes "
        "LEFT JOIN predictions USING (encounter_id, note_sha256, model_id, release_key) GROUP BY 1, 2 ORDER BY 1, 2",
    )


def test_what_was_made_from_the_withdrawn_content_stays_row_by_row_and_the_corrected_stands_in_its_stead(
    ingest: Ingest, hospital: Database, storage: FolderStorage, night: Callable[..., CodedNight]
) -> None:
    admit(hospital, 1, on=date(2026, 9, 30), note=NOTE)
    admit(hospital, 2, on=OCTOBER, note=NOTE, first=1)
    night()
    report_release("FY2027", storage=storage, database=hospital)
    before, codes = _dump(hospital), _dump(hospital, ("codes",))
    store = {key: storage.read_bytes(key) for key in storage.list_keys("releases")}

    corrected = ingest("FY2027", CORRECTED, replace=True)

    assert corrected == ReleaseRef("FY2027-corrected-1", storage.uri_of("releases/FY2027-corrected-1"))
    assert _dump(hospital) == before
    assert codes["codes"] < _dump(hospital, ("codes",))["codes"]
    assert {key: storage.read_bytes(key) for key in store} == store
    assert json.loads(storage.read_bytes("releases/FY2027-corrected-1/release.json"))["release_key"] == corrected.key
    assert find_release(hospital, date(2026, 10, 1)) == corrected
    assert find_release(hospital, date(2026, 9, 30)) == ReleaseRef("FY2026", "file:///x")
    assert [(row["release_key"], row["previous_release_key"]) for row in hospital.fetch_all("list_releases")] == [
        ("FY2026", None), ("FY2027-corrected-1", "FY2026"),
    ]  # fmt: skip
    changes = {row["code"]: row["kind"] for row in hospital.fetch_all("list_code_changes", release_key=corrected.key)}
    assert changes == {"E668": "became_header", "E6681": "added", "QA00": "added"}
    assert "E668" in read_code_set(hospital, "FY2027").titles
    assert not find_code_on_date("E66.8", OCTOBER, hospital).is_billable


def test_without_being_asked_for_it_is_refused_with_the_cure(ingest: Ingest, hospital: Database) -> None:
    before = _dump(hospital, (*MADE, "releases", "codes"))
    with pytest.raises(ReleaseConflict, match=r"ask for it to be replaced \(what was made from FY2027 stays .* FY2027-corrected-1"):
        ingest("FY2027", CORRECTED)
    broken = (*CORRECTED[:1], ("A000", "1", "Other obesity, class one"), *CORRECTED[2:])  # a title that stands twice
    with pytest.raises(ExpectationsFailed):
        ingest("FY2027", broken, replace=True)
    assert _dump(hospital, (*MADE, "releases", "codes")) == before


def test_the_corrected_content_again_changes_nothing_and_a_second_correction_takes_the_next_number(
    ingest: Ingest, hospital: Database
) -> None:
    load(hospital, "FY2028", date(2027, 10, 1), CORRECTED)
    first = ingest("FY2027", CORRECTED, replace=True)
    before = _dump(hospital, ("releases", "codes", "code_changes"))
    assert ingest("FY2027", CORRECTED) == first
    assert ingest("FY2027", CORRECTED, replace=True) == first
    assert _dump(hospital, ("releases", "codes", "code_changes")) == before
    assert query(hospital, "SELECT previous_release_key FROM releases WHERE release_key = 'FY2028'") == [("FY2027-corrected-1",)]
    assert query(hospital, "SELECT count(*) FROM code_changes WHERE release_key = 'FY2028'") == [(0,)]

    assert ingest("FY2027", WITHDRAWN[:-1], replace=True).key == first.key  # nothing was made from it: it is simply replaced
    with hospital.transaction() as transaction:
        transaction.run_script(
            "INSERT INTO datasets (dataset_id, release_key, uri, manifest) VALUES ('d1', 'FY2027-corrected-1', 'x', '{}')"
        )
    assert ingest("FY2027", WITHDRAWN, replace=True).key == "FY2027-corrected-2"  # the publisher went back to the first
    assert query(hospital, "SELECT release_key, withdrawn_at IS NULL FROM releases ORDER BY 1") == [
        ("FY2026", True), ("FY2027", False), ("FY2027-corrected-1", False), ("FY2027-corrected-2", True), ("FY2028", True),
    ]  # fmt: skip


def test_notes_coded_under_the_withdrawn_content_are_coded_again_once_and_the_older_coding_stays(
    ingest: Ingest, hospital: Database, night: Callable[..., CodedNight]
) -> None:
    admit(hospital, 1, on=date(2026, 9, 30), note=NOTE)
    admit(hospital, 2, on=OCTOBER, note=NOTE, first=1)
    night()
    assert night(recode="FY2027").encounters == 0  # the run of the same name must not stand in the way of the next
    ingest("FY2027", CORRECTED, replace=True)
    assert query(hospital, "SELECT release_key, encounter_id, coded_under FROM outdated_codings ORDER BY 2") == [
        ("FY2027-corrected-1", "E001", "FY2027"), ("FY2027-corrected-1", "E002", "FY2027"),
    ]  # fmt: skip
    done = night(recode="FY2027")  # people go on to say FY2027
    assert (done.encounters, done.coded) == (2, 2)
    assert _codings(hospital) == [
        ("E000", "FY2026", "A000 E668"),
        ("E001", "FY2027", "A000 E668"), ("E001", "FY2027-corrected-1", "A000"),
        ("E002", "FY2027", "A000 E668"), ("E002", "FY2027-corrected-1", "A000"),
    ]  # fmt: skip
    assert query(hospital, "SELECT * FROM outdated_codings") == []
    assert night(recode="FY2027-corrected-1") == done


def test_a_worker_that_holds_the_withdrawn_codes_when_the_correction_comes_writes_under_their_key(
    ingest: Ingest, hospital: Database, night: Callable[..., CodedNight]
) -> None:
    admit(hospital, 1, on=OCTOBER, note=NOTE)

    def open_coder(folder: Path, code_set: Any) -> TitleCoder:
        coder = TitleCoder.open(folder, code_set)
        if code_set.release_key == "FY2027":
            ingest("FY2027", CORRECTED, replace=True)
        return coder

    night(open_coder=open_coder)  # it looks again for what is left, and goes on under the corrected ones
    assert _codings(hospital) == [("E000", "FY2027", "A000 E668"), ("E000", "FY2027-corrected-1", "A000")]
    assert query(hospital, "SELECT * FROM outdated_codings") == []


def test_a_review_under_the_withdrawn_content_is_opened_anew_finished_or_not(
    ingest: Ingest, hospital: Database, night: Callable[..., CodedNight]
) -> None:
    admit(hospital, 2, on=OCTOBER, note=NOTE)
    night()
    with hospital.transaction() as transaction:
        transaction.run_script("UPDATE predictions SET decision = 'review' WHERE code = 'E668'")
    open_reviews("night", hospital)
    here: dict[str, Any] = {"person": "Ann Coder", "database": hospital}
    finished = claim_next(**here)
    assert finished is not None
    finished = replace_by(finished.review_id, "E668", "I10", version=finished.version, **here)
    finish_review(finished.review_id, version=finished.version, **here)
    ingest("FY2027", CORRECTED, replace=True)
    held = claim_next(**here)
    assert held is not None
    with pytest.raises(ReviewError, match="is under FY2027, and FY2027-corrected-1 is valid on the discharge date"):
        finish_review(held.review_id, version=held.version, **here)
    with hospital.transaction() as transaction:  # its lease runs out
        transaction.run_script("UPDATE reviews SET claimed_until = now() WHERE status = 'claimed'")
    audit = _dump(hospital, ("review_actions", "review_codes"))
    night(recode="FY2027")
    with hospital.transaction() as transaction:  # the title coder is sure of all it finds
        transaction.run_script("UPDATE predictions SET decision = 'review' WHERE release_key = 'FY2027-corrected-1'")
    open_reviews("recode_FY2027-corrected-1_m1", hospital)
    assert set(query(hospital, "SELECT encounter_id, release_key, status FROM reviews")) == {
        (finished.encounter_id, "FY2027", "finished"),
        (finished.encounter_id, "FY2027-corrected-1", "waiting"),
        (held.encounter_id, "FY2027", "superseded"),
        (held.encounter_id, "FY2027-corrected-1", "waiting"),
    }
    after = _dump(hospital, ("review_actions", "review_codes"))
    assert all(audit[table] <= after[table] for table in audit)


def test_the_report_says_what_the_correction_changed_and_what_of_it_was_used(
    ingest: Ingest, hospital: Database, storage: FolderStorage, night: Callable[..., CodedNight]
) -> None:
    admit(hospital, 2, on=OCTOBER, note=NOTE)
    night()
    corrected = ingest("FY2027", CORRECTED, replace=True)
    reference = report_release("FY2027", storage=storage, database=hospital)
    assert reference.report_id.startswith(f"{corrected.key}-")
    folder = f"releases/{corrected.key}/reports/{reference.report_id}"
    report = json.loads(storage.read_bytes(f"{folder}/report.json"))
    assert (report["previous"], report["withdrawn"]) == ("FY2026", "FY2027")
    assert [(row["code"], row["kind"], row["used"], row["followers"]) for row in report["corrections"]] == [
        ("E668", "became_header", 2, ["E6681"]), ("E6681", "added", 0, []),
    ]  # fmt: skip
    assert (report["counts"]["corrected"], report["counts"]["corrected_used"], report["counts"]["to_recode"]) == (2, 1, 2)
    page = storage.read_bytes(f"{folder}/report.html").decode()
    assert "It stands in the stead of FY2027, which was withdrawn." in page
    assert "What the correction changed" in page
    assert "E001" not in page


def test_people_are_told_that_no_model_learnt_the_corrected_content(
    ingest: Ingest, hospital: Database, storage: FolderStorage
) -> None:
    assert check_deadlines(on=OCTOBER, days=14, storage=storage, database=hospital) == []
    ingest("FY2027", CORRECTED, replace=True)
    (deadline,) = check_deadlines(on=OCTOBER, days=14, storage=storage, database=hospital)
    assert deadline.message.startswith(
        "FY2027-corrected-1 is in effect since 2026-10-01, and no model that learnt it is in service"
    )
    assert "No dataset is built: run the DAG build_dataset with the key FY2027-corrected-1" in deadline.message
