"""Lexical similarity and the language model's log-probability, as one score; and what of both tells whether the answer is right.

score = log-probability + weight x similarity. The weight is fitted on validation items and stored with the model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from llmcoder_tasks.coding.candidates import Candidate

WEIGHTS = tuple(round(10 * 2 ** (step / 2)) for step in range(17))
"""The weights that are tried: 10 to 2,560, each 1.41 times the one before."""

LEXICAL_FEATURES = ("similarity", "log_margin", "is_behind", "same_words", "known_share")
TOGETHER_FEATURES = (*LEXICAL_FEATURES, "log_probability", "log_probability_margin")

_LEAST_MARGIN = 1e-3
LEAST_LOG_PROBABILITY = -25.0
"""Lower ones count as this: beyond it nothing more is learnt."""


@dataclass(frozen=True, slots=True)
class Judged:
    """The candidates of one phrase, the language model's log-probability of each (None when it was not asked), and the known share.

    `known_share` is the weight of the phrase's words that the release knows, as a share of the weight of all its words.
    """

    candidates: Sequence[Candidate]
    log_probabilities: Sequence[float] | None
    known_share: float


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


def describe(judged: Judged, chosen: int) -> list[float]:
    """TOGETHER_FEATURES of a phrase whose answer is the candidate at position `chosen`; without a model the first five of them."""
    similarities = [candidate.similarity for candidate in judged.candidates]
    margin = similarities[chosen] - _best_other(similarities, chosen, 0.0)
    features = [
        similarities[chosen],
        math.log(max(margin, _LEAST_MARGIN)),
        float(margin < 0.0),
        float(similarities[chosen] > 1.0 - 1e-6),
        judged.known_share,
    ]
    if judged.log_probabilities is not None:
        values = [max(value, LEAST_LOG_PROBABILITY) for value in judged.log_probabilities]
        features += [values[chosen], values[chosen] - _best_other(values, chosen, LEAST_LOG_PROBABILITY)]
    return features


def _best_other(values: Sequence[float], chosen: int, default: float) -> float:
    return max((value for position, value in enumerate(values) if position != chosen), default=default)


def share_confidence(confidence: float, scores: Sequence[float]) -> list[float]:
    """Confidences of an answer and its alternatives: they share what it leaves by their scores, none getting more than it has."""
    if len(scores) < 2:
        return [confidence] * len(scores)
    weights = [math.exp(value - scores[1]) for value in scores[1:]]
    rest = (1.0 - confidence) / sum(weights)
    return [confidence, *(min(confidence, rest * weight) for weight in weights)]
