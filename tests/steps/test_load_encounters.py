"""Loading encounters into a real PostgreSQL: versions, gold codes, and rows that are left out."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from llmcoder_tasks.database import Database
from llmcoder_tasks.errors import NoteError
from llmcoder_tasks.settings import SAMPLES_FOLDER
from llmcoder_tasks.steps.load_encounters import LoadedEncounters, load_encounters

pytestmark = pytest.mark.integration

SECRET = "Zebediah Quux"
ON = date(2026, 10, 1)


def _row(number: int = 1, **changes: Any) -> dict[str, Any]:
    return {
        "encounter_id": f"E{number}",
        "discharge_date": "2026-09-05",
        "text": f'"Line one",\r\n\\N 🫀 of {number}\n',
        "codes": ["J18.9", "I10"],
    } | changes


def _load(folder: Path, database: Database, *rows: Any) -> LoadedEncounters:
    path = folder / "day.jsonl"
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return load_encounters(path, source_format="auto", on=ON, database=database)


def _query(database: Database, statement: str) -> list[tuple[Any, ...]]:
    with database.engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(statement))]


def test_text_and_codes_arrive_exactly(tmp_path: Path, database: Database) -> None:
    assert _load(tmp_path, database, _row()) == LoadedEncounters(1, 1, 0, [])
    note = _row()["text"]
    assert _query(database, "SELECT note_text, note_sha256, version FROM discharge_summaries") == [
        (note, hashlib.sha256(note.encode()).hexdigest(), 1)
    ]
    assert _query(database, "SELECT code, rank FROM gold_codes ORDER BY rank") == [("J189", 1), ("I10", 2)]


def test_loading_twice_changes_nothing_and_says_so(tmp_path: Path, database: Database, caplog: pytest.LogCaptureFixture) -> None:
    everything = "SELECT * FROM encounters NATURAL JOIN discharge_summaries NATURAL JOIN gold_codes ORDER BY 1, 2, 3"
    _load(tmp_path, database, *(_row(number) for number in range(3)))
    before = _query(database, everything)
    with caplog.at_level(logging.INFO):
        assert _load(tmp_path, database, *(_row(number) for number in range(3))) == LoadedEncounters(3, 0, 3, [])
    assert _query(database, everything) == before
    assert "nothing new in 3 encounters" in caplog.text


def test_an_amended_text_becomes_the_next_version_and_an_old_one_can_come_back(tmp_path: Path, database: Database) -> None:
    for note in ("first", "second", "first"):
        assert _load(tmp_path, database, _row(text=note)).notes_new == 1
    versions = _query(database, "SELECT note_text, version FROM discharge_summaries ORDER BY version")
    assert versions == [("second", 2), ("first", 3)]


def test_codes_that_were_withdrawn_go_and_silence_about_codes_keeps_them(tmp_path: Path, database: Database) -> None:
    _load(tmp_path, database, _row())
    _load(tmp_path, database, _row(codes=["I10"]))
    _load(tmp_path, database, _row(codes=None))
    assert _query(database, "SELECT code, rank FROM gold_codes") == [("I10", 1)]


def test_a_bad_row_is_left_out_with_its_place_and_nothing_of_its_text(
    tmp_path: Path, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    bad = _row(2, text=SECRET, discharge_date=SECRET)
    with caplog.at_level(logging.DEBUG):
        loaded = _load(tmp_path, database, _row(1), bad, "{" + SECRET, _row(3))
    assert (loaded.encounters, loaded.notes_new) == (2, 2)
    assert loaded.rejected == [("day.jsonl:2", "discharge_date is not YYYY-MM-DD"), ("day.jsonl:3", "not valid JSON")]
    assert SECRET not in caplog.text
    assert "left out day.jsonl:2" in caplog.text
    assert _quarantine(database) == [("day.jsonl:2", "E2", "bad_date"), ("day.jsonl:3", None, "unreadable_row")]


def test_a_row_that_only_postgresql_refuses_is_left_out_and_the_rest_loads(tmp_path: Path, database: Database) -> None:
    too_long_for_an_index = "".join(hashlib.sha256(bytes([number])).hexdigest() for number in range(200))
    loaded = _load(tmp_path, database, _row(1), _row(2, encounter_id=too_long_for_an_index), _row(3))
    assert (loaded.encounters, len(loaded.rejected)) == (2, 1)
    place, reason = loaded.rejected[0]
    assert place == "day.jsonl:2"
    assert "index row" in reason


def test_a_missing_source_is_refused(tmp_path: Path, database: Database) -> None:
    with pytest.raises(NoteError, match="does not exist"):
        load_encounters(tmp_path / "nowhere", source_format="auto", on=ON, database=database)


def test_the_sample_summaries_load_whole(database: Database) -> None:
    loaded = load_encounters(SAMPLES_FOLDER / "encounters.jsonl", source_format="jsonl", on=ON, database=database)
    assert loaded.encounters == loaded.notes_new >= 24
    assert loaded.rejected == []


def _quarantine(database: Database) -> list[tuple[Any, ...]]:
    return _query(database, "SELECT place, encounter_id, reason FROM quarantined_notes ORDER BY place")


def test_every_kind_of_bad_row_is_in_quarantine_under_its_reason_and_the_rest_loads(tmp_path: Path, database: Database) -> None:
    bad = {
        "empty_note": {"text": "  "},
        "note_too_long": {"text": "pneumonia " * 524_288},
        "binary": {"text": "a\u0000b"},
        "rtf": {"text": "{\\rtf1 Pneumonia}"},
        "html": {"text": "<html><p>Pneumonia</p></html>"},
        "wrong_encoding": {"text": "cafÃ© naÃ¯ve rÃ©sumÃ©"},
        "no_discharge_date": {"discharge_date": ""},
        "bad_date": {"discharge_date": "05.09.2026"},
        "discharge_in_future": {"discharge_date": "2026-10-02"},
        "bad_field": {"codes": ["no code"]},
    }
    rows = [_row(100 + number, **change) for number, change in enumerate(bad.values())]
    good = [_row(number) for number in range(300)][:100] + [_row(number, sex="?", age_years="old") for number in range(200, 400)]
    loaded = _load(tmp_path, database, *rows, *good, _row(1, text="another text of the same stay"), _row(2))
    assert (loaded.encounters, loaded.reasons) == (300, dict.fromkeys([*bad, "duplicate_encounter"], 1))
    assert sorted(row[2] for row in _quarantine(database)) == sorted([*bad, "duplicate_encounter"])
    assert _query(database, "SELECT count(*) FROM encounters WHERE sex IS NULL AND age_years IS NULL") == [(300,)]


def test_a_bad_file_that_arrives_twice_is_in_quarantine_once(tmp_path: Path, database: Database) -> None:
    for _ in range(2):
        _load(tmp_path, database, _row(1), _row(2, text=""))
    assert _quarantine(database) == [("day.jsonl:2", "E2", "empty_note")]


def test_a_source_with_too_many_bad_rows_fails_with_counts_after_the_good_ones_are_stored(
    tmp_path: Path, database: Database
) -> None:
    bad = [_row(number, text="") for number in range(5, 9)] + [_row(9, discharge_date=None)]
    with pytest.raises(NoteError, match=r"day.jsonl: 5 of 9 notes .* \(empty_note 4, no_discharge_date 1\)"):
        _load(tmp_path, database, *(_row(number) for number in range(4)), *bad)
    assert _query(database, "SELECT count(*) FROM discharge_summaries") == [(4,)]


def _load_folder(folder: Path, database: Database) -> LoadedEncounters:
    return load_encounters(folder, source_format="auto", on=ON, database=database)


def test_an_inbox_takes_an_amendment_in_a_later_file_and_does_not_flip_back(tmp_path: Path, database: Database) -> None:
    for name, note in (("day1", "first"), ("day2", "second")):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(_row(text=note)) + "\n")
    assert _load_folder(tmp_path, database).notes_new == 2
    again = _load_folder(tmp_path, database)
    assert (again.encounters, again.files_known) == (0, 2)
    versions = _query(database, "SELECT note_text, version FROM discharge_summaries ORDER BY version")
    assert versions == [("first", 1), ("second", 2)]


def test_a_file_that_comes_again_under_another_name_changes_nothing(tmp_path: Path, database: Database) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(_row()) + "\n")
    _load_folder(tmp_path, database)
    shutil.copy(tmp_path / "a.jsonl", tmp_path / "b.jsonl")
    assert _load_folder(tmp_path, database).files_known == 2


def test_an_inbox_takes_json_lines_and_csv_and_names_files_that_are_neither(tmp_path: Path, database: Database) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(_row(1)) + "\n")
    (tmp_path / "b.csv").write_text("encounter_id,discharge_date,text\nE2,2026-09-05,Pneumonia\n")
    (tmp_path / "c.rtf").write_text("{\\rtf1 Pneumonia}")
    (tmp_path / "d.csv").write_text("name;value\n1;2\n")
    loaded = _load_folder(tmp_path, database)
    assert loaded.encounters == 2
    assert _quarantine(database) == [("c.rtf", None, "rtf"), ("d.csv", None, "unknown_file")]
