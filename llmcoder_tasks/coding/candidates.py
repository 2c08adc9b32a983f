"""Lexical candidates: which titles and terms of a release look most like a phrase.

Similarity is a soft cosine. Words weigh by rarity (inverse document frequency), and two words that share character n-grams
(`diabetic`, `diabetes`) count in part. It answers what a character n-gram TF-IDF search over titles answers, but through the
release's small vocabulary: the n-grams are compared once, word by word.

A search adds up the telling words first and seldom looks at the others: what they can add to a title is bounded (a soft cosine
is at most the length of what is left of the phrase), so that no title near the best one is missed. Each phrase stands alone.
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from llmcoder_tasks.coding.documents import Document, list_documents
from llmcoder_tasks.coding.normaliser import Normaliser, Vocabulary
from llmcoder_tasks.coding.normaliser_tokens import FRAME_WORDS, NARRATIVE_WORDS, split_tokens

if TYPE_CHECKING:
    from llmcoder_tasks.icd10cm.code_set import CodeSet

NGRAM_SIZES = (3, 4, 5)
WEAKEST_KINSHIP = 0.4
"""Two words with a smaller n-gram cosine count as strangers: this keeps the word matrix sparse."""

REMEMBERED = 5_000
"""How many answers are kept: notes repeat the same phrases."""

SEARCH_REACH = 0.1
"""A search finds every title that is at most so much less similar than the nearest one; of those behind, what it happens to see."""

FIRST_LOOK = 0.5
"""A search begins with the words without which no title can be more similar than this."""

_ROUNDING = 1e-3
"""Sums of single precision are good to this, and better."""

FRAME_WEIGHT = 0.3
"""What a word of the sentence around a condition counts (`patient`, `has`), where titles hold it too."""

ORDER_SHARE = 0.03
"""How much of a similarity is word order: enough to part titles of the same words, too little to punish another order."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A billable code that may be meant, the similarity in [0, 1] of its nearest title or term, and that text."""

    code: str
    similarity: float
    matched: str


@dataclass(frozen=True, slots=True)
class Query:
    """A phrase as the index sees it: its normalised words in order."""

    words: tuple[str, ...]


