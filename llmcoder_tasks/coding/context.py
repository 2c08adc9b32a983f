"""What a note says about a condition it names: present, denied, someone else's, past, or only feared.

A small rule engine in the manner of NegEx (Chapman 2001) and ConText (Harkema 2009): trigger phrases open a scope before or after
them, terminators and the end of the sentence close it. The tables below are the rules; the functions only apply them.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Assertion = Literal["present", "negated", "family", "hypothetical", "historical", "possible"]

_FORWARD: dict[Assertion, str] = {
    "negated": r"""
        no|not|non|never|without|denies|denied|denying|deny|negative for|neg for|free of|absence of|absent|lack of|lacks|
        lacking|no evidence of|no signs? of|no history of|no prior|no known|no new|no other|no complaints? of|not have|
        does not have|did not have|has not had|did not reveal|did not show|does not show|showed no|shows no|revealed no|
        reveals no|ruled out for|ruled out|rules out|ruling out|excluded|excludes|fails to reveal|failed to reveal|
        unremarkable for|rather than|instead of|unlikely|unlikely to be|less likely|low suspicion for|low concern for|
        resolution of|nor|neither|cannot have|w/o|-ve for|with no|there was no|there were no|without any|
        without evidence of|not consistent with|not suggestive of|not due to|no longer has|no longer|not indicative of|
        against|inconsistent with|not thought to be|not felt to be""",
    "family": r"""
        family history of|family history is significant for|family history significant for|family history positive for|
        family hx of|fh of|fhx of|family history|mother|father|brother|sister|son|daughter|aunt|uncle|cousin|grandmother|
        grandfather|maternal|paternal|parents?|siblings?|grandparents?|mother's|father's|brother's|sister's|her mother|
        his mother|wife|husband""",
    "hypothetical": r"""
        if|return for|should|in case of|return to (?:the )?(?:ed|er|emergency department|hospital) (?:for|with)|watch for|
        monitor for|monitoring for|call for|seek care for|to prevent|prevention of|prophylaxis for|prophylaxis against|
        prophylactic|at risk for|at risk of|risk of|risk for|risk factors? for|high risk for|screening for|screen for|
        screened for|to evaluate for|evaluate for|evaluated for|evaluation for|evaluation of possible|to assess for|
        assess for|workup for|work-up for|work up for|vaccine|vaccination|vaccinated against|immunization|precautions for|
        precautions|counselled about|educated about|education about|education on|instructed on|advised to return|
        as needed for|prn|p\.r\.n\.|to avoid|in order to rule out|to rule out|rule out|r/o|testing for|tested for|
        test for|were to develop|consider|avoid|planned|scheduled for|candidate for|allergic to|allergy to""",
    "historical": r"""
        history of|histories of|h/o|hx of|hx|past history of|prior history of|remote history of|remote|
        personal history of|previous|previously|prior|former|past|status post|s/p|childhood|old|resolved|
        history significant for|history notable for|history includes|history including|history is significant for|
        history is notable for|medical history of|recovered from|in the past|previous episodes? of|antecedents? of""",
    "possible": r"""
        possible|possibly|probable|probably|suspected|suspect|suspicion of|suspicion for|suspicious for|likely|presumed|
        presumptive|questionable|question of|concern for|concerning for|concern about|may have|might have|may be|might be|
        could be|could have|could represent|may represent|might represent|cannot exclude|cannot rule out|can not rule out|
        not excluded|vs|versus|differential|differential diagnosis|differential includes|suggestive of|suggesting|
        suggests|suggestion of|compatible with|consistent with|appears to be|thought to be|felt to be|apparent|query|
        borderline|evolving|equivocal for|not ruled out|worrisome for""",
}
"""Triggers whose scope runs forward to the next terminator."""

_BACKWARD: dict[Assertion, str] = {
    "negated": r"""
        ruled out|was ruled out|were ruled out|has been ruled out|have been ruled out|is ruled out|excluded|was excluded|
        is excluded|unlikely|was unlikely|is unlikely|felt to be unlikely|was negative|were negative|is negative|negative|
        not present|was absent|absent|was not seen|were not seen|not seen|was not found|not found|not identified|
        not detected|was not demonstrated|is denied|was denied|denied|less likely|was thought unlikely|not confirmed|
        not observed|did not occur|not demonstrated""",
    "historical": r"""
        resolved|has resolved|now resolved|had resolved|in the past|in childhood|as a child|in remission|years ago|
        months ago""",
    "family": r"""
        in (?:her|his|the|their) (?:mother|father|brother|sister|son|daughter|family|aunt|uncle)|
        runs in (?:her|his|the) family""",
    "possible": r"""
        is possible|was possible|is suspected|was suspected|suspected|cannot be excluded|could not be excluded|
        cannot be ruled out|could not be ruled out|not ruled out|not excluded|is likely|was likely|is probable|considered|
        was considered|is in the differential|not entirely excluded""",
    "hypothetical": r"""
        prophylaxis|prevention|precautions|screening|screen|risk|vaccine|vaccination|clinic|unit|protocol|education|panel|
        scale|score""",
}
"""Triggers that speak about what stands before them, within a few words."""

_PSEUDO = r"""
    no increase|no change|no significant change|no interval change|not only|not just|not certain whether|not certain if|
    no further|without difficulty|no doubt|not necessarily|not well controlled|not controlled|gram negative|gram-negative|
    negative pressure|history and physical|past the|past week|past month|past day|past few|past two|past three|last|
    post op|posterior|previously described|previously mentioned|previously healthy|no improvement in|no relief|
    not improve|not respond|not responded|failure to|not tolerate|no response|not resolved|not improved|non-compliant|
    noncompliant|likely due to|likely secondary to|not responding|most likely due to|old male|old female|old man|
    old woman|old boy|old girl|year old|years old|month old|day old|year-old|years-old|month-old|week-old|day-old|prior to
