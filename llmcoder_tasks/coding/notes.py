"""A whole note to codes: sections, mentions, context, codes, each with where the note says so.

Which mentions count: what a final list names, and of the rest of such a summary the chronic conditions of the history. What the
official guidelines ask of the codes together is the business of `rules`; what payers check, of `edits`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol
from weakref import WeakKeyDictionary

from llmcoder_tasks.coding.edits import check_edits
from llmcoder_tasks.coding.mentions import Mention, find_mentions
from llmcoder_tasks.coding.rules import apply_rules
from llmcoder_tasks.coding.rules.draft import Proposed, RuleBook
from llmcoder_tasks.coding.rules.policy import US_INPATIENT, CodingPolicy
from llmcoder_tasks.coding.sections import split_sections
from llmcoder_tasks.coding.terminology import Naming, Terminology
from llmcoder_tasks.records import CodedNote, CodePrediction, Decision, Patient

if TYPE_CHECKING:
    from llmcoder_tasks.icd10cm.code_set import CodeSet


class ScoredCode(Protocol):
    """A code for a phrase with the calibrated probability that it is right."""

    @property
    def code(self) -> str: ...
    @property
    def confidence(self) -> float: ...


class PhraseCoder(Protocol):
    """What coding a note needs of a phrase coder. Must be hashable by identity."""

    @property
    def code_set(self) -> CodeSet: ...
    @property
    def auto_threshold(self) -> float: ...
    def code_phrases(self, texts: Sequence[str]) -> Sequence[Sequence[ScoredCode]]:
        """For each phrase its codes, the best first."""


_CHRONIC = (
    "B18", "B20", "C", "D5", "D6", "D86", "E0", "E1", "E2", "E66", "E7", "E8", "F", "G1", "G2", "G3", "G40", "G43", "G47",
    "G6", "G7", "G8", "H2", "H3", "H4", "H9", "I05", "I06", "I07", "I08", "I1", "I25", "I27", "I3", "I4", "I5", "I69", "I7",
    "I8", "J4", "J84", "K2", "K50", "K51", "K57", "K58", "K7", "K86", "L2", "L4", "M", "N18", "N19", "N2", "N4", "N8", "Q", "Z",
)  # fmt: skip
"""Prefixes of conditions that stay: `history of` one of them means that the patient has it. Other past conditions are over."""

_HISTORIES = frozenset({"history", "surgical_history", "social"})

_SYMPTOMS = "R"
_NEOPLASMS = "C"

# How often a code found in that way is right, on our sample summaries (lists, history) and on published case reports (prose),
# rounded down: a name that stands whole in the final list 133 of 134, one without its qualifiers 5 of 5, a name in prose 62 to
# 72 %, a symptom in prose between 14 % (summaries) and 78 % (case reports, where every mention is coded).
LISTED_NAME_CONFIDENCE = 0.97
LISTED_PART_CONFIDENCE = 0.90
HISTORY_CONFIDENCE = 0.70
PROSE_CONFIDENCE = 0.60
SYMPTOM_CONFIDENCE = 0.40
POSSIBLE_FACTOR = 0.6

LEAST_PHRASE_CONFIDENCE = 0.50
"""A phrase whose best code is more likely wrong than right is not coded."""


@dataclass(frozen=True, slots=True)
class _Found:
    """A code with the mention that gave it."""

    code: str
    confidence: float
    mention: Mention


_terminologies: WeakKeyDictionary[PhraseCoder, Terminology] = WeakKeyDictionary()
_books: WeakKeyDictionary[PhraseCoder, RuleBook] = WeakKeyDictionary()


def code_note(coder: PhraseCoder, text: str) -> tuple[CodePrediction, ...]:
    """The codes of one note, the proposed principal diagnosis first, each once."""
    return code_notes(coder, [text])[0].codes


def code_notes(
    coder: PhraseCoder,
    texts: Sequence[str],
    patients: Sequence[Patient | None] | None = None,
    *,
    policy: CodingPolicy = US_INPATIENT,
) -> list[CodedNote]:
    """Several notes, coded; the phrases of all notes go to the phrase coder together, each once.

    `patients` goes with `texts`; without a patient, or without the day of discharge, no payer's edits are run.
    """
    terminology = terminology_of(coder)
    read = [_read_note(text, terminology) for text in texts]
    phrases = list(dict.fromkeys(phrase for noted in read for mention, phrase in noted if _needs_coder(mention)))
    answers = dict(zip(phrases, coder.code_phrases(phrases), strict=True)) if phrases else {}
    book = _book_of(coder)
    results = []
    for text, patient, noted in zip(texts, patients or [None] * len(texts), read, strict=True):
        found = [item for mention, phrase in noted for item in _code_mention(mention, answers.get(phrase, ()), terminology, coder)]
        codes, findings = apply_rules([_propose(item, coder) for item in _settle(found)], text, book, policy=policy)
        edits, grouping = check_edits(codes, patient or Patient())
        results.append(CodedNote(codes, (*findings, *edits), grouping))
    return results


def _book_of(coder: PhraseCoder) -> RuleBook:
    if coder not in _books:
        _books[coder] = RuleBook(coder.code_set)
    return _books[coder]


def terminology_of(coder: PhraseCoder) -> Terminology:
    """Built once for each coder: it takes seconds."""
    if coder not in _terminologies:
        _terminologies[coder] = Terminology.build(coder.code_set)
    return _terminologies[coder]


def _read_note(text: str, terminology: Terminology) -> list[tuple[Mention, str]]:
    """Mentions, with their words, of what the patient has, had, or may have according to the final list."""
    return [
        (mention, text[mention.start : mention.end])
        for mention in find_mentions(text, split_sections(text), terminology)
        if mention.assertion in {"present", "historical"} or (mention.assertion == "possible" and mention.is_listed)
    ]


def _needs_coder(mention: Mention) -> bool:
    return mention.is_listed and (mention.naming is None or len(mention.naming.codes) > 1)


def _code_mention(mention: Mention, answer: Sequence[ScoredCode], terminology: Terminology, coder: PhraseCoder) -> Iterator[_Found]:
    if mention.naming is None or len(mention.naming.codes) > 1:
        code = _choose(mention.naming, answer)
        if code is not None and code.confidence >= LEAST_PHRASE_CONFIDENCE and _is_current(mention, code.code):
            yield _Found(code.code, _soften(mention, code.confidence), mention)
        return
    code_named = mention.naming.codes[0]
    if _is_current(mention, code_named):
        yield _Found(code_named, _soften(mention, _weigh(mention, code_named)), mention)
    elif (past := _past_code(coder.code_set.titles[code_named], terminology)) is not None:
        yield _Found(past, _soften(mention, HISTORY_CONFIDENCE), mention)


def _choose(naming: Naming | None, answer: Sequence[ScoredCode]) -> ScoredCode | None:
    """The phrase coder's best code, among the names' codes where the terminology is only undecided."""
    allowed = [scored for scored in answer if naming is None or scored.code in naming.codes]
    return allowed[0] if allowed else None


def _is_current(mention: Mention, code: str) -> bool:
    """Whether the patient still has it: past conditions are coded as history, chronic ones as present."""
    is_past = mention.assertion == "historical" or mention.section in {"history", "surgical_history"}
    if not is_past:
        return True
    if code.startswith(_NEOPLASMS):
        return mention.assertion != "historical"
    return code.startswith(_CHRONIC)


def _past_code(title: str, terminology: Terminology) -> str | None:
    """The code for a personal history of a condition, where the release names one."""
    for words in ("personal history of", "history of"):
        naming = terminology.find_phrase(f"{words} {title}")
        if naming is not None and len(naming.codes) == 1:
            return naming.codes[0]
    return None


def _weigh(mention: Mention, code: str) -> float:
    """Confidence of a code that the terminology names, by where it stands."""
    if mention.is_listed:
        return LISTED_NAME_CONFIDENCE if mention.naming is not None and mention.naming.is_complete else LISTED_PART_CONFIDENCE
    if code.startswith(_SYMPTOMS):
        return SYMPTOM_CONFIDENCE
    return HISTORY_CONFIDENCE if mention.section == "history" else PROSE_CONFIDENCE


def _soften(mention: Mention, confidence: float) -> float:
    return confidence * POSSIBLE_FACTOR if mention.assertion == "possible" else confidence


def _settle(found: Sequence[_Found]) -> list[_Found]:
    """Each code once, by its surest mention; what the final list says goes before what prose says, and mostly instead of it."""
    best: dict[str, _Found] = {}
    for item in found:
        if item.code not in best or item.confidence > best[item.code].confidence:
            best[item.code] = item
    has_list = any(item.mention.is_listed for item in best.values())
    kept = [item for item in best.values() if item.mention.is_listed or not has_list or _is_lasting(item)]
    return sorted(kept, key=lambda item: (not item.mention.is_listed, item.mention.start))


def _is_lasting(item: _Found) -> bool:
    """Whether a code from prose counts beside a final list: a condition of the history, no symptom."""
    return item.mention.section in _HISTORIES and not item.code.startswith(_SYMPTOMS)


def _propose(found: _Found, coder: PhraseCoder) -> Proposed:
    mention = found.mention
    sure = mention.is_listed and mention.assertion == "present" and found.confidence >= coder.auto_threshold
    decision: Decision = "auto" if sure else "review"
    is_uncertain = mention.assertion == "possible"
    return Proposed(found.code, found.confidence, decision, mention.start, mention.end, mention.is_listed, is_uncertain)
