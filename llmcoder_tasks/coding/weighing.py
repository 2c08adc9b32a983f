"""What a mention in a note is worth: whether the patient still has it, and how likely its code is right there."""

from __future__ import annotations

from llmcoder_tasks.coding.mentions import Mention
from llmcoder_tasks.coding.rules.draft import Proposed
from llmcoder_tasks.coding.terminology import Terminology
from llmcoder_tasks.records import Decision

_CHRONIC = (
    "B18", "B20", "C", "D5", "D6", "D86", "E0", "E1", "E2", "E66", "E7", "E8", "F", "G1", "G2", "G3", "G40", "G43", "G47",
    "G6", "G7", "G8", "H2", "H3", "H4", "H9", "I05", "I06", "I07", "I08", "I1", "I25", "I27", "I3", "I4", "I5", "I69", "I7",
    "I8", "J4", "J84", "K2", "K50", "K51", "K57", "K58", "K7", "K86", "L2", "L4", "M", "N18", "N19", "N2", "N4", "N8", "Q", "Z",
)  # fmt: skip
"""Prefixes of conditions that stay: `history of` one of them means that the patient has it. Other past conditions are over."""

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


def is_current(mention: Mention, code: str) -> bool:
    """Whether the patient still has it: past conditions are coded as history, chronic ones as present."""
    is_past = mention.assertion == "historical" or mention.section in {"history", "surgical_history"}
    if not is_past:
        return True
    if code.startswith(_NEOPLASMS):
        return mention.assertion != "historical"
    return code.startswith(_CHRONIC)


def past_code(title: str, terminology: Terminology) -> str | None:
    """The code for a personal history of a condition, where the release names one."""
    for words in ("personal history of", "history of"):
        naming = terminology.find_phrase(f"{words} {title}")
        if naming is not None and len(naming.codes) == 1:
            return naming.codes[0]
    return None


def weigh(mention: Mention, code: str) -> float:
    """Confidence of a code that the terminology names, by where it stands."""
    if mention.is_listed:
        return LISTED_NAME_CONFIDENCE if mention.naming is not None and mention.naming.is_complete else LISTED_PART_CONFIDENCE
    if code.startswith(_SYMPTOMS):
        return SYMPTOM_CONFIDENCE
    return HISTORY_CONFIDENCE if mention.section == "history" else PROSE_CONFIDENCE


def soften(mention: Mention, confidence: float) -> float:
    """Less, where the note is not sure of it."""
    return confidence * POSSIBLE_FACTOR if mention.assertion == "possible" else confidence


def propose(code: str, confidence: float, place: tuple[int, int], mention: Mention | None, auto_threshold: float) -> Proposed:
    """A code as a proposal: accepted without a person only where the final list names it, without doubt, and surely enough."""
    is_listed = mention is not None and mention.is_listed
    sure = mention is not None and is_listed and mention.assertion == "present" and confidence >= auto_threshold
    decision: Decision = "auto" if sure else "review"
    is_uncertain = mention is not None and mention.assertion == "possible"
    return Proposed(code, confidence, decision, *place, is_listed, is_uncertain)
