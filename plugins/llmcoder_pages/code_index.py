"""The billable codes of a release, found while somebody types: by the beginning of a code, or by words of titles and terms.

Held in memory: a release of 74,719 codes takes about two seconds to read, once in each process, and then answers in milliseconds.
"""

from __future__ import annotations

import math
import re
import unicodedata
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock

import numpy as np
import numpy.typing as npt

from llmcoder_tasks.database import Database
from llmcoder_tasks.records import parse_code

FOUND = 12
"""Codes that one search shows."""

RELEASES_KEPT = 3
"""Discharges around a change of release need two."""

Has = npt.NDArray[np.bool_]

_LAST = "\U0010ffff"
_WORD = re.compile(r"[a-z0-9]+")
_CODE = re.compile(r"[A-Za-z][0-9][0-9A-Za-z]?(\.?[0-9A-Za-z]{0,4})")
_LITTLE_WORDS = frozenset({"a", "an", "and", "by", "for", "in", "of", "on", "or", "the", "to", "with"})
_NAMES = frozenset({"inclusion_term", "index_term"})
"""Kinds of terms that are another name of the condition; what a code excludes is none."""


@dataclass(frozen=True, slots=True)
class FoundCode:
    """A billable code, without its dot, and its title."""

    code: str
    title: str


class _Words:
    """Which codes have which word, for whole words and for their beginnings."""

    def __init__(self, words: dict[str, list[int]], codes: int) -> None:
        self.codes = codes
        self.vocabulary = sorted(words)
        self.ordinals = [np.array(words[word], dtype=np.uint32) for word in self.vocabulary]

    def whole(self, word: str) -> Has:
        """Of each code, whether it has this word."""
        place = bisect_left(self.vocabulary, word)
        return self._has(place, place + (self.vocabulary[place : place + 1] == [word]))

    def beginning(self, word: str) -> Has:
        """Of each code, whether it has a word that begins so."""
        return self._has(bisect_left(self.vocabulary, word), bisect_left(self.vocabulary, word + _LAST))

    def _has(self, first: int, last: int) -> Has:
        has = np.zeros(self.codes, dtype=np.bool_)
        for ordinals in self.ordinals[first:last]:
            has[ordinals] = True
        return has


class CodeIndex:
    """See the module. `codes` are billable ones with their titles, `terms` other names of them or of headers above them."""

    def __init__(self, codes: Iterable[tuple[str, str]], terms: Iterable[tuple[str, str]] = ()) -> None:
        ordered = sorted(codes)
        self._codes = [code for code, _ in ordered]
        self._titles = [title for _, title in ordered]
        titles: dict[str, list[int]] = defaultdict(list)
        lengths = np.zeros(len(ordered), dtype=np.uint32)
        for ordinal, title in enumerate(self._titles):
            words = split_words(title)
            lengths[ordinal] = len(words)
            for word in words:
                titles[word].append(ordinal)
        both = defaultdict(list, {word: list(ordinals) for word, ordinals in titles.items()})
        for code, term in terms:
            below = self._below(code)
            for word in split_words(term):
                both[word].extend(below)
        self._by_title, self._by_name = _Words(titles, len(ordered)), _Words(both, len(ordered))
        # Short titles first: who types `pneumonia` means no pneumonia of something.
        self._places = np.argsort(np.argsort(lengths, kind="stable"))

    def search(self, query: str, limit: int = FOUND) -> list[FoundCode]:
        """Codes that begin so; else those with all these words: whole words of titles, then beginnings, then words of terms."""
        if _CODE.fullmatch(query.strip()) and (below := self._below(parse_code(query))):
            return [self._found(ordinal) for ordinal in below[:limit]]
        words = split_words(query)
        words = [word for word in words if word not in _LITTLE_WORDS] or words
        found: dict[int, None] = {}
        for having in (self._by_title.whole, self._by_title.beginning, self._by_name.beginning):
            if words and len(found) < limit:
                found.update(dict.fromkeys(self._in_order(np.logical_and.reduce([having(word) for word in words]), limit)))
        return [self._found(ordinal) for ordinal in list(found)[:limit]]

    def suggest(self, code: str, phrase: str, limit: int = FOUND) -> list[FoundCode]:
        """What else a code could be: by the words of its evidence, rare ones counting most, and its nearest siblings."""
        chosen: dict[int, None] = dict.fromkeys(self._by_any_word(phrase, limit // 2))
        for length in range(len(code) - 1, 2, -1):
            chosen.update(dict.fromkeys(self._below(code[:length])[: limit + 1]))
            if len(chosen) > limit:
                break
        return [self._found(ordinal) for ordinal in chosen if self._codes[ordinal] != code][:limit]

    def _by_any_word(self, phrase: str, limit: int) -> list[int]:
        scores = np.zeros(len(self._codes))
        for word in set(split_words(phrase)) - _LITTLE_WORDS:
            has = self._by_name.whole(word)
            if has.any():
                scores[has] += math.log(1 + len(self._codes) / int(has.sum()))
        likely = np.flatnonzero(scores)
        return [int(ordinal) for ordinal in likely[np.lexsort((self._places[likely], -scores[likely]))[:limit]]]

    def _in_order(self, has: Has, limit: int) -> list[int]:
        ordinals = np.flatnonzero(has)
        return [int(ordinal) for ordinal in ordinals[np.argsort(self._places[ordinals])[:limit]]]

    def _below(self, beginning: str) -> range:
        return range(bisect_left(self._codes, beginning), bisect_left(self._codes, beginning + _LAST))

    def _found(self, ordinal: int) -> FoundCode:
        return FoundCode(self._codes[ordinal], self._titles[ordinal])


def split_words(text: str) -> list[str]:
    """Words in small letters, accents taken off, each once."""
    if not text.isascii():
        text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return list(dict.fromkeys(_WORD.findall(text.lower())))


_LOADING = Lock()


def load_code_index(database: Database, release_key: str) -> CodeIndex:
    """The index of a release, read at the first call in this process; others wait for it."""
    with _LOADING:
        return _load(database, release_key)


@lru_cache(maxsize=RELEASES_KEPT)
def _load(database: Database, release_key: str) -> CodeIndex:
    codes = database.fetch_one("fetch_codes_as_columns", release_key=release_key) or {}
    terms = database.fetch_one("fetch_terms_as_columns", release_key=release_key) or {}
    return CodeIndex(_billable(codes["codes"], codes["are_billable"], codes["long_titles"]), _names(**terms))


def _billable(codes: Sequence[str], are_billable: Sequence[bool], titles: Sequence[str]) -> Iterator[tuple[str, str]]:
    return ((code, title) for code, billable, title in zip(codes, are_billable, titles, strict=True) if billable)


def _names(codes: Sequence[str], kinds: Sequence[str], terms: Sequence[str]) -> Iterator[tuple[str, str]]:
    return ((code, term) for code, kind, term in zip(codes, kinds, terms, strict=True) if kind in _NAMES)
