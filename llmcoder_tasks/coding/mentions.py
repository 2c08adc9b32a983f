"""Where a note names a condition.

In a diagnosis list each item is one mention, whole, for the phrase coder to code. In prose only what the release itself names
counts: the longest stretches of words that, in any order, are a name in the terminology. That keeps precision: prose speaks of
much that no coder codes.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from llmcoder_tasks.coding.context import Assertion, Sentence, assess_mentions, split_sentences
from llmcoder_tasks.coding.sections import Section, SectionKind
from llmcoder_tasks.coding.terminology import WORD, Naming, Terminology, content_words, reduce_word

LONGEST_ITEM_WORDS = 22
"""A longer line of a diagnosis list is prose."""

LONGEST_NAME_WORDS = 8
_LONGEST_STRETCH = 12  # running words, empty ones included

SILENT_SECTIONS: frozenset[SectionKind] = frozenset(
    {"family", "allergies", "medications", "examination", "results", "plan", "procedures", "other", "admission_diagnoses"}
)
"""What they name is not coded from them: found again in the diagnoses or the course if it mattered."""

_EVERYDAY_CHAPTERS = ("S", "T", "Z", "D49", "C80")
"""Of these codes a single word says too little: wound, fracture, donor, tumor."""

_EVERYDAY_WORDS = frozenset(
    """bleeding hemorrhage pain axis atlas pre arrest death growth shock colic stress infection injury deformity inflammation
    code""".split()  # noqa: SIM905 - a list of words reads as one
)
"""Single words that the release lists and that name no diagnosis by themselves."""

_ITEM = re.compile(r"[^\n]+")
_BULLET = re.compile(r"[ \t]*(?:(?:[-*•·#>+]+|\(?\d{1,2}[.):]|\(?[a-zA-Z][.)])[ \t]+)*")
_LABEL = re.compile(
    r"(?:(?:primary|principal|secondary|final|other|active|chronic|acute|discharge|resolved|main|additional|associated|"
    r"comorbid(?:ities| conditions)?|admission|preoperative|postoperative)[ \t]*)*"
    r"(?:diagnos[ei]s|dx|problems?|issues|conditions)?(?:\(es\)|\(s\))?[ \t]*:[ \t]*",
    re.IGNORECASE,
)
_CODE_MARK = re.compile(r"[ \t]*[(\[]?\b(?:ICD-?10(?:-CM)?:?[ \t]*)?[A-Z]\d[0-9A-Z](?:\.[0-9A-Z]{1,4})?\b[)\]]?[ \t]*$")
_SPLITS = re.compile(r";|(?<=\w)[ \t]+/[ \t]+(?=\w)")
_INLINE_NUMBER = re.compile(r"(?<![\w.])(\d{1,2})[.)][ \t]+(?=[^\W\d])")
_OWN_NUMBER = re.compile(r"(\d{1,2})[.):][ \t]+$")
_LONGEST_BULLET = 8
_LIST_SEPARATOR = re.compile(r",|\band\b")
_TRAILING = " \t.,;:-–"
_PLAN_TAIL = re.compile(r"[ \t]+(?:-{1,2}|–|—)[ \t]+|\.[ \t]+(?=[A-Z])|:[ \t]+(?=[A-Z])")
_GAP = re.compile(r"[^\n.;:!?]*\n?[^\n.;:!?]*")


@dataclass(frozen=True, slots=True)
class Mention:
    """A condition named in a note: `text[start:end]`, offsets into the original text.

    `naming` is what the terminology says it is, or None for a phrase that only the phrase coder can judge.
    """

    start: int
    end: int
    section: SectionKind
    is_listed: bool
    assertion: Assertion
    naming: Naming | None


def find_mentions(text: str, sections: Sequence[Section], terminology: Terminology) -> list[Mention]:
    """All mentions of a note in order of place, with what the note says about each; those of SILENT_SECTIONS too."""
    found: list[Mention] = []
    for section in sections:
        if section.kind == "diagnoses":
            found += _find_listed(text, section, terminology)
        else:
            found += _find_in_prose(text, section.start, section.end, section.kind, terminology)
    return found


def _find_listed(text: str, section: Section, terminology: Terminology) -> Iterator[Mention]:
    for start, end in (part for item in _split_items(text, section) for part in _split_numbered(text, *item)):
        if len(WORD.findall(text, start, end)) > LONGEST_ITEM_WORDS:
            yield from _find_in_prose(text, start, end, section.kind, terminology)
            continue
        for piece in _split_item(text, start, end, terminology):
            yield _read_item(text, *piece, section.kind, terminology)


def _split_items(text: str, section: Section) -> list[tuple[int, int]]:
    """The lines of a list, each with the lines it wraps onto: those that begin in lower case without a bullet, unless the first
    line of the list does so too.
    """
    items: list[tuple[int, int]] = []
    bulleted = False
    is_lower = text[section.start : section.end].lstrip()[:1].islower()
    for match in _ITEM.finditer(text, section.start, section.end):
        if not match[0].strip():
            continue
        bullet = _BULLET.match(text, match.start(), match.end())
        start = bullet.end() if bullet else match.start()
        has_bullet = start > match.start() + len(match[0]) - len(match[0].lstrip())
        if not has_bullet and not is_lower and text[start].islower() and items and "\n\n" not in text[items[-1][1] : start]:
            items[-1] = (items[-1][0], match.end())
            continue
        if not has_bullet and bulleted and text[match.start() - 2 : match.start()].isspace():
            break  # a blank line, then no bullet: the list is over
        bulleted = bulleted or has_bullet
        label = _LABEL.match(text, start, match.end())
        items.append((label.end() if label else start, match.end()))
    return [item for item in items if text[slice(*item)].strip(_TRAILING)]


def _split_numbered(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """The items of a list whose line breaks are lost: `1. Gout. 2. Asthma.`, counted up from one, or from the item's own number."""
    own = _OWN_NUMBER.search(text, max(0, start - _LONGEST_BULLET), start)
    following = int(own[1]) + 1 if own else 1
    parts = [(start, end)]
    for match in _INLINE_NUMBER.finditer(text, start, end):
        if int(match[1]) == following:
            parts[-1:] = [(parts[-1][0], match.start()), (match.end(), end)]
            following += 1
    return [part for part in parts if text[slice(*part)].strip(_TRAILING)]


