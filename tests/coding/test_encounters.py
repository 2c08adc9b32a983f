"""Reading encounters: JSON lines, CSV, MIMIC-IV; bad rows are named and hold up nobody."""

from __future__ import annotations

import csv
import gzip
import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from llmcoder_tasks.coding.encounters import Encounter, Rejected, detect_format, find_fault, read_encounters
from llmcoder_tasks.errors import NoteError

GOOD = {
    "encounter_id": "E1",
    "patient_id": "P1",
    "admission_date": "2026-09-01",
    "discharge_date": "2026-09-05",
    "sex": "F",
    "age_years": 71,
    "text": "DISCHARGE DIAGNOSES:\r\n1. Pneumonia\n",
    "codes": ["J18.9", "I10"],
}


def _write_rows(path: Path, *rows: Any) -> Path:
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def _reasons(path: Path) -> list[tuple[str, str]]:
    return [(row.place, row.reason) for row in read_encounters(path, "jsonl") if isinstance(row, Rejected)]


def test_a_json_line_becomes_an_encounter(tmp_path: Path) -> None:
    path = _write_rows(tmp_path / "day.jsonl", GOOD)
    assert list(read_encounters(path)) == [
        Encounter("E1", "P1", date(2026, 9, 1), date(2026, 9, 5), "F", 71, str(GOOD["text"]), ("J189", "I10"), "day.jsonl:1")
    ]


def test_csv_and_json_lines_give_the_same_encounter(tmp_path: Path) -> None:
    from_json = next(read_encounters(_write_rows(tmp_path / "a.jsonl", GOOD)))
    flat = {**GOOD, "codes": "J18.9; I10", "sex": "female"}
    from_csv = next(read_encounters(_write_csv(tmp_path / "a.csv.gz", [flat])))
    assert isinstance(from_json, Encounter)
    assert isinstance(from_csv, Encounter)
    assert from_csv.place == "a.csv.gz:1"
    assert (from_csv.text, from_csv.codes, from_csv.sex) == (from_json.text, from_json.codes, from_json.sex)


