"""Titles as they are mistyped: letters left out, doubled, swapped, spelled by ear, hit beside; and the mistakes people make."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from llmcoder_tasks.dataset.chance import Chance
from llmcoder_tasks.dataset.lexicon import Lexicon
from llmcoder_tasks.dataset.titles import Vocabulary

_WORD = re.compile(r"[A-Za-z][A-Za-z'-]*")
_ROMAN = re.compile(r"[IVX]+[ABC]?")
_VOWELS = "aeiou"
_BY_EAR = (
    ("ph", "f"), ("tion", "shun"), ("tion", "sion"), ("sion", "tion"), ("ck", "k"), ("ch", "k"), ("c", "k"), ("k", "c"),
    ("qu", "kw"), ("x", "ks"), ("ei", "ie"), ("ie", "ei"), ("ea", "ee"), ("ae", "e"), ("oe", "e"), ("y", "i"), ("i", "y"),
    ("s", "z"), ("c", "s"), ("rh", "r"), ("ous", "us"), ("ic", "ik"), ("er", "ar"), ("or", "er"), ("al", "el"), ("le", "el"),
    ("ent", "ant"), ("ence", "ance"), ("able", "ible"), ("a", "e"), ("e", "a"), ("i", "e"), ("ou", "u"), ("ght", "t"),
    ("dge", "ge"), ("gh", ""), ("mb", "m"), ("ps", "s"), ("th", "t"), ("wr", "r"), ("kn", "n"),
)  # fmt: skip
_NEIGHBOURS = {
    "a": "qwsz", "b": "vghn", "c": "xdfv", "d": "serfcx", "e": "wsdr", "f": "drtgvc", "g": "ftyhbv", "h": "gyujnb", "i": "ujko",
    "j": "huikmn", "k": "jiolm", "l": "kop", "m": "njk", "n": "bhjm", "o": "iklp", "p": "ol", "q": "wa", "r": "edft", "s": "awedxz",
    "t": "rfgy", "u": "yhji", "v": "cfgb", "w": "qase", "x": "zsdc", "y": "tghu", "z": "asx",
}  # fmt: skip


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

    def misspell(self, text: str, chance: Chance) -> str:
        """Mistype some of the words, one in ten to two in three; at least one where a word is long enough."""
        share = chance.share(0.1, 0.65)
        candidates = [match.start() for match in _WORD.finditer(text) if _can_slip(match[0])]
        if not candidates:
            return text
        chosen = {place for place in candidates if chance.happens(share)} or {chance.pick(candidates)}
        return _WORD.sub(lambda match: self._slip(match[0], chance) if match.start() in chosen else match[0], text)

    def respell(self, text: str) -> str:
        """British spelling, which is no mistake."""
        return _WORD.sub(lambda match: _with_case(match[0], self.british.get(match[0].lower(), (match[0],))[0]), text)

    def _slip(self, word: str, chance: Chance) -> str:
        known = self.misspellings.get(word.lower(), ())
        if known and chance.happens(0.3):
            return _with_case(word, chance.pick(known))
        slips = 2 if len(word) > 8 and chance.happens(0.2) else 1
        for _ in range(4):
            typed = word.lower()
            for _ in range(slips):
                typed = chance.pick(_SLIPS)(typed, chance)
            if typed != word.lower() and typed not in self.words:
                return _with_case(word, typed)
        return word


def _can_slip(word: str) -> bool:
    return len(word) > 3 and not _ROMAN.fullmatch(word)


def _with_case(word: str, typed: str) -> str:
    return typed[:1].upper() + typed[1:] if word[:1].isupper() else typed


def _drop_vowel(word: str, chance: Chance) -> str:
    places = [i for i in range(1, len(word)) if word[i] in _VOWELS]
    return _without(word, chance.pick(places)) if places else word


def _drop_letter(word: str, chance: Chance) -> str:
    return _without(word, chance.count(1, len(word) - 1))


def _drop_last(word: str, chance: Chance) -> str:
    return word[:-1]


def _undouble(word: str, chance: Chance) -> str:
    places = [i for i in range(1, len(word)) if word[i] == word[i - 1]]
    return _without(word, chance.pick(places)) if places else _drop_vowel(word, chance)


def _double(word: str, chance: Chance) -> str:
    place = chance.count(1, len(word) - 1)
    return word[:place] + word[place] + word[place:]


def _swap(word: str, chance: Chance) -> str:
    place = chance.count(1, len(word) - 2)
    return word[:place] + word[place + 1] + word[place] + word[place + 2 :]


def _spell_by_ear(word: str, chance: Chance) -> str:
    fitting = [(sound, letters) for sound, letters in _BY_EAR if sound in word[1:]]
    if not fitting:
        return _drop_vowel(word, chance)
    sound, letters = chance.pick(fitting)
    place = word.index(sound, 1)
    return word[:place] + letters + word[place + len(sound) :]


def _hit_beside(word: str, chance: Chance) -> str:
    place = chance.count(1, len(word) - 1)
    near = _NEIGHBOURS.get(word[place])
    return word[:place] + chance.pick(near) + word[place + 1 :] if near else word


def _without(word: str, place: int) -> str:
    return word[:place] + word[place + 1 :]


_SLIPS: tuple[Callable[[str, Chance], str], ...] = (
    _drop_vowel, _drop_vowel, _drop_vowel, _drop_vowel, _drop_letter, _drop_last, _undouble, _undouble, _double, _swap, _swap,
    _swap, _spell_by_ear, _spell_by_ear, _spell_by_ear, _hit_beside,
)  # fmt: skip
