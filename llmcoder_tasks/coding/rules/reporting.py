"""Rules about which codes are reported beside which, and in what order."""

from __future__ import annotations

import re

from llmcoder_tasks.coding.rules.draft import Draft, Proposed, shown
from llmcoder_tasks.icd10cm.tabular_notes import parse_ranges

_INFECTIONS = (
    "A", "B0", "B15", "B16", "B17", "B25", "B26", "B27", "B3", "B4", "B5", "B6", "B95", "B96", "B97", "B99", "G00", "G03", "G04",
    "I33", "J0", "J1", "J20", "J21", "J22", "J85", "J86", "K35", "K57", "K65", "K81", "K830", "L03", "M00", "M86", "N10", "N30",
    "N390", "O85", "O86", "T80", "T81", "T82", "T84",
)  # fmt: skip
_LUNGS = ("J", "I26", "I27", "I50", "C34", "A15", "I110", "I130", "I132")
_HEART = ("I20", "I21", "I22", "I24", "I25", "I26", "I30", "I40", "I71", "J18", "J93", "J90")
_RHYTHM = ("I44", "I45", "I47", "I48", "I49")
_BRAIN = (
    "F05", "F10", "G0", "G3", "G40", "G45", "G93", "I60", "I61", "I62", "I63", "I67", "S06", "E16", "E87", "K72", "A41", "N39",
)  # fmt: skip
_ABDOMEN = ("A0", "K", "N10", "N13", "N20", "N23", "C16", "C18", "C25", "E101", "E111")

_EXPLAINED_BY: dict[str, tuple[str, ...]] = {
    "R00": _RHYTHM, "R03": ("I1",), "R04": ("J", "I26", "C34", "K2", "I85"), "R05": _LUNGS, "R06": _LUNGS, "R07": _HEART,
    "R09": _LUNGS, "R10": _ABDOMEN, "R11": (*_ABDOMEN, "G43", "T4"), "R12": ("K21", "K2"), "R13": ("K22", "C15"),
    "R14": _ABDOMEN, "R16": ("K7", "B1", "C22"), "R17": ("K7", "K80", "K83", "B15", "B16", "B17", "C22", "C25"), "R18": ("K7", "C"),
    "R19": ("A0", "K5"), "R21": ("L", "B0"), "R22": ("C", "L"), "R31": ("N", "C6"), "R33": ("N40", "N13"),
    "R34": ("N17",), "R35": ("E1", "N40"), "R40": _BRAIN, "R41": _BRAIN, "R42": ("H81",),
    "R50": _INFECTIONS, "R51": ("G43", "G44", "I6", "G0", "I16"), "R55": (*_RHYTHM, "I35", "I95", "G90"), "R56": ("G40", "E87"),
    "R57": ("I21", "A41"), "R59": ("C8", "C77", "A15"), "R60": ("I50", "I110", "I130", "I132", "N0", "N17", "N18", "K7"),
    "R61": _INFECTIONS, "R63": ("C", "E4"), "R68": _INFECTIONS, "R73": ("E08", "E09", "E1"), "R74": ("K7", "B1"),
    "R78": ("A4",), "R80": ("N0", "N1"), "R91": ("C34", "J"), "R93": ("C",),
}  # fmt: skip
"""Symptom → beginnings of diagnoses of which it is an integral part."""

_SUPPLEMENTARY = ("V", "W", "X", "Y", "Z")
_ORGANISMS = ("B95", "B96", "B97")
_NAMES_A_DETAIL = re.compile(r"identify (?:the )?(?:\w+ ){0,2}?(?:stage|type|severity)|specify (?:the )?(?:stage|type|severity)")
_PRINCIPAL_STATUS = ("Z38", "Z51", "Z52", "Z37", "Z48", "Z49", "Z43", "Z47")


def drop_integral_symptoms(draft: Draft) -> None:
    """Signs and symptoms that belong to a diagnosis are not coded beside it, unless the tabular list asks for them there.
    Guidelines I.B.4 and I.B.5. A policy can keep them.
    """
    if draft.policy.code_symptoms:
        return
    for item in draft.find("R"):
        for other in draft.find(*_EXPLAINED_BY.get(item.code[:3], ("-",))):
            if draft.book.notes.names(other.code, "use_additional_code", item.code):
                continue
            reason = f"a symptom that belongs to {shown(other.code)} is not coded beside it"
            draft.remove(item, "integral_symptom", reason, other)
            break


def require_own_mention(draft: Draft) -> None:
    """An external cause (V-Y) or a status (Z) needs words of its own in the note, not those of another condition.
    Guidelines I.C.20.a and I.C.21.c.3.
    """
    conditions = [item for item in draft.items if not item.code.startswith(_SUPPLEMENTARY)]
    for item in draft.find(*_SUPPLEMENTARY):
        for other in conditions:
            if other.start <= item.start and item.end <= other.end:
                draft.remove(item, "own_mention", f"the same words say {shown(other.code)}; nothing else supports it", other)
                break


def put_cause_first(draft: Draft) -> None:
    """A cause stands before its manifestation where the tabular list says `code first`. Guideline I.A.13. A manifestation without
    its cause is flagged.
    """
    for item in list(draft.items):
        ranges = draft.book.notes.ranges_of(item.code, "code_first")
        causes = [other for other in draft.items if other is not item and draft.book.notes.covers(ranges, other.code)]
        if not causes:
            if draft.book.is_manifestation(item.code):
                draft.flag(item, "code_first", "the code of the underlying condition goes first, and the note gave none")
            continue
        cause = causes[0]
        if draft.items.index(cause) > draft.items.index(item):
            draft.move_before(cause, item)
            draft.flag(cause, "code_first", f"stands before {shown(item.code)}: the tabular list says code first", item)


def ask_for_additional_code(draft: Draft) -> None:
    """Where the tabular list asks for an additional code of a stage, type or severity, and none is there, say so. Guideline I.A.17
    and I.B.7. Notes that ask for a cause, an organism or tobacco use hold only where the note knows one: they are left out.
    """
    for item in list(draft.items):
        for note in draft.book.notes.own_notes(item.code, "use_additional_code"):
            ranges = parse_ranges(note)
            if not ranges or not _NAMES_A_DETAIL.search(note) or "if applicable" in note:
                continue
            if not any(draft.book.notes.covers(ranges, other.code) for other in draft.items):
                draft.flag(item, "use_additional_code", f"the tabular list asks: use additional {note}")


def propose_principal(draft: Draft) -> None:
    """The first code that may be a principal diagnosis goes first: no manifestation, organism, external cause or status while there
    is another, and a symptom only where the final list names it and nothing explains it. Guideline II, II.A, II.C; I.A.13.
    """
    if not draft.items or _may_be_principal(draft, draft.items[0]):
        return
    first = draft.items[0]
    for item in draft.items[1:]:
        if _may_be_principal(draft, item):
            draft.move_before(item, first)
            reason = f"proposed as principal diagnosis: {shown(first.code)} is a symptom, a manifestation, a cause or a status"
            draft.flag(item, "principal_diagnosis", reason, first)
            return


def _may_be_principal(draft: Draft, item: Proposed) -> bool:
    if item.code.startswith(_PRINCIPAL_STATUS):
        return True
    if item.code.startswith("R"):
        return item.is_listed
    return not (item.code.startswith((*_SUPPLEMENTARY, *_ORGANISMS)) or draft.book.is_manifestation(item.code))
