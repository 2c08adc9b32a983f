"""A language model that codes by itself, without the words of the release: what a scorecard's rows of the model's stages are.

A model that answers one condition at a time chooses by its own probabilities where a line of several is cut: a run of pieces that
is a condition gets a sure answer, half a title an unsure one, and two conditions at once hardly any.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmcoder_tasks.coding.phrases import MOST_PIECES, MOST_TRIED_PIECES, Span, rank_cuts, split_pieces
from llmcoder_tasks.model.backend import Answer, CodingModel

DROP_PRICE = 12.0
"""What a piece costs that belongs to no condition, in units of log-probability. A further condition costs nothing: the model has
learnt to give two conditions at once no code. Chosen on validation lines, as is what follows."""

CLEAR_LOG_PROBABILITY = -0.01
"""A line that is answered as surely as this is one condition: nothing is cut."""


class ModelAlone:
    """Codes phrases by a language model; `trie` are the codes that may come out, as its `allow` gives them."""

    def __init__(self, model: CodingModel, trie: Any) -> None:
        self._model = model
        self._trie = trie

    def predict(self, texts: Sequence[str]) -> list[tuple[str, ...]]:
        """The codes of each text, in order of mention, each once."""
        if self._model.conditions_per_answer == "several":
            return self._model.predict(texts, trie=self._trie)
        lines = [split_pieces(text) or [[Span(0, len(text))]] for text in texts]
        groups = [(text, pieces) for text, line in zip(texts, lines, strict=True) for pieces in line]
        answers = self._answer(dict.fromkeys(text[pieces[0].start : pieces[-1].end] for text, pieces in groups))
        answers |= self._answer(
            dict.fromkeys(
                run
                for text, pieces in groups
                if answers[text[pieces[0].start : pieces[-1].end]].log_probability < CLEAR_LOG_PROBABILITY
                for run in _list_runs(text, pieces)
                if run not in answers
            )
        )
        codes = iter([_solve(text, pieces, answers) for text, pieces in groups])
        return [tuple(dict.fromkeys(code for _ in line for code in next(codes))) for line in lines]

    def _answer(self, runs: dict[str, None]) -> dict[str, Answer]:
        return dict(zip(runs, self._model.answer(list(runs), trie=self._trie), strict=True))


def _list_runs(text: str, pieces: Sequence[Span]) -> list[str]:
    longest = MOST_PIECES if len(pieces) <= MOST_TRIED_PIECES else 1
    return [
        text[pieces[first].start : pieces[last].end]
        for first in range(len(pieces))
        for last in range(first, min(len(pieces), first + longest))
    ]


def _solve(text: str, pieces: Sequence[Span], answers: dict[str, Answer]) -> list[str]:
    """The codes of one group of pieces."""
    whole = answers[text[pieces[0].start : pieces[-1].end]]
    if len(pieces) == 1 or whole.log_probability >= CLEAR_LOG_PROBABILITY:
        return list(whole.codes)
    runs: Sequence[Span] = pieces
    if len(pieces) <= MOST_TRIED_PIECES:
        [(_, runs)] = rank_cuts(
            pieces,
            lambda first, last: answers[text[pieces[first].start : pieces[last].end]].log_probability,
            price=0.0,
            drop=DROP_PRICE,
        )
    return [code for run in runs for code in answers[text[run.start : run.end]].codes]
