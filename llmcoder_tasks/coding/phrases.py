"""Several conditions in one text, and codes that the text itself names.

A comma may stand between two conditions or inside one title (`Fracture of femur, subsequent encounter`), so punctuation only offers
places to cut. Of all ways to cut, the one is taken whose parts together look most like titles: the sum over parts of the squared
weight of their words times the squared similarity to the nearest title, which is how much of a text its titles explain.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmcoder_tasks.records import parse_code

if TYPE_CHECKING:
    from llmcoder_tasks.coding.candidates import Candidate, CandidateIndex

_ALWAYS_CUT = re.compile(r"[\r\n\u2022\u2028\u2029]+|(?:^|(?<=\s))(?:\(\d{1,2}\)|#\d{1,2}:?|\d{1,2}[.)])(?=\s)")
_MAY_CUT = re.compile(
    r"[,;]|(?<!\b[mdsj][rs])(?<!\bmrs)\.(?=\s)|\s[-–—/&+]\s"
    r"|\s(?:and|as well as|plus|also|along with|together with|in addition to)\s"
    r"|(?:^|(?<=\s))(?:moreover|furthermore|there is also|in addition|additionally|also)\s",
    re.IGNORECASE,
)
_HEADING = re.compile(
    r"^[^:\n]{0,60}\b(?:diagnos[ie]s|dx|impression|assessment|problems?|problem list|conditions|diagnostic list)\s*(?:[:\n]|$)",
    re.IGNORECASE,
)
_EDGE = " \t,.:;-–—*•&+/"
_WRITTEN_CODE = re.compile(r"(?<![\w.])[A-Za-z]\d[0-9A-Za-z](?:\.?[0-9A-Za-z]{1,4})?(?![\w]|\.\w)")

MOST_PIECES = 8
"""A condition spans at most so many pieces: the longest titles have six commas and `and`s."""

MOST_TRIED_PIECES = 60
"""A group of more pieces is no phrase: it is cut at every piece, so that a page in one line costs no more than its words."""

CLEAR_SIMILARITY = 0.97
"""A group that is so like one title is one condition: nothing is cut."""

CUT_PRICE = 0.25
"""What a further condition costs, as a share of the squared mean weight of a word: without it, noise would cut titles apart."""


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
    """Codes of the release that a text names: `E11.9`, `e11.9`, `E119`; and, in capitals and standing alone, `I10`.

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
        for group in _cut(text, Span(_skip_heading(text), len(text)), _ALWAYS_CUT)
    ]
    return [group for group in groups if group]


def _skip_heading(text: str) -> int:
    """Where a text goes on after `Discharge diagnoses:`."""
    match = _HEADING.match(text)
    return match.end() if match else 0


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


class ConditionFinder:
    """Cuts texts into conditions with the help of an index of titles."""

    def __init__(self, index: CandidateIndex) -> None:
        self._index = index

    def find(self, texts: Sequence[str], written: Sequence[Sequence[WrittenCode]]) -> list[list[Span]]:
        """Where each text names a condition, in order. `written` are the codes that each text names itself."""
        grouped = [split_pieces(text) for text in texts]
        problems = [
            _Cutting(text, self._join_tails(text, group), codes)
            for text, groups, codes in zip(texts, grouped, written, strict=True)
            for group in groups
        ]
        self._measure(problems, [[problem.whole] for problem in problems])
        open_problems = [problem for problem in problems if problem.is_open()]
        self._measure(open_problems, [problem.list_spans() for problem in open_problems])
        solved = iter([problem.solve(CUT_PRICE * self._index.mean_weight**2) for problem in problems])
        return [[span for _ in groups for span in next(solved)] for groups in grouped]

    def _join_tails(self, text: str, pieces: Sequence[Span]) -> list[Span]:
        """Pieces that only say more of a condition (`left eye`) stay with it: the one before, or else the next."""
        if len(pieces) > MOST_TRIED_PIECES:
            return list(pieces)
        joined: list[Span] = []
        waits = False
        for piece in pieces:
            is_tail = self._index.is_tail(text[piece.start : piece.end])
            if joined and (is_tail or waits):
                joined[-1] = Span(joined[-1].start, piece.end)
                waits = waits and is_tail
            else:
                joined.append(piece)
                waits = is_tail
        return joined

    def _measure(self, problems: Sequence[_Cutting], spans: Sequence[Sequence[Span]]) -> None:
        asked = [(problem, span) for problem, wanted in zip(problems, spans, strict=True) for span in wanted]
        queries = [self._index.read(problem.text[span.start : span.end]) for problem, span in asked]
        for (problem, span), query, found in zip(asked, queries, self._index.search(queries), strict=True):
            problem.add(span, found, self._index.weigh(query))


class _Cutting:
    """One group of pieces and what is known of its runs."""

    def __init__(self, text: str, pieces: Sequence[Span], written: Sequence[WrittenCode]) -> None:
        self.text = text
        self.pieces = pieces
        self.whole = Span(pieces[0].start, pieces[-1].end)
        self._written = written
        self._similarity: dict[Span, float] = {}
        self._worth: dict[Span, float] = {}

    def add(self, span: Span, found: Sequence[Candidate], weight: float) -> None:
        """Note the nearest titles of a run, and the weight of its words."""
        codes = [code.code for code in self._written if span.start <= code.start < span.end]
        similarity = found[0].similarity if found else 0.0
        if len(codes) == 1:
            # A code belongs with the words that name it, and with no others.
            similarity = max((item.similarity for item in found if item.code == codes[0]), default=0.0)
            similarity = max(similarity, float(span in self.pieces))
        elif codes and span not in self.pieces:
            similarity = 0.0
        self._similarity[span] = similarity
        self._worth[span] = similarity**2 * weight

    def is_open(self) -> bool:
        """Whether cutting may help: several pieces, not too many to try, and no title that is all of them."""
        return 1 < len(self.pieces) <= MOST_TRIED_PIECES and self._similarity[self.whole] < CLEAR_SIMILARITY

    def list_spans(self) -> list[Span]:
        """Every run of at most MOST_PIECES neighbouring pieces."""
        return [
            Span(self.pieces[first].start, self.pieces[last].end)
            for first in range(len(self.pieces))
            for last in range(first, min(len(self.pieces), first + MOST_PIECES))
        ]

    def solve(self, price: float) -> list[Span]:
        """The conditions."""
        if len(self.pieces) > MOST_TRIED_PIECES:
            return list(self.pieces)
        return choose_cuts(self.pieces, self._worth.__getitem__, price) if self.is_open() else [self.whole]


def choose_cuts(pieces: Sequence[Span], worth: Callable[[Span], float], price: float) -> list[Span]:
    """The runs of pieces with the greatest sum of `worth` less `price` a run; a piece worth less may stay out."""
    best = [0.0] * (len(pieces) + 1)
    previous: list[int | None] = [None] * (len(pieces) + 1)
    for end in range(1, len(pieces) + 1):
        best[end] = best[end - 1]
        for first in range(max(0, end - MOST_PIECES), end):
            value = best[first] + worth(Span(pieces[first].start, pieces[end - 1].end)) - price
            if value > best[end] + 1e-9:
                best[end], previous[end] = value, first
    cuts: list[Span] = []
    end = len(pieces)
    while end > 0:
        start = previous[end]
        if start is None:
            end -= 1
        else:
            cuts.append(Span(pieces[start].start, pieces[end - 1].end))
            end = start
    return cuts[::-1]