def _split_item(text: str, start: int, end: int, terminology: Terminology) -> list[tuple[int, int]]:
    """The conditions of one line: parted at semicolons; at commas only when every part is a name by itself."""
    pieces: list[tuple[int, int]] = []
    for begin, end_of_part in _cut(text, start, end, _SPLITS):
        tail = _PLAN_TAIL.search(text, begin, end_of_part)
        stop = tail.start() if tail and content_words(text[begin : tail.start()]) else end_of_part
        parts = _cut(text, begin, stop, _LIST_SEPARATOR)
        is_list = len(parts) > 1 and terminology.find_phrase(text[begin:stop]) is None
        all_named = is_list and all(terminology.find_phrase(text[slice(*part)]) for part in parts)
        pieces += parts if all_named else [(begin, stop)]
    return [piece for piece in (_trim(text, *piece) for piece in pieces) if piece[0] < piece[1]]


def _cut(text: str, start: int, end: int, at: re.Pattern[str]) -> list[tuple[int, int]]:
    marks = [match.span() for match in at.finditer(text, start, end)]
    begins = [start, *(stop for _, stop in marks)]
    stops = [*(begin for begin, _ in marks), end]
    return list(zip(begins, stops, strict=True))


def _trim(text: str, start: int, end: int) -> tuple[int, int]:
    mark = _CODE_MARK.search(text, start, end)
    if mark and mark.start() > start:
        end = mark.start()
    bullet = _BULLET.match(text, start, end)
    start = bullet.end() if bullet else start
    while start < end and (text[start].isspace() or text[start] in _TRAILING):
        start += 1
    while start < end and (text[end - 1].isspace() or text[end - 1] in _TRAILING):
        end -= 1
    return start, end


_LEADING_TRIGGER = re.compile(
    r"(?:(?:history of|h/o|hx of|status post|s/p|possible|probable|suspected|presumed|likely|questionable|rule out|r/o|"
    r"no evidence of|no|family history of|resolved|prior|previous|remote|old)[ \t:]+)+",
    re.IGNORECASE,
)


