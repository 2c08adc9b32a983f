"""A noisy channel: how clinicians write, back to the words of a release.

A token that the release knows stays as it is, nearly always. Any other token gets candidates from a lexicon of short forms,
truncation (`unspec.`), dropped letters (`encntr`), spellings of one sound (`oedema`) and edits (`fractuer`); the text's most
probable path through the candidates wins, by how often words follow each other in the release's titles.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from llmcoder_tasks.coding.normaliser_tokens import FORMS_OF_ADDRESS, NARRATIVE_WORDS, SUBJECT_VERBS, Token, split_tokens

_ROMAN = {"1": "i", "2": "ii", "3": "iii", "4": "iv"}
_VOWELS = str.maketrans("", "", "aeiou")
_SOUNDS = (
    ("ph", "f"), ("ae", "e"), ("oe", "e"), ("ou", "o"), ("th", "t"), ("rh", "r"), ("ck", "k"), ("qu", "k"), ("x", "ks"),
    ("ce", "se"), ("ci", "si"), ("cy", "si"), ("c", "k"), ("y", "i"), ("z", "s"), ("ie", "i"), ("ei", "i"),
)  # fmt: skip

LONGEST_TOKEN = 48
"""Longer tokens are no words: they are left alone, so that a page of noise costs no time."""

MOST_CANDIDATES = 12

# Prices in natural log units, beside the -log probability of the words themselves.
UNKNOWN_WORD = 5.0
OTHER_NUMERAL = 3.0
SHORT_FORM_OF_KNOWN_WORD = 4.0
REAL_WORD_ERROR = 5.0

LONGEST_AMBIGUOUS_SHORT_FORM = 4
"""A known word of more letters (sequelae) means itself, whatever the lexicon says it may be short for."""

RARE_WORD = 20
"""A known word that occurs more often than this is never taken for a slip of another one."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """Words that a token may stand for, and the price of the change (natural log units, 0 for no change)."""

    words: tuple[str, ...]
    cost: float


class Vocabulary:
    """The words of a release's titles and terms with how often they occur, alone and side by side."""

    def __init__(self, texts: Iterable[Sequence[str]]) -> None:
        """`texts` are lists of folded words."""
        self.counts: Counter[str] = Counter()
        pairs: Counter[tuple[str, str]] = Counter()
        for words in texts:
            self.counts.update(words)
            pairs.update(pairwise(words))
        self.total = sum(self.counts.values())
        self._pairs = pairs

    def __contains__(self, word: str) -> bool:
        return word in self.counts

    def follows(self, previous: str, word: str) -> bool:
        """Whether the release ever has the two words side by side."""
        return (previous, word) in self._pairs

    def price(self, word: str) -> float:
        """-log probability of a word, add-one smoothed."""
        return -math.log((self.counts[word] + 0.5) / (self.total + 1.0))

    def price_after(self, previous: str, word: str) -> float:
        """-log probability of a word after another one; falls back on the word alone (Jelinek-Mercer, equal weights)."""
        before = self.counts[previous]
        follows = self._pairs[previous, word] / before if before else 0.0
        return -math.log(0.5 * follows + 0.5 * (self.counts[word] + 0.5) / (self.total + 1.0))


