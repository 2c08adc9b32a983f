"""Conditions inside prose: a frame, a person, the encounter said as people say it, plainer words here and there.

Sprain of right ankle, initial encounter   Maria was seen for the first time for a sprain of her right ankle.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from llmcoder_tasks.dataset import frames
from llmcoder_tasks.dataset.chance import Chance
from llmcoder_tasks.dataset.lexicon import Lexicon
from llmcoder_tasks.dataset.reordering import attach_qualifier
from llmcoder_tasks.dataset.titles import Title, Vocabulary, upper_first

_FEMALE = re.compile(
    r"\b(?:pregnan|matern|ovar|uter(?!o)|vagin|vulv|cervix|cervical dysplasia|menstru|menopaus|obstetric|labor|postpartum|puerper"
    r"|breast|endometri|fallopian|female|women|gestation|delivery|abortion)",
    re.IGNORECASE,
)
_MALE = re.compile(r"\b(?:prostat|testi|penis|penile|scrot|epididym|male\b|seminal|foreskin|phimosis|spermat)", re.IGNORECASE)
_NEWBORN = re.compile(r"\b(?:newborn|neonatal|birth injury)\b", re.IGNORECASE)
_BODY = re.compile(r"\b(?P<of>of|in|at|to|on) (?P<side>right|left) (?=\w)")
_PERSON = re.compile(
    r"^(?:\w[\w -]* )?(?:driver|passenger|occupant|pedestrian|person|rider|cyclist|bystander|motorcyclist|bather|animal-rider)\b.*"
    r"\b(?:injured|hurt|struck)"
)
_COUNTED = re.compile(
    r"^(?:[\w-]+ ){0,3}?(?:fracture|laceration|contusion|abrasion|wound|bite|burn|corrosion|sprain|strain|dislocation|subluxation"
    r"|injury|ulcer|abscess|cyst|hernia|tear|rupture|amputation|blister|deformity|fistula|calculus|lesion|tumor|neoplasm|polyp|stricture"
    r"|contracture|disorder|infection|hematoma|complication|headache|dislocation|thrombosis of|malformation|defect|syndrome)\b"
)
_PLURAL = re.compile(
    r"^(?:[\w-]+ ){0,3}?\w+(?:ies|disorders|injuries|lesions|conditions|diseases|fractures|burns|complications|sites)\b"
)
_REASON = re.compile(
    r"(?P<type>(?:open|closed) fracture(?: type I or II| type IIIA, IIIB, or IIIC)?|fracture)(?: with (?P<healing>.+))?"
)
_HEALING = {
    "routine healing": ("with routine healing", "which is healing routinely", "healing as expected (routine healing)"),
    "delayed healing": ("with delayed healing", "which is slow to heal (delayed healing)", "whose healing is delayed"),
    "nonunion": ("with nonunion", "which has a nonunion", "which has not united (nonunion)"),
    "malunion": ("with malunion", "which has a malunion", "which healed in a bad position (malunion)"),
}
_UNSPECIFIED = (
    ", not specified", ", not further specified", ", type not specified", ", unspecified type", " of unspecified type",
    " that is not further specified", ", which was not specified", " without further specification", " (unspecified)",
    ", not otherwise specified", ", the exact type not being specified",
)  # fmt: skip
_SIDE_AT_END = re.compile(r"\b(?P<of>of|in|to|at) (?P<side>right|left) (?P<part>\w+)(?=$|,)")
_NO_SIDE = re.compile(r"\b(?P<of>of|in|to|at) unspecified (?P<part>\w+)(?=$|,)")
_NO_SIDE_FORMS = (
    "{of} the {part}, side not specified", "{of} an unspecified {part}", "{of} the {part} (unspecified side)",
    "{of} the {part}, unspecified side", "{of} the {part} on an unspecified side",
)  # fmt: skip
_PART_OF = re.compile(r" of (?=(?:shaft|neck|head|base|body|lower end|upper end|surface|wall|lobe|lens|skin) )")
_OF_KIND = ("mild", "moderate", "severe")
_THAT_IS = (
    "intractable",
    "not intractable",
    "uncomplicated",
    "recurrent",
    "bilateral",
    "primary",
    "secondary",
    "accidental (unintentional)",
    "undetermined",
)
_LINKS = re.compile(r" (?P<link>with|without|due to|following|resulting from|associated with) (?!or )")
_SAID_LINKS = {
    "with": ("along with", "together with", "accompanied by"),
    "without": ("with no", "but without", "without any"),
    "due to": ("because of", "as a result of", "that is due to"),
    "following": ("after", "that followed"),
    "resulting from": ("caused by", "as a result of"),
    "associated with": ("that is associated with", "in association with"),
}
_INJURIES = "S"
_NOT_CLOSED = "VWXYZ"  # what happened and why somebody came are not treated or confirmed
_OF_PERSON = ("{Who} ", "A {age}", "The {age}", "This {age}")
_GROWN_UP = re.compile(r"\{(?:age|man|job)\}|^(?:I|My) ")
_BEFORE_VOWEL = re.compile(r"\b([Aa]) (?=(?:8\d?|18)-year|accountant\b|architect\b|electrician\b|engineer\b|office\b)")
_BABY = ("the newborn", "the baby", "this newborn", "the infant")
_PLAIN_SUBJECTS = (
    "the patient",
    "the patient",
    "this patient",
    "our patient",
    "my patient",
    "the {age}-year-old patient",
    "the {age}-year-old {man}",
    "a {age}-year-old {man}",
    "a {job}",
    "{name}, a {job},",
    "{name}, age {age},",
    "{name}, a {age}-year-old {man},",
    "{name} ({age})",
)
_EXTERNAL_CAUSES = "VWXY"


@dataclass(frozen=True, slots=True)
class Person:
    """Who a sentence is about. `their` is the possessive: his, her, or my."""

    name: str
    male: bool
    age: int
    their: str


@dataclass(frozen=True, slots=True)
class Patient:
    """Who can have a condition. `sex` is `female`, `male`, or empty where it may be either."""

    sex: str
    is_newborn: bool
    is_pregnant: bool


@dataclass(frozen=True)
class Narrator:
    """Words for prose: names, synonyms and the vocabulary of the release."""

    names: Mapping[str, tuple[str, ...]]
    synonyms: Mapping[str, tuple[str, ...]]
    synonym_pattern: re.Pattern[str]
    vocabulary: Vocabulary

    @classmethod
    def of_lexicon(cls, lexicon: Lexicon, vocabulary: Vocabulary) -> Narrator:
        """Prepare for the words of a release."""
        longest_first = sorted(lexicon.synonyms, key=len, reverse=True)
        pattern = re.compile(rf"\b(?:{'|'.join(map(re.escape, longest_first))})\b", re.IGNORECASE)
        names = {
            kind: tuple(name for name in names if name.lower() not in vocabulary.words) for kind, names in lexicon.names.items()
        }
        return cls(names, lexicon.synonyms, pattern, vocabulary)

    def cast(self, code: str, title: str, chance: Chance) -> Person:
        """A made-up person who can have this condition: the right sex, and the right age for a newborn."""
        patient = find_patient(code, title)
        either = chance.happens(0.5)
        male = patient.sex == "male" or (not patient.sex and either)
        their = "his" if male else "her"
        given = chance.pick(self.names["male" if male else "female"])
        if patient.is_newborn:
            return Person(f"Baby {given}", male, 0, their)
        age = chance.count(18, 44) if patient.is_pregnant else chance.count(19, 93)
        surname = chance.pick(self.names["surname"])
        name = chance.pick((given, given, f"{given} {surname}", f"{'Mr.' if male else 'Ms.'} {surname}"))
        return Person(name, male, age, their)

    def tell(self, code: str, title: Title, chance: Chance) -> str:
        """A sentence or two, or a line of shorthand, about somebody who fits the condition."""
        person = self.cast(code, title.condition, chance)
        frame = _dress(_choose_frame(code, title, chance), code, chance)
        while not person.age and _GROWN_UP.search(frame):
            frame = _dress(_choose_frame(code, title, chance), code, chance)
        text = self._say(frame, title, person, chance)
        return text.lower() if chance.happens(0.12) else text

    def tell_of(self, code: str, title: Title, person: Person, chance: Chance) -> str:
        """One sentence about a given person, in the third person and without anything beside it."""
        frame = _choose_frame(code, title, chance)
        while _speaks(frame):
            frame = _choose_frame(code, title, chance)
        return self._say(frame, title, person, chance)

    def _say(self, frame: str, title: Title, person: Person, chance: Chance) -> str:
        speaker = replace(person, their="my") if _speaks(frame) else person
        return _fill(frame, self.say_condition(title, speaker, chance), person, chance)

    def say_condition(self, title: Title, person: Person, chance: Chance) -> str:
        """The condition as it stands inside a sentence: qualifiers and the state of its fracture with it, the encounter not."""
        words = self.vocabulary.lower_first(title.condition)
        for qualifier in title.qualifiers:
            words = self._say_qualifier(words, qualifier, chance)
        if title.encounter:
            words = _say_fracture(words, title.encounter, chance)
        if chance.happens(0.5):
            words = self.reword(words, chance)
        return _say_place(_say_link(words, chance), person, chance)

    def reword(self, words: str, chance: Chance) -> str:
        """Plainer words of the same meaning for at most one term."""
        found = list(self.synonym_pattern.finditer(words))
        if not found:
            return words
        match = chance.pick(found)
        return words[: match.start()] + chance.pick(self.synonyms[match[0].lower()]) + words[match.end() :]

    def _say_qualifier(self, words: str, qualifier: str, chance: Chance) -> str:
        draw = chance.share(0, 1)
        if qualifier == "unspecified" and draw < 0.6:
            return f"{words}{chance.pick(_UNSPECIFIED)}"
        if qualifier in _OF_KIND and draw < 0.3:
            return f"{words}, of {qualifier} severity"
        if qualifier in _THAT_IS and draw < 0.3:
            return f"{words}, which is {qualifier}"
        if draw > 0.65:
            return f"{words}, {qualifier}"
        return attach_qualifier(words, qualifier, self.vocabulary, chance)


@lru_cache(4096)
def find_patient(code: str, condition: str) -> Patient:
    """Who can have a condition, as far as its chapter and its words tell."""
    is_pregnant = code[0] == "O"
    sex = "female" if is_pregnant or _FEMALE.search(condition) else "male" if _MALE.search(condition) else ""
    return Patient(sex, code[0] == "P" or bool(_NEWBORN.search(condition)), is_pregnant)


def _say_fracture(words: str, encounter: str, chance: Chance) -> str:
    """Weave the kind of fracture and how it heals, which the title says behind the encounter, into the condition."""
    match = _REASON.fullmatch(encounter.partition(" for ")[2])
    if match is None:
        return words
    kind, healing = match["type"], match["healing"]
    if kind != "fracture":
        simple = " type " not in kind and "fracture" in words
        words = f"{kind.split()[0]} {words}" if simple and chance.happens(0.5) else f"{words}, {_article(kind)} {kind}"
    if healing:
        words = f"{words}, {chance.pick(_HEALING[healing])}" if healing in _HEALING else f"{words} with {healing}"
    return words.replace(", with ", " with ")


def _say_link(words: str, chance: Chance) -> str:
    """Other words between a condition and what goes with it."""
    match = _LINKS.search(words) if chance.happens(0.15) else None
    if match is None:
        return words
    return f"{words[: match.start()]} {chance.pick(_SAID_LINKS[match['link']])} {words[match.end() :]}"


def _say_place(words: str, person: Person, chance: Chance) -> str:
    """Sides and parts of the body as they are said of a person: her right knee, the knee on the left side, the shaft."""
    draw = chance.share(0, 1)
    if draw < 0.45:
        return _BODY.sub(lambda match: f"{match['of']} {chance.pick((person.their, 'the'))} {match['side']} ", words)
    if draw < 0.6:
        whose = chance.pick((person.their, "the"))
        words = _SIDE_AT_END.sub(lambda match: f"{match['of']} {whose} {match['part']} on the {match['side']} side", words)
    elif draw < 0.75:
        words = _NO_SIDE.sub(lambda match: chance.pick(_NO_SIDE_FORMS).format(**match.groupdict()), words)
    return _PART_OF.sub(" of the ", words) if draw > 0.5 else words


def _speaks(frame: str) -> bool:
    return frame.startswith(("I ", "My "))


def _choose_frame(code: str, title: Title, chance: Chance) -> str:
    """A frame that says the encounter where there is one: by itself, or with words added to a plain frame."""
    if not title.encounter:
        return _choose_plain_frame(code, title, chance)
    whole, added = _ENCOUNTER_FRAMES[title.encounter.partition(" ")[0]]
    if chance.happens(0.5):
        return chance.pick(whole)
    frame = _choose_plain_frame(code, title, chance)
    if _speaks(frame) or not frame.endswith(("x}", "x}.")):
        return chance.pick(whole)
    return frame.removesuffix(".") + chance.pick(added)


_ENCOUNTER_FRAMES = {
    "initial": (frames.INITIAL, frames.INITIAL_ADDED),
    "subsequent": (frames.SUBSEQUENT, frames.SUBSEQUENT_ADDED),
    "sequela": (frames.SEQUELA, frames.SEQUELA_ADDED),
}


def _choose_plain_frame(code: str, title: Title, chance: Chance) -> str:
    if code[0] in _EXTERNAL_CAUSES:
        return chance.pick(frames.ROLE if _PERSON.search(title.condition) else frames.HAPPENED)
    if "history of" in title.condition:
        return chance.pick(frames.HISTORY)
    if code[0] == "Z":
        return chance.pick(frames.VISITED)
    return chance.pick(chance.pick((frames.STATED, frames.STATED, frames.STATED, frames.SHORTHAND, frames.FIRST_PERSON)))


def _dress(frame: str, code: str, chance: Chance) -> str:
    """Put an opening before a frame, a closing behind it or a sentence beside it, sometimes; shorthand stays bare."""
    if not frame.endswith("."):
        return frame
    is_of_person = frame.startswith(_OF_PERSON)
    if frame.startswith("{Who} ") and chance.happens(0.25):
        frame = f"{chance.pick(frames.OPENINGS)} {{who}} {frame.removeprefix('{Who} ')}"
    if frame.endswith("x}.") and code[0] not in _NOT_CLOSED and chance.happens(0.35):
        frame = frame.removesuffix(".") + chance.pick(_closings_for(code, is_of_person, chance))
    if chance.happens(0.08) and not _speaks(frame):
        frame = f"{chance.pick(frames.BESIDE_BEFORE)} {frame}"
    if chance.happens(0.12):
        frame = f"{frame} {chance.pick(frames.BESIDE_AFTER)}"
    return frame


def _closings_for(code: str, is_of_person: bool, chance: Chance) -> tuple[str, ...]:
    if code[0] == _INJURIES and chance.happens(0.35):
        return frames.CIRCUMSTANCES
    return frames.PERSON_CLOSINGS if is_of_person and chance.happens(0.6) else frames.CLOSINGS


def _fill(frame: str, condition: str, person: Person, chance: Chance) -> str:
    values = {
        "name": person.name,
        "age": f"{person.age}",
        "sex": chance.pick(("M", "male", "m") if person.male else ("F", "female", "f")),
        "man": chance.pick(("man", "male", "gentleman", "man") if person.male else ("woman", "female", "lady", "woman")),
        "job": chance.pick(frames.JOBS),
    }
    subject = person.name
    if chance.happens(0.5):
        pronoun = "he" if person.male else "she"
        subject = chance.pick((pronoun, pronoun, chance.pick(_PLAIN_SUBJECTS if person.age else _BABY).format(**values)))
    awkward = "{Who} " not in frame or frame.count("{who}") + frame.count("{Who}") > 1
    if awkward and (subject in ("he", "she") or subject.endswith(",") or subject.startswith("a ")):
        subject = person.name  # "of she", "in he" are no English
    text = frame.format(
        **values,
        who=subject,
        Who=upper_first(subject),
        their=person.their,
        Their=upper_first(person.their),
        x=condition,
        X=upper_first(condition),
        a_x=f"{_article(condition)} {condition}" if _takes_article(condition) and chance.happens(0.85) else condition,
    )
    return _BEFORE_VOWEL.sub(r"\1n ", text)


def _takes_article(condition: str) -> bool:
    if condition.startswith(("multiple ", "both ", "a ", "an ", "other injuries")) or _PLURAL.match(condition):
        return False
    return bool(_COUNTED.match(condition) or _PERSON.search(condition))


def _article(words: str) -> str:
    plain = words.lower()
    sounds_like_you = plain.startswith(("uni", "ure", "euc", "us")) and not plain.startswith(("unin", "unim"))
    return "an" if plain[:1] in "aeiou" and not sounds_like_you else "a"
