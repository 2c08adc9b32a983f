"""The sections of a discharge summary, as hospitals write them.

A heading is a known name on a line of its own, or before a colon (`PMH: COPD`), or any other short line in capitals that ends in a
colon; in text that lost its line breaks, a known name in capitals before a colon. `S: O: A: P:` are headings where at least two of
them stand. Text without headings is one section of kind `narrative`. Sections cover the whole text, in order, without gaps.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

SectionKind = Literal[
    "diagnoses",  # what the hospital says was treated: principal, secondary, final, problem list, assessment
    "admission_diagnoses",  # what was thought at the door: overtaken by the diagnoses
    "complaint",
    "present_illness",
    "history",  # past medical history
    "surgical_history",
    "family",
    "social",
    "allergies",
    "medications",
    "examination",
    "results",
    "procedures",
    "course",
    "plan",  # instructions, follow-up, disposition: about what may come
    "other",
    "narrative",  # no heading above it
]

_HEADINGS: tuple[tuple[SectionKind, str], ...] = (
    (
        "family",
        r"(pertinent )?(family|fam)( medical)? (history|hx)|fhx?|fam hx|family and social history|social and family history",
    ),
    (
        "social",
        r"(pertinent )?(social|psychosocial|substance( use)?|tobacco|smoking|occupational) (history|hx)|shx?|soc hx|"
        r"habits",
    ),
    (
        "surgical_history",
        r"(past )?(surgical|operative|procedural) (history|hx)|pshx?|past surgeries",
    ),
    (
        "history",
        r"(significant |pertinent |relevant )?(past )?medical (history|hx)|past (history|hx)|pmhx?|"
        r"(active |chronic |ongoing )?comorbid(ities| conditions)|"
        r"chronic (conditions|illnesses|problems|medical problems)|past medical and surgical history|pmh ?/ ?psh|"
        r"past medical ?(/|and|&) ?(past )?surgical history|past medical history and (past )?surgical history|"
        r"(past )?(psychiatric|obstetrics?|obstetrical|ob|gynecologic(al)?|gyn|ob ?/ ?gyn|birth|developmental|oncologic(al)?|"
        r"cardiac) (history|hx)|(cardiac |cardiovascular )?risk factors|history|personal history|antecedents",
    ),
    (
        "admission_diagnoses",
        r"diagnos[ei]s (at|on) admission|differential( diagnos[ei]s)?|"
        r"(admitting|admission|initial|provisional|presumptive|preoperative|pre-operative|working|"
        r"referral) (diagnos[ei]s|dx|impression)",
    ),
    (
        "diagnoses",
        r"((primary|principal|final|discharge|secondary|associated|additional|other|main|postoperative|"
        r"post-operative|active|clinical|principal discharge|final discharge|secondary discharge|"
        r"primary discharge|discharge primary|discharge secondary) )*(diagnos[ei]s|dx|"
        r"diagnostic impression)( at discharge| on discharge| list|\(es\)|\(s\))?|"
        r"((primary|secondary|today ?s|billing) )?((visit|encounter|billing|today ?s) )(diagnos[ei]s|dx)|conclusions?|"
        r"(assessment|impression) ?(and|&|/) ?(recommendations?|discussion)|assessment \(medical decision making\)|"
        r"(clinical|overall|medical) (assessment|impression)|diagnos[ei]s \(icd[- ]?10( codes?)?\)|"
        r"(active |discharge |hospital |medical |current |chronic )*(problems?|problem list|issues)( list)?|"
        r"assessments?|(assessment|impression|diagnos[ei]s) ?(and|&|/) ?plan|a ?[/&] ?p|clinical impression|final impression|"
        r"complications|complications during (the )?(stay|hospitali[sz]ation|admission)|"
        r"hospital[- ]acquired conditions",
    ),
    (
        "complaint",
        r"(chief|presenting|primary|main) (complaints?|concern|problem)|cc|"
        r"reason for (admission|hospitali[sz]ation|visit|consult(ation)?|referral)|presentation|admission reason|"
        r"indications?( for (the )?(procedure|surgery|operation|exam(ination)?|study|visit))?",
    ),
    (
        "present_illness",
        r"(history of (the )?)?(present|presenting|current) (illness|complaint)|hpi|interval history|brief history|"
        r"clinical history|subjective( complaints?)?",
    ),
    (
        "course",
        r"(brief |summary of |concise )?(hospital|inpatient|clinical|ed|emergency department|icu|"
        r"postoperative|post-operative) course( by (problem|system)s?| and treatment)?|"
        r"course( in (the )?hospital| of (treatment|hospitali[sz]ation))?|summary of hospitali[sz]ation|"
        r"narrative( summary)?|summary|medical decision making|mdm|discussion|comments?|"
        r"hospital summary|evolution|clinical summary|case (report|summary|presentation)",
    ),
    (
        "medications",
        r"((discharge|admission|home|current|outpatient|inpatient|preadmission|changed|new|stopped|"
        r"discontinued) )*(medications?|meds|prescriptions?|drugs)( (on|at|prior to) (admission|discharge|"
        r"arrival|home))?( list| changes| reconciliation)?|treatment at discharge",
    ),
    (
        "allergies",
        r"(drug |known |medication )?allerg(y|ies)( list)?(( and|/) ?(adverse )?(drug )?(reactions|intolerances))?|"
        r"adverse reactions|immunizations?",
    ),
    (
        "examination",
        r"(physical|discharge|admission|general|neurologic(al)?|focused|clinical|"
        r"mental status) (exam(ination)?|pe)( (on|at) (admission|discharge))?|physical|pe|exam(ination)?|vital signs?|"
        r"objective( findings| data)?|"
        r"vitals|(discharge|admission) vitals|review of systems|ros|"
        r"physical exam(ination)? (on|at) (admission|discharge)",
    ),
    (
        "results",
        r"(pertinent |relevant |significant |key |discharge |admission )*(results|labs?|laborator(y|"
        r"ies)( data| results| values| studies| findings)?|imaging|radiology|studies|data|findings|"
        r"microbiology|pathology|investigations|diagnostics?|diagnostic studies|ekg|ecg|echocardiogram|"
        r"cultures|chest x-?ray|cxr|ct( scan)?|mri|ultrasound)( results| reports?| studies| findings| data)?|"
        r"impression|pertinent results|tests",
    ),
    (
        "procedures",
        r"(major |invasive |principal |surgical |other |bedside )*(surgical or invasive )?(procedures?|"
        r"operations?|interventions?|surger(y|ies))( performed| and operations| and treatments)?|"
        r"consult(ation)?s?( obtained| services?)?",
    ),
    (
        "plan",
        r"plan|(plan|goals) of care|(discharge |follow[- ]?up |patient |home |return |wound )*(instructions?|plans?|precautions|"
        r"disposition|condition|status|recommendations|appointments?|care|diet|activity|"
        r"education)( at discharge| on discharge)?|follow[- ]?up|disposition|condition|discharge condition|"
        r"pending( results| labs| studies| at discharge)*|transitional issues|code status|to do|goals of care|"
        r"prognosis",
    ),
    (
        "other",
        r"(patient )?(name|id|mrn|age|sex|gender|unit no|record number|dob)|date of (admission|discharge|birth)|"
        r"(admission|discharge|admit) date|date (admitted|discharged)|service|attending( physician)?|author|pcp|"
        r"dictated by|signed|facility|length of stay|demographics|electronically signed by|discharge summary",
    ),
)

_KNOWN = tuple((kind, re.compile(pattern)) for kind, pattern in _HEADINGS)
_HEADING_LINE = re.compile(
    r"^[ \t]*(?:[#*_]+[ \t]*|\d{1,2}[.)][ \t]+)?(?P<name>[A-Za-z][A-Za-z0-9 /&()'\-]{0,58}?)[ \t*_]*"
    r"(?:(?P<colon>:)[ \t*_]*(?P<rest>[^\n]*))?\r?$",
    re.MULTILINE,
)


_INLINE_HEADING = re.compile(r"(?<=[.,;)\s])(?P<name>[A-Z][A-Z /&()'\-]{0,57}[A-Z)]):[ \t,]*")
"""Where line breaks are lost: `... well. PLAN: rest.`"""

_LETTERS: dict[str, SectionKind] = {"S": "present_illness", "O": "examination", "A": "diagnoses", "P": "plan"}
"""Subjective, objective, assessment, plan."""


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a note. `start` and `end` are character offsets of its content, without the heading (end exclusive)."""

    kind: SectionKind
    start: int
    end: int


