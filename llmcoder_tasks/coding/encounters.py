"""Encounters with their discharge summaries, read from the files that hospitals and data sets give.

Three forms: JSON lines, CSV with a header, and the tables of MIMIC-IV (`discharge`, and where present `diagnoses_icd`, `patients`,
`admissions`), each plain or gzipped, a file or a folder of files. Which one it is shows in the content. A row that cannot be used
becomes a `Rejected` with its place and a reason, never with what it holds: that is a patient's text. An unknown sex or age is no
fault: rules that need one leave it out.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal, TextIO

from llmcoder_tasks.errors import NoteError
from llmcoder_tasks.records import parse_code
from llmcoder_tasks.storage import hash_file

SourceFormat = Literal["jsonl", "csv", "mimic-iv", "auto"]

QuarantineReason = Literal[
    "empty_note",
    "note_too_long",
    "binary",
    "rtf",
    "html",
    "wrong_encoding",
    "no_discharge_date",
    "bad_date",
    "discharge_in_future",
    "duplicate_encounter",
    "bad_field",
    "unreadable_row",
    "unknown_file",
    "refused_by_database",
]
"""Why a note is not coded: the list that `quarantined_notes` accepts."""

MAX_NOTE_CHARACTERS = 1_000_000
"""A discharge summary of two hundred pages. What is longer is an archive, or a scan in disguise."""

MAX_QUARANTINED_SHARE = 0.05
"""More bad notes than one in twenty mean that a source is broken, not a note."""

MIN_QUARANTINED_TO_FAIL = 5
"""Of a handful of notes one bad one is a large share and no alarm."""

_CODE = re.compile(r"(?=[A-Z]*\d)[A-Z][0-9A-Z]{2,6}")
_CODE_SEPARATOR = re.compile(r"[;,|\s]+")
_SEXES = {"f": "F", "female": "F", "m": "M", "male": "M"}
_REQUIRED = frozenset({"encounter_id", "discharge_date", "text"})
_MIMIC_NOTES = frozenset({"note_id", "subject_id", "hadm_id", "text"})
_DOCUMENTS: dict[str, QuarantineReason] = {
    ".rtf": "rtf", ".html": "html", ".htm": "html", ".pdf": "binary", ".doc": "binary", ".docx": "binary", ".zip": "binary",
}  # fmt: skip
"""Documents that somebody put where rows belong."""

_HTML = re.compile(r"<!doctype html|<(html|head|body|script)[\s>]|</(html|body)>|<\?xml", re.IGNORECASE)
_CLOSING_TAG = re.compile(r"</(p|div|span|table|tr|td|th|ul|ol|li|b|i|u|font|h[1-6]|strong|em|pre|a)>", re.IGNORECASE)
_CLOSING_TAGS_OF_HTML = 5
_MISREAD = re.compile("[\u00c2\u00c3][\u0080-\u00bf]|\u00e2\u20ac|\ufffd")
_MISREAD_CHARACTERS = 3
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
_CONTROL_SHARE = 0.001

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
    """A row that cannot be used: where it stands, and why, in words and as a kind. Holds nothing of the row but its id."""

    place: str
    reason: str
    kind: QuarantineReason = "unreadable_row"
    encounter_id: str | None = None


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file of a source and its form, None where it has none that we know; `sha256` is that of its bytes."""

    path: Path
    form: SourceFormat | None
    sha256: str


class _BadRow(ValueError):
    """A reason, without any value of the row."""

    def __init__(self, reason: str, kind: QuarantineReason = "bad_field") -> None:
        super().__init__(reason)
        self.kind: QuarantineReason = kind


def find_fault(text: str) -> tuple[QuarantineReason, str] | None:
    """Why a text is no note that can be coded, as a kind and in words; None for a note. Nothing of the text is in it."""
    return next(((kind, words) for kind, words, is_so in _FAULTS if is_so(text)), None)


def _is_binary(text: str) -> bool:
    return text.startswith(("%PDF-", "PK\x03\x04")) or len(_CONTROL.findall(text)) > _CONTROL_SHARE * len(text)


def _is_misread(text: str) -> bool:
    return any("\ud800" <= char <= "\udfff" for char in text) or len(_MISREAD.findall(text)) >= _MISREAD_CHARACTERS


def _is_html(text: str) -> bool:
    return bool(_HTML.search(text)) or len(_CLOSING_TAG.findall(text)) >= _CLOSING_TAGS_OF_HTML