"""
"""Phrases that hold a trigger and are none."""

_TERMINATORS = r"""
    but|however|although|though|except|apart from|aside from|other than|yet|still|nevertheless|secondary to|due to|
    because of|cause of|reason for|presented with|presents with|presenting with|who presented|who presents|which revealed|
    which showed|was found to have|found to have|was diagnosed with|diagnosed with|now|currently|currently with|
    admitted with|admitted for|is admitted|was admitted|complicated by|developed|develops|developing|reports|reported|
    complains of|complaining of|endorses|treated with|requiring|required|underwent|was started|started on|until|he|she|
    patient|positive for|and has|and had|and was|and is|with residual|he has|she has|showed|revealed|demonstrated|
    confirmed|came to|consulted
"""

_BACKWARD_REACH = 60
_WHITESPACE = re.compile(r"\s+")
_PHRASE_END = re.compile(r"\|(?![^(]*\))")  # a bar inside a group parts words of one phrase


def _compile(phrases: str) -> re.Pattern[str]:
    parts = [part.strip() for part in _PHRASE_END.split(_WHITESPACE.sub(" ", phrases))]
    parts = sorted((part.replace(" ", r"\s+") for part in parts if part), key=len, reverse=True)
    return re.compile(rf"(?<![\w]){'(?:' + '|'.join(parts) + ')'}(?![\w])", re.IGNORECASE)


_FORWARD_PATTERNS = {assertion: _compile(phrases) for assertion, phrases in _FORWARD.items()}
_BACKWARD_PATTERNS = {assertion: _compile(phrases) for assertion, phrases in _BACKWARD.items()}
_PSEUDO_PATTERN = _compile(_PSEUDO)
_TERMINATOR_PATTERN = _compile(_TERMINATORS)
_STRONGEST_FIRST: tuple[Assertion, ...] = ("negated", "family", "hypothetical", "historical", "possible")
_SENTENCE_END = re.compile(r"[.!?;](?=\s|$)|\n[ \t]*\n|\n(?=[ \t]*(?:[-*•#]|\d{1,2}[.)]|[A-Z0-9]))")
_ABBREVIATION = re.compile(r"\b(?:dr|mr|mrs|ms|vs|no|st|approx|e\.g|i\.e|\d)\.$", re.IGNORECASE)
_OPEN_LINE_END = re.compile(r"(?:,|\b(?:and|or|of|with|for|the|a|an|no|to|in|on|from|by|without|denies|nor))[ \t]*$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Sentence:
    """A stretch of text in which triggers have effect; character offsets into the note, end exclusive."""

    start: int
    end: int


def split_sentences(text: str, start: int, end: int) -> list[Sentence]:
    """Sentences of text[start:end]. A line that breaks off in the middle of a list goes on in the next."""
    sentences: list[Sentence] = []
    begin = start
    for match in _SENTENCE_END.finditer(text, start, end):
        stop = match.end() if text[match.start()] != "\n" else match.start()
        if match[0] == "." and _ABBREVIATION.search(text, max(begin, match.start() - 8), match.end()):
            continue
        if match[0] == "\n" and _OPEN_LINE_END.search(text, max(begin, match.start() - 16), match.start()):
            continue
        if text[begin:stop].strip():
            sentences.append(Sentence(begin, stop))
        begin = max(stop, match.end())
    if text[begin:end].strip():
        sentences.append(Sentence(begin, end))
    return sentences


def assess_mentions(text: str, sentence: Sentence, spans: Sequence[tuple[int, int]]) -> list[Assertion]:
    """What the sentence says about each span (offsets into the note). A trigger inside a span has no effect on that span."""
    if not spans:
        return []
    body = text[sentence.start : sentence.end]
    triggers = _find_triggers(body)
    stops = sorted(match.start() for match in _TERMINATOR_PATTERN.finditer(body))
    answers: list[Assertion] = []
    for start, end in ((start - sentence.start, end - sentence.start) for start, end in spans):
        said = {trigger.assertion for trigger in triggers if trigger.reaches(start, end, body, stops)}
        answers.append(next((assertion for assertion in _STRONGEST_FIRST if assertion in said), "present"))
    return answers


@dataclass(frozen=True, slots=True)
class _Trigger:
    """A trigger phrase in a sentence; offsets into the sentence, end exclusive."""

    assertion: Assertion
    looks_back: bool
    start: int
    end: int

    def reaches(self, start: int, end: int, body: str, stops: Sequence[int]) -> bool:
        """Whether the span [start, end) lies in the scope: up to a terminator; looking back, near and over no comma."""
        if not self.looks_back:
            # It may run into the name itself: "no history of" before "history of stroke".
            return self.start < start and self.end < end and not _crosses(stops, self.end, start)
        if not end <= self.start <= end + _BACKWARD_REACH:
            return False
        between = body[end : self.start].strip()
        return between == "," or ("," not in between and not _crosses(stops, end, self.start))


def _find_triggers(body: str) -> list[_Trigger]:
    """All triggers of a sentence, save those inside a longer one (`ruled out` in `cannot be ruled out`) or in a pseudo-trigger."""
    found = [
        _Trigger(assertion, looks_back, *match.span())
        for looks_back, patterns in ((False, _FORWARD_PATTERNS), (True, _BACKWARD_PATTERNS))
        for assertion, pattern in patterns.items()
        for match in pattern.finditer(body)
    ]
    covers = [(trigger.start, trigger.end) for trigger in found] + [match.span() for match in _PSEUDO_PATTERN.finditer(body)]
    return [
        trigger
        for trigger in found
        if not any(
            start <= trigger.start and trigger.end <= end and end - start > trigger.end - trigger.start for start, end in covers
        )
    ]


def _crosses(stops: Sequence[int], begin: int, end: int) -> bool:
    """Whether a terminator starts in [begin, end)."""
    index = bisect_right(stops, begin - 1)
    return index < len(stops) and stops[index] < end