def split_sections(text: str) -> tuple[Section, ...]:
    """The sections of a note, in order. Headings belong to no section; empty sections are left out."""
    marks = [_Heading(0, 0, "narrative"), *_find_headings(text)]
    ends = [*(heading.start for heading in marks[1:]), len(text)]
    return tuple(
        Section(heading.kind, heading.content, end)
        for heading, end in zip(marks, ends, strict=True)
        if text[heading.content : end].strip()
    )


def name_section(heading: str) -> SectionKind | None:
    """The kind a heading stands for, or None when it is no heading that we know."""
    name = " ".join(re.sub(r"[^a-z0-9/&()\- ]", " ", heading.lower()).split())
    for kind, pattern in _KNOWN:
        if pattern.fullmatch(name):
            return kind
    return None


@dataclass(frozen=True, slots=True)
class _Heading:
    """A heading from `start`, its content from `content`."""

    start: int
    content: int
    kind: SectionKind


def _find_headings(text: str) -> list[_Heading]:
    """Every heading, in order."""
    found: list[_Heading] = []
    has_letters = len({match["name"] for match in _HEADING_LINE.finditer(text) if _is_letter(match)}) > 1
    for match in _HEADING_LINE.finditer(text):
        name, colon = match["name"], match["colon"]
        kind = _LETTERS[name] if has_letters and _is_letter(match) else name_section(name)
        if kind is None and colon and name.isupper() and len(name) > 3:
            kind = "other" if not found else _inherit(found[-1].kind)
        if kind is not None:
            found.append(_Heading(match.start(), match.start("rest") if colon else match.end(), kind))
    inline = [
        _Heading(match.start(), match.end(), kind)
        for match in _INLINE_HEADING.finditer(text)
        if not _begins_line(text, match.start()) and (kind := name_section(match["name"])) is not None
    ]
    return _read_impressions(sorted([*found, *inline], key=lambda heading: heading.start), text)


def _begins_line(text: str, start: int) -> bool:
    return not text[text.rfind("\n", 0, start) + 1 : start].strip(" \t#*_")


def _is_letter(match: re.Match[str]) -> bool:
    return match["colon"] is not None and match["name"] in _LETTERS


def _read_impressions(headings: list[_Heading], text: str) -> list[_Heading]:
    """`Impression` closes a report of imaging or the laboratory; else, in a note without another final list, it is that list."""
    if any(heading.kind == "diagnoses" for heading in headings):
        return headings
    read = []
    for place, heading in enumerate(headings):
        is_impression = text[heading.start : heading.content].strip(" \t*#_:\n").casefold() == "impression"
        is_report = place > 0 and headings[place - 1].kind in {"results", "procedures"}
        read.append(replace(heading, kind="diagnoses") if is_impression and not is_report else heading)
    return read


def _inherit(above: SectionKind) -> SectionKind:
    """What an unknown heading in capitals stands for: in a hospital course it names a problem, elsewhere anything."""
    return "course" if above == "course" else "other"
