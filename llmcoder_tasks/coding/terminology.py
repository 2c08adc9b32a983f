"""The names of conditions that a release gives, as a lookup for running text.

Every title, inclusion term and index term becomes a key: the set of its content words, reduced (plural, spelling, Latin
adjective to the organ's name) and without what coders add and clinicians leave out (`unspecified`, `without complications`,
`initial encounter`). So `Essential (primary) hypertension` is found by `hypertension`, and `Urinary tract infection, site not
specified` by `infections of the urinary tract`. A key that would name several codes equally well is kept as ambiguous, for the
phrase coder to decide.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from llmcoder_tasks.coding.spoken_names import read_spoken_names

if TYPE_CHECKING:
    from llmcoder_tasks.icd10cm.code_set import CodeSet

Key = tuple[str, ...]

WORD = re.compile(r"[A-Za-z0-9]+(?:['’][a-z]+)?")
_JOINED_PREFIX = re.compile(
    r"\b(non|gastro|post|pre|anti|intra|hyper|hypo|peri|sub|re|co|broncho|neo|micro|macro|sero|osteo)-(?=[a-z])"
)

_EMPTY_WORDS = frozenset(
    """a an the of in on at to for from by with and or due as is are was were be been his her their its this that these those
    unspecified nos nec other specified elsewhere classified mellitus mild moderate""".split()  # noqa: SIM905 - a list of words reads as one
)
_SAME_WORDS: Mapping[str, str] = {
    "renal": "kidney", "cardiac": "heart", "hepatic": "liver", "pulmonary": "lung", "gastric": "stomach", "vesical": "bladder",
    "ovarian": "ovary", "uterine": "uterus", "prostatic": "prostate", "pancreatic": "pancreas", "esophageal": "esophagus",
    "cerebral": "brain", "splenic": "spleen", "colonic": "colon", "dermal": "skin", "cutaneous": "skin", "thyroidal": "thyroid",
    "testicular": "testis", "bony": "bone", "osseous": "bone", "ureteral": "ureter", "ureteric": "ureter", "urethral": "urethra",
    "vaginal": "vagina", "rectal": "rectum", "laryngeal": "larynx", "tracheal": "trachea", "bronchial": "bronchus",
    "pericardial": "pericardium", "pleural": "pleura", "retinal": "retina", "corneal": "cornea", "tibial": "tibia",
    "femoral": "femur", "humeral": "humerus", "infarct": "infarction", "bleed": "hemorrhage", "bleeding": "hemorrhage",
    "hemorrhagic": "hemorrhage", "stroke": "stroke", "ulceration": "ulcer", "fibrillating": "fibrillation", "swelling": "swelling",
    "ischaemia": "ischemia", "cyst": "cyst", "calculi": "calculus", "stone": "calculus", "lithiasis": "calculus",
    "metastases": "metastasis", "diagnoses": "diagnosis", "thromboses": "thrombosis", "stenoses": "stenosis",
    "abscesses": "abscess",
    "vertebrae": "vertebra", "diverticula": "diverticulum", "septicemia": "sepsis", "ii": "2", "iii": "3", "iv": "4", "i": "1",
    "carcinoma": "cancer", "adenocarcinoma": "cancer", "dyspnoea": "dyspnea", "seizures": "seizure", "pyrexia": "fever",
}  # fmt: skip
_BRITISH_O = re.compile(r"(?:^|(?<=gastro))o(?=e(?:soph|str|dem))")
_UNSTRIPPED = ("ss", "us", "is", "as", "os")

_PARENTHESES = re.compile(r"\s*[(\[][^()\[\]]*[)\]]")
_LEFT_UNSAID = re.compile(
    r",?\s*\b(?:site not specified|not elsewhere classified|not otherwise specified|uncomplicated|organism unspecified|"
    r"unspecified (?:organism|cause|etiology|site|type|severity|chronicity|ear|eye|side)|"
    r"initial encounter(?: for (?:closed|open) fracture(?: type i or ii)?)?|not intractable|"
    r"without status (?:migrainosus|epilepticus)|not specified as [a-z ]+|unspecified as to [a-z ]+|unspecified whether [a-z ,]+|"
    r"with unspecified complications?|native coronary artery|unspecified)\b"
)
_UNSAID_MARKS = ("specified", "not ", "uncomplicated", "initial encounter", "without status", "native", "classified")
_WITHOUT = re.compile(r",?\s*\bwithout [^,]*")
_NOT_FIRST_VISIT = ("subsequent encounter", "sequela", "initial encounter for open fracture")
_NAMING_KINDS = {"inclusion_term": 0.0, "includes": 1.0, "index_term": 0.5}
_EXTERNAL_CAUSES = frozenset("VWXY")

_OTHER_COST = 4.0  # "Other chest pain" is the last thing that "chest pain" means

MOST_WORDS = 14
"""Longer names are never looked up."""


@dataclass(frozen=True, slots=True)
class Naming:
    """The codes that a key may mean (one, or several when it is ambiguous), and whether the match left any qualifier unsaid."""

    codes: tuple[str, ...]
    is_complete: bool


class Terminology:
    """Names of conditions by their content words. Immutable once built; safe to share between threads."""

    def __init__(self, namings: Mapping[Key, Naming], *, acronyms: frozenset[str], titles: Mapping[str, str]) -> None:
        self._namings = namings
        self._codes = {title.casefold(): code for code, title in titles.items()}
        self.acronyms = acronyms
        self.words = frozenset(word for key in namings for word in key)

    @classmethod
    def build(cls, code_set: CodeSet, spoken_names: Iterable[tuple[str, str]] | None = None) -> Terminology:
        """Index a release. `spoken_names` are pairs of what clinicians write and a name the release gives (default: ours)."""
        defaults = default_codes(code_set)
        offers: dict[Key, dict[str, float]] = {}
        for name, code, cost in _offered_names(code_set, defaults):
            for key, extra in _keys_of(name):
                standing = offers.setdefault(key, {})
                standing[code] = min(cost + extra, standing.get(code, cost + extra))
        namings = {key: _settle(standing) for key, standing in offers.items()}
        spoken = read_spoken_names() if spoken_names is None else spoken_names
        acronyms: set[str] = set()
        for said, meant in ((said, namings.get(content_words(meant))) for said, meant in spoken):
            if meant is not None:
                namings[content_words(said)] = Naming(meant.codes, is_complete=True)
                acronyms.update(content_words(said) if said.isupper() else ())
        return cls(namings, acronyms=frozenset(acronyms), titles=code_set.titles)

    def find(self, key: Key) -> Naming | None:
        """What the sorted content words name, or None."""
        return self._namings.get(key)

    def find_phrase(self, phrase: str) -> Naming | None:
        """What a whole phrase names: a title word for word, else a name, else one without `unspecified` and `without ...`."""
        if (code := self._codes.get(phrase.strip().casefold())) is not None:
            return Naming((code,), is_complete=True)
        spelled = phrase.lower().replace("w/o ", "without ").replace("w/ ", "with ")
        full = self._namings.get(content_words(spelled))
        if full is not None:
            return full
        shorter = self._namings.get(content_words(_leave_without(_leave_unsaid(spelled))))
        return Naming(shorter.codes, is_complete=False) if shorter else None


def content_words(text: str) -> Key:
    """The reduced content words of a text, each once, sorted: the form in which names are compared."""
    return tuple(sorted({word for word in map(reduce_word, split_words(text)) if word}))


def split_words(text: str) -> list[str]:
    """The words of a text; a hyphen after a prefix joins (`gastro-esophageal`), any other parts."""
    lowered = text.lower()
    return WORD.findall(_JOINED_PREFIX.sub(r"\1", lowered) if "-" in lowered else lowered)


@lru_cache(maxsize=100_000)
def reduce_word(word: str) -> str:
    """A word in the form in which names are compared, or "" for a word that names nothing."""
    word = word.lower().replace("’", "'").removesuffix("'s").replace("'", "")
    if word in _EMPTY_WORDS:
        return ""
    if word in _SAME_WORDS:
        return _SAME_WORDS[word]
    if len(word) > 4:
        word = word.replace("aem", "em").replace("oed", "ed").replace("oea", "ea").replace("aes", "es")
        word = (
            _BRITISH_O.sub("", word)
            .replace("tumour", "tumor")
            .replace("sulph", "sulf")
            .replace("paed", "ped")
            .replace("gynaec", "gynec")
        )
    word = _singular(word)
    return _SAME_WORDS.get(word, word)


def _singular(word: str) -> str:
    if len(word) < 4 or not word.endswith("s") or word.endswith(_UNSTRIPPED):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("ches", "shes", "xes", "sses")):
        return word[:-2]
    return word[:-1]


def _offered_names(code_set: CodeSet, defaults: Mapping[str, str]) -> Iterator[tuple[str, str, float]]:
    """(name, billable code, cost) of all names. A header's name means its unspecified code, at a cost."""
    for code in code_set.codes:
        if code.code[0] in _EXTERNAL_CAUSES or any(mark in code.long_title for mark in _NOT_FIRST_VISIT):
            continue
        target = code.code if code.is_billable else defaults.get(code.code)
        if target is not None:
            cost = 0.0 if code.is_billable else 3.0
            yield code.long_title, target, cost + _OTHER_COST * code.long_title.startswith("Other ")
    for term in code_set.terms:
        if term.kind in _NAMING_KINDS and term.code in defaults and term.code[0] not in _EXTERNAL_CAUSES:
            yield term.term, defaults[term.code], _NAMING_KINDS[term.kind]


