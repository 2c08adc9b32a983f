"""Is one coder no worse than another on the same items? Pure functions of counts.

Sources: the score test of a difference of paired shares is T. Tango's (Stat. Med. 17, 891, 1998), which keeps its level when few or
no items are answered differently; at a difference of 0 it is McNemar's. Texts of one code are answered alike, so that they are not
independent: codes are the units, and the variance is the one between clusters (Rao and Scott, Biometrics 48, 577, 1992).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Pairs:
    """`n` independent pairs, of which `better` were answered better by ours alone and `worse` by theirs alone.

    Counts need not be whole: those of clustered items are the ones that have the same mean and the same variance.
    """

    n: float
    better: float
    worse: float

    @property
    def difference(self) -> float:
        """Ours less theirs, as a share in [-1, 1]."""
        return (self.better - self.worse) / self.n

    @property
    def noise(self) -> float:
        """The share of pairs that two equal coders would answer differently, judged by those that ours answers better.

        An equal coder is better as often as worse; a fault adds to the worse ones alone and must not excuse itself by its noise.
        """
        return min(self.better + self.worse, 2 * self.better + 1) / self.n


def count_pairs(differences: Sequence[float], clusters: Sequence[Hashable]) -> Pairs:
    """Pairs that stand for differences of scores, each in [-1, 1], in clusters of like items: as many as there are clusters.

    Raises ValueError when there are no items, or not as many clusters.
    """
    if not differences or len(differences) != len(clusters):
        raise ValueError(f"{len(differences)} differences in {len(clusters)} clusters")
    mean = sum(differences) / len(differences)
    deviations: dict[Hashable, float] = {}
    for difference, cluster in zip(differences, clusters, strict=True):
        deviations[cluster] = deviations.get(cluster, 0.0) + difference - mean
    units = len(deviations)
    variance = sum(value * value for value in deviations.values()) / len(differences) ** 2
    # As many pairs as units: (better - worse) / units is the mean, ((better + worse) / units - mean^2) / units the variance.
    both = min(float(units), max(abs(mean) * units, units * (units * variance + mean * mean)))
    return Pairs(units, (both + mean * units) / 2, (both - mean * units) / 2)


def calculate_score_statistic(pairs: Pairs, difference: float) -> float:
    """Tango's statistic, standard normal where the true difference (ours less theirs) is `difference`, in (-1, 1).

    Infinite where the counts leave no doubt, 0 where there is nothing to tell.
    """
    n, better, worse = pairs.n, pairs.better, pairs.worse
    linear = (2 * n - better + worse) * difference - better - worse
    constant = -worse * difference * (1 - difference)
    share_worse = (math.sqrt(max(0.0, linear * linear - 8 * n * constant)) - linear) / (4 * n)
    variance = n * (2 * share_worse + difference * (1 - difference))
    distance = better - worse - n * difference
    if variance <= 0:
        return math.copysign(math.inf, distance) if distance else 0.0
    return distance / math.sqrt(variance)


def estimate_interval(pairs: Pairs, certainty: float = 0.9) -> tuple[float, float]:
    """The differences that the score test does not rule out, two-sided: 90 % leave one in twenty on each side."""
    from scipy.optimize import brentq

    quantile = _NORMAL.inv_cdf((1 + certainty) / 2)
    edge = 1 - 1e-9
    observed = min(edge, max(-edge, pairs.difference))

    def cross(target: float, low: float, high: float) -> float:
        at_ends = [calculate_score_statistic(pairs, place) - target for place in (low, high)]
        if at_ends[0] * at_ends[1] >= 0:  # nothing on this side is ruled out
            return low if target > 0 else high
        return float(brentq(lambda place: calculate_score_statistic(pairs, place) - target, low, high))

    return cross(quantile, -edge, observed), cross(-quantile, observed, edge)


def calculate_loss_p_value(pairs: Pairs, margin: float) -> float:
    """How likely such counts are, or better ones, if ours were worse by `margin` (above 0): small means "no worse than that"."""
    return 1.0 - _NORMAL.cdf(calculate_score_statistic(pairs, -margin))


def calculate_harm_p_value(pairs: Pairs) -> float:
    """How likely such counts are, or worse ones, if both were equal: McNemar's exact test, one-sided.

    P[Binomial(b + c, 1/2) <= b] through the incomplete beta function, which also takes counts that are not whole.
    """
    from scipy.special import betainc

    return float(betainc(pairs.worse, pairs.better + 1.0, 0.5)) if pairs.worse > 0 else 1.0


def calculate_power(n: float, noise: float, margin: float, level: float) -> float:
    """How likely an equal coder is shown to be no worse than `margin` at `level`, with `n` pairs of which `noise` differ."""
    expected = Pairs(n, n * noise / 2, n * noise / 2)
    mean = calculate_score_statistic(expected, -margin)
    deviation = mean * math.sqrt(noise / n) / margin  # the statistic is the difference on the scale of its variance under doubt
    shortfall = _NORMAL.inv_cdf(1 - level) - mean
    if deviation == 0:
        return float(shortfall < 0)
    return 1.0 - _NORMAL.cdf(shortfall / deviation)


def find_needed_pairs(noise: float, margin: float, level: float, power: float) -> int:
    """The fewest pairs, to within one percent, with which `calculate_power` reaches `power`."""
    n = 10.0
    while calculate_power(n, noise, margin, level) < power:
        n *= 1.01
    return math.ceil(n)