class Normaliser:
    """Rewrites texts in the words of a vocabulary. Pure: the same text always gives the same words."""

    def __init__(self, vocabulary: Vocabulary, short_forms: Mapping[str, Sequence[str]]) -> None:
        """`short_forms` maps what people write (one or several words) to what it may stand for, in the release's words."""
        self.vocabulary = vocabulary
        self._expansions: dict[tuple[str, ...], tuple[tuple[str, ...], ...]] = {}
        for form, meanings in short_forms.items():
            key = tuple(token.folded for token in split_tokens(form))
            if key:
                long_forms = (tuple(token.folded for token in split_tokens(meaning)) for meaning in meanings)
                self._expansions[key] = (*self._expansions.get(key, ()), *(words for words in long_forms if words))
        self._longest_form: dict[str, int] = {}
        for key in self._expansions:
            self._longest_form[key[0]] = max(len(key), self._longest_form.get(key[0], 0))
        self._sorted = sorted(word for word in vocabulary.counts if len(word) > 2)
        self._by_skeleton: dict[str, list[str]] = defaultdict(list)
        self._by_sound: dict[str, list[str]] = defaultdict(list)
        self._by_ends: dict[tuple[str, str], list[str]] = defaultdict(list)
        self._by_deletion: dict[str, list[str]] = defaultdict(list)
        for word in self._sorted:
            if word.isdigit():
                continue
            self._by_skeleton[_skeleton(word)].append(word)
            self._by_sound[_sound(word)].append(word)
            self._by_ends[word[0], word[-1]].append(word)
            for shorter in _deletions(word):
                self._by_deletion[shorter].append(word)
        self.candidates = lru_cache(maxsize=200_000)(self._candidates)

    def normalise(self, tokens: Sequence[Token]) -> list[str]:
        """The words that a text's tokens stand for (itself when nothing better is known), by the cheapest path (Viterbi)."""
        lattice: list[tuple[Candidate, ...]] = []
        position = 0
        while position < len(tokens):
            length = self._match_form(tokens, position)
            token, following = tokens[position], tokens[position + length] if position + length < len(tokens) else None
            if length > 1:
                lattice.append(self._read_form(tuple(token.folded for token in tokens[position : position + length])))
            elif self._is_name(token, following):
                lattice.append((Candidate((token.folded,), 0.0),))
            else:
                lattice.append(self.candidates(token.folded, token.has_point))
            position += length
        return [word for words in self._cheapest_path(lattice) for word in words]

    def _match_form(self, tokens: Sequence[Token], start: int) -> int:
        """The number of tokens of the longest form of several words that begins here, else 1."""
        for length in range(self._longest_form.get(tokens[start].folded, 1), 1, -1):
            if tuple(token.folded for token in tokens[start : start + length]) in self._expansions:
                return length
        return 1

    def _read_form(self, form: tuple[str, ...]) -> tuple[Candidate, ...]:
        """A form of several words means what the lexicon says, or itself where titles hold those words side by side."""
        if not all(self.vocabulary.follows(*pair) for pair in pairwise(form)):
            return tuple(Candidate(words, 0.0) for words in self._expansions[form])
        return (Candidate(form, 0.0), *(Candidate(words, SHORT_FORM_OF_KNOWN_WORD) for words in self._expansions[form]))

    def _is_name(self, token: Token, following: Token | None) -> bool:
        """A form of address, or a capitalised stranger of whom something is told."""
        if following is None:
            return False
        if token.folded in FORMS_OF_ADDRESS and (token.has_point or following.is_capitalised):
            return True
        is_strange = token.folded not in self.vocabulary and (token.folded,) not in self._expansions
        return token.is_capitalised and is_strange and following.folded in SUBJECT_VERBS

    def _cheapest_path(self, lattice: Sequence[tuple[Candidate, ...]]) -> list[tuple[str, ...]]:
        costs = [0.0]
        ends: list[str] = [""]
        history: list[list[int]] = []
        for options in lattice:
            back: list[int] = []
            new_costs: list[float] = []
            for option in options:
                prices = [cost + self.vocabulary.price_after(end, option.words[0]) for cost, end in zip(costs, ends, strict=True)]
                best = min(range(len(prices)), key=prices.__getitem__)
                inside = sum(self.vocabulary.price_after(*pair) for pair in pairwise(option.words))
                back.append(best)
                new_costs.append(prices[best] + inside + option.cost)
            history.append(back)
            costs, ends = new_costs, [option.words[-1] for option in options]
        state = min(range(len(costs)), key=costs.__getitem__)
        path: list[tuple[str, ...]] = []
        for options, back in zip(reversed(lattice), reversed(history), strict=True):
            path.append(options[state].words)
            state = back[state]
        return path[::-1]

    def _candidates(self, token: str, has_point: bool) -> tuple[Candidate, ...]:
        if token in _ROMAN:
            return (Candidate((token,), 0.0), Candidate((_ROMAN[token],), OTHER_NUMERAL))
        known = token in self.vocabulary
        expanded = self._expand(
            token, SHORT_FORM_OF_KNOWN_WORD if self.vocabulary.counts[token] > RARE_WORD and not has_point else 0.0
        )
        if known and len(token) > LONGEST_AMBIGUOUS_SHORT_FORM:
            expanded = []
        unchanged = Candidate((token,), 0.0 if known else UNKNOWN_WORD)
        if expanded and not known:
            return tuple(expanded)
        if len(token) < 2 or len(token) > LONGEST_TOKEN or token in NARRATIVE_WORDS or not token.isalpha():
            return (unchanged, *expanded)
        if known and self.vocabulary.counts[token] > RARE_WORD:
            return (unchanged, *expanded)
        found: dict[str, float] = {}
        for word, cost in self._misspelt(token) if known else self._variants(token, has_point):
            found[word] = min(cost + (REAL_WORD_ERROR if known else 0.0), found.get(word, math.inf))
        ranked = sorted(found, key=lambda word: (found[word] + self.vocabulary.price(word), word))[:MOST_CANDIDATES]
        return (unchanged, *expanded, *(Candidate((word,), found[word]) for word in ranked))

    def _expand(self, token: str, cost: float) -> list[Candidate]:
        return [Candidate(words, cost) for words in self._expansions.get((token,), ())]

    def _variants(self, token: str, has_point: bool) -> Iterable[tuple[str, float]]:
        yield from self._truncated(token, has_point)
        for word in self._by_skeleton.get(_skeleton(token), ()):
            if len(token) > 2 and _is_subsequence(token, word):
                yield word, 1.5 + 0.5 * (len(word) - len(token))
        for word in self._by_ends.get((token[0], token[-1]), ()):
            if 2 < len(token) < len(word) <= 3 * len(token) and _is_subsequence(token, word):
                yield word, 3.0 + 0.7 * (len(word) - len(token))
        yield from ((word, 2.5) for word in self._by_sound.get(_sound(token), ()))
        yield from self._misspelt(token)

    def _truncated(self, token: str, has_point: bool) -> Iterable[tuple[str, float]]:
        """Words that begin with the token: likelier with a point, and with a longer token."""
        if len(token) < (2 if has_point else 3):
            return
        cost = (1.0 if len(token) > 2 else 4.0) if has_point else 5.0
        for index in range(bisect_left(self._sorted, token), len(self._sorted)):
            word = self._sorted[index]
            if not word.startswith(token):
                return
            yield word, cost

    def _misspelt(self, token: str) -> Iterable[tuple[str, float]]:
        from rapidfuzz.distance import OSA
        from rapidfuzz.process import extract

        if len(token) < 3:
            return
        near = set(self._by_deletion.get(token, ()))
        for shorter in _deletions(token):
            near.update(self._by_deletion.get(shorter, ()))
            if shorter in self.vocabulary:
                near.add(shorter)
        limit = 1 if len(token) < 6 else 2
        close = [(word, OSA.distance(token, word, score_cutoff=limit)) for word in near]
        if limit == 2 and all(distance > 1 for _, distance in close) and token not in self.vocabulary:
            # Two slips far from each other share no deletion: the slow way, over all words.
            limit = 2 if len(token) < 9 else 3
            close = [
                (word, distance) for word, distance, _ in extract(token, self._sorted, scorer=OSA.distance, score_cutoff=limit)
            ]
        for word, distance in close:
            if distance <= limit:
                yield word, 4.0 * distance + (0.0 if word[0] == token[0] else 2.0)


def _skeleton(word: str) -> str:
    """First letter and the consonants after it, doubles once: `encounter` and `encntr` are both `encntr`."""
    letters = word[0] + word[1:].translate(_VOWELS)
    return re.sub(r"(.)\1", r"\1", letters)


def _is_subsequence(short: str, word: str) -> bool:
    letters = iter(word)
    return all(letter in letters for letter in short)


def _sound(word: str) -> str:
    """A key that spellings of one sound share: `haemorrhage` and `hemorhage`."""
    for spelling, sound in _SOUNDS:
        word = word.replace(spelling, sound)
    return re.sub(r"(.)\1", r"\1", word)


def _deletions(word: str) -> set[str]:
    return {word[:index] + word[index + 1 :] for index in range(len(word))}
