"""A whole note to codes: sections, mentions, context, codes, each with where the note says so.

Which mentions count follows the official guidelines for coding and reporting: uncertain diagnoses of an inpatient's final list are
coded as if they existed (section II.H), but here never without review; signs and symptoms are not coded beside the diagnoses of a
structured summary (section I.B.5); an unspecified code gives way to a specific one of the same category.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol
from weakref import WeakKeyDictionary

from llmcoder_tasks.coding.mentions import Mention, find_mentions
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

_HELD_BY = {"I10": ("I11", "I12", "I13", "I1A", "O10"), "I50": ("I0981",), "E11": ("E08", "E10", "E13", "O24"), "J45": ("J44",)}
"""Codes that the classification has inside, or forbids beside, others."""

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


def code_note(coder: PhraseCoder, text: str) -> tuple[CodePrediction, ...]:
    """The codes of one note, the proposed principal diagnosis first, each once."""
    return code_notes(coder, [text])[0].codes


def code_notes(coder: PhraseCoder, texts: Sequence[str], patients: Sequence[Patient | None] | None = None) -> list[CodedNote]:
    """Several notes, coded; the phrases of all notes go to the phrase coder together, each once.

    `patients` goes with `texts`; what is not known of a patient is left out of the rules and edits that need it.
    """
    terminology = terminology_of(coder)
    read = [_read_note(text, terminology) for text in texts]
    phrases = list(dict.fromkeys(phrase for noted in read for mention, phrase in noted if _needs_coder(mention)))
    answers = dict(zip(phrases, coder.code_phrases(phrases), strict=True)) if phrases else {}
    results = []
    for noted in read:
        found = [item for mention, phrase in noted for item in _code_mention(mention, answers.get(phrase, ()), terminology, coder)]
        results.append(CodedNote(tuple(_predict(item, coder) for item in _settle(found, coder.code_set.titles))))
    return results


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


def _settle(found: Sequence[_Found], titles: Mapping[str, str]) -> list[_Found]:
    """Each code once, by its surest mention; what the final list says goes before, and over, what prose says.

    In prose an unspecified code gives way to a specific one of its category.
    """
    best: dict[str, _Found] = {}
    for item in found:
        if item.code not in best or item.confidence > best[item.code].confidence:
            best[item.code] = item
    listed = [item.code for item in best.values() if item.mention.is_listed]
    kept = [item for item in best.values() if item.mention.is_listed or not _is_overtaken(item, listed)]
    specific = {item.code[:3] for item in kept if not _is_unspecified(item.code, titles)}
    kept = [
        item for item in kept if item.mention.is_listed or item.code[:3] not in specific or not _is_unspecified(item.code, titles)
    ]
    return sorted(kept, key=lambda item: (not item.mention.is_listed, item.mention.start))


def _is_unspecified(code: str, titles: Mapping[str, str]) -> bool:
    return any(mark in titles[code].lower() for mark in ("unspecified", "not specified", "without complications"))


def _is_overtaken(item: _Found, listed: Sequence[str]) -> bool:
    """Beside a final list only the chronic conditions of the history count, and of them none that the list has or holds."""
    if not listed:
        return False
    if item.mention.section not in _HISTORIES or item.code.startswith(_SYMPTOMS):
        return True
    if any(item.code[:3] == other[:3] for other in listed):
        return True
    return any(other.startswith(holders) for part, holders in _HELD_BY.items() if item.code.startswith(part) for other in listed)


def _predict(found: _Found, coder: PhraseCoder) -> CodePrediction:
    sure = found.mention.is_listed and found.mention.assertion == "present" and found.confidence >= coder.auto_threshold
    decision: Decision = "auto" if sure else "review"
    return CodePrediction(
        found.code,
        coder.code_set.titles[found.code],
        round(found.confidence, 4),
        decision,
        found.mention.start,
        found.mention.end,
    )
