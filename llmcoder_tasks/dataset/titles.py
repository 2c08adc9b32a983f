"""The grammar of ICD-10-CM titles: what a title says, in parts, so that it can be said in another order.

Displaced fracture of shaft of humerus, right arm, subsequent encounter for fracture with delayed healing
└─ condition ────────────────────────┘  └ qualifier ┘ └─ encounter ──────────────────────────────────────┘
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_ENCOUNTER = re.compile(r",? ((?:initial|subsequent) encounter(?: for .+)?|sequela)$")

# Segments at the end of a title that stand on their own. Commas elsewhere may be part of a list ("muscle, fascia and tendon").
_QUALIFIER = re.compile(
    r"(?:right|left|unspecified|bilateral|multiple|other|upper|lower)\b(?! (?:and|or|with|as) )[^,()\[\]]{0,45}"
    r"|(?:[\w-]+ ){1,2}(?:region|site|spine|joint|quadrant|side|eye|arm|leg|hand|foot)"
    r"|not elsewhere classified|not applicable or unspecified|fetus \d"
    r"|(?:first|second|third) trimester"
    r"|assault|undetermined|accidental \(unintentional\)|intentional self-harm"
    r"|uncomplicated|recurrent|intractable|not intractable|primary|secondary|initial episode of care"
    r"|mild|moderate|severe|acute|chronic|stage [\w ]{1,12}|subsequent episode of care"
    r"|with(?:out)? [^,()\[\]]{1,60}"
)
_WORD = re.compile(r"[A-Za-z][A-Za-z'-]*")
_ASCII_FOLDED = bytes(ord(chr(sign).lower()) if chr(sign).isalnum() or sign == 0x25 else 0x20 for sign in range(128)).ljust(256)
_TO_SPACES = str.maketrans({sign: " " for sign in map(chr, range(128)) if not (sign.isalnum() or sign == "%")} | {"•": " "})


@dataclass(frozen=True, slots=True)
class Title:
    """The parts of a title, without the commas between them. `encounter` is empty where the code has none."""

    condition: str
    qualifiers: tuple[str, ...]
    encounter: str


def parse_title(title: str) -> Title:
    """Cut a title into its parts. A title that follows no pattern is all condition."""
    match = _ENCOUNTER.search(title)
    encounter = match[1] if match else ""
    rest = title[: match.start()] if match else title
    qualifiers: list[str] = []
    while True:
        head, comma, last = rest.rpartition(", ")
        if not comma or not _QUALIFIER.fullmatch(last) or head.count("(") != head.count(")") or head.count("[") != head.count("]"):
            break
        qualifiers.insert(0, last)
        rest = head
    return Title(rest, tuple(qualifiers), encounter)


def normalise_text(text: str) -> str:
    """Lower case, all signs but letters, digits and % folded to one space: texts that agree so are the same to a reader."""
    if text.isascii():  # much faster, for nearly all texts
        return " ".join(text.encode().translate(_ASCII_FOLDED).decode().split())
    return " ".join(text.lower().translate(_TO_SPACES).split())


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The words of all titles of a release. `proper` are those never written without a capital inside a title."""

    words: frozenset[str]
    proper: frozenset[str]

    @classmethod
    def of_titles(cls, titles: Iterable[str]) -> Vocabulary:
        """Collect the words of all titles."""
        lower: set[str] = set()
        capital: set[str] = set()
        first: set[str] = set()
        for title in titles:
            for position, word in enumerate(_WORD.findall(title)):
                (first if position == 0 else lower if word.islower() else capital).add(word)
        names = {word for word in first if word.endswith("'s") or not word[1:].islower()}
        proper = (capital | names) - {word.capitalize() for word in lower}
        words = {word.lower() for word in lower | capital | first}
        return cls(frozenset(words), frozenset(proper))

    def lower_first(self, text: str) -> str:
        """The text as it stands inside a sentence: its first letter small, unless the first word is a name or a sign like `XX`."""
        match = _WORD.match(text)
        if match is None or match[0] in self.proper or not match[0][1:].islower():
            return text
        return text[0].lower() + text[1:]


def upper_first(text: str) -> str:
    """The text as it stands at the beginning of a line."""
    return text[:1].upper() + text[1:]
