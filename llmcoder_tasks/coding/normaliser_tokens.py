"""Tokens of a clinical text, and the plain words between clinical ones."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

# `w/o`, `d/t`; `non-displaced`, `non displaced` and `nondisplaced` are one word; `Crohn's`; any other run of letters and digits.
_TOKEN = re.compile(r"[^\W\d_]/[^\W\d_]?(?![^\W_])|\bnon[- ][^\W\d_]+|\bmal-[^\W\d_]+|[^\W_]+(?:['\u2019][^\W_]+)*", re.IGNORECASE)

FORMS_OF_ADDRESS = frozenset({"mr", "mrs", "ms", "miss", "dr", "sr", "jr"})

SUBJECT_VERBS = frozenset(
    """
    has had have is was were developed presents presented came reports reported suffers suffered received underwent
    complains complained experienced experiences denies visited needs sustained shows showed exhibits exhibited attended
    requires
    """.split()  # noqa: SIM905
)
"""A capitalised stranger before one of these is somebody's name."""

FRAME_WORDS = SUBJECT_VERBS | frozenset(
    """
    he she her hers his him they their who whose patient patients pt been being
    """.split()  # noqa: SIM905
)
"""The frame of a sentence about a condition: these words say nothing of the condition."""

NARRATIVE_WORDS = frozenset(
    """
    a about after again all also an any are as at back be been before being but by came can case chart clinic complained
    complaining complains consistent currently day days denied denies developed diagnosed did discharged do does done due
    during evaluated experienced experiencing female first follow following for found from gave getting had has have
    having he her here hers him his if into is it its just last lives lot made male man may me men month months moreover
    most mr mrs ms much my new no noted now old on one our out over patient patients please presented presenting presents
    pt reported reporting reports said saw see seen she show showed shows since so some suffered suffering suffers than
    that the their them then there these they this those though time today told took treated two until up us very visit
    was we week weeks well went were what when where which while who whose will woman year years yesterday you your
    """.split()  # noqa: SIM905
)
"""What people write around a condition: never "corrected" into a word of a title that looks alike (patient, patent)."""


@dataclass(frozen=True, slots=True)
class Token:
    """One token of a text: its folded form, and where it stands (character offsets, end exclusive)."""

    folded: str
    start: int
    end: int
    has_point: bool = False
    is_capitalised: bool = False


def fold(text: str) -> str:
    """Lower case without diacritics and apostrophes: `Ménière’s` is `menieres`."""
    if text.isalnum() and text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFKD", text)
    return "".join(char for char in decomposed if char.isalnum() or char == "/").lower()


def split_tokens(text: str) -> list[Token]:
    """Tokens of a text in order. Punctuation, emoji and control characters separate tokens and are none themselves."""
    return [
        Token(fold(match[0]), match.start(), match.end(), text[match.end() : match.end() + 1] == ".", match[0][0].isupper())
        for match in _TOKEN.finditer(text)
    ]
