"""The context rules on 175 sentences of our own whose answers were written before any system read them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from llmcoder_tasks.coding.context import assess_mentions, split_sentences

SENTENCES = Path(__file__).with_name("context_sentences.tsv")
COARSE = {"planned": "hypothetical", "resolved": "historical", "ruled_out": "negated"}
"""What is only planned is no finding yet; what resolved is over; what was ruled out was never there."""


def read_sentences() -> list[tuple[str, str, str]]:
    """(sentence, condition in it, what it says about the condition) of every line."""
    lines = [line for line in SENTENCES.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return [(sentence, name, said) for sentence, name, said in (line.split("\t") for line in lines)]


def count_right(rows: list[tuple[str, str, str]]) -> tuple[Counter[str], Counter[str]]:
    """(right answers, sentences), both by what the sentence says."""
    right: Counter[str] = Counter()
    for text, name, said in rows:
        start = text.index(name)
        (sentence,) = [part for part in split_sentences(text, 0, len(text)) if part.start <= start < part.end]
        right[said] += assess_mentions(text, sentence, [(start, start + len(name))]) == [COARSE.get(said, said)]
    return right, Counter(said for _, _, said in rows)


def test_most_sentences_are_understood() -> None:
    right, sentences = count_right(read_sentences())
    assert sentences.total() == 175
    assert right.total() / sentences.total() >= 0.80


@pytest.mark.parametrize("said", ["negated", "ruled_out", "present"])
def test_what_is_there_and_what_is_not_is_rarely_confused(said: str) -> None:
    right, sentences = count_right(read_sentences())
    assert right[said] / sentences[said] >= 0.9
