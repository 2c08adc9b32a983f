"""Made-up discharge notes: a few asserted conditions in sections, between things that must not be coded.

Which conditions stand in one note is the business of `companions`. The label of a note is the asserted conditions in order of
mention. Negated findings, relatives' diseases and plans are distractors.
No real person: names, ages and histories are drawn by chance.
"""

from __future__ import annotations

from collections.abc import Sequence

from llmcoder_tasks.dataset.chance import Chance
from llmcoder_tasks.dataset.sentences import Person, find_patient
from llmcoder_tasks.dataset.titles import upper_first
from llmcoder_tasks.dataset.variations import Variations

_COMPLAINTS = (
    "chest pain", "fever", "chills", "shortness of breath", "palpitations", "abdominal pain", "nausea", "vomiting", "dizziness",
    "syncope", "headache", "cough", "hemoptysis", "dysuria", "hematuria", "weight loss", "night sweats", "blurred vision",
    "leg swelling", "melena",
)  # fmt: skip
_FEARED = (
    "pulmonary embolism", "acute myocardial infarction", "pneumonia", "deep vein thrombosis", "sepsis", "stroke", "appendicitis",
    "bowel obstruction", "meningitis", "acute kidney injury", "malignancy", "osteomyelitis", "heart failure",
    "gastrointestinal bleeding",
)  # fmt: skip
_FAMILY = (
    "breast cancer", "colon cancer", "type 2 diabetes", "hypertension", "coronary artery disease", "stroke", "dementia", "asthma",
    "glaucoma", "osteoporosis", "schizophrenia", "kidney disease",
)  # fmt: skip
_RELATIVES = ("mother", "father", "sister", "brother", "maternal aunt", "paternal grandfather")
_NEGATIONS = (
    "No evidence of {f}.", "{F} was ruled out.", "Work-up negative for {f}.", "There were no signs of {f}.",
    "Imaging showed no {f}.", "{F} was considered and excluded.",
)  # fmt: skip
_DENIALS = ("Denies {a}, {b} or {c}.", "Negative for {a}, {b} and {c}.", "No {a}, no {b}, no {c}.", "{Who} denied {a} and {b}.")
_PLANS = (
    "Return to the emergency department for {a} or {b}.", "Call the office if {a} develops.", "Watch for signs of {f}.",
    "Seek care early if {a} or {b} occurs.",
)  # fmt: skip
_COURSES = (
    "Hospital course was otherwise uneventful.", "Vital signs remained stable.", "Diet was advanced as tolerated.",
    "The patient was ambulating on the day of discharge.", "Pain was well controlled on oral medication.",
    "Laboratory values returned to baseline.",
)  # fmt: skip
_ENDINGS = (
    "Discharged home in stable condition.", "Discharged to a skilled nursing facility.", "Follow up with primary care in one week.",
    "Follow up in clinic in two weeks.", "Discharged home with home health services.",
)  # fmt: skip
_TITLES = ("DISCHARGE SUMMARY", "Discharge Summary", "DISCHARGE NOTE", "Hospital Discharge Summary")
_EXTERNAL_CAUSES = "VWXY"


class _Draft:
    """A note in the making: its sections, and the codes asserted so far in order of first mention."""

    def __init__(self) -> None:
        self.sections: list[str] = []
        self.codes: list[str] = []

    def add(self, heading: str, lines: Sequence[str]) -> None:
        if lines:
            self.sections.append(f"{heading}:\n" + "\n".join(lines))

    def assert_code(self, code: str) -> None:
        if code not in self.codes:
            self.codes.append(code)


def write_note(codes: Sequence[str], variations: Variations, chance: Chance) -> tuple[str, tuple[str, ...]]:
    """A note that asserts every one of the codes and no other, and the codes in order of first mention."""
    person = _cast(codes, variations, chance)
    draft = _Draft()
    sex = "male" if person.male else "female"
    draft.sections.append(f"{chance.pick(_TITLES)}\n\nPatient: {person.name}    Age: {person.age}    Sex: {sex}")
    in_prose = [code for code in codes if chance.happens(0.6)] or [codes[0]]
    in_list = list(codes) if chance.happens(0.6) else [code for code in codes if code not in in_prose]
    if chance.happens(0.5):
        _tell(draft, in_prose, variations, person, chance)
        _list(draft, in_list, variations, chance)
    else:
        _list(draft, in_list, variations, chance)
        _tell(draft, in_prose, variations, person, chance)
    draft.add(chance.pick(("Disposition", "Plan", "Discharge instructions")), [_plan(chance), chance.pick(_ENDINGS)])
    return "\n\n".join(draft.sections), tuple(draft.codes)


def _cast(codes: Sequence[str], variations: Variations, chance: Chance) -> Person:
    """Somebody who can have all the conditions: as the one says that says most of who that is."""
    sources = [variations.sources[code] for code in codes]
    patients = [find_patient(source.code, source.parts.condition) for source in sources]
    telling = max(
        range(len(codes)), key=lambda place: (patients[place].is_newborn, patients[place].is_pregnant, patients[place].sex != "")
    )
    return variations.narrator.cast(sources[telling].code, sources[telling].parts.condition, chance)


def _tell(draft: _Draft, codes: Sequence[str], variations: Variations, person: Person, chance: Chance) -> None:
    """History, family and course in prose: each code in one sentence, with distractors around it."""
    causes = [code for code in codes if code[0] in _EXTERNAL_CAUSES]
    conditions = [code for code in codes if code not in causes]
    before, after = conditions[: (len(conditions) + 1) // 2], conditions[(len(conditions) + 1) // 2 :]
    lines = [_sentence(draft, code, variations, person, chance) for code in [*before, *causes]]
    lines.append(_denial(person, chance))
    draft.add(chance.pick(("History of present illness", "HPI", "Reason for admission")), [" ".join(lines)])
    if chance.happens(0.6):
        relative, disease = chance.pick(_RELATIVES), chance.pick(_FAMILY)
        draft.add(chance.pick(("Family history", "FH", "Family Hx")), [f"{upper_first(relative)} with {disease}."])
    course = [_sentence(draft, code, variations, person, chance) for code in after]
    feared = chance.pick(_FEARED)
    course.append(chance.pick(_NEGATIONS).format(f=feared, F=upper_first(feared)))
    course.append(chance.pick(_COURSES))
    draft.add(chance.pick(("Hospital course", "Course", "Brief hospital course")), [" ".join(course)])


def _sentence(draft: _Draft, code: str, variations: Variations, person: Person, chance: Chance) -> str:
    draft.assert_code(code)
    text = variations.narrator.tell_of(code, variations.sources[code].parts, person, chance)
    return text if text.endswith(".") else f"{text}."


def _list(draft: _Draft, codes: Sequence[str], variations: Variations, chance: Chance) -> None:
    for code in codes:
        draft.assert_code(code)
    mark = chance.pick(("{}. ", "{}) ", "- ", "* ", ""))
    lines = [mark.format(number) + variations.mention(code, chance) for number, code in enumerate(codes, start=1)]
    draft.add(chance.pick(("Discharge diagnoses", "DIAGNOSES", "Final diagnoses", "Diagnoses at discharge", "Problem list")), lines)


def _denial(person: Person, chance: Chance) -> str:
    first, second, third = chance.shuffled(_COMPLAINTS)[:3]
    return chance.pick(_DENIALS).format(a=first, b=second, c=third, Who=upper_first(person.name))


def _plan(chance: Chance) -> str:
    first, second = chance.shuffled(_COMPLAINTS)[:2]
    return chance.pick(_PLANS).format(a=first, b=second, f=chance.pick(_FEARED))
