"""Evidence in the text of a note: where to cut it so that each piece has one set of codes, and where words stand in it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Span:
    """Where a note speaks for a code. Offsets are characters (code points), end exclusive."""

    start: int
    end: int
    code: str


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a note and the codes that it is evidence of, none for the text between."""

    start: int
    end: int
    codes: tuple[str, ...]


def cut_note(length: int, spans: Iterable[Span]) -> list[Segment]:
    """Pieces that cover a note of so many characters once, whatever spans overlap. What reaches beyond the note is cut off."""
    kept = [span for span in spans if 0 <= span.start < min(span.end, length)]
    cuts = sorted({0, length, *(span.start for span in kept), *(min(span.end, length) for span in kept)})
    return [
        Segment(start, end, tuple(sorted({span.code for span in kept if span.start <= start and end <= span.end})))
        for start, end in pairwise(cuts)
    ]


def locate_words(note: str, words: str) -> tuple[int, int] | None:
    """Where these words first stand in a note, whatever their case and the white space between them; None where they do not."""
    parts = words.split()
    if not parts:
        return None
    found = re.search(r"\s+".join(map(re.escape, parts)), note, re.IGNORECASE)
    return found.span() if found else None
