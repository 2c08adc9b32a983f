"""Titles as they are written in a hurry: dictionary abbreviations, words cut short with a point, vowels left out, signs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

from llmcoder_tasks.dataset.chance import Chance
from llmcoder_tasks.dataset.lexicon import Lexicon
from llmcoder_tasks.dataset.titles import normalise_text

_BETWEEN = re.compile(r"([^A-Za-z0-9%]+)")
_END_UNSPECIFIED = re.compile(r",? unspecified$")
_POINT = re.compile(r"(?<=[a-z])\.(?=[ ,]|$)")
_VOWELS = "aeiouy"
_TEXTS_KEPT = 512  # the variations of one code follow each other

# Chances that one dictionary term, and one longer word outside the dictionary, is shortened: from a light hand to a heavy one.
_HANDS = ((0.25, 0.0), (0.5, 0.1), (0.75, 0.15), (0.95, 0.3))


_Place = tuple[str, str, tuple[int, tuple[str, ...]]]
"""A word of a text: what stands before it, the word, and the longest term that begins here: how many words it covers, its forms."""

_NO_TERM: tuple[int, tuple[str, ...]] = (1, ())


@dataclass(frozen=True)
class Abbreviator:
    """The abbreviations of a lexicon, laid out for search: by first word, longer terms first."""

    terms: Mapping[str, tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]]

    @classmethod
    def of_lexicon(cls, lexicon: Lexicon) -> Abbreviator:
        """Prepare the search."""
        terms: dict[str, list[tuple[tuple[str, ...], tuple[str, ...]]]] = {}
        for term, forms in lexicon.abbreviations.items():
            words = tuple(normalise_text(term).split())
            terms.setdefault(words[0], []).append((words, forms))
        return cls({first: tuple(sorted(found, key=lambda item: (-len(item[0]), item[0]))) for first, found in terms.items()})

    def abbreviate(self, text: str, chance: Chance) -> str:
        """Shorten a text. One that holds no known term and no long word comes back unchanged."""
        of_terms, of_words = chance.pick(_HANDS)
        if chance.happens(0.2):
            text = _END_UNSPECIFIED.sub(" NOS", text)
        places = self._places(text)
        out: list[str] = []
        position = 0
        shortened = False
        while position < len(places):
            before, word, (length, forms) = places[position]
            out.append(before)
            if forms and (chance.happens(of_terms) or (not shortened and chance.happens(0.5))):
                out.append(chance.pick_early(forms))
                shortened = True
                position += length
            else:
                out.append(_shorten_word(word, chance) if len(word) > 6 and chance.happens(of_words) else word)
                position += 1
        return _finish("".join(out), chance)

    @cached_property
    def _places(self) -> Callable[[str], list[_Place]]:
        return lru_cache(_TEXTS_KEPT)(self._read)

    def _read(self, text: str) -> list[_Place]:
        """The words of a text with the terms that begin there; the first and the last may be empty words, beside signs."""
        parts = ["", *_BETWEEN.split(text)]
        words = [word.lower() for word in parts[1::2]]
        terms = self.terms
        found = [self._find(words, position) if word in terms else _NO_TERM for position, word in enumerate(words)]
        return list(zip(parts[::2], parts[1::2], found, strict=True))

    def _find(self, words: list[str], position: int) -> tuple[int, tuple[str, ...]]:
        """How many words the longest term at this place covers, and its forms; no forms where there is none."""
        for term, forms in self.terms[words[position]]:
            if len(term) == 1 or tuple(words[position : position + len(term)]) == term:
                return len(term), forms
        return _NO_TERM


def _shorten_word(word: str, chance: Chance) -> str:
    """`ligament` cut to `ligam.`, or without its inner vowels."""
    if not (word.isalpha() and word[1:].islower()):
        return word
    if chance.happens(0.7):
        # Cut after a consonant that a vowel follows: complic.ation, hemorrh.age.
        cuts = [i for i in range(4, len(word) - 2) if word[i - 1] not in _VOWELS and word[i] in _VOWELS]
        return f"{word[: chance.pick(cuts)]}." if cuts else word
    return word[0] + "".join(letter for letter in word[1:-1] if letter not in _VOWELS) + word[-1]


def _finish(text: str, chance: Chance) -> str:
    if chance.happens(0.25):
        text = _POINT.sub("", text)  # a hand that writes no points
    if chance.happens(0.25):
        text = text.replace(", ", " ")
    if chance.happens(0.3):
        text = text.lower()
    return text
