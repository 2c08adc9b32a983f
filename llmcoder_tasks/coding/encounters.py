"""Encounters with their discharge summaries, read from the files that hospitals and data sets give.

Three forms: JSON lines, CSV with a header, and the tables of MIMIC-IV (`discharge`, and where present `diagnoses_icd`, `patients`,
`admissions`), each plain or gzipped, a file or a folder of files. Which one it is shows in the content. A row that cannot be used
becomes a `Rejected` with its place and a reason, never with what it holds: that is a patient's text.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal, TextIO

from llmcoder_tasks.errors import NoteError
from llmcoder_tasks.records import parse_code

SourceFormat = Literal["jsonl", "csv", "mimic-iv", "auto"]

_CODE = re.compile(r"(?=[A-Z]*\d)[A-Z][0-9A-Z]{2,6}")
_CODE_SEPARATOR = re.compile(r"[;,|\s]+")
_SEXES = {"f": "F", "female": "F", "m": "M", "male": "M", "": None, "u": None, "unknown": None, "o": None, "other": None}
_REQUIRED = frozenset({"encounter_id", "discharge_date", "text"})
_MIMIC_NOTES = frozenset({"note_id", "subject_id", "hadm_id", "text"})
_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".txt")


@dataclass(frozen=True, slots=True)
class Encounter:
    """One stay with the current text of its discharge summary.

    `codes` are those that human coders gave, without the dot; None when the source says nothing about codes. `place` is
    where the row stands, as `file:row`.
    """

    encounter_id: str
    patient_id: str | None
    admission_date: date | None
    discharge_date: date
    sex: str | None
    age_years: int | None
    text: str
    codes: tuple[str, ...] | None
    place: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that cannot be used: where it stands, and why. Holds nothing of the row."""

    place: str
    reason: str


class _BadRow(ValueError):
    """A reason, without any value of the row."""


def read_encounters(source: Path, source_format: SourceFormat = "auto") -> Iterator[Encounter | Rejected]:
    """All rows of a file or folder, in order of file name and row.

    Raises NoteError when the source does not exist, holds no file in a known form, or not the form asked for.
    """
    chosen = detect_format(source) if source_format == "auto" else source_format
    if chosen == "mimic-iv":
        rows: Iterator[Encounter | Rejected] = _read_mimic(source)
    else:
        rows = _read_plain(source, chosen)
    return _reject_repeated(rows)


def detect_format(source: Path) -> SourceFormat:
    """The form of a source by the first line of its files. Raises NoteError when it has none that we know."""
    for path in _list_files(source):
        form = _detect_file(path)
        if form is not None:
            return form
    raise NoteError(
        f"{source} holds no encounters: expected JSON lines or CSV with {', '.join(sorted(_REQUIRED))}, "
        "or the MIMIC-IV table discharge.csv"
    )


def _detect_file(path: Path) -> SourceFormat | None:
    with _open_text(path) as stream:
        try:
            first = stream.readline(1 << 16)
        except (OSError, EOFError, zlib.error):
            return None
    if first.lstrip("\ufeff \t").startswith("{"):
        return "jsonl"
    columns = _header_of(first)
    if columns >= _MIMIC_NOTES:
        return "mimic-iv"
    return "csv" if columns >= _REQUIRED else None


def _header_of(line: str) -> frozenset[str]:
    return frozenset(name.strip().lower() for name in next(csv.reader([line.lstrip("\ufeff")]), []))


def _list_files(source: Path) -> list[Path]:
    """The data files of a source, sorted. Raises NoteError when there is none."""
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise NoteError(f"{source} does not exist: name a file or a folder with encounters")
    return sorted(
        path for path in source.rglob("*") if path.is_file() and path.name.lower().removesuffix(".gz").endswith(_SUFFIXES)
    )


def _open_text(path: Path) -> TextIO:
    """A text stream that keeps bytes which are no UTF-8 as lone surrogates, so that they spoil only their own row."""
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8", errors="surrogateescape", newline="")
    return path.open(encoding="utf-8", errors="surrogateescape", newline="")


def _read_plain(source: Path, form: SourceFormat) -> Iterator[Encounter | Rejected]:
    paths = [path for path in _list_files(source) if source.is_file() or _detect_file(path) == form]
    if not paths:
        raise NoteError(f"{source} holds no {form} file with {', '.join(sorted(_REQUIRED))}")
    for path in paths:
        for place, row in _rows_of(path, form):
            yield _convert(place, row)