def _read_item(text: str, start: int, end: int, kind: SectionKind, terminology: Terminology) -> Mention:
    """A list item as a mention. Words such as `probable` in front are context, unless they belong to a name (`old MI`)."""
    naming = terminology.find_phrase(text[start:end])
    if naming is not None:
        assertion = assess_mentions(text, Sentence(start, end), [(start, end)])[0]
        return Mention(start, end, kind, True, assertion, naming)
    trigger = _LEADING_TRIGGER.match(text, start, end)
    begin = trigger.end() if trigger and trigger.end() < end else start
    stop = _end_of_condition(text, begin, end)
    assertion = assess_mentions(text, Sentence(start, end), [(begin, stop)])[0]
    return Mention(begin, stop, kind, True, assertion, terminology.find_phrase(text[begin:stop]))


_REMARK = re.compile(
    r"[ \t,]*(?:[(\[][^()\[\]]*[)\]]\s*$|\b(?:ruled out|resolved|s/p|status post|treated with|improving|improved|stable|unchanged|"
    r"asymptomatic|doing well|(?<!not )at goal|not at goal|(?<!poorly )(?:well[- ])?controlled|"
    r"on (?:home |chronic )?(?:\d|[a-z]+(?:in|ol|ide|ban|ril|one)\b))).*",
    re.IGNORECASE | re.DOTALL,
)


def _end_of_condition(text: str, start: int, end: int) -> int:
    """Where the name ends and remarks begin: `COPD (on home oxygen)`, `pneumonia, resolved`."""
    remark = _REMARK.search(text, start + 3, end)
    return remark.start() if remark else end


@dataclass(frozen=True, slots=True)
class _Word:
    reduced: str
    start: int
    end: int


def _find_in_prose(text: str, start: int, end: int, kind: SectionKind, terminology: Terminology) -> Iterator[Mention]:
    for sentence in split_sentences(text, start, end):
        words = [_Word(reduce_word(match[0]), *match.span()) for match in WORD.finditer(text, sentence.start, sentence.end)]
        spans = _match_names(text, words, terminology)
        assertions = assess_mentions(text, sentence, [(begin, stop) for begin, stop, _ in spans])
        for (begin, stop, naming), assertion in zip(spans, assertions, strict=True):
            yield Mention(begin, stop, kind, False, assertion, naming)


def _match_names(text: str, words: Sequence[_Word], terminology: Terminology) -> list[tuple[int, int, Naming]]:
    """Names in a sentence, the longest first, none overlapping another; in order of place."""
    matches: list[tuple[int, int, int, Naming]] = []
    for first, word in enumerate(words):
        if word.reduced in terminology.words:
            matches += _names_from(text, words, first, terminology)
    matches.sort(key=lambda match: (-match[2], match[0]))
    taken: list[tuple[int, int]] = []
    chosen: list[tuple[int, int, Naming]] = []
    for start, end, _, naming in matches:
        index = bisect_right(taken, (start, end))
        if (index > 0 and taken[index - 1][1] > start) or (index < len(taken) and taken[index][0] < end):
            continue
        taken.insert(index, (start, end))
        chosen.append((start, end, naming))
    return sorted(chosen, key=lambda match: match[0])


def _names_from(text: str, words: Sequence[_Word], first: int, terminology: Terminology) -> Iterator[tuple[int, int, int, Naming]]:
    """(start, end, number of content words, naming) of each name that begins at one word."""
    content: set[str] = set()
    for last in range(first, min(first + _LONGEST_STRETCH, len(words))):
        word = words[last]
        if last > first and not _GAP.fullmatch(text, words[last - 1].end, word.start):
            return
        if not word.reduced:
            continue
        if word.reduced not in terminology.words or len(content) == LONGEST_NAME_WORDS:
            return
        content.add(word.reduced)
        naming = terminology.find(tuple(sorted(content)))
        if naming is not None and (
            len(content) > 1 or _stands_alone(text[word.start : word.end], word.reduced, naming, terminology)
        ):
            yield words[first].start, word.end, len(content), naming


def _stands_alone(written: str, reduced: str, naming: Naming, terminology: Terminology) -> bool:
    """Whether one word in prose names a condition: acronyms in capitals, and no word of everyday hospital life."""
    if reduced in terminology.acronyms:
        return not written.islower()
    return reduced not in _EVERYDAY_WORDS and not any(code.startswith(_EVERYDAY_CHAPTERS) for code in naming.codes)
