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
_UNSPECIFIED = ("not specified", "not further specified", "type not specified", "unspecified type")
_EXTERNAL_CAUSES = "VWXY"


@dataclass(frozen=True, slots=True)
class Person:
    """Who a sentence is about. `their` is the possessive: his, her, or my."""

    name: str
    male: bool
    age: int
    their: str


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
        return cls(lexicon.names, lexicon.synonyms, pattern, vocabulary)

    def cast(self, code: str, title: str, chance: Chance) -> Person:
        """A made-up person who can have this condition: the right sex, and the right age for a newborn."""
        sex, is_newborn = _who_has(title)
        either = chance.happens(0.5)
        male = code[0] != "O" and (sex == "male" or (not sex and either))
        their = "his" if male else "her"
        given = chance.pick(self.names["male" if male else "female"])
        if code[0] == "P" or is_newborn:
            return Person(f"Baby {given}", male, 0, their)
        age = chance.count(18, 44) if code[0] == "O" else chance.count(19, 93)
        surname = chance.pick(self.names["surname"])
        name = chance.pick((given, given, f"{given} {surname}", f"{'Mr.' if male else 'Ms.'} {surname}"))
        return Person(name, male, age, their)

    def tell(self, code: str, title: Title, chance: Chance) -> str:
        """One sentence, or a line of shorthand, about somebody who fits the condition."""
        text = self.tell_of(code, title, self.cast(code, title.condition, chance), chance)
        return text.lower() if chance.happens(0.12) else text

    def tell_of(self, code: str, title: Title, person: Person, chance: Chance, *, may_speak: bool = True) -> str:
        """The same about a given person, who `may_speak` in the first person."""
        frame = _choose_frame(code, title, chance)
        while not may_speak and _speaks(frame):
            frame = _choose_frame(code, title, chance)
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
        if chance.happens(0.5):
            words = _BODY.sub(lambda match: f"{match['of']} {chance.pick((person.their, 'the'))} {match['side']} ", words)
        return words

    def reword(self, words: str, chance: Chance) -> str:
        """Plainer words of the same meaning for at most one term."""
        found = list(self.synonym_pattern.finditer(words))
        if not found:
            return words
        match = chance.pick(found)
        return words[: match.start()] + chance.pick(self.synonyms[match[0].lower()]) + words[match.end() :]

    def _say_qualifier(self, words: str, qualifier: str, chance: Chance) -> str:
        if qualifier == "unspecified" and chance.happens(0.5):
            return f"{words}, {chance.pick(_UNSPECIFIED)}"
        if chance.happens(0.35):
            return f"{words}, {qualifier}"
        return attach_qualifier(words, qualifier, self.vocabulary, chance)


@lru_cache(1024)
def _who_has(title: str) -> tuple[str, bool]:
    """The sex of people who have a condition, empty where it may be either, and whether they are newborn."""
    sex = "female" if _FEMALE.search(title) else "male" if _MALE.search(title) else ""
    return sex, bool(_NEWBORN.search(title))


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


def _speaks(frame: str) -> bool:
    return frame.startswith(("I ", "My "))


def _choose_frame(code: str, title: Title, chance: Chance) -> str:
    if title.encounter == "sequela":
        return chance.pick(frames.SEQUELA)
    if title.encounter:
        return chance.pick(frames.INITIAL if title.encounter.startswith("initial") else frames.SUBSEQUENT)
    if code[0] in _EXTERNAL_CAUSES:
        return chance.pick(frames.ROLE if _PERSON.search(title.condition) else frames.HAPPENED)
    if "history of" in title.condition:
        return chance.pick(frames.HISTORY)
    if code[0] == "Z":
        return chance.pick(frames.VISITED)
    return chance.pick(chance.pick((frames.STATED, frames.STATED, frames.STATED, frames.SHORTHAND, frames.FIRST_PERSON)))


def _fill(frame: str, condition: str, person: Person, chance: Chance) -> str:
    subject = person.name if chance.happens(0.5) else chance.pick(("the patient", "he" if person.male else "she", "this patient"))
    if subject in ("he", "she") and ("{Who}" not in frame or "{who}" in frame):
        subject = person.name  # "of she", "in he" are no English
    sex = ("M", "male", "m") if person.male else ("F", "female", "f")
    man = ("man", "male", "gentleman") if person.male else ("woman", "female", "lady")
    return frame.format(
        who=subject,
        Who=upper_first(subject),
        their=person.their,
        Their=upper_first(person.their),
        x=condition,
        X=upper_first(condition),
        a_x=f"{_article(condition)} {condition}" if _takes_article(condition) and chance.happens(0.85) else condition,
        age=person.age,
        sex=chance.pick(sex),
        man=chance.pick(man),
    )


def _takes_article(condition: str) -> bool:
    if condition.startswith(("multiple ", "both ", "a ", "an ", "other injuries")) or _PLURAL.match(condition):
        return False
    return bool(_COUNTED.match(condition) or _PERSON.search(condition))


def _article(words: str) -> str:
    plain = words.lower()
    sounds_like_you = plain.startswith(("uni", "ure", "euc", "us")) and not plain.startswith(("unin", "unim"))
    return "an" if plain[:1] in "aeiou" and not sounds_like_you else "a"
