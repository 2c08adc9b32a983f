"""Exports against a real PostgreSQL and both kinds of store: what is final, once, whole, and FHIR as `fhir.resources` reads it."""

from __future__ import annotations

import csv
import io
import json
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from reviewed_hospital import EVIDENCE, NOTE, Hospital

from llmcoder_tasks.coding.fhir import verify_bundle
from llmcoder_tasks.database import Database
from llmcoder_tasks.errors import ExportError
from llmcoder_tasks.steps import export_encounters as step
from llmcoder_tasks.steps.export_encounters import Exported, export_encounters
from llmcoder_tasks.steps.review_encounters import (
    OpenedReviews,
    accept_code,
    claim_next,
    finish_review,
    open_reviews,
    read_review,
    remove_code,
    reopen_review,
    replace_by,
)
from llmcoder_tasks.storage import FolderStorage, Storage, open_storage

pytestmark = pytest.mark.integration

SURE = [("I10", 0.99, "auto"), ("J189", 0.97, "auto")]
DOUBTFUL = [("E119", 0.4, "review"), ("I10", 0.99, "auto")]


@pytest.fixture
def hospital(database: Database) -> Hospital:
    return Hospital(database)


@pytest.fixture(params=["folder", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """Each kind of store, empty."""
    if request.param == "folder":
        return FolderStorage(tmp_path / "artifacts")
    return open_storage(f"s3://artifacts/{uuid.uuid4().hex}", endpoint_url=request.getfixturevalue("s3_endpoint"))


def _finish(hospital: Hospital, *, by: str = "E1122") -> int:
    """Ann replaces E11.9 in the next review and finishes it."""
    here: dict[str, Any] = {"person": "Ann Coder", "database": hospital.database}
    review = claim_next(**here)
    assert review is not None
    review = replace_by(review.review_id, "E119", by, version=review.version, **here)
    return finish_review(review.review_id, version=review.version, **here).review_id


def _bundles(storage: Storage, number: int) -> list[dict[str, Any]]:
    lines = storage.read_bytes(f"exports/{number:06d}/bundles.ndjson").decode().splitlines()
    return [json.loads(line) for line in lines]


def _table(storage: Storage, number: int, name: str = "codes.parquet") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(io.BytesIO(storage.read_bytes(f"exports/{number:06d}/{name}"))).to_pylist()
    return rows


def test_what_is_sure_or_finished_leaves_and_what_waits_stays(hospital: Hospital, storage: Storage) -> None:
    hospital.code("finished", DOUBTFUL)
    open_reviews("night", hospital.database)
    _finish(hospital)
    hospital.code("sure", SURE)
    hospital.code("waiting", DOUBTFUL)
    hospital.code("empty", [])
    open_reviews("night", hospital.database)
    assert export_encounters(storage=storage, database=hospital.database) == Exported(1, 1, 2, 4)
    rows = [(row["encounter_id"], row["rank"], row["code"], row["origin"], row["finished_by"]) for row in _table(storage, 1)]
    assert rows == [
        ("finished", 1, "E11.22", "replaced", "Ann Coder"),
        ("finished", 2, "I10", "predicted", "Ann Coder"),
        ("sure", 1, "I10", "auto", None),
        ("sure", 2, "J18.9", "auto", None),
    ]
    with_header = list(csv.DictReader(io.StringIO(storage.read_bytes("exports/000001/codes.csv").decode())))
    assert [(row["encounter_id"], row["code"]) for row in with_header] == [(row[0], row[2]) for row in rows]
    assert (with_header[2]["evidence_start"], with_header[2]["evidence_end"]) == tuple(str(place) for place in EVIDENCE["I10"])


def test_a_second_run_writes_nothing_and_a_third_only_what_changed(hospital: Hospital, storage: Storage) -> None:
    hospital.code("sure", SURE)
    hospital.code("doubtful", DOUBTFUL)
    open_reviews("night", hospital.database)
    export_encounters(storage=storage, database=hospital.database)
    before = storage.list_versions("exports")
    assert export_encounters(storage=storage, database=hospital.database) == Exported(None, None, 0, 0)
    assert storage.list_versions("exports") == before
    _finish(hospital)
    assert export_encounters(storage=storage, database=hospital.database) == Exported(2, 2, 1, 2)
    assert {row["encounter_id"] for row in _table(storage, 2)} == {"doubtful"}


def test_every_bundle_is_fhir_with_code_evidence_and_provenance(hospital: Hospital, storage: Storage) -> None:
    hospital.code("E1", DOUBTFUL)
    open_reviews("night", hospital.database)
    _finish(hospital)
    export_encounters(storage=storage, database=hospital.database)
    (bundle,) = _bundles(storage, 1)
    verify_bundle(bundle)
    resources = [entry["resource"] for entry in bundle["entry"]]
    assert [resource["resourceType"] for resource in resources] == ["Condition", "Condition", "Provenance"]
    coding = resources[0]["code"]["coding"][0]
    assert (coding["system"], coding["code"]) == ("http://hl7.org/fhir/sid/icd-10-cm", "E11.22")
    assert resources[0]["subject"]["identifier"]["value"] == "P-E1"
    assert resources[0]["encounter"]["identifier"]["value"] == "E1"
    evidence = {part["url"]: part for part in resources[0]["extension"][1]["extension"]}
    assert (evidence["start"]["valueUnsignedInt"], evidence["end"]["valueUnsignedInt"]) == EVIDENCE["E119"]
    model, person = (agent["who"] for agent in resources[2]["agent"])
    assert (model["identifier"]["value"], person["display"]) == ("m1", "Ann Coder")
    assert len(resources[2]["target"]) == 2


def test_no_word_of_a_note_leaves(hospital: Hospital, storage: Storage) -> None:
    hospital.code("sure", SURE)
    export_encounters(storage=storage, database=hospital.database)
    everything = b"".join(storage.read_bytes(key) for key in storage.list_keys("exports")) + str(_table(storage, 1)).encode()
    for phrase in NOTE.rstrip(".").split("; "):
        assert phrase.encode() not in everything


def test_a_corrected_encounter_leaves_again_and_takes_its_old_codes_back(hospital: Hospital, storage: Storage) -> None:
    hospital.code("E1", DOUBTFUL)
    open_reviews("night", hospital.database)
    review_id = _finish(hospital)
    export_encounters(storage=storage, database=hospital.database)
    here: dict[str, Any] = {"person": "Ben Coder", "database": hospital.database}
    review = reopen_review(review_id, version=4 - 1, **here)
    assert export_encounters(storage=storage, database=hospital.database).encounters == 0, "it is being corrected"
    review = remove_code(review_id, "E1122", version=review.version, **here)
    finish_review(review_id, version=review.version, **here)
    assert export_encounters(storage=storage, database=hospital.database) == Exported(2, 2, 1, 1)
    (first,), (second,) = _bundles(storage, 1), _bundles(storage, 2)
    verify_bundle(second)
    deleted = [entry["request"]["url"] for entry in second["entry"] if entry["request"]["method"] == "DELETE"]
    assert deleted == [first["entry"][0]["request"]["url"]]


def test_an_amended_note_leaves_again_once_it_is_final(hospital: Hospital, storage: Storage) -> None:
    hospital.code("E1", SURE)
    export_encounters(storage=storage, database=hospital.database)
    hospital.code("E1", DOUBTFUL, note=f"{NOTE} Amended.", run_id="next")
    open_reviews("next", hospital.database)
    assert export_encounters(storage=storage, database=hospital.database).encounters == 0
    _finish(hospital)
    assert export_encounters(storage=storage, database=hospital.database) == Exported(2, 2, 1, 2)


@pytest.mark.parametrize("written", range(1, 6))
def test_a_run_that_dies_while_it_writes_leaves_nothing_for_readers_and_the_next_does_it_all(
    hospital: Hospital, storage: Storage, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    """It dies before the n-th of five files is written."""
    hospital.code("E1", SURE)
    calls = 0
    publish = type(storage).publish_file

    def publish_and_die(self: Storage, source: Path, key: str) -> None:
        nonlocal calls
        calls += 1
        if calls == written:
            raise KeyboardInterrupt
        publish(self, source, key)

    with monkeypatch.context() as patch:
        patch.setattr(type(storage), "publish_file", publish_and_die)
        with pytest.raises(KeyboardInterrupt):
            export_encounters(storage=storage, database=hospital.database)
    assert not storage.exists("exports/000001/manifest.json")
    assert hospital.query("SELECT count(*) FROM exports") == [(0,)]
    assert export_encounters(storage=storage, database=hospital.database) == Exported(1, 1, 1, 2)


def test_a_run_that_dies_between_files_and_row_is_booked_and_not_written_again(
    hospital: Hospital, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    hospital.code("E1", SURE)

    def die(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(step, "_book", die)
        with pytest.raises(KeyboardInterrupt):
            export_encounters(storage=storage, database=hospital.database)
    assert hospital.query("SELECT count(*) FROM exports") == [(0,)]
    before = storage.list_versions("exports")
    hospital.code("E2", SURE)
    assert export_encounters(storage=storage, database=hospital.database) == Exported(1, 2, 2, 4)
    assert {key: version for key, version in storage.list_versions("exports").items() if "/000001/" in key} == before
    assert hospital.query("SELECT export_id, encounter_id FROM exported_encounters ORDER BY 1") == [(1, "E1"), (2, "E2")]


def test_many_encounters_leave_in_several_folders_and_two_runs_at_once_share_them(hospital: Hospital, storage: Storage) -> None:
    for number in range(7):
        hospital.code(f"E{number}", SURE)

    def export(_: int) -> Exported:
        return export_encounters(storage=storage, database=hospital.database, batch=2)

    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(export, range(2)))
    assert sum(part.encounters for part in done) == 7
    names = [row["encounter_id"] for number in range(1, 5) for row in _table(storage, number, "encounters.parquet")]
    assert sorted(names) == [f"E{number}" for number in range(7)]


def test_an_altered_export_that_is_not_booked_is_refused(
    hospital: Hospital, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = FolderStorage(tmp_path / "artifacts")
    hospital.code("E1", SURE)
    with monkeypatch.context() as patch:
        patch.setattr(step, "_book", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            export_encounters(storage=storage, database=hospital.database)
    storage.write_bytes("exports/000001/encounters.parquet", b"other")
    with pytest.raises(ExportError, match="exports/000001 is not what its manifest says"):
        export_encounters(storage=storage, database=hospital.database)


def test_a_bundle_that_is_no_fhir_is_refused_without_its_values() -> None:
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": [{"resource": {"resourceType": "Condition", "code": 7}}]}
    with pytest.raises(ExportError, match="entry.0.resource") as caught:
        verify_bundle(bundle)
    assert "7" not in str(caught.value)


def test_a_review_that_accepts_everything_is_exported_under_the_persons_name(hospital: Hospital, storage: Storage) -> None:
    hospital.code("E1", DOUBTFUL)
    open_reviews("night", hospital.database)
    here: dict[str, Any] = {"person": "Ann Coder", "database": hospital.database}
    review = claim_next(**here)
    assert review is not None
    review = accept_code(review.review_id, "E119", version=review.version, **here)
    finish_review(review.review_id, version=review.version, **here)
    export_encounters(storage=storage, database=hospital.database)
    assert [row["confidence"] for row in _table(storage, 1)] == [0.4, 0.99]


def _code_under_next_release(hospital: Hospital, encounter_id: str, codes: list[str]) -> None:
    """A release of December comes late, and what was coded under the one of October is coded again, all of it surely."""
    hospital.write(
        "INSERT INTO releases (release_key, effective_from, source, content_sha256, code_count, billable_count, uri) "
        "VALUES ('FY2026-January', '2026-01-01', 'test', 'y', 6, 5, 'file:///y')"
    )
    hospital.write("INSERT INTO codes SELECT 'FY2026-January', code, is_billable, short_title, long_title, position FROM codes")
    hospital.write(
        "INSERT INTO coding_runs (coding_run_id, from_date, to_date, model_id, status, encounter_count, recode_release_key) "
        "VALUES ('recode', '2026-01-01', '2026-01-05', 'm1', 'running', 1, 'FY2026-January')"
    )
    hospital.write(
        "INSERT INTO coded_notes (encounter_id, note_sha256, model_id, release_key, coding_run_id, status) "
        "SELECT encounter_id, note_sha256, 'm1', 'FY2026-January', 'recode', 'coded' FROM discharge_summaries "
        "WHERE encounter_id = :id",
        id=encounter_id,
    )
    for rank, code in enumerate(codes, start=1):
        hospital.write(
            "INSERT INTO predictions (encounter_id, note_sha256, model_id, release_key, code, rank, confidence, decision, "
            "evidence_start, evidence_end) "
            "SELECT encounter_id, note_sha256, model_id, release_key, :code, :rank, 0.99, 'auto', 0, 13 "
            "FROM coded_notes WHERE coding_run_id = 'recode'",
            code=code, rank=rank,
        )  # fmt: skip


def test_a_finished_review_of_a_recoded_encounter_opens_anew_and_the_export_amends(hospital: Hospital, storage: Storage) -> None:
    hospital.code("E1", DOUBTFUL)
    open_reviews("night", hospital.database)
    first = _finish(hospital)
    export_encounters(storage=storage, database=hospital.database)
    _code_under_next_release(hospital, "E1", ["I10", "N390"])
    assert open_reviews("recode", hospital.database) == OpenedReviews(1, 0)
    assert export_encounters(storage=storage, database=hospital.database).encounters == 0  # nobody has looked at it yet
    here: dict[str, Any] = {"person": "Ben Coder", "database": hospital.database}
    review = claim_next(**here)
    assert review is not None
    assert (review.release_key, [code.state for code in review.codes]) == ("FY2026-January", ["accepted", "accepted"])
    finish_review(review.review_id, version=review.version, **here)
    assert open_reviews("recode", hospital.database) == OpenedReviews(0, 0)
    assert export_encounters(storage=storage, database=hospital.database) == Exported(2, 2, 1, 2)
    assert {row["code"] for row in _table(storage, 2)} == {"I10", "N39.0"}
    assert "DELETE" in {entry["request"]["method"] for entry in _bundles(storage, 2)[0]["entry"]}
    assert read_review(first, hospital.database).status == "finished"


def test_a_sure_coding_that_is_recoded_is_exported_again(hospital: Hospital, storage: Storage) -> None:
    hospital.code("E1", SURE)
    export_encounters(storage=storage, database=hospital.database)
    _code_under_next_release(hospital, "E1", ["I10"])
    assert open_reviews("recode", hospital.database) == OpenedReviews(0, 0)
    assert export_encounters(storage=storage, database=hospital.database) == Exported(2, 2, 1, 1)
    assert export_encounters(storage=storage, database=hospital.database).encounters == 0
