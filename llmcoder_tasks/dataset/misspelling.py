"""Titles as they are mistyped: by hand (a key beside, twice, too early), by ear, in haste; and the mistakes that people make."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from llmcoder_tasks.dataset.chance import Chance
from llmcoder_tasks.dataset.lexicon import Lexicon
from llmcoder_tasks.dataset.titles import Vocabulary

_WORD = re.compile(r"([A-Za-z][A-Za-z'-]*)")
_ROMAN = re.compile(r"[IVX]+[ABC]?")
_VOWELS = "aeiou"
_BY_EAR = (
    ("ph", "f"), ("tion", "shun"), ("tion", "sion"), ("sion", "tion"), ("ck", "k"), ("ch", "k"), ("c", "k"), ("k", "c"),
    ("qu", "kw"), ("x", "ks"), ("ei", "ie"), ("ie", "ei"), ("ea", "ee"), ("ae", "e"), ("oe", "e"), ("y", "i"), ("i", "y"),
    ("s", "z"), ("c", "s"), ("rh", "r"), ("ous", "us"), ("ic", "ik"), ("er", "ar"), ("or", "er"), ("al", "el"), ("le", "el"),
    ("ent", "ant"), ("ence", "ance"), ("able", "ible"), ("a", "e"), ("e", "a"), ("i", "e"), ("ou", "u"), ("ght", "t"),
    ("dge", "ge"), ("gh", ""), ("mb", "m"), ("ps", "s"), ("th", "t"), ("wr", "r"), ("kn", "n"), ("ure", "er"), ("eu", "u"),
    ("ise", "ize"), ("sc", "s"), ("cc", "c"), ("o", "a"), ("u", "o"), ("ia", "ea"), ("ll", "l"), ("itis", "itus"),
)  # fmt: skip
_FIRST_BY_EAR = (("ps", "s"), ("pn", "n"), ("kn", "n"), ("wr", "r"), ("ph", "f"), ("c", "k"), ("eu", "u"), ("rh", "r"), ("oe", "e"))
_NEIGHBOURS = {
    "a": "qwsz", "b": "vghn", "c": "xdfv", "d": "serfcx", "e": "wsdr", "f": "drtgvc", "g": "ftyhbv", "h": "gyujnb", "i": "ujko",
    "j": "huikmn", "k": "jiolm", "l": "kop", "m": "njk", "n": "bhjm", "o": "iklp", "p": "ol", "q": "wa", "r": "edft", "s": "awedxz",
    "t": "rfgy", "u": "yhji", "v": "cfgb", "w": "qase", "x": "zsdc", "y": "tghu", "z": "asx",
}  # fmt: skip
_KNOWN = 0.3  # share of slips that are the word's own, known misspelling
_HYPHEN = 0.3  # share of slips in a word with a hyphen that are just that
_MISSED_SPACE = 0.12  # share of texts with a slip between words on top
_FIRST_LETTER = 0.04  # people look at the first letter


@dataclass(frozen=True)
class Misspeller:
    """Known misspellings, and the words that a slip must not turn into: `ileum` typed for `ilium` would be another bone."""

    misspellings: Mapping[str, tuple[str, ...]]
    british: Mapping[str, tuple[str, ...]]
    words: frozenset[str]

    @classmethod
    def of_lexicon(cls, lexicon: Lexicon, vocabulary: Vocabulary) -> Misspeller:
        """Prepare for the words of a release."""
        return cls(lexicon.misspellings, lexicon.british, vocabulary.words)

    def misspell(self, text: str, chance: Chance, *, lightly: bool = False) -> str:
        """Mistype some of the words, one in ten to two in three; at least one where a word is long enough. `lightly`: fewer."""
        parts, candidates = _read(text)
        if not candidates:
            return text
        typed = list(parts)
        share = chance.share(0.0, 0.25) if lightly else chance.share(0.1, 0.65)
        chosen = [place for place in candidates if chance.happens(share)] or [chance.pick(candidates)]
        for place in chosen:
            typed[place] = self._slip(parts[place], chance)
        if chance.happens(_MISSED_SPACE):
            _slip_between(typed, chance)
        return "".join(typed)

    def respell(self, text: str) -> str:
        """British spelling, which is no mistake."""
        return "".join(_with_case(part, self.british.get(part.lower(), (part,))[0]) for part in _WORD.split(text))

    def _slip(self, word: str, chance: Chance) -> str:
        plain = word.lower()
        known = self.misspellings.get(plain)
        if known and chance.happens(_KNOWN):
            return _with_case(word, chance.pick(known))
        if "-" in plain and chance.happens(_HYPHEN):
            return _with_case(word, plain.replace("-", chance.pick(("", " "))))
        slips = _count_slips(len(word), chance)
        for _ in range(4):
            typed = plain
            for _ in range(slips):
                typed = chance.pick(_SLIPS)(typed, chance) if not chance.happens(_FIRST_LETTER) else _slip_at_first(typed, chance)
            if typed != plain and typed not in self.words:
                return _with_case(word, typed)
        return word


@lru_cache(512)
def _read(text: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """A text cut into words, at odd places, and what stands between them; and the places of the words that can slip."""
    parts = tuple(_WORD.split(text))
    return parts, tuple(place for place in range(1, len(parts), 2) if _can_slip(parts[place]))


@lru_cache(1 << 15)
def _can_slip(word: str) -> bool:
    return len(word) > 3 and not _ROMAN.fullmatch(word)


def _count_slips(length: int, chance: Chance) -> int:
    """One slip in a word, seldom two in a long one, very seldom three."""
    if length <= 8:
        return 1
    draw = chance.share(0, 1)
    return 3 if draw < 0.04 and length > 11 else 2 if draw < 0.22 else 1


def _with_case(word: str, typed: str) -> str:
    return typed[:1].upper() + typed[1:] if word[:1].isupper() else typed


def _slip_between(parts: list[str], chance: Chance) -> None:
    """A slip between two words: run together, two spaces, a space too early, a comma, hyphen or parenthesis left out."""
    gaps = [place for place in range(2, len(parts) - 1, 2) if parts[place] in _BETWEEN_SLIPS]
    if gaps:
        place = chance.pick(gaps)
        parts[place] = chance.pick(_BETWEEN_SLIPS[parts[place]])


_BETWEEN_SLIPS = {
    " ": ("", "", "", "  ", " -", ". "),
    ", ": (" ", " ", ",", ",,", " ,", ". ", "; "),
    " (": (" ", "(", ", ", "( "),
    ") ": (" ", ")", ", ", " ) "),
}


def _drop_vowel(word: str, chance: Chance) -> str:
    places = _vowels_in(word)
    return _without(word, chance.pick(places)) if places else word


def _confuse_vowel(word: str, chance: Chance) -> str:
    places = _vowels_in(word)
    if not places:
        return word
    place = chance.pick(places)
    return word[:place] + chance.pick(_VOWELS.replace(word[place], "")) + word[place + 1 :]


def _drop_letter(word: str, chance: Chance) -> str:
    return _without(word, chance.count(1, len(word) - 1))


def _drop_last(word: str, chance: Chance) -> str:
    return word[:-1]


def _drop_two(word: str, chance: Chance) -> str:
    """A syllable swallowed, in a word long enough to be known without it."""
    if len(word) < 9:
        return _drop_vowel(word, chance)
    place = chance.count(2, len(word) - 4)
    return word[:place] + word[place + 2 :]


def _undouble(word: str, chance: Chance) -> str:
    places = [i for i in range(1, len(word)) if word[i] == word[i - 1]]
    return _without(word, chance.pick(places)) if places else _drop_vowel(word, chance)


def _double(word: str, chance: Chance) -> str:
    place = chance.count(1, len(word) - 1)
    return word[:place] + word[place] + word[place:]


def _swap(word: str, chance: Chance) -> str:
    place = chance.count(1, max(1, len(word) - 2))
    return word[:place] + word[place + 1 : place + 2] + word[place] + word[place + 2 :]


def _swap_apart(word: str, chance: Chance) -> str:
    """Two letters with one between them change places, across a syllable: abodmen, hopsital."""
    if len(word) < 6:
        return _swap(word, chance)
    place = chance.count(1, len(word) - 3)
    return word[:place] + word[place + 2] + word[place + 1] + word[place] + word[place + 3 :]


def _spell_by_ear(word: str, chance: Chance) -> str:
    fitting = _sounds_in(word)
    if not fitting:
        return _drop_vowel(word, chance)
    place, sound, letters = chance.pick(fitting)
    return word[:place] + letters + word[place + len(sound) :]


def _hit_beside(word: str, chance: Chance) -> str:
    place = chance.count(1, len(word) - 1)
    near = _NEIGHBOURS.get(word[place])
    return word[:place] + chance.pick(near) + word[place + 1 :] if near else word


def _hit_both(word: str, chance: Chance) -> str:
    """The key beside is hit as well: fracrture."""
    place = chance.count(1, len(word) - 1)
    near = _NEIGHBOURS.get(word[place])
    return word[:place] + chance.pick(near) + word[place:] if near else word


def _slip_at_first(word: str, chance: Chance) -> str:
    """The first letter left out, late, doubled or spelled by ear."""
    heard = [letters + word[len(sound) :] for sound, letters in _FIRST_BY_EAR if word.startswith(sound)]
    return chance.pick((word[1:], word[1:2] + word[0] + word[2:], word[0] + word, *heard, *heard))


@lru_cache(1 << 15)
def _vowels_in(word: str) -> tuple[int, ...]:
    return tuple(place for place in range(1, len(word)) if word[place] in _VOWELS)


@lru_cache(1 << 15)
def _sounds_in(word: str) -> tuple[tuple[int, str, str], ...]:
    """Where letters may be written as they sound: place, the letters, those written instead."""
    return tuple((word.index(sound, 1), sound, letters) for sound, letters in _BY_EAR if sound in word[1:])


def _without(word: str, place: int) -> str:
    return word[:place] + word[place + 1 :]


_SLIPS: tuple[Callable[[str, Chance], str], ...] = (
    *[_drop_vowel] * 7, *[_drop_letter] * 2, *[_drop_last] * 2, *[_undouble] * 3, *[_double] * 3, *[_swap] * 6, _swap_apart,
    *[_spell_by_ear] * 6, *[_confuse_vowel] * 3, *[_hit_beside] * 3, _hit_both, _drop_two,
)  # fmt: skip
