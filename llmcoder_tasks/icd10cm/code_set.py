"""The codes of one release, in memory: what datasets, coders and tests read.

From the database by `read_code_set`, or, without any database, the full April 2026 release by `default_code_set`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import date
from functools import cache, cached_property
from typing import Literal, NamedTuple

from llmcoder_tasks.database import Database, Row
from llmcoder_tasks.errors import ReleaseError
from llmcoder_tasks.records import ReleaseRef

logger = logging.getLogger(__name__)

TermKind = Literal[
    "inclusion_term", "includes", "excludes1", "excludes2", "code_first", "use_additional_code", "code_also", "index_term"
]


class Code(NamedTuple):
    """A billable code or a header, as the order file lists it: `E119`, without the dot.

    `short_title` has at most 60 characters in official order files. A release that came without one (a tabular list or a codes file
    alone, the embedded release) has the long title there too: no abbreviation is invented.
    """

    code: str
    is_billable: bool
    short_title: str
    long_title: str


class CodeTerm(NamedTuple):
    """A note of the tabular list, or a path of an alphabetic index (`Aberrant, artery, cerebral`), with the code it belongs to.

    `code` may be a header, and for the notes of a block or a chapter its range (`A00-A09`).
    """

    code: str
    kind: TermKind
    term: str


@dataclass(frozen=True)
class CodeSet:
    """All codes of one release in tabular order (which is not ASCII order), headers included, with their terms."""

    release_key: str
    effective_from: date
    codes: tuple[Code, ...]
    terms: tuple[CodeTerm, ...]

    @cached_property
    def billable(self) -> tuple[Code, ...]:
        """The codes a claim may carry: every one has no code below it."""
        return tuple(code for code in self.codes if code.is_billable)

    @cached_property
    def titles(self) -> dict[str, str]:
        """Long title of every billable code."""
        return {code.code: code.long_title for code in self.billable}


def require_release(database: Database, name: str) -> Row:
    """Key, effective date, sha256 of content and URI of the loaded release of a name.

    Where the publisher withdrew and corrected it, that is the corrected one: people go on to say `FY2027`. `read_code_set` takes a
    key as it is. Raises ReleaseError when it is not loaded.
    """
    row = database.fetch_one("find_release_named", release_key=name)
    if row is None:
        raise ReleaseError(f"release {name} is not loaded: run `llmcoder ingest-release` first")
    if row["release_key"] != name:
        logger.info("%s was withdrawn: %s stands in its stead", name, row["release_key"])
    return row


def read_code_set(database: Database, release_key: str) -> CodeSet:
    """The codes and terms of a loaded release. Raises ReleaseError when it is not loaded."""
    with database.transaction() as transaction:
        release = transaction.fetch_one("fetch_release", release_key=release_key)
        if release is None:
            raise ReleaseError(f"release {release_key} is not loaded: run `llmcoder ingest-release` first")
        codes = transaction.fetch_all("fetch_codes_as_columns", release_key=release_key)[0]
        terms = transaction.fetch_all("fetch_terms_as_columns", release_key=release_key)[0]
    return CodeSet(
        release_key=release_key,
        effective_from=release["effective_from"],
        codes=tuple(map(Code, codes["codes"], codes["are_billable"], codes["short_titles"], codes["long_titles"])),
        terms=tuple(map(CodeTerm, terms["codes"], terms["kinds"], terms["terms"])),
    )


def find_release(database: Database, on: date) -> ReleaseRef | None:
    """The release that is valid on a date: the last loaded one that took effect by then. None before the first."""
    row = database.fetch_one("find_release_on", on_date=on)
    return ReleaseRef(key=row["release_key"], uri=row["uri"]) if row else None


@cache
def default_code_set() -> CodeSet:
    """The full April 2026 release out of the `simple-icd-10-cm` package: 74,719 billable codes, no database needed.

    Reads the package's data files (CDC/NCHS, public domain) and keeps the result; takes about a second the first time.
    """
    from llmcoder_tasks.icd10cm.release_reader import read_release
    from llmcoder_tasks.icd10cm.source import read_embedded_source

    release = read_release(read_embedded_source(), release_key=None)
    return CodeSet(release.release_key, release.effective_from, release.codes, release.terms)
