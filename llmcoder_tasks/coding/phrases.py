"""Several conditions in one text, and codes that the text itself names.

A comma may stand between two conditions or inside one title (`Fracture of femur, subsequent encounter`), so punctuation only offers
places to cut. Of all ways to cut, those few are offered whose parts together look most like titles: the sum over parts of the
squared weight of their words times the squared similarity to the nearest title, which is how much of a text its titles explain,
less a price for each condition, for each piece that is left out, and for each joint that is kept although it looks like an end.
Which of them it is, the coder says, who knows how sure a code each part has.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from llmcoder_tasks.coding.run_similarity import RunSimilarity
from llmcoder_tasks.records import parse_code

if TYPE_CHECKING:
    from llmcoder_tasks.coding.candidates import CandidateIndex

_NEW_LINE = re.compile(r"[\r\n\u2022\u2028\u2029]+")
_LIST_NUMBER = re.compile(r"(?:^|(?<=\s))(?P<before>[(#]?)(?P<number>\d{1,2})(?P<after>[.):]?)(?=\s|[^\W\d])")
_MAY_CUT = re.compile(
    r"[,;]|(?<!\b[a-z])(?<!\b[a-z][a-z])(?<!\bmrs)\.(?=\s+(?-i:[A-Z0-9]))|\s[-–—/&+]\s"
    r"|\s(?:and|as well as|plus|also|along with|together with|in addition to)\s"
    r"|(?:^|(?<=\s))(?:moreover|furthermore|there is also|in addition|additionally|also|another problem is|further diagnosis:)\s",
    re.IGNORECASE,
)
_HEADING = re.compile(
    r"^\W*(?:[\w/]+\s+){0,3}(?:diagnos[ie]s|dx|impression|assessment|problems?|problem list|conditions|diagnostic list)"
    r"\s*(?:[:\n]|$)",
    re.IGNORECASE,
)
_STRONG_JOINT = re.compile(r"/|[^\W\d_]{4}")  # `plus`, `as well as`; not `and`
_EDGE = " \t,.:;-–—*•&+/"
_WRITTEN_CODE = re.compile(r"(?<![\w.])[A-Za-z]\d[0-9A-Za-z](?:\.?[0-9A-Za-z]{1,4})?(?![\w]|\.\w)")

MOST_PIECES = 8
"""A condition spans at most so many pieces: the longest titles have six commas and `and`s."""

MOST_TRIED_PIECES = 60
"""A group of more pieces is no phrase: it is cut at every piece, so that a page in one line costs no more than its words."""

CLEAR_SIMILARITY = 0.999
"""A group that is so like one title is one condition: nothing is cut."""

MOST_CUTS = 3
"""Ways to cut a line that are offered. On validation lines a fourth changes nothing."""

CUT_REACH = 0.6
"""How much worse than the best way to cut another one may be, in the unit of the prices."""

# Prices, as shares of the squared mean weight of a word.
CUT_PRICE = 0.3
"""What a further condition costs: without it, noise would cut titles apart."""

DROP_PRICE = 0.5
"""What it costs to leave a piece out of every condition."""

CAPITAL_PRICE = 0.3
"""What it costs to join a piece that begins like a sentence to the one before."""

AFTER_TAIL_PRICE = 0.02
"""What it costs to join a piece to a tail before it: of two conditions, a tail rather belongs to the first."""

STRONG_JOINT_PRICE = 0.3
"""What it costs to keep together what a semicolon, a full stop, a slash or words such as `as well as` part."""

UNEXPLAINED_PRICE = 0.15
"""What words cost that the nearest title does not explain, as a share of what they would be worth."""

LEAST_SIMILARITY = 0.45
"""A part that is less like every title is no condition."""


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a text: character offsets, end exclusive."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Cut:
    """A way to cut a line into conditions, and how much of the line it explains, in squared mean weights of a word."""

    spans: tuple[Span, ...]
    worth: float


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
    """The smallest parts a text may be cut into, in groups between which it is always cut: lines and items of a list."""
    groups = [
        [trimmed for piece in _cut(group, _MAY_CUT.finditer(text, group.start, group.end)) if (trimmed := _trim(text, piece))]
        for line in _cut(Span(_skip_heading(text), len(text)), _NEW_LINE.finditer(text))
        for group in _cut(line, _find_list_numbers(text, line))
    ]
    return [group for group in groups if group]


def _find_list_numbers(text: str, line: Span) -> Iterator[re.Match[str]]:
    """`1. 2. 3.` or `1) 2) 3)`: one form throughout, counting up; a number at the beginning of a line may be any."""
    form: tuple[str, str] | None = None
    following = 1
    for match in _LIST_NUMBER.finditer(text, line.start, line.end):
        found, number = (match["before"], match["after"]), int(match["number"])
        is_first = form is None and (number == 1 or not text[line.start : match.start()].strip(_EDGE))
        is_list_form = bool(match["after"] or match["before"] == "#") and (match["before"] != "(" or match["after"] == ")")
        if is_list_form and (is_first or (found == form and number == following)):
            form, following = found, number + 1
            yield match


def _skip_heading(text: str) -> int:
    """Where a text goes on after `Discharge diagnoses:`."""
    match = _HEADING.match(text)
    return match.end() if match else 0


def _cut(span: Span, separators: Iterable[re.Match[str]]) -> Iterator[Span]:
    start = span.start
    for match in separators:
        if span.start <= match.start() and match.end() <= span.end:
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

    @cached_property
    def _runs(self) -> RunSimilarity:
        return RunSimilarity(self._index.documents)

    def find(self, texts: Sequence[str], written: Sequence[Sequence[WrittenCode]]) -> list[list[list[Cut]]]:
        """For each line of each text, in order, where it may be cut: the way that explains most first, the whole line always among
        them. `written` are the codes that a text names itself: a line with one is cut in one way.
        """
        return [
            [self._cut_group(text, group, codes) for group in split_pieces(text)]
            for text, codes in zip(texts, written, strict=True)
        ]

    def _cut_group(self, text: str, pieces: Sequence[Span], written: Sequence[WrittenCode]) -> list[Cut]:
        if len(pieces) == 1 or len(pieces) > MOST_TRIED_PIECES:
            return [Cut(tuple(pieces), 0.0)]
        whole = (Span(pieces[0].start, pieces[-1].end),)
        # With the point behind it, if there is one: `subseq.` is short for something.
        words = [self._index.read(text[piece.start : piece.end + 1]).words for piece in pieces]
        tails = [self._runs.is_tail(of_piece) for of_piece in words]
        similarity, weight = self._runs.score(words)
        if similarity[0][-1] >= CLEAR_SIMILARITY:
            return [Cut(whole, 0.0)]
        unit = self._runs.mean_weight**2
        prices = [_price_joint(text, left, right, tails[place : place + 2]) for place, (left, right) in enumerate(pairwise(pieces))]
        joined = [0.0, *accumulate(unit * price for price in prices)]
        named = [sum(piece.start <= code.start < piece.end for code in written) for piece in pieces]

        def worth(first: int, last: int) -> float:
            if any(named[first : last + 1]):
                # A code belongs with the words that name it, and with no others.
                return weight[first][last] + 2.0 * unit if first == last else 0.0
            if similarity[first][last] < LEAST_SIMILARITY or all(tails[first : last + 1]):
                return 0.0
            explained = similarity[first][last] ** 2
            return (explained - UNEXPLAINED_PRICE * (1.0 - explained)) * weight[first][last] - (joined[last] - joined[first])

        ranked = rank_cuts(pieces, worth, price=CUT_PRICE * unit, drop=DROP_PRICE * unit, most=MOST_CUTS)
        cuts = [Cut(spans, value / unit) for value, spans in ranked if spans and value >= ranked[0][0] - CUT_REACH * unit]
        if not cuts or any(named):
            return cuts[:1] or [Cut(whole, 0.0)]
        if all(cut.spans != whole for cut in cuts):
            as_one = worth(0, len(pieces) - 1) / unit if len(pieces) <= MOST_PIECES else 0.0
            cuts.append(Cut(whole, as_one - CUT_PRICE))
        return cuts


def _price_joint(text: str, left: Span, right: Span, tails: Sequence[bool]) -> float:
    """What it costs to keep two neighbouring pieces together, by what stands between them and how the second begins."""
    begins_sentence = text[right.start].isupper() and text[right.start + 1 : right.start + 2].islower()
    if tails[1] and not begins_sentence:
        return AFTER_TAIL_PRICE * tails[0]
    gap = text[left.end : right.start]
    is_strong = gap[0] == ";" or (gap[0] == "." and "," not in gap) or _STRONG_JOINT.search(gap) is not None
    return STRONG_JOINT_PRICE * is_strong + CAPITAL_PRICE * begins_sentence + AFTER_TAIL_PRICE * tails[0]


def rank_cuts(
    pieces: Sequence[Span], worth: Callable[[int, int], float], *, price: float, drop: float, most: int = 1
) -> list[tuple[float, tuple[Span, ...]]]:
    """The `most` ways to take runs of pieces with the greatest sum of `worth(first, last)` less `price` a run and `drop` a piece
    left out, each with its sum, the greatest first.
    """
    best: list[list[tuple[float, tuple[Span, ...]]]] = [[(0.0, ())]]
    for last in range(len(pieces)):
        ways = []
        for first in range(max(0, last + 1 - MOST_PIECES), last + 1):
            value, run = worth(first, last) - price, Span(pieces[first].start, pieces[last].end)
            ways += [(before + value, (*spans, run)) for before, spans in best[first]]
        ways += [(before - drop, spans) for before, spans in best[last]]
        best.append(sorted(ways, key=lambda way: -way[0])[:most])
    return best[-1]
