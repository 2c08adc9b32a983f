"""How sure a code is, from data: a logistic model of being right, and the confidence above which no person need look.

The threshold is chosen on items that neither the logistic model nor the weight between words and language model has seen.
Thresholds are tried from the strictest down, and the first that misses its bound ends the search (fixed-sequence testing), so that
the promise holds for the one that is kept, and not only for each one alone. There are two such searches, one from the fewest items
that can prove anything and one from half of all, so that one early error does not end everything; each has half of the doubt
(Bonferroni). The bound is Clopper's and Pearson's exact one (Biometrika 26, 1934), one-sided.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import Any

GREATEST_ERROR = 0.01
CERTAINTY = 0.95
NO_AUTO_ACCEPT = 1.01
"""The threshold where none keeps the promise: no confidence reaches it, so that a person sees every code."""

_RIDGE = 1.0
_BLOCK = 20
_SEARCHES = 2


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
class KindEvidence:
    """Held-out items of one kind: how many are right, their mean confidence, and what the threshold accepts of them."""

    kind: str
    n: int
    right: int
    confidence: float
    accepted: int
    errors: int


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
    kinds: tuple[KindEvidence, ...] = ()

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
            kinds=tuple(KindEvidence(**entry) for entry in document["kinds"]),
        )

    def sum_kinds(self, kinds: Collection[str]) -> KindEvidence:
        """The evidence of several kinds together, as one named `phrases`."""
        chosen = [entry for entry in self.kinds if entry.kind in kinds]
        n = sum(entry.n for entry in chosen)
        return KindEvidence(
            kind="phrases",
            n=n,
            right=sum(entry.right for entry in chosen),
            confidence=sum(entry.confidence * entry.n for entry in chosen) / max(1, n),
            accepted=sum(entry.accepted for entry in chosen),
            errors=sum(entry.errors for entry in chosen),
        )


@dataclass(frozen=True, slots=True)
class Observation:
    """An answer to learn from: its features, whether it is right, the kind of its text, and whether it is kept for the evidence."""

    features: Sequence[float]
    is_right: bool
    kind: str
    is_held_out: bool


def fit_calibration(names: Sequence[str], observations: Sequence[Observation]) -> Calibration:
    """Fit on what is not held out; threshold and evidence come from what is. `names` are those of the features, in order."""
    fitted = [item for item in observations if not item.is_held_out]
    held_out = [item for item in observations if item.is_held_out]
    coefficients, intercept = _fit_logistic([item.features for item in fitted], [item.is_right for item in fitted])
    confidences = [_logistic(coefficients, intercept, item.features) for item in held_out]
    outcomes = [item.is_right for item in held_out]
    bins = list_bins(confidences, outcomes)
    threshold = choose_threshold(confidences, outcomes)
    return Calibration(
        features=tuple(names),
        coefficients=coefficients,
        intercept=intercept,
        fitted_on=len(fitted),
        expected_error=sum(abs(entry.confidence - entry.accuracy) * entry.n for entry in bins) / max(1, len(held_out)),
        reliability=bins,
        threshold=threshold,
        kinds=tuple(_list_kinds(held_out, confidences, threshold.value)),
    )


def _list_kinds(items: Sequence[Observation], confidences: Sequence[float], threshold: float) -> Iterator[KindEvidence]:
    for kind in dict.fromkeys(item.kind for item in items):
        rows = [(item.is_right, confidence) for item, confidence in zip(items, confidences, strict=True) if item.kind == kind]
        accepted = [is_right for is_right, confidence in rows if confidence >= threshold]
        yield KindEvidence(
            kind=kind,
            n=len(rows),
            right=sum(is_right for is_right, _ in rows),
            confidence=sum(confidence for _, confidence in rows) / len(rows),
            accepted=len(accepted),
            errors=len(accepted) - sum(accepted),
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

    The strictest one tried accepts as many items as a faultless record needs to prove itself: 368 for 1 % at 97.5 %, which is 95 %
    for both searches together.
    """
    order = sorted(range(len(confidences)), key=lambda position: -confidences[position])
    sorted_confidences = [confidences[position] for position in order]
    errors = [0, *accumulate(not right[position] for position in order)]
    chosen = Threshold(NO_AUTO_ACCEPT, len(order), 0, 0, 1.0, 0.0)
    counts = _list_counts(sorted_confidences)
    for start in (0, len(order) // 2):
        for count in (count for count in counts if count >= start):
            bound = bound_error(errors[count], count, 1.0 - (1.0 - CERTAINTY) / _SEARCHES)
            if bound > GREATEST_ERROR:
                break
            if count > chosen.accepted:
                chosen = Threshold(sorted_confidences[count - 1], len(order), count, errors[count], bound, count / len(order))
    return chosen


def _list_counts(confidences: Sequence[float]) -> list[int]:
    """How many items the thresholds to try accept, growing. Items of one confidence are accepted together."""
    least = math.ceil(math.log((1.0 - CERTAINTY) / _SEARCHES) / math.log(1.0 - GREATEST_ERROR))
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