class CandidateIndex:
    """Titles and terms of one release, searchable. Build takes seconds; searching is pure and keeps no order or batch effects."""

    def __init__(
        self,
        code_set: CodeSet,
        short_forms: Mapping[str, Sequence[str]],
        *,
        spoken_names: Sequence[tuple[str, str]] | None = None,
    ) -> None:
        self.documents: list[Document] = list_documents(code_set, spoken_names)
        token_lists = [[token.folded for token in split_tokens(document.text)] for document in self.documents]
        vocabulary = Vocabulary(token_lists)
        self.normaliser = Normaliser(vocabulary, short_forms)
        self._word_ids = {word: number for number, word in enumerate(vocabulary.counts)}
        self._spellings = ["".join(self._letter(word) for word in words) for words in token_lists]
        self._build(token_lists)
        self._scratch = threading.local()
        self._search = lru_cache(maxsize=REMEMBERED)(self._search_anew)

    def _build(self, token_lists: Sequence[Sequence[str]]) -> None:
        from scipy import sparse

        columns = np.fromiter((self._word_ids[word] for words in token_lists for word in words), dtype=np.int32)
        starts = np.cumsum([0, *map(len, token_lists)])
        shape = (len(token_lists), len(self._word_ids))
        counts = sparse.csr_matrix((np.ones(len(columns), dtype=np.float32), columns, starts), shape=shape)
        counts.sum_duplicates()
        frequencies = np.bincount(counts.indices, minlength=shape[1])
        counts.data = 1.0 + np.log(counts.data)
        self._rarity = np.log(1.0 + len(token_lists) / (0.5 + frequencies)).astype(np.float32)
        self.mean_weight = float(self._rarity.mean())
        self._strange_square = float(self._rarity.max()) ** 2
        weights = sparse.diags(self._rarity)
        self._kinship = (weights @ WordKinship(list(self._word_ids)).matrix @ weights).tocsr()
        norms = np.sqrt((counts @ self._kinship).multiply(counts).sum(axis=1)).A1
        self._titles = (sparse.diags(1.0 / norms.astype(np.float32)) @ counts).tocsr()
        self._postings = (self._kinship @ self._titles.T).tocsr()

    def read(self, text: str) -> Query:
        """A phrase in the words of the release."""
        return Query(tuple(self.normaliser.normalise(split_tokens(text))))

    def share_known(self, query: Query) -> float:
        """The share of a query's weight in words that the release knows, in [0, 1]."""
        weights = [(self._weigh_word(word), word in self._word_ids) for word in query.words]
        total = sum(weight for weight, _ in weights)
        return sum(weight for weight, known in weights if known) / total if total else 0.0

    def _weigh_word(self, word: str) -> float:
        number = self._word_ids.get(word)
        if word in FRAME_WORDS or (number is None and word in NARRATIVE_WORDS):
            return 0.0
        return float(self._rarity[number]) if number is not None else self.mean_weight

    def search(self, queries: Sequence[Query], k: int = 20) -> list[list[Candidate]]:
        """For each query up to `k` candidates, best first; none when it shares no word with the release."""
        return [list(self._search(query, k)) for query in queries]

    def forget(self) -> None:
        """Drop the answers that are kept for repeated phrases, so that searching them can be timed."""
        self._search.cache_clear()

    def _search_anew(self, query: Query, k: int) -> tuple[Candidate, ...]:
        # One code may own several documents, and word order is still to be seen: look at more of them than codes are wanted.
        chosen: dict[str, Candidate] = {}
        for similarity, number in self._find_nearest(query, 2 * k):
            document = self.documents[number]
            if document.code not in chosen:
                chosen[document.code] = Candidate(document.code, similarity, document.text)
                if len(chosen) == k:
                    break
        return tuple(chosen.values())

    def _find_nearest(self, query: Query, most: int, reach: float = SEARCH_REACH) -> list[tuple[float, int]]:
        """Similarity and number of the documents most like a query, best first: at most `most`, none within `reach` forgotten."""
        weighing = self._weigh_words(query)
        if weighing is None:
            return []
        documents = self._list_near(weighing, reach * weighing.norm)
        similarities = self._score(weighing, documents) / np.float32(weighing.norm)
        if len(documents) > most:
            nearest = np.argpartition(-similarities, most - 1)[:most]
            documents, similarities = documents[nearest], similarities[nearest]
        scored = self._add_order(query, zip(documents.tolist(), similarities.tolist(), strict=True))
        return sorted(scored, key=lambda pair: (-pair[0], pair[1]))

    def _add_order(self, query: Query, scored: Iterable[tuple[int, float]]) -> Iterator[tuple[float, int]]:
        """Similarity of words, and a little of their order: `with A without B` is not `without A with B`."""
        from rapidfuzz.distance import Indel

        spelling = "".join(map(self._letter, query.words))
        for document, similarity in scored:
            order = Indel.normalized_similarity(spelling, self._spellings[document])
            yield (1.0 - ORDER_SHARE) * min(1.0, similarity) + ORDER_SHARE * order, document

    def _letter(self, word: str) -> str:
        """One character for each word of the release: texts are compared word by word at the speed of letters."""
        return chr(_FIRST_LETTER + self._word_ids.get(word, -1))

    def _weigh_words(self, query: Query) -> _Weighing | None:
        counts = Counter(query.words)
        known = {self._word_ids[word]: _damp(word, count) for word, count in counts.items() if word in self._word_ids}
        if not known:
            return None
        strange = sum(word not in self._word_ids and word not in NARRATIVE_WORDS for word in counts)
        weights = np.zeros(len(self._word_ids), dtype=np.float32)
        for number, count in known.items():
            kin, kinship = _row(self._kinship, number)
            weights[kin] += count * kinship
        squares = [count * float(weights[number]) for number, count in known.items()]
        total = sum(squares)
        words: list[tuple[int, float, float]] = []
        behind = total
        for square, number in sorted(zip(squares, known, strict=True), reverse=True):
            behind -= square
            words.append((number, known[number], math.sqrt(max(behind, 0.0)) if len(words) + 1 < len(known) else 0.0))
        return _Weighing(weights, words, math.sqrt(total), math.sqrt(max(total + strange * self._strange_square, 1e-9)))

    def _list_near(self, weighing: _Weighing, reach: float) -> Any:
        """Numbers of all documents that score within `reach` of the best, and of some others. Scores are similarity x norm."""
        scores = self._clear_scores()
        level = FIRST_LOOK * weighing.known_norm
        for word, count, behind in weighing.words:
            documents, values = _row(self._postings, word)
            scores[documents] += count * values
            if behind <= level:
                # Any document's score is a lower bound of the best one.
                held, shares = _row(self._titles, int(scores.argmax()))
                wanted = float(weighing.weights[held] @ shares) - reach - _ROUNDING * weighing.norm
                if wanted > behind or not behind:
                    break
                level = max(wanted, 0.0)
        return np.flatnonzero(scores > max(wanted - behind, 0.0))

    def _score(self, weighing: _Weighing, documents: Any) -> Any:
        """The scores of some documents, none of them empty: a sparse product without the price of slicing a matrix."""
        starts = self._titles.indptr[documents]
        lengths = self._titles.indptr[documents + 1] - starts
        ends = np.cumsum(lengths)
        begins = ends - lengths
        held = np.repeat(starts - begins, lengths) + np.arange(ends[-1] if len(ends) else 0)
        products = weighing.weights[self._titles.indices[held]] * self._titles.data[held]
        return np.add.reduceat(products, begins) if len(ends) else products

    def _clear_scores(self) -> Any:
        """One zero for each document, in memory that searches of this thread share: a fresh array costs as much as a search."""
        scores = getattr(self._scratch, "scores", None)
        if scores is None:
            scores = self._scratch.scores = np.zeros(len(self.documents), dtype=np.float32)
        scores.fill(0.0)
        return scores


