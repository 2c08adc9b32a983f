"""Matches, intervals and tests: pure functions on sets of codes and on counts.

Sources: the interval is E. B. Wilson's (JASA 22, 1927), preferred for shares near 0 and 1 by Brown, Cai and DasGupta (Stat. Science
16, 2001); two coders on the same items are compared by McNemar's test (Psychometrika 12, 1947) in its exact binomial form, which
on values between 0 and 1 is the sign test.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Z_95 = 1.959963984540054
"""The 97.5 % point of the normal distribution: two-sided 95 %."""

CATEGORY_LENGTH = 3

CodePair = tuple[frozenset[str], frozenset[str]]
"""True and predicted codes of one item, without dots."""


@dataclass(frozen=True, slots=True)
class Share:
    """A share of items in [0, 1] with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class MicroScores:
    """Precision, recall and F1 over all codes of all items, each in [0, 1]; 0 where nothing was predicted or nothing is true."""

    precision: float
    recall: float
    f1: float


def estimate_share(successes: int, n: int) -> Share:
    """The share `successes / n` with its Wilson interval at 95 %. Raises ValueError unless 0 <= successes <= n and n > 0."""
    if n <= 0 or not 0 <= successes <= n:
        raise ValueError(f"{successes} of {n} is no share")
    share = successes / n
    denominator = 1 + Z_95**2 / n
    centre = (share + Z_95**2 / (2 * n)) / denominator
    half = Z_95 * math.sqrt(share * (1 - share) / n + Z_95**2 / (4 * n * n)) / denominator
    # At 0 and at n one end is the share itself; rounding must not push it past.
    return Share(share, min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half)))


def is_exact_match(true: frozenset[str], predicted: frozenset[str]) -> bool:
    """Whether the predicted set is the true set."""
    return predicted == true


def is_category_match(true: frozenset[str], predicted: frozenset[str]) -> bool:
    """Whether both sets name the same categories (the first three characters)."""
    return find_categories(predicted) == find_categories(true)


def find_categories(codes: Iterable[str]) -> frozenset[str]:
    """The categories of codes: their first three characters."""
    return frozenset(code[:CATEGORY_LENGTH] for code in codes)


def calculate_micro_scores(pairs: Sequence[CodePair]) -> MicroScores:
    """Micro precision, recall and F1: every code of every item weighs the same."""
    right = sum(len(true & predicted) for true, predicted in pairs)
    predicted_count = sum(len(predicted) for _, predicted in pairs)
    true_count = sum(len(true) for true, _ in pairs)
    return MicroScores(
        precision=right / predicted_count if predicted_count else 0.0,
        recall=right / true_count if true_count else 0.0,
        f1=2 * right / (predicted_count + true_count) if predicted_count + true_count else 0.0,
    )


def calculate_item_f1(true: frozenset[str], predicted: frozenset[str]) -> float:
    """F1 of one item, in [0, 1]: 1 when both sets are equal, also when both are empty."""
    together = len(true) + len(predicted)
    return 2 * len(true & predicted) / together if together else 1.0


def calculate_paired_p_value(only_first: int, only_second: int) -> float:
    """Exact McNemar test, two-sided: the items on which only the first, or only the second coder is right (is better).

    Under no difference each such item falls to either with probability 1/2: p = min(1, 2 P[Binomial(b + c, 1/2) <= min(b, c)]).
    """
    discordant = only_first + only_second
    if discordant == 0:
        return 1.0
    tail = sum(math.comb(discordant, k) for k in range(min(only_first, only_second) + 1))
    return float(min(1.0, 2 * tail / 2**discordant))  # whole numbers until here: exact at any count
