"""Lexical candidates: which titles and terms of a release look most like a phrase.

Similarity is a soft cosine. Words weigh by rarity (inverse document frequency), and two words that share character n-grams
(`diabetic`, `diabetes`) count in part. It answers what a character n-gram TF-IDF search over titles answers, but through the
release's small vocabulary: the n-grams are compared once, word by word, and a search is one sparse row product.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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

BATCH = 64

COMMON_TAIL = 20
"""So many titles end in a phrase that only qualifies what stands before it."""

REMEMBERED = 5_000
"""How many answers are kept: notes repeat the same phrases."""

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

    def __init__(self, code_set: CodeSet, short_forms: Mapping[str, Sequence[str]]) -> None:
        self.documents: list[Document] = list_documents(code_set)
        token_lists = [[token.folded for token in split_tokens(document.text)] for document in self.documents]
        self._document_words = token_lists
        self._memory: OrderedDict[tuple[Query, int], list[Candidate]] = OrderedDict()
        vocabulary = Vocabulary(token_lists)
        self.normaliser = Normaliser(vocabulary, short_forms)
        self._word_ids = {word: number for number, word in enumerate(vocabulary.counts)}
        self._tails = _find_tails(document.text for document in self.documents if document.is_title)
        self._build(token_lists)

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
        weights = sparse.diags(self._rarity)
        self._kinship = (weights @ WordKinship(list(self._word_ids)).matrix @ weights).tocsr()
        norms = np.sqrt((counts @ self._kinship).multiply(counts).sum(axis=1)).A1
        self._postings = (sparse.diags(1.0 / norms.astype(np.float32)) @ counts).T.tocsr()

    def read(self, text: str) -> Query:
        """A phrase in the words of the release."""
        return Query(tuple(self.normaliser.normalise(split_tokens(text))))

    def is_tail(self, text: str) -> bool:
        """Whether titles often end so after a comma: `left eye`, `this is the initial encounter` are no conditions of their own."""
        words = [word for word in self.read(text).words if word in self._word_ids and word not in NARRATIVE_WORDS]
        return tuple(words) in self._tails

    def weigh(self, query: Query) -> float:
        """The sum of the squared weights of a query's words: rarity, and the mean rarity for a word unknown to the release."""
        return sum(self._weigh_word(word) ** 2 for word in query.words)

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
        wanted = dict.fromkeys(queries)
        found = {query: kept for query in wanted if (kept := self._recall(query, k)) is not None}
        missing = [query for query in wanted if query not in found]
        for start in range(0, len(missing), BATCH):
            batch = missing[start : start + BATCH]
            for query, candidates in zip(batch, self._search(batch, k), strict=True):
                found[query] = candidates
                self._remember(query, k, candidates)
        return [found[query] for query in queries]

    def _recall(self, query: Query, k: int) -> list[Candidate] | None:
        kept = self._memory.get((query, k))
        if kept is not None:
            self._memory.move_to_end((query, k))
        return kept

    def _remember(self, query: Query, k: int, candidates: list[Candidate]) -> None:
        self._memory[query, k] = candidates
        if len(self._memory) > REMEMBERED:
            self._memory.popitem(last=False)

    def _search(self, queries: Sequence[Query], k: int) -> Iterator[list[Candidate]]:

        counts, strange = self._count_words(queries)
        weighted = counts @ self._kinship
        squares = weighted.multiply(counts).sum(axis=1).A1 + strange * float(self._rarity.max()) ** 2
        norms = np.sqrt(np.maximum(squares, 1e-9))
        scores = (weighted @ self._postings).tocsr()
        for row, (query, norm) in enumerate(zip(queries, norms, strict=True)):
            begin, end = scores.indptr[row : row + 2]
            yield self._best(query, scores.indices[begin:end], scores.data[begin:end] / norm, k)

    def _best(self, query: Query, documents: Any, similarities: Any, k: int) -> list[Candidate]:
        # One code may own several documents, and word order is still to be seen: look at more of them than codes are wanted.
        wide = min(len(similarities), 3 * k)
        if wide == 0:
            return []
        words = query.words
        nearest = np.argpartition(-similarities, wide - 1)[:wide]
        scored = [
            (self._with_order(words, documents[place], float(similarities[place])), int(documents[place])) for place in nearest
        ]
        chosen: dict[str, Candidate] = {}
        for similarity, number in sorted(scored, key=lambda pair: (-pair[0], pair[1])):
            document = self.documents[number]
            if document.code not in chosen:
                chosen[document.code] = Candidate(document.code, similarity, document.text)
                if len(chosen) == k:
                    break
        return list(chosen.values())

    def _with_order(self, words: Sequence[str], document: int, similarity: float) -> float:
        """Similarity of words, and a little of their order: `with A without B` is not `without A with B`."""
        from rapidfuzz.distance import Indel

        order = Indel.normalized_similarity(words, self._document_words[document])
        return (1.0 - ORDER_SHARE) * min(1.0, similarity) + ORDER_SHARE * order

    def _count_words(self, queries: Sequence[Query]) -> tuple[Any, Any]:
        """Damped counts of the release's words in each query, (queries, words), and how many other words each query has."""
        from scipy import sparse

        columns: list[int] = []
        values: list[float] = []
        starts = [0]
        strange: list[int] = []
        for query in queries:
            counts = Counter(word for word in query.words)
            known = [(word, count) for word, count in counts.items() if word in self._word_ids]
            columns += [self._word_ids[word] for word, _ in known]
            values += [(1.0 + math.log(count)) * (FRAME_WEIGHT if word in FRAME_WORDS else 1.0) for word, count in known]
            starts.append(len(columns))
            strange.append(sum(word not in self._word_ids and word not in NARRATIVE_WORDS for word in counts))
        shape = (len(queries), len(self._word_ids))
        return sparse.csr_matrix((np.array(values, dtype=np.float32), columns, starts), shape=shape), np.array(strange)


def _find_tails(titles: Iterable[str]) -> frozenset[tuple[str, ...]]:
    """The words after the last comma of at least COMMON_TAIL titles, folded, without plain words."""
    counts = Counter(title.rpartition(", ")[2] for title in titles if ", " in title)
    common = [[token.folded for token in split_tokens(tail)] for tail, count in counts.items() if count >= COMMON_TAIL]
    return frozenset(tuple(word for word in words if word not in NARRATIVE_WORDS) for words in common)


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