@dataclass(frozen=True, slots=True)
class _Weighing:
    """A query's words, weighed.

    `weights` are by word of the release; `words` its known words, the most telling first, each with its count and with what
    those behind it can add at most to a score. `norm` counts words that the release does not know, `known_norm` leaves them out.
    """

    weights: Any
    words: Sequence[tuple[int, float, float]]
    known_norm: float
    norm: float


def _row(matrix: Any, number: int) -> tuple[Any, Any]:
    """Columns and values of a row of a sparse matrix, without copies."""
    start, stop = matrix.indptr[number], matrix.indptr[number + 1]
    return matrix.indices[start:stop], matrix.data[start:stop]


_FIRST_LETTER = 0x10001


def _damp(word: str, count: int) -> float:
    return (1.0 + math.log(count)) * (FRAME_WEIGHT if word in FRAME_WORDS else 1.0)


class WordKinship:
    """How alike words look: the cosine of their character n-grams, by their rarity among the words."""

    def __init__(self, words: Sequence[str]) -> None:
        from scipy import sparse

        ids: dict[str, int] = {}
        columns: list[int] = []
        starts = [0]
        for word in words:
            columns += [ids.setdefault(ngram, len(ids)) for ngram in sorted(_ngrams(word))]
            starts.append(len(columns))
        shape = (len(words), len(ids))
        grams = sparse.csr_matrix((np.ones(len(columns), dtype=np.float32), columns, starts), shape=shape)
        rarity = np.log(len(words) / np.bincount(grams.indices, minlength=shape[1]))
        grams = grams @ sparse.diags(rarity.astype(np.float32))
        lengths = np.sqrt(grams.multiply(grams).sum(axis=1)).A1
        grams = (sparse.diags((1.0 / lengths).astype(np.float32)) @ grams).tocsr()
        kinship = (grams @ grams.T).tocsr()
        kinship.data[kinship.data < WEAKEST_KINSHIP] = 0.0
        kinship.eliminate_zeros()
        kinship.setdiag(1.0)
        self.matrix = kinship


def _ngrams(word: str) -> set[str]:
    padded = f" {word} "
    return {padded[start : start + size] for size in NGRAM_SIZES for start in range(max(1, len(padded) - size + 1))}
