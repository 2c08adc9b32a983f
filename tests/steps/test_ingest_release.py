"""Ingest against a real PostgreSQL: what it loads, what it leaves alone, what it refuses."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from release_files import CHOLERA, CHOLERA_TABULAR, Row, codes_file, order_addenda, order_file, write_folder
from sqlalchemy import text

from llmcoder_tasks.database import Database
from llmcoder_tasks.errors import ExpectationsFailed, ReleaseConflict, ReleaseError, StorageError
from llmcoder_tasks.icd10cm.code_set import Code, CodeTerm, default_code_set, find_release, read_code_set
from llmcoder_tasks.records import ReleaseRef
from llmcoder_tasks.steps.ingest_release import ingest_release
from llmcoder_tasks.storage import FolderStorage, open_storage

pytestmark = pytest.mark.integration

Ingest = Callable[..., ReleaseRef]

TABLES = ("releases", "release_files", "codes", "code_terms", "seventh_characters", "code_changes", "code_conversions")


@pytest.fixture
def storage(tmp_path: Path) -> FolderStorage:
    return FolderStorage(tmp_path / "artifacts")


@pytest.fixture
def ingest(tmp_path: Path, database: Database, storage: FolderStorage) -> Ingest:
    """Ingest a release of these files under this key."""

    def run(key: str | None, files: Mapping[str, bytes], *, replace: bool = False, **options: Any) -> ReleaseRef:
        run.count += 1  # type: ignore[attr-defined]
        folder = write_folder(tmp_path / f"source_{run.count}", files)  # type: ignore[attr-defined]
        stores = {"storage": storage, "database": database, **options}
        return ingest_release(str(folder), release_key=key, replace=replace, docs_folder=tmp_path / "docs", **stores)

    run.count = 0  # type: ignore[attr-defined]
    return run


def _dump(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every release table; equal dumps mean that nothing changed, times of ingest included."""
    with database.engine.connect() as connection:
        return {
            table: [tuple(row) for row in connection.execute(text(f"SELECT * FROM {table} ORDER BY 1, 2, 3"))] for table in TABLES
        }


def _changes(database: Database, key: str) -> dict[str, str]:
    return {row["code"]: row["kind"] for row in database.fetch_all("list_code_changes", release_key=key)}


def _without(*codes: str) -> tuple[Row, ...]:
    return tuple(row for row in CHOLERA if row[0] not in codes)


NEXT: tuple[Row, ...] = (
    *CHOLERA[:2],
    ("A001", "0", "Cholera due to eltor"),
    ("A0010", "1", "Cholera due to eltor, mild"),
    *CHOLERA[4:7],
    ("QA0", "0", "Neurodevelopmental disorder"),
    ("QA00", "1", "Neurodevelopmental disorder, gene"),
)
"""After CHOLERA: A001 became a header, A0010 is new, A009 is gone, QA00 lost a blank."""


def test_a_release_is_loaded_with_codes_terms_files_and_copies(ingest: Ingest, database: Database, storage: FolderStorage) -> None:
    files = {"order.txt": order_file(CHOLERA), "tabular.xml": CHOLERA_TABULAR, "notes.txt": b"Read me, please.\n"}
    release = ingest("FY2027", files)
    assert release == ReleaseRef("FY2027", storage.uri_of("releases/FY2027"))
    code_set = read_code_set(database, "FY2027")
    assert code_set.effective_from == date(2026, 10, 1)
    assert code_set.codes == tuple(Code(code, flag == "1", title, title) for code, flag, title in CHOLERA)
    assert CodeTerm("A000", "inclusion_term", "Classical cholera") in code_set.terms
    assert [(row["file_name"], row["kind"]) for row in database.fetch_all("list_release_files", release_key="FY2027")] == [
        ("notes.txt", "other"),
        ("order.txt", "order"),
        ("tabular.xml", "tabular"),
    ]
    manifest = json.loads(storage.read_bytes("releases/FY2027/release.json"))
    assert {storage.read_bytes(original["key"]) for original in manifest["originals"]} == set(files.values())
    assert manifest["billable_count"] == len(code_set.billable) == 6
    assert database.fetch_all("list_step_runs")[0]["subject"] == "FY2027"


