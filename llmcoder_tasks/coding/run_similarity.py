"""How like a title each run of neighbouring pieces of a line is, for all runs at once: enough to choose where to cut.

A search for every run would cost a search of the whole release each. Here every piece names the titles that hold its rarest words,
and all runs are compared with these titles alone, in one small matrix product. The similarity is a cosine of words by their rarity.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence, Set
from typing import TYPE_CHECKING, Any

import numpy as np

from llmcoder_tasks.coding.normaliser_tokens import FRAME_WORDS, NARRATIVE_WORDS, split_tokens

if TYPE_CHECKING:
    from llmcoder_tasks.coding.documents import Document

POSTINGS = 3_000
"""A piece looks at so many postings for titles, those of its rarest words first."""

COMMON_WORD = 3_000
"""A word of more documents names none, unless a piece has no rarer one."""

NEAREST = 80
"""A piece names so many titles."""

PLAIN_WEIGHT = 0.3
"""What plain words count (`patient`, `has`, `with` whom): they say little of a condition."""

STRANGE_WEIGHT = 0.5
"""What a word that the release does not know counts, as a share of the mean weight: it may be a name."""

STEM = 7
"""Words count by their first letters: `sequela` and `sequelae` are one."""

_ENCOUNTERS = frozenset(word[:STEM] for word in ("encounter", "sequela", "healing", "malunion", "nonunion"))
_SPOKEN_TAILS = (("late", "effect"), ("late", "effects"), ("not", "further", "specified"), ("not", "otherwise", "specified"))
_SPOKEN_OF_ENCOUNTERS = ("left", "late", "effect", "slow", "heal", "heals", "expected", "b", "c", "open", "closed", "whose")

COMMON_TAIL = 20
"""So many titles end in a phrase that only qualifies what stands before it."""


class RunSimilarity:
    """The titles and terms of a release as bags of words."""

    def __init__(self, documents: Sequence[Document]) -> None:
        self._tails = _find_tails(document.text for document in documents if document.is_title)
        self._encounter_words = {word for tail in self._tails if not _ENCOUNTERS.isdisjoint(tail) for word in tail}
        self._encounter_words |= set(_stem(_SPOKEN_OF_ENCOUNTERS))
        self._build([[token.folded[:STEM] for token in split_tokens(document.text)] for document in documents])

    def _build(self, documents: Sequence[Sequence[str]]) -> None:
        from scipy import sparse

        self._ids: dict[str, int] = {}
        columns = np.fromiter((self._ids.setdefault(w, len(self._ids)) for words in documents for w in words), dtype=np.int32)
        starts = np.cumsum([0, *map(len, documents)])
        counts = sparse.csr_matrix((np.ones(len(columns), np.float32), columns, starts), shape=(len(documents), len(self._ids)))
        counts.sum_duplicates()
        self._frequency = np.bincount(counts.indices, minlength=len(self._ids))
        self._rarity = np.log(1.0 + len(documents) / (0.5 + self._frequency)).astype(np.float32)
        self.mean_weight = float(self._rarity.mean())
        plain = [number for word, number in self._ids.items() if word in FRAME_WORDS or word in NARRATIVE_WORDS]
        self._rarity[plain] *= PLAIN_WEIGHT
        counts.data = 1.0 + np.log(counts.data)
        weights = (counts @ sparse.diags(self._rarity)).tocsr()
        norms = np.sqrt(weights.multiply(weights).sum(axis=1)).A1
        self._rows = (sparse.diags((1.0 / np.maximum(norms, 1e-9)).astype(np.float32)) @ weights).tocsr()
        self._postings = self._rows.tocsc()
        self._common = {
            int(column): self._postings[:, [column]].toarray()[:, 0] * self._rarity[column]
            for column in np.flatnonzero(self._frequency > COMMON_WORD)
        }
        self._sums = np.zeros(len(documents), np.float32)
        self._places = np.full(len(self._ids), -1, np.int32)

    def is_tail(self, words: Sequence[str]) -> bool:
        """Whether the words only say more of a condition: `left eye`, `this is the initial encounter`, `an open fracture`."""
        said = tuple(word for word in _stem(words) if word in self._ids and not self._is_plain(word))
        return said in self._tails or (not _ENCOUNTERS.isdisjoint(said) and self._encounter_words.issuperset(said))

    def score(self, pieces: Sequence[Sequence[str]]) -> tuple[list[list[float]], list[list[float]]]:
        """For the run from piece i to piece j, both in it: its similarity in [0, 1], and the sum of its words' squared weights.

        Pieces are given by their normalised words; both answers are read as [i][j].
        """
        stems = [[word for word in _stem(piece) if not self._is_silent(word)] for piece in pieces]
        place = {word: number for number, word in enumerate(dict.fromkeys(word for piece in stems for word in piece))}
        counts = np.zeros((len(pieces) + 1, len(place)), np.float32)
        for row, piece in enumerate(stems, start=1):
            for word in piece:
                counts[row, place[word]] += 1.0
        before = counts.cumsum(axis=0)
        runs = np.maximum(before[None, 1:] - before[:-1, None], 0.0)  # (first piece, last piece, word)
        rarity = np.array([self._weigh(word) for word in place], np.float32)
        vectors = np.where(runs > 0.0, 1.0 + np.log(np.maximum(runs, 1.0)), 0.0) * rarity
        known = [word for word in place if word in self._ids]
        documents = self._name_documents([[self._ids[word] for word in piece if word in self._ids] for piece in stems])
        best = np.zeros(runs.shape[:2], np.float32)
        if known and len(documents):
            matrix = self._gather(documents, [self._ids[word] for word in known])
            best = (vectors[:, :, [place[word] for word in known]] @ matrix.T).max(axis=2)
        norms = np.sqrt((vectors**2).sum(axis=2))
        similarity = np.minimum(1.0, best / np.maximum(norms, 1e-9))
        return similarity.tolist(), ((runs > 0.0) * rarity**2).sum(axis=2).tolist()

    def _is_plain(self, word: str) -> bool:
        return word in NARRATIVE_WORDS or word in FRAME_WORDS

    def _is_silent(self, word: str) -> bool:
        return word not in self._ids and (word in NARRATIVE_WORDS or word in FRAME_WORDS)

    def _weigh(self, word: str) -> float:
        number = self._ids.get(word)
        return self.mean_weight * STRANGE_WEIGHT if number is None else float(self._rarity[number])

    def _name_documents(self, pieces: Sequence[Sequence[int]]) -> Any:
        """The documents that are worth comparing: those nearest to each piece.

        They hold rare words of the piece. Many titles may share these (`lesser toe`): its common words, and half as much the words
        of the other pieces, choose among them.
        """
        named = [self._choose_words(piece) for piece in pieces]
        for column in {column for columns in named for column in columns}:
            self._add(column, 0.5)
        common = {column for piece in pieces for column in piece if column in self._common}
        found = np.unique(
            np.concatenate([self._nearest(columns, set(piece), common) for columns, piece in zip(named, pieces, strict=True)])
        )
        for columns in named:
            for column in columns:
                self._sums[self._list_documents(column)] = 0.0
        return found

    def _choose_words(self, piece: Sequence[int]) -> list[int]:
        """The rarest words of a piece: at least one, and no more than a budget of postings allows."""
        chosen: list[int] = []
        budget = POSTINGS
        for column in sorted(set(piece), key=lambda column: (self._frequency[column], column)):
            budget -= self._frequency[column]
            if chosen and (budget < 0 or column in self._common):
                break
            chosen.append(column)
        return chosen

    def _nearest(self, columns: Sequence[int], piece: Set[int], common: Set[int]) -> Any:
        if not columns:
            return np.zeros(0, self._rows.indices.dtype)
        documents = np.concatenate([self._list_documents(column) for column in columns])
        if len(documents) <= NEAREST:
            return documents
        for column in columns:
            self._add(column, 0.5)
        sums = self._sums[documents]
        for column in columns:
            self._add(column, -0.5)
        for column in common - set(columns):
            sums += self._common[column][documents] * (1.0 if column in piece else 0.5)
        return documents[np.argpartition(-sums, NEAREST)[:NEAREST]]

    def _list_documents(self, column: int) -> Any:
        return self._postings.indices[self._postings.indptr[column] : self._postings.indptr[column + 1]]

    def _add(self, column: int, share: float) -> None:
        begin, end = self._postings.indptr[column : column + 2]
        self._sums[self._postings.indices[begin:end]] += share * self._rarity[column] * self._postings.data[begin:end]

    def _gather(self, documents: Any, columns: Sequence[int]) -> Any:
        """The weights of some words in some documents, (documents, words)."""
        starts, ends = self._rows.indptr[documents], self._rows.indptr[documents + 1]
        lengths = ends - starts
        owner = np.repeat(np.arange(len(documents)), lengths)
        entries = np.arange(lengths.sum()) + np.repeat(starts - (lengths.cumsum() - lengths), lengths)
        self._places[columns] = np.arange(len(columns))
        places = self._places[self._rows.indices[entries]]
        self._places[columns] = -1
        here = places >= 0
        matrix = np.zeros((len(documents), len(columns)), np.float32)
        matrix[owner[here], places[here]] = self._rows.data[entries[here]]
        return matrix


def _stem(words: Sequence[str]) -> list[str]:
    return [word[:STEM] for word in words]


def _find_tails(titles: Iterable[str]) -> frozenset[tuple[str, ...]]:
    """How at least COMMON_TAIL titles go on after a comma, and beginnings of that; also after `for`: `open fracture`."""
    counts = Counter(part for title in titles for part in title.split(", ")[1:])
    tails: set[tuple[str, ...]] = {(), *map(tuple, map(_stem, _SPOKEN_TAILS))}
    for tail, count in counts.items():
        if count >= COMMON_TAIL:
            for part in (tail, tail.partition(" for ")[2]):
                words = [
                    token.folded[:STEM]
                    for token in split_tokens(part)
                    if token.folded not in NARRATIVE_WORDS and token.folded not in FRAME_WORDS
                ]
                tails |= {tuple(words[:length]) for length in range(1, len(words) + 1)}
    return frozenset(tails)
