"""How sure a code is, from data: a logistic model of being right, and the confidence above which no person need look.

The threshold is chosen on items that the logistic model has not seen. Thresholds are tried from the strictest down, and the
first that misses its bound ends the search (fixed-sequence testing), so that the promise holds for the one that is kept, and not
only for each one alone. The bound is Clopper's and Pearson's exact one (Biometrika 26, 1934), one-sided.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

GREATEST_ERROR = 0.01
CERTAINTY = 0.95
NO_AUTO_ACCEPT = 1.01
"""The threshold where none keeps the promise: no confidence reaches it, so that a person sees every code."""

_RIDGE = 1.0
_SEED = 0
_BLOCK = 20


@dataclass(frozen=True, slots=True)
class Threshold:
    """The auto-accept threshold and its evidence: `n` items of which `accepted` reached it and `errors` of those were wrong.

    With the given certainty at most `error_bound` of what is accepted is wrong. `coverage` is accepted / n.
    """

    value: float
    n: int
    accepted: int
    errors: int
    error_bound: float
    coverage: float


@dataclass(frozen=True, slots=True)
class Bin:
    """Held-out answers of similar confidence: their mean confidence, the share of them that is right, and their number."""

    confidence: float
    accuracy: float
    n: int


@dataclass(frozen=True, slots=True)
class Calibration:
    """Confidence = logistic(intercept + coefficients . features), with the evidence of its fit on held-out items.

    `expected_error` is the mean gap between confidence and share of right answers over the bins of `reliability`.
    """

    features: tuple[str, ...]
    coefficients: tuple[float, ...]
    intercept: float
    fitted_on: int
    expected_error: float
    reliability: tuple[Bin, ...]
    threshold: Threshold

    def estimate(self, features: Sequence[float]) -> float:
        """The probability, in (0, 1), that an answer with these features is right."""
        return _logistic(self.coefficients, self.intercept, features)

    def to_document(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Calibration:
        """The inverse of `to_document`. Raises KeyError or TypeError on another form."""
        return cls(
            features=tuple(document["features"]),
            coefficients=tuple(float(value) for value in document["coefficients"]),
            intercept=float(document["intercept"]),
            fitted_on=int(document["fitted_on"]),
            expected_error=float(document["expected_error"]),
            reliability=tuple(Bin(**entry) for entry in document["reliability"]),
            threshold=Threshold(**document["threshold"]),
        )


def fit_calibration(names: Sequence[str], rows: Sequence[Sequence[float]], right: Sequence[bool]) -> Calibration:
    """Fit on one half of the items, choose the threshold on the other. `rows` are features, in the order of `names`."""
    order = list(range(len(rows)))
    random.Random(_SEED).shuffle(order)
    fitted, held_out = order[0::2], order[1::2]
    coefficients, intercept = _fit_logistic([rows[item] for item in fitted], [right[item] for item in fitted])
    confidences = [_logistic(coefficients, intercept, rows[item]) for item in held_out]
    outcomes = [right[item] for item in held_out]
    bins = list_bins(confidences, outcomes)
    return Calibration(
        features=tuple(names),
        coefficients=coefficients,
        intercept=intercept,
        fitted_on=len(fitted),
        expected_error=sum(abs(entry.confidence - entry.accuracy) * entry.n for entry in bins) / max(1, len(held_out)),
        reliability=bins,
        threshold=choose_threshold(confidences, outcomes),
    )


def _logistic(coefficients: Sequence[float], intercept: float, features: Sequence[float]) -> float:
    total = intercept + sum(weight * value for weight, value in zip(coefficients, features, strict=True))
    return 1.0 / (1.0 + math.exp(-max(-30.0, min(30.0, total))))


def _fit_logistic(rows: Sequence[Sequence[float]], right: Sequence[bool]) -> tuple[tuple[float, ...], float]:
    import numpy as np
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    if len(set(right)) < 2:
        # Nothing to tell apart: the share itself, one step from certainty (rule of succession).
        share = (sum(right) + 1.0) / (len(right) + 2.0)
        return (0.0,) * (len(rows[0]) if rows else 0), math.log(share / (1.0 - share))
    scaler = StandardScaler()
    model = LogisticRegression(C=1.0 / _RIDGE, max_iter=1000)
    model.fit(scaler.fit_transform(np.asarray(rows, dtype=np.float64)), np.asarray(right, dtype=bool))
    weights = model.coef_[0] / scaler.scale_
    return tuple(float(weight) for weight in weights), float(model.intercept_[0] - weights @ scaler.mean_)


def choose_threshold(confidences: Sequence[float], right: Sequence[bool]) -> Threshold:
    """The lowest threshold whose accepted items keep the promise, tried from the strictest down in blocks of items.

    The strictest one tried accepts as many items as a faultless record needs to prove itself: 299 for 1 % at 95 %.
    """
    order = sorted(range(len(confidences)), key=lambda position: -confidences[position])
    chosen = Threshold(NO_AUTO_ACCEPT, len(order), 0, 0, 1.0, 0.0)
    for count in _list_counts([confidences[position] for position in order]):
        errors = sum(not right[position] for position in order[:count])
        bound = bound_error(errors, count)
        if bound > GREATEST_ERROR:
            break
        chosen = Threshold(confidences[order[count - 1]], len(order), count, errors, bound, count / len(order))
    return chosen


def _list_counts(confidences: Sequence[float]) -> list[int]:
    """How many items the thresholds to try accept, growing. Items of one confidence are accepted together."""
    least = math.ceil(math.log(1.0 - CERTAINTY) / math.log(1.0 - GREATEST_ERROR))
    counts = []
    for wanted in range(least, len(confidences) + _BLOCK, _BLOCK):
        count = min(wanted, len(confidences))
        while 0 < count < len(confidences) and confidences[count] == confidences[count - 1]:
            count += 1
        if count >= least:
            counts.append(count)
    return sorted(set(counts))


def bound_error(errors: int, n: int, certainty: float = CERTAINTY) -> float:
    """Upper bound of the true share of errors, given `errors` among `n`: 1.0 when nothing was seen."""
    from scipy.stats import beta

    if errors >= n:
        return 1.0
    return float(beta.ppf(certainty, errors + 1, n - errors))


def list_bins(confidences: Sequence[float], right: Sequence[bool], most: int = 10) -> tuple[Bin, ...]:
    """Bins of equal size, from the least sure to the surest (equal width would put nearly all answers in one)."""
    order = sorted(range(len(confidences)), key=lambda position: confidences[position])
    size = max(1, math.ceil(len(order) / most))
    groups = [order[start : start + size] for start in range(0, len(order), size)]
    return tuple(
        Bin(sum(confidences[item] for item in group) / len(group), sum(right[item] for item in group) / len(group), len(group))
        for group in groups
    )
