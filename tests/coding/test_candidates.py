"""The search over titles: it skips most of them, and finds what a comparison with every one finds."""

from __future__ import annotations

import random

import pytest

from llmcoder_tasks.coding.candidates import SEARCH_REACH, CandidateIndex
from llmcoder_tasks.coding.coder import Coder


@pytest.fixture(scope="module")
def index(coder: Coder) -> CandidateIndex:
    return coder.index


@pytest.fixture(scope="module")
def phrases(coder: Coder) -> list[str]:
    """Titles, titles in disorder, titles without some of their words."""
    chance = random.Random(7)
    texts = chance.sample(list(coder.code_set.titles.values()), 15)
    for title in chance.sample(list(coder.code_set.titles.values()), 15):
        words = title.split()
        chance.shuffle(words)
        texts += [" ".join(words), " ".join(words[: 1 + len(words) // 2])]
    return texts


def test_no_title_near_the_best_one_is_missed(index: CandidateIndex, phrases: list[str]) -> None:
    queries = [index.read(text) for text in phrases]
    for query, found in zip(queries, index.search(queries, 100_000), strict=True):
        # A reach of 1 leaves nothing out: every title that shares a word is compared, and two thousand are kept.
        everything = index._find_nearest(query, 2_000, 1.0)
        best = everything[0][0]
        near = {index.documents[number].code for similarity, number in everything if similarity > best - SEARCH_REACH + 0.035}
        assert near <= {candidate.code for candidate in found}
        assert found[0].similarity == best