def test_a_folder_is_read_file_by_file(tmp_path: Path) -> None:
    _write_rows(tmp_path / "b.jsonl", {**GOOD, "encounter_id": "E2"})
    _write_rows(tmp_path / "a.jsonl", GOOD)
    (tmp_path / "README.txt").write_text("not data")
    assert [row.place for row in read_encounters(tmp_path)] == ["a.jsonl:1", "b.jsonl:1"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"encounter_id": " "}, "encounter_id is missing or empty"),
        ({"text": ""}, "text is missing or empty"),
        ({"text": "a\u0000b"}, "text holds a NUL character"),
        ({"discharge_date": None}, "discharge_date is missing"),
        ({"discharge_date": "05.09.2026"}, "discharge_date is not YYYY-MM-DD"),
        ({"admission_date": "2026-09-06"}, "admission_date is after discharge_date"),
        ({"codes": ["I10", "Smith"]}, "code 2 has not the form of an ICD-10-CM code"),
    ],
)
def test_a_bad_row_is_named_without_what_it_holds(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    path = _write_rows(tmp_path / "day.jsonl", {**GOOD, **change}, {**GOOD, "encounter_id": "E2"})
    assert _reasons(path) == [("day.jsonl:1", reason)]
    assert sum(isinstance(row, Encounter) for row in read_encounters(path)) == 1


def test_broken_lines_stop_no_other(tmp_path: Path) -> None:
    path = _write_rows(tmp_path / "day.jsonl", "{broken", "[1]", "", GOOD, GOOD, {**GOOD, "text": "other"})
    assert _reasons(path) == [
        ("day.jsonl:1", "not valid JSON"),
        ("day.jsonl:2", "not a JSON object"),
        ("day.jsonl:6", "the encounter stands already at day.jsonl:4"),
    ]


def test_bytes_that_are_no_utf8_spoil_only_their_row(tmp_path: Path) -> None:
    path = tmp_path / "day.jsonl"
    good = json.dumps(GOOD).encode()
    path.write_bytes(good.replace(b"Pneumonia", b"Pneum\xf3nia").replace(b'"E1"', b'"E0"') + b"\n" + good + b"\n")
    assert _reasons(path) == [("day.jsonl:1", "text is not valid UTF-8, or was read in another encoding")]


def test_a_gzip_that_was_cut_off_gives_its_whole_rows_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "day.jsonl.gz"
    rows = "".join(
        json.dumps({**GOOD, "encounter_id": f"E{number}", "patient_id": str(number**7)}) + "\n" for number in range(3000)
    )
    data = gzip.compress(rows.encode())
    path.write_bytes(data[: len(data) // 2])
    found = list(read_encounters(path))
    assert sum(isinstance(row, Encounter) for row in found) > 100
    assert isinstance(found[-1], Rejected)
    assert found[-1].reason in {"the file ends early: it is damaged or was cut off", "not valid JSON"}


def test_a_csv_row_with_too_few_fields_is_named(tmp_path: Path) -> None:
    path = tmp_path / "day.csv"
    path.write_text("encounter_id,discharge_date,text\nE1,2026-09-05\nE2,2026-09-05,Pneumonia\n")
    first, second = read_encounters(path)
    assert first == Rejected("day.csv:1", "2 fields, but the header has 3")
    assert isinstance(second, Encounter)
    assert second.codes is None


def test_mimic_tables_are_joined(tmp_path: Path) -> None:
    for name in ("hosp", "note"):
        (tmp_path / name).mkdir()
    note = {
        "note_id": "1-DS-1",
        "subject_id": "1",
        "hadm_id": "20",
        "note_type": "DS",
        "note_seq": "1",
        "charttime": "2180-05-09 00:00:00",
    }
    _write_csv(tmp_path / "note" / "discharge.csv.gz", [
        {**note, "storetime": "", "text": "Discharge Diagnosis:\nPneumonia"},
        {**note, "storetime": "", "hadm_id": "21", "text": "no other table knows this stay"},
        {**note, "storetime": "", "hadm_id": "20", "note_type": "AR", "text": "an addendum"},
    ])  # fmt: skip
    _write_csv(tmp_path / "hosp" / "diagnoses_icd.csv.gz", [
        {"subject_id": "1", "hadm_id": "20", "seq_num": "2", "icd_code": "I10", "icd_version": "10"},
        {"subject_id": "1", "hadm_id": "20", "seq_num": "1", "icd_code": "J189", "icd_version": "10"},
        {"subject_id": "1", "hadm_id": "20", "seq_num": "3", "icd_code": "4019", "icd_version": "9"},
    ])  # fmt: skip
    _write_csv(tmp_path / "hosp" / "patients.csv", [{"subject_id": "1", "gender": "M", "anchor_age": "52", "anchor_year": "2178"}])
    _write_csv(tmp_path / "hosp" / "admissions.csv", [
        {"subject_id": "1", "hadm_id": "20", "admittime": "2180-05-06 22:23:00", "dischtime": "2180-05-07 17:15:00"},
    ])  # fmt: skip
    assert detect_format(tmp_path) == "mimic-iv"
    first, second = read_encounters(tmp_path)
    assert first == Encounter(
        "20",
        "1",
        date(2180, 5, 6),
        date(2180, 5, 7),
        "M",
        54,
        "Discharge Diagnosis:\nPneumonia",
        ("J189", "I10"),
        "discharge.csv.gz:1",
    )
    assert isinstance(second, Encounter)
    assert (second.discharge_date, second.age_years, second.codes) == (date(2180, 5, 9), 54, ())


@pytest.mark.parametrize("content", [None, "", "a,b\n1,2\n", "\x00\x01"])
def test_a_source_without_encounters_is_refused_with_the_cure(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "day.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(NoteError, match="day.csv"):
        list(read_encounters(path))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"sex": "Smith"}, (None, 71)),
        ({"sex": "U", "age_years": 131}, (None, None)),
        ({"sex": " male ", "age_years": "old"}, ("M", None)),
        ({"age_years": -1}, ("F", None)),
    ],
)
def test_a_sex_or_age_that_is_none_is_unknown(tmp_path: Path, change: dict[str, Any], expected: tuple[Any, Any]) -> None:
    row = next(read_encounters(_write_rows(tmp_path / "day.jsonl", {**GOOD, **change})))
    assert isinstance(row, Encounter)
    assert (row.sex, row.age_years) == expected


@pytest.mark.parametrize("note", ["BP <120/80, plt < 50", "Patient <b>bold</b> once", "Naïve café résumé", "a\tb\x0cnew page\r\n"])
def test_a_plain_note_has_no_fault(note: str) -> None:
    assert find_fault(note) is None