def _rows_of(path: Path, form: SourceFormat) -> Iterator[tuple[str, Mapping[str, Any] | str]]:
    """(place, row) of a file; instead of a row that cannot be read, the reason."""
    read = _read_json_lines if form == "jsonl" else _read_csv_rows
    number = 0
    with _open_text(path) as stream:
        try:
            for number, row in read(stream):
                yield f"{path.name}:{number}", row
        except (OSError, EOFError, zlib.error):
            yield f"{path.name}:{number + 1}", "the file ends early: it is damaged or was cut off"


def _read_json_lines(stream: Iterable[str]) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    for number, line in enumerate(stream, start=1):
        if not line.strip("\ufeff \t\r\n"):
            continue
        try:
            row = json.loads(line.lstrip("\ufeff"))
        except (ValueError, RecursionError):
            yield number, "not valid JSON"
            continue
        yield number, row if isinstance(row, dict) else "not a JSON object"


def _read_csv_rows(stream: Iterable[str]) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # notes are longer than the default of 128 KiB
    reader = csv.reader(stream)
    columns = [name.strip().lstrip("\ufeff").lower() for name in next(reader, [])]
    number = 0
    while True:
        number += 1
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error:
            yield number, "not valid CSV"
            continue
        if values and len(values) != len(columns):
            yield number, f"{len(values)} fields, but the header has {len(columns)}"
        elif values:
            yield number, dict(zip(columns, values, strict=True))


def _convert(place: str, row: Mapping[str, Any] | str) -> Encounter | Rejected:
    if isinstance(row, str):
        return Rejected(place, row)
    try:
        return _parse_row(place, row)
    except _BadRow as reason:
        return Rejected(place, str(reason))


def _parse_row(place: str, row: Mapping[str, Any]) -> Encounter:
    admission, discharge = _parse_date(row, "admission_date"), _parse_date(row, "discharge_date")
    if discharge is None:
        raise _BadRow("discharge_date is missing")
    if admission is not None and admission > discharge:
        raise _BadRow("admission_date is after discharge_date")
    return Encounter(
        encounter_id=_require_text(row, "encounter_id").strip(),
        patient_id=_parse_identifier(row, "patient_id"),
        admission_date=admission,
        discharge_date=discharge,
        sex=_parse_sex(row),
        age_years=_parse_age(row),
        text=_require_text(row, "text"),
        codes=_parse_codes(row),
        place=place,
    )


def _require_text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        raise _BadRow(f"{name} is missing or empty")
    return _verify_characters(value, name)


def _verify_characters(value: str, name: str) -> str:
    if "\0" in value:
        raise _BadRow(f"{name} holds a NUL character")
    if any("\ud800" <= char <= "\udfff" for char in value):
        raise _BadRow(f"{name} is not valid UTF-8")
    return value


def _parse_identifier(row: Mapping[str, Any], name: str) -> str | None:
    value = row.get(name)
    return _verify_characters(str(value).strip(), name) or None if value is not None else None


def _parse_date(row: Mapping[str, Any], name: str) -> date | None:
    """`2026-09-21`, also with a time of day after it; None where it is empty."""
    value = row.get(name)
    if value is None or not str(value).strip():
        return None
    try:
        return date.fromisoformat(re.split(r"[T ]", str(value).strip(), maxsplit=1)[0])
    except ValueError:
        raise _BadRow(f"{name} is not YYYY-MM-DD") from None


def _parse_sex(row: Mapping[str, Any]) -> str | None:
    value = row.get("sex")
    known = "" if value is None else str(value).strip().lower()
    if known not in _SEXES:
        raise _BadRow("sex is none of F, M, U")
    return _SEXES[known]


def _parse_age(row: Mapping[str, Any]) -> int | None:
    value = row.get("age_years")
    if value is None or not str(value).strip():
        return None
    try:
        age = int(str(value).strip())
    except ValueError:
        raise _BadRow("age_years is not a whole number") from None
    if not 0 <= age <= 130:
        raise _BadRow("age_years is not between 0 and 130")
    return age