_FAULTS: tuple[tuple[QuarantineReason, str, Callable[[str], bool]], ...] = (
    ("empty_note", "text is missing or empty", lambda text: not text.strip()),
    ("note_too_long", f"text has more than {MAX_NOTE_CHARACTERS:,} characters", lambda text: len(text) > MAX_NOTE_CHARACTERS),
    ("rtf", "text is RTF: send plain text", lambda text: text.lstrip().startswith("{\\rtf")),
    ("binary", "text is binary: send plain text", _is_binary),
    ("wrong_encoding", "text is not valid UTF-8, or was read in another encoding", _is_misread),
    ("html", "text is HTML or XML: send plain text", _is_html),
)
"""What can be wrong with a text, the first that holds."""


def too_many_quarantined(quarantined: int, total: int, max_share: float) -> bool:
    """Whether so many notes of `total` are bad that their source must be looked at."""
    return quarantined >= MIN_QUARANTINED_TO_FAIL and quarantined > max_share * total


def verify_quarantined(subject: str, reasons: Mapping[str, int], total: int, max_share: float) -> None:
    """Raise NoteError with the counts of each reason when too many notes are in quarantine."""
    quarantined = sum(reasons.values())
    if too_many_quarantined(quarantined, total, max_share):
        counts = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()))
        raise NoteError(
            f"{subject}: {quarantined} of {total} notes are in quarantine, more than {max_share:.1%} ({counts}); the others are "
            "stored: look at quarantined_notes, mend the source, or raise LLMCODER_MAX_QUARANTINED_SHARE"
        )


def list_source_files(source: Path, source_format: SourceFormat = "auto") -> list[SourceFile]:
    """The files to read, in order of name; for MIMIC-IV the one with the notes.

    Raises NoteError when the source does not exist, holds no file in a known form, or not the form asked for.
    """
    chosen = detect_format(source) if source_format == "auto" else source_format
    if chosen == "mimic-iv":
        notes = find_table(source, "discharge") if source.is_dir() else source
        if notes is None:
            raise NoteError(f"{source} has no discharge.csv: the discharge summaries of MIMIC-IV-Note")
        return [SourceFile(notes, chosen, hash_file(notes))]
    if source.is_file():
        return [SourceFile(source, chosen, hash_file(source))]
    forms = {path: _detect_file(path) for path in _list_files(source)}
    wanted = {"jsonl", "csv"} if source_format == "auto" else {chosen}
    if not wanted & set(forms.values()):
        raise NoteError(f"{source} holds no {chosen} file with {', '.join(sorted(_REQUIRED))}")
    strangers = {path: None for path in source.rglob("*") if path.suffix.lower() in _DOCUMENTS and path.is_file()}
    strangers |= {path: None for path, form in forms.items() if form is None and not path.name.lower().endswith(".txt")}
    chosen_files = {path: form for path, form in forms.items() if form in wanted} | strangers
    return [SourceFile(path, form, hash_file(path)) for path, form in sorted(chosen_files.items())]


def read_source_file(file: SourceFile, source: Path, on: date | None = None) -> Iterator[Encounter | Rejected]:
    """All rows of a file of a source, in order. A discharge after `on` is rejected, but not in MIMIC-IV, whose dates lie ahead."""
    if file.form is None:
        kind = _DOCUMENTS.get(file.path.suffix.lower(), "unknown_file")
        yield Rejected(file.path.name, "the file holds no rows with encounters", kind)
        return
    if file.form == "mimic-iv":
        rows: Iterator[Encounter | Rejected] = _read_mimic(file.path, source if source.is_dir() else source.parent)
    else:
        rows = (_convert(place, row, on) for place, row in read_rows(file.path, file.form))
    yield from _reject_repeated(rows)


def read_encounters(source: Path, source_format: SourceFormat = "auto", on: date | None = None) -> Iterator[Encounter | Rejected]:
    """All rows of a file or folder, in order of file name and row. A later file may amend what an earlier one says.

    Raises NoteError when the source does not exist, holds no file in a known form, or not the form asked for.
    """
    for file in list_source_files(source, source_format):
        yield from read_source_file(file, source, on)


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


def read_rows(path: Path, form: SourceFormat) -> Iterator[tuple[str, Mapping[str, Any] | str]]:
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


def _convert(place: str, row: Mapping[str, Any] | str, on: date | None = None) -> Encounter | Rejected:
    if isinstance(row, str):
        return Rejected(place, row)
    try:
        return _parse_row(place, row, on)
    except _BadRow as reason:
        return Rejected(place, str(reason), reason.kind, _known_id(row))


