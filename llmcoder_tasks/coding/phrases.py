"""Several conditions in one text, and codes that the text itself names.

A comma may stand between two conditions or inside one title (`Fracture of femur, subsequent encounter`), so punctuation only offers
places to cut. Of all ways to cut, the one is taken whose parts together look most like titles: the sum over parts of weight of words times similarity
to the nearest title.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from llmcoder_tasks.records import parse_code

_ALWAYS_CUT = re.compile(r"[;\r\n\u2022\u2028\u2029]+|(?:^|(?<=\s))\d{1,2}[.)](?=\s)")
_MAY_CUT = re.compile(r",|\.(?=\s)|\s[-–—/&+]\s|\s(?:and|with|as well as|plus|also)\s", re.IGNORECASE)
_EDGE = " \t,.:;-–—*•&+/"
_WRITTEN_CODE = re.compile(r"(?<![\w.])[A-Za-z]\d[0-9A-Za-z](?:\.?[0-9A-Za-z]{1,4})?(?![\w]|\.\w)")

MOST_PIECES = 8
"""A condition spans at most so many pieces: the longest titles have six commas and `and`s."""

CUT_PRICE = 0.15
"""What a further condition costs, as a share of the mean weight of a word: without it, noise would cut titles apart."""


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a text: character offsets, end exclusive."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class WrittenCode:
    """A billable code that a text names, and where."""

    code: str
    start: int
    end: int


def find_written_codes(text: str, titles: Mapping[str, str]) -> list[WrittenCode]:
    """Codes of the release that a text names: `E11.9`, `e11.9`, `E119`; three characters (`I10`) only in capitals and standing alone.

    `vitamin B12` and `C5 vertebra` name no code, and neither does a code that the release does not hold as billable.
    """
    found = []
    for match in _WRITTEN_CODE.finditer(text):
        code = parse_code(match[0])
        plain = "." not in match[0]
        if code not in titles or (plain and match[0] != code) or (len(code) == 3 and not _stands_alone(text, match)):
            continue
        found.append(WrittenCode(code, match.start(), match.end()))
    return found


def _stands_alone(text: str, match: re.Match[str]) -> bool:
    before, after = text[: match.start()].rstrip(" \t"), text[match.end() :].lstrip(" \t")
    return (not before or before[-1] in ",;:([\n-–—") and (not after or after[0] in ",;:)]\n-–—.")


def split_pieces(text: str) -> list[list[Span]]:
    """The smallest parts a text may be cut into, grouped by the groups between which it is always cut."""
    groups = [
        [trimmed for piece in _cut(text, group, _MAY_CUT) if (trimmed := _trim(text, piece))]
        for group in _cut(text, Span(0, len(text)), _ALWAYS_CUT)
    ]
    return [group for group in groups if group]


def _cut(text: str, span: Span, separator: re.Pattern[str]) -> Iterator[Span]:
    start = span.start
    for match in separator.finditer(text, span.start, span.end):
        yield Span(start, match.start())
        start = match.end()
    yield Span(start, span.end)


def _trim(text: str, span: Span) -> Span | None:
    start, end = span.start, span.end
    while start < end and (text[start] in _EDGE or text[start].isspace()):
        start += 1
    while end > start and (text[end - 1] in _EDGE or text[end - 1].isspace()):
        end -= 1
    return Span(start, end) if any(char.isalnum() for char in text[start:end]) else None


def list_spans(pieces: Sequence[Span]) -> list[Span]:
    """Every run of at most MOST_PIECES neighbouring pieces."""
    return [
        Span(pieces[first].start, pieces[last].end)
        for first in range(len(pieces))
        for last in range(first, min(len(pieces), first + MOST_PIECES))
    ]


def choose_cuts(pieces: Sequence[Span], worth: Callable[[Span], float], price: float) -> list[Span]:
    """The runs of pieces that cover all pieces with the greatest sum of `worth` less `price` for each run (dynamic programme)."""
    best = [0.0] + [float("-inf")] * len(pieces)
    previous = [0] * (len(pieces) + 1)
    for end in range(1, len(pieces) + 1):
        for start in range(max(0, end - MOST_PIECES), end):
            value = best[start] + worth(Span(pieces[start].start, pieces[end - 1].end)) - price
            if value > best[end] + 1e-9:
                best[end], previous[end] = value, start
    cuts: list[Span] = []
    end = len(pieces)
    while end > 0:
        cuts.append(Span(pieces[previous[end]].start, pieces[end - 1].end))
        end = previous[end]
    return cuts[::-1]
