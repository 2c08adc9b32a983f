"""`llmcoder code`: phrases or notes → codes, one result for each input row, in order."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal, Protocol

from llmcoder_tasks.coding.coder import CoderOpener
from llmcoder_tasks.coding.notes import PhraseCoder, code_notes
from llmcoder_tasks.coding.rules.policy import POLICIES, CodingPolicy
from llmcoder_tasks.database import Database
from llmcoder_tasks.errors import LLMCoderError, NoteError
from llmcoder_tasks.icd10cm.code_set import CodeSet, find_release, read_code_set
from llmcoder_tasks.model.manifest import fetch_model
from llmcoder_tasks.records import CodePrediction, CodingResult, ModelRef, Patient
from llmcoder_tasks.settings import CoderServer, LanguageModel
from llmcoder_tasks.storage import Storage

logger = logging.getLogger(__name__)

TextKind = Literal["phrase", "note"]


class TextCoder(PhraseCoder, Protocol):
    """What coding texts needs of a coder."""

    def code_text(self, text: str, kind: TextKind = "phrase") -> tuple[CodePrediction, ...]:
        """The codes of a phrase or of a whole note, with evidence offsets into `text`."""


OpenCoder = Callable[[Path, CodeSet], TextCoder]

_KINDS: tuple[TextKind, ...] = ("phrase", "note")


@dataclass(frozen=True, slots=True)
class TextRow:
    """An input row: a text to code under the release of a date, or why it cannot be."""

    id: str
    text: str
    kind: TextKind
    discharge_date: date | None
    error: str | None = None


def read_rows(lines: Iterable[str], *, kind: TextKind) -> list[TextRow]:
    """Input text as rows. JSON lines (told by the first character that is no space): one row a line, good or bad. Plain text: one
    row a line for phrases, the whole for a note.

    `kind` holds for rows that do not say their own. Ids that are missing are line numbers.
    """
    given = list(lines)
    first = next((line.lstrip("\ufeff \t") for line in given if line.strip("\ufeff \t\r\n")), "")
    if first.startswith("{"):
        return [_parse_row(number, line, kind) for number, line in enumerate(given, start=1) if line.strip("\ufeff \t\r\n")]
    if kind == "note":
        text = "".join(given)
        return [TextRow("1", text, kind, None, None if text.strip() else "text is empty")] if given else []
    return [
        TextRow(str(number), line.strip("\ufeff\r\n"), kind, None)
        for number, line in enumerate(given, start=1)
        if line.strip("\ufeff \t\r\n")
    ]


def code_texts(
    rows: Sequence[TextRow],
    *,
    model: ModelRef,
    on: date,
    storage: Storage,
    database: Database,
    cache_folder: Path,
    policy: str = "us-inpatient",
    note_model: LanguageModel | Path | None = None,
    server: CoderServer | None = None,
    open_coder: OpenCoder | None = None,
) -> Iterator[CodingResult]:
    """A result for each row, in order: its codes, or an error and no code.

    A row without a date of its own is coded under the release valid `on` that date, so only codes billable then come out. A row
    that fails harms no other. `policy` names what a place codes by choice (`coding.rules.policy.POLICIES`). Raises ModelError,
    ArtifactMissing or a database error when nothing at all can be coded. `note_model` is the language model that reads notes, for a
    model that has one attached; `server` where a model is that answers behind one.
    """
    folder = fetch_model(storage, model.uri, cache_folder)
    shelf = _Shelf(folder, database, open_coder or CoderOpener(note_model, server))
    for row in rows:
        yield _code_row(row, model.model_id, row.discharge_date or on, shelf, POLICIES[policy])


def render_json_lines(results: Iterable[CodingResult]) -> Iterator[str]:
    """The stable output rows, one JSON object a line."""
    return (json.dumps(result.to_row(), ensure_ascii=False) for result in results)


class _Shelf:
    """The coder of each release that the rows need, opened at first use."""

    def __init__(self, folder: Path, database: Database, open_coder: OpenCoder) -> None:
        self._folder = folder
        self._database = database
        self._open_coder = open_coder
        self._keys: dict[date, str] = {}
        self._coders: dict[str, TextCoder] = {}

    def find(self, on: date) -> tuple[str, TextCoder]:
        """Release key and coder of a date. Raises NoteError when no loaded release is valid then."""
        if on not in self._keys:
            release = find_release(self._database, on)
            if release is None:
                raise NoteError(f"no loaded release is valid on {on}: ingest an earlier one")
            self._keys[on] = release.key
        key = self._keys[on]
        if key not in self._coders:
            self._coders[key] = self._open_coder(self._folder, read_code_set(self._database, key))
        return key, self._coders[key]


def _code_row(row: TextRow, model_id: str, on: date, shelf: _Shelf, policy: CodingPolicy) -> CodingResult:
    if row.error is not None:
        return CodingResult(row.id, None, None, error=row.error)
    try:
        release_key, coder = shelf.find(on)
    except NoteError as error:
        return CodingResult(row.id, None, model_id, error=str(error))
    try:
        if row.kind == "phrase":
            return CodingResult(row.id, release_key, model_id, coder.code_text(row.text))
        note = code_notes(coder, [row.text], [Patient(discharge_date=on)], policy=policy)[0]
        return CodingResult(row.id, release_key, model_id, note.codes, findings=note.findings, grouping=note.grouping)
    except (LLMCoderError, MemoryError):
        raise
    except Exception as error:  # the message may quote the text
        logger.warning("row %s could not be coded: %s", row.id, type(error).__name__)
        return CodingResult(row.id, release_key, model_id, error=f"{type(error).__name__} while coding")


def _parse_row(number: int, line: str, kind: TextKind) -> TextRow:
    name = str(number)
    try:
        row = json.loads(line.lstrip("\ufeff"))
    except (ValueError, RecursionError):
        return _bad(name, kind, "not valid JSON")
    if not isinstance(row, dict):
        return _bad(name, kind, "not a JSON object")
    given = row.get("id", number)
    name = str(given) if isinstance(given, str | int) else name
    try:
        return TextRow(name, _parse_text(row), _parse_kind(row, kind), _parse_day(row))
    except ValueError as reason:
        return _bad(name, kind, str(reason))


def _bad(name: str, kind: TextKind, reason: str) -> TextRow:
    return TextRow(name, "", kind, None, reason)


def _parse_text(row: dict[str, Any]) -> str:
    text = row.get("text")
    if not isinstance(text, str):
        raise ValueError("text is missing or no text")
    if not text.strip():
        raise ValueError("text is empty")
    return text


def _parse_kind(row: dict[str, Any], kind: TextKind) -> TextKind:
    given = row.get("kind", kind)
    if given not in _KINDS:
        raise ValueError("kind is neither phrase nor note")
    return "note" if given == "note" else "phrase"


def _parse_day(row: dict[str, Any]) -> date | None:
    given = row.get("discharge_date")
    if given is None:
        return None
    try:
        return date.fromisoformat(str(given))
    except ValueError:
        raise ValueError("discharge_date is not YYYY-MM-DD") from None
