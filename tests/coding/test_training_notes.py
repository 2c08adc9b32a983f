"""Coded notes as training examples: MIMIC-IV's tables as they are laid out, and plain JSON lines; patients decide the split."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from llmcoder_tasks.coding.training_notes import hash_source, read_training_notes
from llmcoder_tasks.dataset.splits import split_of_patient
from llmcoder_tasks.errors import NoteError

CODES = frozenset({"I10", "E119", "M109", "N179"})
PATIENTS = {
    split: [str(number) for number in range(10000000, 10000060) if split_of_patient(str(number)) == split]
    for split in ("train", "test")
}
LEARNT, HELD_OUT = PATIENTS["train"][0], PATIENTS["test"][0]


def _write_table(folder: Path, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def mimic(tmp_path: Path) -> Path:
    """Two patients with two stays each: one is learnt from, one is held out."""
    notes = [
        {
            "note_id": f"{patient}-DS-{stay}", "subject_id": patient, "hadm_id": f"{patient}{stay}", "note_type": "DS",
            "note_seq": stay, "charttime": "2180-05-07 00:00:00", "storetime": "2180-05-09 15:26:00",
            "text": f"Discharge Diagnosis:\nstay {stay}, hypertension",
        }
        for patient in (LEARNT, HELD_OUT)
        for stay in (1, 2)
    ]  # fmt: skip
    diagnoses = [
        (LEARNT, 1, 2, "I10", 10), (LEARNT, 1, 1, "N179", 10), (LEARNT, 1, 3, "4019", 9), (LEARNT, 1, 4, "Z9999", 10),
        (LEARNT, 2, 1, "4019", 9), (HELD_OUT, 1, 1, "I10", 10), (HELD_OUT, 2, 1, "I10", 10), (LEARNT, 1, 5, "M109", 10),
    ]  # fmt: skip
    _write_table(tmp_path / "note", "discharge", notes)
    _write_table(
        tmp_path / "hosp",
        "diagnoses_icd",
        [
            {"subject_id": patient, "hadm_id": f"{patient}{stay}", "seq_num": place, "icd_code": code, "icd_version": version}
            for patient, stay, place, code, version in diagnoses
        ],
    )
    names = [("I10", 10), ("N179", 10), ("4019", 9), ("Z9999", 10), ("M109", 9)]
    _write_table(
        tmp_path / "hosp",
        "d_icd_diagnoses",
        [{"icd_code": code, "icd_version": version, "long_title": "x"} for code, version in names],
    )
    return tmp_path


def test_a_stay_of_mimic_is_its_text_with_its_icd_10_codes_by_seq_num(mimic: Path) -> None:
    """ICD-9 rows, codes of another release and codes that the table of names gives to ICD-9 alone are no codes of a note."""
    notes = read_training_notes(mimic, known_codes=CODES, max_words=100)
    (example,) = notes.examples
    assert example.codes == ("N179", "I10")
    assert example.text == "Discharge Diagnosis:\nstay 1, hypertension"
    assert (example.scenario, example.split) == ("notes", "train")
    assert notes.left_out == {"without a code of the release": 1, "held out with their patients": 2}


def test_all_notes_of_a_patient_stand_in_one_split_and_the_shares_are_as_said() -> None:
    splits = [split_of_patient(str(number)) for number in range(5000)]
    assert splits.count("train") == pytest.approx(4000, abs=100)
    assert splits.count("test") == pytest.approx(500, abs=75)
    assert splits == [split_of_patient(str(number)) for number in range(5000)]


def test_long_notes_are_left_out_whole_and_nothing_of_a_note_is_in_an_error(mimic: Path) -> None:
    with pytest.raises(NoteError, match="none of its 4 notes can be learnt from .*1 of more than 3 words") as caught:
        read_training_notes(mimic, known_codes=CODES, max_words=3)
    assert "hypertension" not in str(caught.value)


def test_plain_rows_of_coded_notes_are_read_and_a_bad_one_stops_no_other(tmp_path: Path) -> None:
    rows: list[Any] = [
        {"id": "a", "text": "gout", "codes": ["M10.9", "I10", "M10.9"], "patient_id": LEARNT},
        {"id": "b", "text": "gout", "codes": ["M10.9"], "patient_id": HELD_OUT},
        {"id": "c", "text": "", "codes": ["M10.9"], "patient_id": LEARNT},
        {"id": "d", "codes": ["M10.9"], "patient_id": LEARNT},
        ["no row"],
    ]
    path = tmp_path / "notes.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    notes = read_training_notes(path, known_codes=CODES, max_words=10)
    assert [(example.example_id, example.codes) for example in notes.examples] == [("notes/a", ("M109", "I10"))]
    assert notes.left_out == {"held out with their patients": 1, "empty_note": 1, "unreadable_row": 2}


def test_rows_as_the_inbox_takes_them_are_read_too(tmp_path: Path) -> None:
    row = {"encounter_id": "e1", "discharge_date": "2026-01-02", "text": "gout", "codes": ["M10.9"], "patient_id": LEARNT}
    path = tmp_path / "notes.jsonl"
    path.write_text(json.dumps(row) + "\n")
    assert read_training_notes(path, known_codes=CODES, max_words=10).examples[0].codes == ("M109",)


def test_other_codes_of_the_same_notes_are_another_source(mimic: Path) -> None:
    before = hash_source(mimic)
    assert hash_source(mimic) == before
    with (mimic / "hosp" / "diagnoses_icd.csv").open("a") as stream:
        stream.write(f"{LEARNT},{LEARNT}2,2,I10,10\n")
    assert hash_source(mimic) != before