def _known_id(row: Mapping[str, Any]) -> str | None:
    """The id of a bad row, where it has one."""
    try:
        return _parse_encounter_id(row)
    except _BadRow:
        return None


def _parse_row(place: str, row: Mapping[str, Any], on: date | None) -> Encounter:
    encounter_id = _parse_encounter_id(row)
    admission, discharge = _parse_date(row, "admission_date"), _parse_date(row, "discharge_date")
    if discharge is None:
        raise _BadRow("discharge_date is missing", "no_discharge_date")
    if admission is not None and admission > discharge:
        raise _BadRow("admission_date is after discharge_date", "bad_date")
    if on is not None and discharge > on:
        raise _BadRow(f"discharge_date is after {on}", "discharge_in_future")
    return Encounter(
        encounter_id=encounter_id,
        patient_id=_parse_identifier(row, "patient_id"),
        admission_date=admission,
        discharge_date=discharge,
        sex=_SEXES.get(str(row.get("sex")).strip().lower()),
        age_years=_parse_age(row),
        text=_parse_text(row),
        codes=_parse_codes(row),
        place=place,
    )


def _parse_encounter_id(row: Mapping[str, Any]) -> str:
    value = row.get("encounter_id")
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        raise _BadRow("encounter_id is missing or empty")
    return _verify_characters(value.strip(), "encounter_id")


def _parse_text(row: Mapping[str, Any]) -> str:
    value = row.get("text")
    text = "" if value is None else str(value)
    if "\0" in text:  # PostgreSQL cannot hold one
        raise _BadRow("text holds a NUL character", "binary")
    fault = find_fault(text)
    if fault is not None:
        raise _BadRow(fault[1], fault[0])
    return text


def _verify_characters(value: str, name: str) -> str:
    if "\0" in value:
        raise _BadRow(f"{name} holds a NUL character")
    if any("\ud800" <= char <= "\udfff" for char in value):
        raise _BadRow(f"{name} is not valid UTF-8", "wrong_encoding")
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
        raise _BadRow(f"{name} is not YYYY-MM-DD", "bad_date") from None


def _parse_age(row: Mapping[str, Any]) -> int | None:
    """Years; None where no age of a person stands there."""
    value = str(row.get("age_years")).strip()
    age = int(value) if value.isascii() and value.isdigit() and len(value) <= 3 else None
    return age if age is not None and age <= 130 else None


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
    """Within one file an encounter stands once: of two texts nobody could say which is newer. The same row twice is no harm."""
    seen: dict[str, tuple[str, bytes]] = {}
    for row in rows:
        if isinstance(row, Encounter):
            digest = hashlib.sha256(row.text.encode()).digest()
            place, first = seen.setdefault(row.encounter_id, (row.place, digest))
            if first != digest:
                yield Rejected(row.place, f"the encounter stands already at {place}", "duplicate_encounter", row.encounter_id)
                continue
            if place != row.place:
                continue
        yield row


# MIMIC-IV -----------------------------------------------------------------------------------------------------------


def _read_mimic(notes: Path, folder: Path) -> Iterator[Encounter | Rejected]:
    """Stays of the table `discharge`, joined with the other tables where they lie beside it (also in `hosp/` and `note/`)."""
    admissions = {row["hadm_id"]: row for row in read_table(folder, "admissions")}
    patients = {row["subject_id"]: row for row in read_table(folder, "patients")}
    codes = _read_mimic_codes(folder)
    for place, row in read_rows(notes, "csv"):
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
    if find_table(folder, "diagnoses_icd") is None:
        return None
    ranked: dict[str, list[tuple[int, str]]] = {}
    for row in read_table(folder, "diagnoses_icd"):
        if row.get("icd_version") == "10" and str(row.get("seq_num", "")).isdigit():
            ranked.setdefault(row["hadm_id"], []).append((int(row["seq_num"]), row["icd_code"].strip()))
    return {stay: [code for _, code in sorted(codes)] for stay, codes in ranked.items()}


def read_table(folder: Path, name: str) -> Iterator[Mapping[str, Any]]:
    """The rows of a table of MIMIC-IV that can be read; none without its file."""
    path = find_table(folder, name)
    if path is not None:
        yield from (row for _, row in read_rows(path, "csv") if not isinstance(row, str))


def find_table(folder: Path, name: str) -> Path | None:
    """The file of a table of MIMIC-IV in a folder or below it, plain or gzipped."""
    found = sorted(path for path in folder.rglob("*") if path.name.lower() in {f"{name}.csv", f"{name}.csv.gz"})
    return found[0] if found else None