def _parse_codes(row: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Codes as a list or as one text with separators; each once, in order."""
    value = row.get("codes")
    if value is None:
        return None
    items = value if isinstance(value, list) else _CODE_SEPARATOR.split(str(value).strip(" []\"'"))
    codes = dict.fromkeys(parse_code(str(item).strip("\"'")) for item in items if str(item).strip())
    for index, code in enumerate(codes, start=1):
        if not _CODE.fullmatch(code):
            raise _BadRow(f"code {index} has not the form of an ICD-10-CM code")
    return tuple(codes)


def _reject_repeated(rows: Iterator[Encounter | Rejected]) -> Iterator[Encounter | Rejected]:
    """Within one source an encounter stands once: of two texts nobody could say which is the newer one."""
    places: dict[str, str] = {}
    for row in rows:
        if isinstance(row, Encounter):
            first = places.setdefault(row.encounter_id, row.place)
            if first != row.place:
                yield Rejected(row.place, f"the encounter stands already at {first}")
                continue
        yield row


# MIMIC-IV -----------------------------------------------------------------------------------------------------------


def _read_mimic(source: Path) -> Iterator[Encounter | Rejected]:
    """Stays of the table `discharge`, joined with the other tables where they lie beside it (also in `hosp/` and `note/`)."""
    folder = source if source.is_dir() else source.parent
    notes = _find_table(folder, "discharge") if source.is_dir() else source
    if notes is None:
        raise NoteError(f"{source} has no discharge.csv: the discharge summaries of MIMIC-IV-Note")
    admissions = {row["hadm_id"]: row for row in _table_rows(folder, "admissions")}
    patients = {row["subject_id"]: row for row in _table_rows(folder, "patients")}
    codes = _read_mimic_codes(folder)
    for place, row in _rows_of(notes, "csv"):
        if isinstance(row, str):
            yield Rejected(place, row)
        elif (row.get("note_type") or "DS") == "DS":  # AR rows are addenda
            yield _convert(place, _join_mimic(row, admissions, patients, codes))


def _join_mimic(
    note: Mapping[str, Any],
    admissions: Mapping[str, Mapping[str, Any]],
    patients: Mapping[str, Mapping[str, Any]],
    codes: Mapping[str, list[str]] | None,
) -> dict[str, Any]:
    stay = admissions.get(note.get("hadm_id", ""), {})
    patient = patients.get(note.get("subject_id", ""), {})
    admitted, discharged = stay.get("admittime"), stay.get("dischtime") or note.get("charttime")
    return {
        "encounter_id": note.get("hadm_id"),
        "patient_id": note.get("subject_id"),
        "admission_date": admitted,
        "discharge_date": discharged,
        "sex": patient.get("gender"),
        "age_years": _age_at(admitted or discharged, patient),
        "text": note.get("text"),
        "codes": codes.get(note.get("hadm_id", ""), []) if codes is not None else None,
    }


def _age_at(day: str | None, patient: Mapping[str, Any]) -> int | None:
    """MIMIC-IV gives the age in an anchor year; dates are shifted by the same years."""
    try:
        return int(patient["anchor_age"]) + int(str(day)[:4]) - int(patient["anchor_year"])
    except (KeyError, ValueError):
        return None


def _read_mimic_codes(folder: Path) -> dict[str, list[str]] | None:
    """ICD-10 codes of each stay in order of `seq_num`, or None without the table. ICD-9 rows are left out."""
    if _find_table(folder, "diagnoses_icd") is None:
        return None
    ranked: dict[str, list[tuple[int, str]]] = {}
    for row in _table_rows(folder, "diagnoses_icd"):
        if row.get("icd_version") == "10" and str(row.get("seq_num", "")).isdigit():
            ranked.setdefault(row["hadm_id"], []).append((int(row["seq_num"]), row["icd_code"].strip()))
    return {stay: [code for _, code in sorted(codes)] for stay, codes in ranked.items()}


def _table_rows(folder: Path, name: str) -> Iterator[Mapping[str, Any]]:
    path = _find_table(folder, name)
    if path is not None:
        yield from (row for _, row in _rows_of(path, "csv") if not isinstance(row, str))


def _find_table(folder: Path, name: str) -> Path | None:
    found = sorted(path for path in folder.rglob("*") if path.name.lower() in {f"{name}.csv", f"{name}.csv.gz"})
    return found[0] if found else None
