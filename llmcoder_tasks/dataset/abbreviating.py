"""Titles as they are written in a hurry: dictionary abbreviations, words cut short with a point, vowels left out, signs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from llmcoder_tasks.dataset.chance import Chance
from llmcoder_tasks.dataset.lexicon import Lexicon
from llmcoder_tasks.dataset.titles import normalise_text

_WORD = re.compile(r"[A-Za-z0-9%]+")
_END_UNSPECIFIED = re.compile(r",? unspecified$")
_VOWELS = "aeiouy"

# Chances that one dictionary term, and one longer word outside the dictionary, is shortened: from a light hand to a heavy one.
_HANDS = ((0.25, 0.0), (0.5, 0.1), (0.75, 0.15), (0.95, 0.3))


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
        spans = [match.span() for match in _WORD.finditer(text)]
        words = [text[start:end].lower() for start, end in spans]
        out: list[str] = []
        position = written_to = 0
        shortened = False
        while position < len(words):
            start, end = spans[position]
            out.append(text[written_to:start])
            length, forms = self._find(words, position)
            if forms and (chance.happens(of_terms) or (not shortened and chance.happens(0.5))):
                end = spans[position + length - 1][1]
                out.append(chance.pick_early(forms))
                shortened = True
            else:
                length = 1
                out.append(_shorten_word(text[start:end], chance) if chance.happens(of_words) else text[start:end])
            written_to = end
            position += length
        return _finish("".join(out) + text[written_to:], chance)

    def _find(self, words: list[str], position: int) -> tuple[int, tuple[str, ...]]:
        """How many words the longest term at this place covers, and its forms; no forms where there is none."""
        for term, forms in self.terms.get(words[position], ()):
            if len(term) == 1 or tuple(words[position : position + len(term)]) == term:
                return len(term), forms
        return 1, ()


def _shorten_word(word: str, chance: Chance) -> str:
    """`ligament` cut to `ligam.`, or without its inner vowels."""
    if len(word) < 7 or not (word.isalpha() and word[1:].islower()):
        return word
    if chance.happens(0.7):
        # Cut after a consonant that a vowel follows: complic.ation, hemorrh.age.
        cuts = [i for i in range(4, len(word) - 2) if word[i - 1] not in _VOWELS and word[i] in _VOWELS]
        return f"{word[: chance.pick(cuts)]}." if cuts else word
    return word[0] + "".join(letter for letter in word[1:-1] if letter not in _VOWELS) + word[-1]


def _finish(text: str, chance: Chance) -> str:
    if chance.happens(0.25):
        text = re.sub(r"(?<=[a-z])\.(?=[ ,]|$)", "", text)  # a hand that writes no points
    if chance.happens(0.25):
        text = text.replace(", ", " ")
    if chance.happens(0.3):
        text = text.lower()
    return text
