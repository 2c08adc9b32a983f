"""The notes of the tabular list in a form that can be looked up: which codes a note means.

A note names its codes in parentheses: `(E10.-)`, `(A00-A09)`, `(J09.X9, J10.82)`. Conditions on characters (`E08-E13 with .39`) and
notes without codes are left out: they cannot be decided from codes alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from llmcoder_tasks.icd10cm.code_set import CodeSet, TermKind

_CODE = r"[A-Z]\d[0-9A-Z](?:\.[0-9A-Z]{0,4})?"
_PARENTHESES = re.compile(r"\(([^()]*)\)")
_ITEM = re.compile(rf"(?P<first>{_CODE})(?:-(?P<last>{_CODE})?)?-?")
_SEPARATOR = re.compile(r"\s*(?:,|;|\band\b|\bor\b)\s*")
_CATEGORY = 3


class CodeRange(NamedTuple):
    """Codes from one prefix to another, both with everything below them; one prefix alone is a range to itself."""

    first: str
    last: str


def parse_ranges(term: str) -> tuple[CodeRange, ...]:
    """The codes that a note names in parentheses. Empty when it names none, or only under a condition.

    >>> parse_ranges("type 1 diabetes mellitus (E10.-)")
    (CodeRange(first='E10', last='E10'),)
    """
    found: list[CodeRange] = []
    for inside in _PARENTHESES.findall(term):
        items = [_ITEM.fullmatch(part) for part in _SEPARATOR.split(inside.strip()) if part]
        if items and all(items):
            found += [_range_of(item["first"], item["last"] or item["first"]) for item in items if item]
    return tuple(found)


def _range_of(first: str, last: str) -> CodeRange:
    return CodeRange(first.replace(".", ""), last.replace(".", ""))


class TabularNotes:
    """Notes of one release by code, those of headers, blocks and chapters included."""

    def __init__(self, code_set: CodeSet) -> None:
        categories = dict.fromkeys(code.code[:_CATEGORY] for code in code_set.codes)
        self._place = {category: number for number, category in enumerate(categories)}
        self._notes: dict[tuple[str, str], list[str]] = {}
        for term in code_set.terms:
            self._notes.setdefault((term.code, term.kind), []).append(term.term)
        blocks = dict.fromkeys(term.code for term in code_set.terms if "-" in term.code)
        self._blocks = [(block, found) for block in blocks for found in parse_ranges(f"({block})")]
        self.ranges_of = lru_cache(maxsize=16_384)(self._ranges_of)

    def names(self, code: str, kind: TermKind, other: str) -> bool:
        """Whether a note of this kind, on the code or anything above it, names the other code."""
        return self.covers(self.ranges_of(code, kind), other)

    def own_notes(self, code: str, kind: TermKind) -> Iterator[str]:
        """The notes on a code and its headers, without those of blocks and chapters."""
        for length in range(len(code), _CATEGORY - 1, -1):
            yield from self._notes.get((code[:length], kind), ())

    def covers(self, ranges: Iterable[CodeRange], code: str) -> bool:
        """Whether a code lies in one of the ranges, in the order of the tabular list, which is not that of letters."""
        return any(self._covers(found, code) for found in ranges)

    def _ranges_of(self, code: str, kind: TermKind) -> tuple[CodeRange, ...]:
        notes = list(self.own_notes(code, kind))
        for block, found in self._blocks:
            if self._covers(found, code):
                notes += self._notes.get((block, kind), ())
        return tuple(dict.fromkeys(found for note in notes for found in parse_ranges(note)))

    def _covers(self, found: CodeRange, code: str) -> bool:
        first, last = found
        if first[:_CATEGORY] == last[:_CATEGORY]:
            return code[:_CATEGORY] == first[:_CATEGORY] and code[: len(first)] >= first and code[: len(last)] <= last
        place, begin, end = (self._place.get(part[:_CATEGORY]) for part in (code, first, last))
        if place is None or begin is None or end is None:
            return False
        after_first = place > begin or (place == begin and code[: len(first)] >= first)
        before_last = place < end or (place == end and code[: len(last)] <= last)
        return after_first and before_last
