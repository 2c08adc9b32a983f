"""Coded notes of patients as training examples: read where they lie, kept apart by patient, and never copied by us.

Three forms: what the inbox takes (`encounter_id`, `discharge_date`, `text`, `codes`, `patient_id` where known); JSON lines of `id`,
`text`, `codes` and, where known, `patient_id`; and MIMIC-IV's tables, `discharge` for the texts, `diagnoses_icd` for the codes in
order of `seq_num` (ICD-10 alone) and, where it lies beside them, `d_icd_diagnoses` for the codes that there are.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from llmcoder_tasks.coding.encounters import (
    Encounter,
    detect_format,
    find_fault,
    find_table,
    list_source_files,
    read_encounters,
    read_rows,
    read_table,
)
from llmcoder_tasks.dataset.splits import split_of_patient
from llmcoder_tasks.errors import NoteError
from llmcoder_tasks.records import Example, parse_code
from llmcoder_tasks.storage import hash_file

logger = logging.getLogger(__name__)

_MIMIC_TABLES = ("discharge", "diagnoses_icd", "d_icd_diagnoses")


@dataclass(frozen=True, slots=True)
class CodedNote:
    """A note with the codes that people gave it, in their order; `patient` is the note's own id where nobody is named."""

    note_id: str
    patient: str
    text: str
    codes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TrainingNotes:
    """Notes to learn from, and what was left out: counts by reason."""

    examples: tuple[Example, ...]
    left_out: dict[str, int]


def hash_source(source: Path) -> str:
    """One sha256 over the files of a source: part of a model's id, so that other notes train another model. Raises NoteError."""
    if _is_mimic(source):
        tables = [find_table(_folder_of(source), name) for name in _MIMIC_TABLES]
        digests = [hash_file(path) for path in tables if path is not None]
    else:
        digests = [file.sha256 for file in list_source_files(source)]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def read_training_notes(source: Path, *, known_codes: Collection[str], max_words: int) -> TrainingNotes:
    """The notes of the patients of the train split, with the codes that people gave them, the principal diagnosis first.

    Args:
        source: a file or a folder.
        known_codes: the billable codes of the release that the model learns; others are left out of a note.
        max_words: notes with more are left out.

    All notes of a patient stand in one split. Nothing of a note reaches the log. Raises NoteError when the source cannot be read,
    or nothing of it can be learnt.
    """
    left_out: Counter[str] = Counter()
    allowed = _find_allowed(source, known_codes)
    examples = []
    for note in _read_notes(source):
        if isinstance(note, str):
            left_out[note] += 1
            continue
        codes = tuple(code for code in note.codes if code in allowed)
        reason = _find_reason(note, codes, max_words)
        if reason:
            left_out[reason] += 1
        else:
            examples.append(Example(f"notes/{note.note_id}", "notes", "train", note.text, codes))
    if not examples:
        raise NoteError(f"{source}: none of its {left_out.total()} notes can be learnt from ({_render(left_out)})")
    logger.info("%s: %d notes to learn from, left out: %s", source.name, len(examples), _render(left_out) or "none")
    return TrainingNotes(tuple(examples), dict(left_out))


def _read_notes(source: Path) -> Iterator[CodedNote | str]:
    """Notes, and for each row that is none the kind of its fault."""
    if not _is_plain(source):
        for row in read_encounters(source):
            if isinstance(row, Encounter):
                yield CodedNote(row.encounter_id, row.patient_id or row.encounter_id, row.text, row.codes or ())
            else:
                yield row.kind
        return
    for _, fields in read_rows(source, "jsonl"):
        if isinstance(fields, str) or not isinstance(fields.get("text"), str) or not isinstance(fields.get("codes"), list):
            yield "unreadable_row"
        elif fault := find_fault(fields["text"]):
            yield fault[0]
        else:
            note_id = str(fields.get("id"))
            codes = tuple(dict.fromkeys(parse_code(str(code)) for code in fields["codes"]))
            yield CodedNote(note_id, str(fields.get("patient_id") or note_id), fields["text"], codes)


def _is_plain(source: Path) -> bool:
    """Whether a source is one file of rows without a date of discharge."""
    if not source.is_file() or detect_format(source) != "jsonl":
        return False
    rows = (fields for _, fields in read_rows(source, "jsonl") if not isinstance(fields, str))
    return "discharge_date" not in next(rows, {"discharge_date": None})


def _is_mimic(source: Path) -> bool:
    return detect_format(source) == "mimic-iv"


def _folder_of(source: Path) -> Path:
    return source if source.is_dir() else source.parent


def _find_allowed(source: Path, known_codes: Collection[str]) -> frozenset[str]:
    """The codes of the release, of MIMIC-IV's ICD-10 table alone where there is one."""
    if not _is_mimic(source) or find_table(_folder_of(source), "d_icd_diagnoses") is None:
        return frozenset(known_codes)
    rows = read_table(_folder_of(source), "d_icd_diagnoses")
    return frozenset(known_codes) & {row["icd_code"].strip() for row in rows if row.get("icd_version") == "10"}


def _find_reason(note: CodedNote, codes: tuple[str, ...], max_words: int) -> str | None:
    """Why a note is not learnt from."""
    if split_of_patient(note.patient) != "train":
        return "held out with their patients"
    if not codes:
        return "without a code of the release"
    return f"of more than {max_words:,} words" if len(note.text.split()) > max_words else None


def _render(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items()))
