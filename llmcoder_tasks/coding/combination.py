"""Lexical similarity and the language model's log-probability, as one score; and what of both tells whether the answer is right.

score = log-probability + weight x similarity. The weight is fitted on validation items and stored with the model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from llmcoder_tasks.coding.candidates import Candidate
from llmcoder_tasks.coding.documents import is_left_unsaid
from llmcoder_tasks.coding.normaliser_tokens import NARRATIVE_WORDS, split_tokens

WEIGHTS = tuple(round(10 * 2 ** (step / 2)) for step in range(17))
"""The weights that are tried: 10 to 2,560, each 1.41 times the one before."""

LEXICAL_FEATURES = (
    "similarity",
    "log_margin",
    "is_behind",
    "same_words",
    "known_share",
    "log_words",
    "share_beside",
    "share_missing",
    "log_rivals",
    "is_unsaid",
)
"""`share_beside` is how many of the text's words the nearest title lacks, `share_missing` the reverse; `rivals` are candidates
about as like the text; `is_unsaid` where the text names no side or encounter and the answer is the code for that."""
TOGETHER_FEATURES = (*LEXICAL_FEATURES, "log_probability", "log_probability_margin")

_LEAST_MARGIN = 1e-3
_RIVALRY = 0.05
LEAST_LOG_PROBABILITY = -25.0
"""Lower ones count as this: beyond it nothing more is learnt."""


@dataclass(frozen=True, slots=True)
class Judged:
    """The candidates of one phrase, the language model's log-probability of each (None when it was not asked), and the known share.

    `known_share` is the weight of the phrase's words that the release knows, as a share of the weight of all its words; `words` are
    those words as the release writes them. `invented` are codes that the model gave and that the release does not hold.
    """

    candidates: Sequence[Candidate]
    log_probabilities: Sequence[float] | None
    known_share: float
    words: tuple[str, ...] = ()
    invented: tuple[str, ...] = ()


def give_neutral(values: Sequence[float], are_known: Sequence[bool]) -> list[float]:
    """Log-probabilities where codes that the model never saw in training have that of the likeliest one that it saw.

    The model can say nothing of them, so words alone decide between them and its favourite.
    """
    best = max((value for value, is_known in zip(values, are_known, strict=True) if is_known), default=0.0)
    return [value if is_known else best for value, is_known in zip(values, are_known, strict=True)]


def rank(judged: Judged, weight: float) -> list[int]:
    """Positions of the candidates, the best first. Ties keep the lexical order."""
    scores = score(judged, weight)
    return sorted(range(len(scores)), key=lambda position: (-scores[position], position))


def score(judged: Judged, weight: float) -> list[float]:
    """The score of each candidate, in natural log units."""
    model = judged.log_probabilities or [0.0] * len(judged.candidates)
    return [weight * candidate.similarity + value for candidate, value in zip(judged.candidates, model, strict=True)]


def fit_weight(items: Sequence[Judged], truths: Sequence[str]) -> float:
    """The weight of WEIGHTS that ranks the true code first most often; among equals the middle one."""
    hits = {weight: sum(_is_first(item, truth, weight) for item, truth in zip(items, truths, strict=True)) for weight in WEIGHTS}
    most = max(hits.values())
    equals = [weight for weight in WEIGHTS if hits[weight] == most]
    return float(equals[len(equals) // 2])


def _is_first(judged: Judged, truth: str, weight: float) -> bool:
    return bool(judged.candidates) and judged.candidates[rank(judged, weight)[0]].code == truth


def describe(judged: Judged, chosen: int, title: str) -> list[float]:
    """TOGETHER_FEATURES of a phrase whose answer is the candidate at position `chosen`; without a model, LEXICAL_FEATURES.

    `title` is that of the answer.
    """
    similarities = [candidate.similarity for candidate in judged.candidates]
    margin = similarities[chosen] - _best_other(similarities, chosen, 0.0)
    features = [
        similarities[chosen],
        math.log(max(margin, _LEAST_MARGIN)),
        float(margin < 0.0),
        float(similarities[chosen] > 1.0 - 1e-6),
        judged.known_share,
        *_compare_words(judged.words, judged.candidates[chosen].matched),
        math.log(sum(value >= similarities[chosen] - _RIVALRY for value in similarities)),
        float(is_left_unsaid(title, judged.words)),
    ]
    if judged.log_probabilities is not None:
        values = [max(value, LEAST_LOG_PROBABILITY) for value in judged.log_probabilities]
        features += [values[chosen], values[chosen] - _best_other(values, chosen, LEAST_LOG_PROBABILITY)]
    return features


def _compare_words(words: Sequence[str], matched: str) -> tuple[float, float, float]:
    """log(1 + number of words) of a text, the share of them that its nearest title lacks, and the share of that one's it lacks."""
    said = set(words) - NARRATIVE_WORDS
    named = {token.folded for token in split_tokens(matched)} - NARRATIVE_WORDS
    return math.log1p(len(said)), len(said - named) / max(1, len(said)), len(named - said) / max(1, len(named))


def _best_other(values: Sequence[float], chosen: int, default: float) -> float:
    return max((value for position, value in enumerate(values) if position != chosen), default=default)


def share_confidence(confidence: float, scores: Sequence[float]) -> list[float]:
    """Confidences of an answer and its alternatives: they share what it leaves by their scores, none getting more than it has."""
    if len(scores) < 2:
        return [confidence] * len(scores)
    weights = [math.exp(value - scores[1]) for value in scores[1:]]
    rest = (1.0 - confidence) / sum(weights)
    return [confidence, *(min(confidence, rest * weight) for weight in weights)]