def default_codes(code_set: CodeSet) -> dict[str, str]:
    """For each code the billable code that a coder takes when nothing more is said: itself, or the unspecified one below it.

    Headers whose codes have no unspecified member lead nowhere and are left out.
    """
    defaults = {code.code: code.code for code in code_set.codes if code.is_billable}
    children: dict[str, list[str]] = {}
    titles = {code.code: code.long_title.lower() for code in code_set.codes}
    for code in titles:
        if len(code) > 3:
            children.setdefault(
                next((code[:size] for size in range(len(code) - 1, 2, -1) if code[:size] in titles), ""), []
            ).append(code)
    for header in sorted((code.code for code in code_set.codes if not code.is_billable), key=len, reverse=True):
        below = [child for child in children.get(header, ()) if child in defaults and _says_nothing_more(titles[child])]
        if len(below) == 1:
            defaults[header] = defaults[below[0]]
        elif below:
            defaults[header] = defaults[min(below, key=lambda child: (_fullness(titles[child]), -len(child), child))]
    return defaults


def _says_nothing_more(title: str) -> bool:
    return any(
        mark in title
        for mark in ("unspecified", "not specified", "without complication", "uncomplicated", "initial encounter", "without")
    )


def _fullness(title: str) -> int:
    """How much a title adds to its header's name: content words after all that is left unsaid is gone."""
    return len(content_words(_leave_without(_leave_unsaid(title))))


def _keys_of(name: str) -> Iterator[tuple[Key, float]]:
    """The keys under which a name is found, each with the cost of what was left out."""
    full = content_words(name)
    plain = _PARENTHESES.sub("", name.lower())
    said = _leave_unsaid(plain)
    variants = {full: 0.0}
    for variant, price in ((plain, 0.5), (said, 1.0), (_leave_without(said), 2.0)):
        key = content_words(variant) if variant != name else full
        variants.setdefault(key, price + 0.1 * max(len(full) - len(key), 0))
    return ((key, price) for key, price in variants.items() if 0 < len(key) <= MOST_WORDS)


def _leave_unsaid(name: str) -> str:
    return _LEFT_UNSAID.sub("", name) if any(mark in name for mark in _UNSAID_MARKS) else name


def _leave_without(name: str) -> str:
    return _WITHOUT.sub("", name) if "without " in name else name


def _settle(offers: Mapping[str, float]) -> Naming:
    """The cheapest code of a key; several when the cheapest are equal."""
    lowest = min(offers.values())
    return Naming(tuple(sorted(code for code, cost in offers.items() if cost <= lowest + 1e-9)), lowest < 0.5)