def test_a_second_run_of_the_same_content_changes_nothing_and_says_so(
    ingest: Ingest, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    first = ingest("FY2027", {"order.txt": order_file(CHOLERA)})
    before = _dump(database)
    with caplog.at_level("INFO"):
        assert ingest("FY2027", {"renamed.txt": order_file(CHOLERA, eol="\n")}) == first
    assert _dump(database) == before
    assert "FY2027 is loaded already with the same content: nothing to do" in caplog.text


def test_changes_against_the_release_before_are_computed(ingest: Ingest, database: Database) -> None:
    ingest("FY2026", {"order.txt": order_file(CHOLERA)})
    ingest("FY2027", {"order.txt": order_file(NEXT)})
    assert _changes(database, "FY2026") == {}
    assert _changes(database, "FY2027") == {"A001": "became_header", "A0010": "added", "A009": "deleted", "QA00": "revised"}


def test_an_older_release_takes_its_place_in_the_chain(ingest: Ingest, database: Database) -> None:
    ingest("FY2025", {"order.txt": order_file(_without("C44"))})
    ingest("FY2027", {"order.txt": order_file(NEXT)})
    assert _changes(database, "FY2027").pop("C44") == "added"
    ingest("FY2026", {"order.txt": order_file(CHOLERA)})
    assert _changes(database, "FY2026") == {"C44": "added"}
    assert _changes(database, "FY2027") == {"A001": "became_header", "A0010": "added", "A009": "deleted", "QA00": "revised"}
    assert [row["previous_release_key"] for row in database.fetch_all("list_releases")] == [None, "FY2025", "FY2026"]


def test_the_release_of_a_date_is_the_last_that_took_effect(ingest: Ingest, database: Database) -> None:
    ingest("FY2026", {"order.txt": order_file(CHOLERA)})
    later = ingest("FY2026-April", {"order.txt": order_file(CHOLERA)})
    assert find_release(database, date(2025, 9, 30)) is None
    found = [find_release(database, day) for day in (date(2025, 10, 1), date(2026, 3, 31), date(2026, 4, 1), date(2030, 1, 1))]
    assert [release.key if release else None for release in found] == ["FY2026", "FY2026", "FY2026-April", "FY2026-April"]
    assert found[-1] == later


def test_other_content_is_a_conflict_unless_it_is_to_be_replaced(
    ingest: Ingest, database: Database, storage: FolderStorage
) -> None:
    ingest("FY2026", {"order.txt": order_file(CHOLERA)})
    ingest("FY2027", {"order.txt": order_file(CHOLERA)})
    before = _dump(database)
    with pytest.raises(ReleaseConflict, match="FY2026 is loaded already with other content"):
        ingest("FY2026", {"order.txt": order_file(_without("C44"))})
    assert _dump(database) == before
    ingest("FY2026", {"order.txt": order_file(_without("C44"))}, replace=True)
    assert "C44" not in read_code_set(database, "FY2026").titles
    assert _changes(database, "FY2027") == {"C44": "added"}
    assert json.loads(storage.read_bytes("releases/FY2026/release.json"))["billable_count"] == 5


def test_a_release_that_datasets_stand_on_may_gain_terms_and_keeps_its_key(ingest: Ingest, database: Database) -> None:
    ingest("FY2027", {"order.txt": order_file(CHOLERA)})
    with database.transaction() as transaction:
        transaction.run_script("INSERT INTO datasets VALUES ('d1', 'FY2027', 'file:///d1', '{}')")
    short = order_file(CHOLERA, short_titles={"C44": "Oth mal neo skin"})
    assert ingest("FY2027", {"order.txt": short, "tabular.xml": CHOLERA_TABULAR}, replace=True).key == "FY2027"
    code_set = read_code_set(database, "FY2027")
    assert len(code_set.terms) == 3
    assert [code.short_title for code in code_set.codes if code.code == "C44"] == ["Oth mal neo skin"]


def test_addenda_are_compared_with_the_computed_changes(
    ingest: Ingest, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    ingest("FY2026", {"order.txt": order_file(CHOLERA)})
    changes = [
        ("Add", "1", "A0010", "Cholera due to eltor, mild"),
        ("Delete", "1", "A001", "Cholera due to Vibrio cholerae 01, biovar eltor"),
        ("Delete", "1", "A009", "Cholera, unspecified"),
    ]
    before = _dump(database)
    with pytest.raises(ReleaseError, match=r"addenda.txt: 1 codes are deleted either by these addenda .* \(A009\)"):
        ingest("FY2027", {"order.txt": order_file(NEXT), "addenda.txt": order_addenda(changes[:2], before=6, after=5)})
    assert _dump(database) == before
    with caplog.at_level("INFO"):
        ingest("FY2027", {"order.txt": order_file(NEXT), "addenda.txt": order_addenda(changes, before=6, after=5)})
    assert "agrees with the computed changes but for titles that changed in spacing only (QA00)" in caplog.text


def test_addenda_to_a_release_that_is_not_loaded_are_not_compared(ingest: Ingest, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        ingest("FY2027", {"order.txt": order_file(CHOLERA), "addenda.txt": order_addenda([], before=99, after=6)})
    assert "addenda.txt: the release it starts from is not loaded" in caplog.text


def _line(data: bytes, number: int, line: bytes) -> bytes:
    lines = data.split(b"\r\n")
    lines[number - 1] = line
    return b"\r\n".join(lines)


@pytest.mark.parametrize(
    ("files", "error", "message"),
    [
        ({"order.txt": order_file(CHOLERA)[:-40]}, ReleaseError, "order.txt:9: the last line has no end"),
        ({"order.txt": b"<!DOCTYPE html><p>Not found</p>"}, ReleaseError, "order.txt: this is an HTML page"),
        ({"icd10cm_order_2025.txt": order_file(CHOLERA)}, ReleaseError, "wrong year"),
        (
            {"order.txt": _line(order_file(CHOLERA), 4, b"00004 A001    1 " + b"x".ljust(60) + b" x")},
            ReleaseError,
            "order.txt:4: the code A001 stands already in line 3",
        ),
        (
            {
                "order.txt": order_file(((*CHOLERA[1][:2], CHOLERA[2][2]), *CHOLERA[2:4])).replace(
                    b" Cholera, unspec", b" Cholera, Unspec"
                )
            },
            ExpectationsFailed,
            "unique titles of billable codes",
        ),
    ],
)
def test_bad_input_leaves_the_database_and_the_store_as_before(
    ingest: Ingest, database: Database, storage: FolderStorage, *, files: Mapping[str, bytes], error: type[Exception], message: str
) -> None:
    ingest("FY2026", {"order.txt": order_file(CHOLERA)})
    before, keys = _dump(database), storage.list_keys("releases")
    with pytest.raises(error, match=message):
        ingest("FY2027", files)
    assert _dump(database) == before
    assert storage.list_keys("releases") == keys


class _FullStorage(FolderStorage):
    """A folder whose disk is full once `room` files are written."""

    room = 0

    def write_bytes(self, key: str, data: bytes) -> None:
        if self.room == 0:
            raise StorageError(f"no space left for {key}")
        self.room -= 1
        super().write_bytes(key, data)


def test_a_full_store_leaves_the_database_as_before(ingest: Ingest, database: Database, tmp_path: Path) -> None:
    before = _dump(database)
    with pytest.raises(StorageError, match="no space left"):
        ingest("FY2027", {"order.txt": order_file(CHOLERA)}, storage=_FullStorage(tmp_path / "full"))
    assert _dump(database) == before


def test_a_run_that_ended_before_its_manifest_is_mended_by_the_next(ingest: Ingest, tmp_path: Path) -> None:
    store = _FullStorage(tmp_path / "full")
    store.room = 1
    with pytest.raises(StorageError, match="release.json"):
        ingest("FY2027", {"order.txt": order_file(CHOLERA)}, storage=store)
    store.room = 9
    ingest("FY2027", {"order.txt": order_file(CHOLERA)}, storage=store)
    assert store.exists("releases/FY2027/release.json")


def test_codes_files_alone_still_tell_headers_from_deletions(ingest: Ingest, database: Database) -> None:
    ingest("FY2026", {"codes.txt": codes_file(CHOLERA)})
    ingest("FY2027", {"codes.txt": codes_file(NEXT)})
    assert _changes(database, "FY2027") == {"A001": "became_header", "A0010": "added", "A009": "deleted", "QA00": "revised"}


def test_a_release_goes_from_s3_to_s3(database: Database, s3_endpoint: str, tmp_path: Path) -> None:
    landing = open_storage("s3://artifacts/incoming", endpoint_url=s3_endpoint)
    landing.write_bytes("FY2027/order.txt", order_file(CHOLERA))
    store = open_storage("s3://artifacts/kept", endpoint_url=s3_endpoint)
    release = ingest_release(
        "s3://artifacts/incoming/FY2027",
        release_key=None,
        replace=False,
        storage=store,
        database=database,
        docs_folder=tmp_path,
        s3_endpoint_url=s3_endpoint,
    )
    assert release == ReleaseRef("FY2027", "s3://artifacts/kept/releases/FY2027")
    assert json.loads(store.read_bytes("releases/FY2027/release.json"))["source"] == "s3://artifacts/incoming/FY2027"


def test_the_embedded_release_is_loaded_whole(database: Database, storage: FolderStorage, tmp_path: Path) -> None:
    release = ingest_release(None, release_key=None, replace=False, storage=storage, database=database, docs_folder=tmp_path)
    assert release.key == "FY2026-April"
    code_set = read_code_set(database, release.key)
    assert code_set.codes == default_code_set().codes
    assert sorted(code_set.terms) == sorted(default_code_set().terms)


# The table of changes that was computed from the official files when they were collected: added, deleted (with those that became
# headers), became headers, revised.
OFFICIAL_CHANGES = {
    "FY2022": (159, 32, 14, 22),
    "FY2022-April": (3, 1, 1, 0),
    "FY2023": (1176, 287, 36, 28),
    "FY2023-April": (42, 7, 7, 1),
    "FY2024": (395, 25, 25, 23),
    "FY2024-April": (0, 0, 0, 0),
    "FY2025": (252, 36, 33, 13),
    "FY2025-April": (0, 0, 0, 0),
    "FY2026": (487, 28, 16, 38),
    "FY2026-April": (0, 0, 0, 0),
    "FY2027": (190, 30, 15, 4),
}
OFFICIAL_COUNTS = {
    "FY2021-January": (72_621, 22_737),
    "FY2022": (72_748, 22_776),
    "FY2022-April": (72_750, 22_778),
    "FY2023": (73_639, 23_106),
    "FY2023-April": (73_674, 23_121),
    "FY2024": (74_044, 23_252),
    "FY2024-April": (74_044, 23_252),
    "FY2025": (74_260, 23_324),
    "FY2025-April": (74_260, 23_324),
    "FY2026": (74_719, 23_467),
    "FY2026-April": (74_719, 23_467),
    "FY2027": (74_879, 23_524),
}


# Two releases are loaded with all their files; from the others, those that repeat codes are left out to save half a minute.
WHOLE = {"FY2022-April", "FY2026-April"}
PARALLEL_FILE = re.compile(r"codes|tabular|drug|neoplasm|eindex")


def test_every_official_transition_is_reproduced(
    database: Database, storage: FolderStorage, official_releases: Path, tmp_path: Path
) -> None:
    for key, (billable, headers) in OFFICIAL_COUNTS.items():
        paths = (official_releases / key).iterdir()
        files = {path.name: path.read_bytes() for path in paths if key in WHOLE or not PARALLEL_FILE.search(path.name)}
        source = str(write_folder(tmp_path / "official" / key, files))
        ingest_release(source, release_key=None, replace=False, storage=storage, database=database, docs_folder=tmp_path)
        row = database.fetch_one("fetch_release", release_key=key)
        assert row is not None
        assert (row["billable_count"], row["code_count"] - row["billable_count"]) == (billable, headers), key
    for key, expected in OFFICIAL_CHANGES.items():
        counts = {row["kind"]: row["count"] for row in database.fetch_all("count_code_changes", release_key=key)}
        added, deleted, became_header, revised = (counts.get(kind, 0) for kind in ("added", "deleted", "became_header", "revised"))
        assert (added, deleted + became_header, became_header, revised) == expected, key
    for key in ("FY2024", "FY2025", "FY2026"):  # a conversion table is cumulative: its newest codes are those the release added
        year = int(key[2:]) - 1
        with database.engine.connect() as connection:
            query = text("SELECT DISTINCT code FROM code_conversions WHERE release_key = :key AND effective_from = :day")
            converted = set(connection.execute(query, {"key": key, "day": date(year, 10, 1)}).scalars())
        assert converted == {code for code, kind in _changes(database, key).items() if kind == "added"}
