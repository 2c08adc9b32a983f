"""What a language model says of a note, held against the note: where the quote stands, what is said there, how sure the code is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from llmcoder_tasks.coding.context import Sentence, assess_mentions, split_sentences
from llmcoder_tasks.coding.mentions import Mention
from llmcoder_tasks.coding.note_reader import Diagnosis
from llmcoder_tasks.coding.rules.draft import Proposed
from llmcoder_tasks.coding.sections import Section, split_sections
from llmcoder_tasks.coding.terminology import Terminology
from llmcoder_tasks.coding.weighing import is_current, past_code, propose, soften, weigh
from llmcoder_tasks.records import Finding

if TYPE_CHECKING:
    from llmcoder_tasks.icd10cm.code_set import CodeSet

UNSUPPORTED_CONFIDENCE = 0.2
"""For a code that nothing but the language model speaks for. It is a floor, and no estimate: such a code goes to a person."""

_NOT_HAD = frozenset({"negated", "family", "hypothetical"})
_STATUS = "Z"
"""Status and history codes rest on just such words: allergic to penicillin, mother had breast cancer."""


class Judge(Protocol):
    """What is needed of a phrase coder beside its answers to the quotes."""

    @property
    def code_set(self) -> CodeSet: ...
    @property
    def auto_threshold(self) -> float: ...


def weigh_diagnoses(
    text: str,
    diagnoses: Sequence[Diagnosis],
    phrase_confidences: Sequence[dict[str, float]],
    terminology: Terminology,
    judge: Judge,
) -> tuple[list[Proposed], tuple[Finding, ...]]:
    """Proposals for the rules, each code once, and a finding for each code that the note does not bear out.

    `phrase_confidences` holds, for the quote of each diagnosis, the phrase coder's codes with their calibrated confidence.
    """
    sections = split_sections(text)
    proposed: dict[str, Proposed] = {}
    findings: list[Finding] = []
    for diagnosis, confidences in zip(diagnoses, phrase_confidences, strict=True):
        mention = find_evidence(text, diagnosis.quote, sections, terminology)
        code, finding = _hold_against(text, diagnosis, mention, terminology, judge.code_set)
        findings += [finding] if finding else []
        if code is None or mention is None:
            continue
        if diagnosis.is_uncertain and mention.assertion == "present":
            mention = replace(mention, assertion="possible")
        confidence = soften(mention, _estimate(code, mention, confidences))
        if code not in proposed or proposed[code].confidence < confidence:
            proposed[code] = propose(code, confidence, (mention.start, mention.end), mention, judge.auto_threshold)
    return list(proposed.values()), tuple(findings)


def _hold_against(
    text: str, diagnosis: Diagnosis, mention: Mention | None, terminology: Terminology, code_set: CodeSet
) -> tuple[str | None, Finding | None]:
    """The code that the note bears out, if any, and what is to be said where it is not the model's."""
    code = diagnosis.code
    if mention is None:
        reason = "the words that the language model gave for it are not in the note"
        return None, Finding("evidence_missing", "removed", code, None, reason, 0, len(text))
    place = (mention.start, mention.end)
    if not code.startswith(_STATUS) and (mention.assertion in _NOT_HAD or mention.section == "family"):
        reason = "the note denies it there, only plans for it, or says it of a relative"
        return None, Finding("evidence_denied", "removed", code, None, reason, *place)
    if is_current(mention, code):
        return code, None
    past = past_code(code_set.titles.get(code, ""), terminology)
    if past is None:
        reason = "the note speaks of it as over, and the release has no history code for it"
        return None, Finding("evidence_past", "removed", code, None, reason, *place)
    return past, Finding("evidence_past", "replaced", code, past, "the note speaks of it as over: coded as history", *place)


def find_evidence(text: str, quote: str, sections: Sequence[Section], terminology: Terminology) -> Mention | None:
    """Where the quote stands, whatever its line breaks and capitals: in the final list if it does, and where it is not denied."""
    words = quote.split()
    if not words:
        return None
    body = r"\s+".join(re.escape(word) for word in words)
    # Whole words: `MI` is not in `admitted`.
    edges = (r"(?<!\w)" if words[0][0].isalnum() else "", r"(?!\w)" if words[-1][-1].isalnum() else "")
    places = [match.span() for match in re.finditer(f"{edges[0]}{body}{edges[1]}", text, re.IGNORECASE)]
    mentions = [_read_place(text, place, sections, terminology) for place in places]
    return min(
        mentions,
        key=lambda item: (item.assertion in _NOT_HAD, not item.is_listed, item.section == "family", item.start),
        default=None,
    )


def _read_place(text: str, place: tuple[int, int], sections: Sequence[Section], terminology: Terminology) -> Mention:
    section = next((part for part in sections if part.start <= place[0] < part.end), Section("other", place[0], place[1]))
    sentences = split_sentences(text, section.start, max(section.end, place[1]))
    # A quote that reaches over the end of a sentence speaks for itself.
    sentence = next((part for part in sentences if part.start <= place[0] and place[1] <= part.end), Sentence(*place))
    (assertion,) = assess_mentions(text, sentence, [place])
    naming = terminology.find_phrase(text[place[0] : place[1]])
    return Mention(*place, section.kind, section.kind == "diagnoses", assertion, naming)


def _estimate(code: str, mention: Mention, confidences: dict[str, float]) -> float:
    """The release's own name for these words, else the phrase coder's opinion, else next to nothing."""
    if mention.naming is not None and mention.naming.codes == (code,):
        return weigh(mention, code)
    return max(confidences.get(code, 0.0), UNSUPPORTED_CONFIDENCE)
