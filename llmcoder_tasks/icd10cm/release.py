"""One release as its files say it, before it meets a database."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import NamedTuple

from llmcoder_tasks.icd10cm.addenda import Addenda
from llmcoder_tasks.icd10cm.code_set import Code, CodeTerm
from llmcoder_tasks.icd10cm.file_kind import FileKind
from llmcoder_tasks.records import find_effective_date


class SeventhCharacter(NamedTuple):
    """A 7th character that the tabular list defines for all codes below `code`."""

    code: str
    character: str
    meaning: str


class Conversion(NamedTuple):
    """A row of the conversion table: `code` took over from `previous_code` on `effective_from`.

    `previous_code` is one code, a range as the table writes it (`H4420-H4423`), a subcategory (`I63-`), or empty for a condition
    that no code named before.
    """

    code: str
    previous_code: str
    effective_from: date


class FileRecord(NamedTuple):
    """A file of the release: `sha256` is of the uncompressed bytes, `row_count` counts what was read from it."""

    name: str
    kind: FileKind
    sha256: str
    row_count: int


@dataclass(frozen=True)
class Release:
    """Everything that was read from one release, checked for agreement between its files."""

    release_key: str
    codes: tuple[Code, ...]
    terms: tuple[CodeTerm, ...]
    seventh_characters: tuple[SeventhCharacter, ...]
    conversions: tuple[Conversion, ...]
    addenda: tuple[Addenda, ...]
    files: tuple[FileRecord, ...]

    @property
    def effective_from(self) -> date:
        """The day it takes effect."""
        return find_effective_date(self.release_key)

    @cached_property
    def billable_titles(self) -> Mapping[str, str]:
        """Long title of every billable code."""
        return {code.code: code.long_title for code in self.codes if code.is_billable}

    @cached_property
    def content_sha256(self) -> str:
        """sha256 over codes, terms, 7th characters and conversions: the same for CRLF and LF, zipped or not."""
        digest = hashlib.sha256()
        parts: tuple[Iterable[tuple[object, ...]], ...] = (self.codes, self.terms, self.seventh_characters, self.conversions)
        for part in parts:
            lines = ["\x1f".join(map(str, row)) for row in part]
            digest.update("\n".join([*lines, "\x1e"]).encode())
        return digest.hexdigest()
