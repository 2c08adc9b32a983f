"""Whether a night looks like the nights before it: figures of one night against those of the last thirty.

- A scalar (confidence, shares) is out of band when its robust z-score exceeds the limit: (value - median) / spread, the spread
  being 1.4826 times the median absolute deviation (Iglewicz and Hoaglin 1993, "How to detect and handle outliers"), but never less
  than what chance alone makes of a night of that size, nor than half a percentage point.
- The limit widens when few nights are known: a two-sided Student quantile at 1 in 2,800 (1 in 100 a night over 28 figures), with
  0.37 degrees of freedom a night, the efficiency of the median absolute deviation (Rousseeuw and Croux 1993).
- The mix of codes by chapter is compared by the population stability index, sum of (p - q) * ln(p / q); below 0.1 a population is
  called stable (Siddiqi 2006, "Credit risk scorecards"). From there on it is out of band if it also exceeds what the past nights
  have against each other, on a logarithmic scale, by the same limit. Each chapter's share is a scalar besides, which names it.
- The number of notes differs between working days and weekends: it is out of band below half of the smallest and above twice the
  largest of the past nights.

Fewer than seven nights to compare with: no figure is out of band. On 3,000 simulated quiet nights (`count_false_alarms` in the
tests: fifty hospitals with 100 to 1,000 notes on working days and half on weekends, whose mix varies more than chance; sixty nights
each after thirty) 15 had an alarm, 0.5 %.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from llmcoder_tasks.dataset.example_frames import chapter_shares

NIGHTS_COMPARED = 30
LEAST_NIGHTS = 7
LEAST_NOTES = 30
"""Below that a night's shares say nothing; only its number of notes is compared."""

STABLE_INDEX = 0.1
LEAST_SPREAD = 0.005

_FALSE_ALARM_RATE = 0.01 / 28
_FREEDOM_PER_NIGHT = 0.37
_MAD_TO_DEVIATION = 1.4826
_PSEUDO_COUNT = 0.5  # Jeffreys' prior: a chapter that is empty on one side keeps the index finite


@dataclass(frozen=True, slots=True)
class NightFigures:
    """What one coding run did, in numbers. Shares and confidence are in [0, 1], None where there was nothing to divide by.

    `auto_share` is of codes, `review_share` of notes that have a code to review, `failed_share` of notes, `unknown_word_share` of
    the words of a sample of notes. `confidence_deviation` is the standard deviation between codes. `chapters` counts codes.
    """

    notes: int
    codes: int
    mean_confidence: float | None
    confidence_deviation: float
    auto_share: float | None
    review_share: float | None
    failed_share: float | None
    unknown_word_share: float | None
    chapters: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OutOfBand:
    """A figure that left its band: its name, its value tonight, and the band of the nights before. Holds numbers only."""

    figure: str
    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.figure} {self.value:.4g}, expected {self.low:.4g} to {self.high:.4g}"


@dataclass(frozen=True, slots=True)
class Drift:
    """The comparison of a night. `stability_index` is None where mixes could not be compared."""

    nights_compared: int
    stability_index: float | None
    out_of_band: tuple[OutOfBand, ...]

    def __str__(self) -> str:
        if self.nights_compared < LEAST_NIGHTS:
            return f"not enough nights to compare with: {self.nights_compared} of {LEAST_NIGHTS}"
        found = "; ".join(map(str, self.out_of_band)) or "every figure within its band"
        return f"against {self.nights_compared} nights: {found}"


def count_chapters(codes: Mapping[str, int]) -> dict[str, int]:
    """Codes by chapter, `1` to `22`, from how often each code was given."""
    counted: dict[str, int] = {}
    for code, count in codes.items():
        (chapter,) = chapter_shares([code])
        counted[chapter] = counted.get(chapter, 0) + count
    return counted


def compare_night(tonight: NightFigures, before: Sequence[NightFigures]) -> Drift:
    """Tonight against the nights before it, of which the last thirty count, newest last. Says nothing on fewer than seven."""
    nights = before[-NIGHTS_COMPARED:]
    if len(nights) < LEAST_NIGHTS:
        return Drift(len(nights), None, ())
    found = _compare_volume(tonight, nights)
    index = None
    large = [night for night in nights if night.notes >= LEAST_NOTES]
    if tonight.notes >= LEAST_NOTES and len(large) >= LEAST_NIGHTS:
        found += _compare_scalars(tonight, large)
        if tonight.codes and all(night.codes for night in large):
            found += _compare_chapters(tonight, large)
            index = measure_stability(tonight.chapters, _pool(large))
            found += _compare_index(index, large)
    return Drift(len(nights), index, tuple(found))


def measure_stability(tonight: Mapping[str, int], before: Mapping[str, int]) -> float:
    """The population stability index between two counts by chapter; 0 for equal mixes."""
    chapters = sorted(tonight.keys() | before.keys())
    mixes = []
    for counts in (tonight, before):
        total = sum(counts.values()) + _PSEUDO_COUNT * len(chapters)
        mixes.append([(counts.get(chapter, 0) + _PSEUDO_COUNT) / total for chapter in chapters])
    index = 0.0
    for p, q in zip(mixes[0], mixes[1], strict=True):
        index += (p - q) * math.log(p / q)
    return index


def limit_of(nights: int) -> float:
    """How many spreads a figure may be away from the median of so many nights: 5.1 for thirty, 8.3 for fourteen."""
    from scipy.stats import t

    return float(t.isf(_FALSE_ALARM_RATE / 2, df=_FREEDOM_PER_NIGHT * nights))


def _compare_volume(tonight: NightFigures, nights: Sequence[NightFigures]) -> list[OutOfBand]:
    low, high = min(night.notes for night in nights) / 2, max(night.notes for night in nights) * 2
    return [] if low <= tonight.notes <= high else [OutOfBand("notes", tonight.notes, low, high)]


def _compare_scalars(tonight: NightFigures, nights: Sequence[NightFigures]) -> list[OutOfBand]:
    found = []
    for name in ("mean_confidence", "auto_share", "review_share", "failed_share", "unknown_word_share"):
        value = getattr(tonight, name)
        past = [known for night in nights if (known := getattr(night, name)) is not None]
        if value is None or len(past) < LEAST_NIGHTS:
            continue
        middle = median(past)
        deviation = tonight.confidence_deviation if name == "mean_confidence" else math.sqrt(middle * (1 - middle))
        found += _judge(name, value, past, chance=deviation / math.sqrt(tonight.notes))
    return found


def _compare_chapters(tonight: NightFigures, nights: Sequence[NightFigures]) -> list[OutOfBand]:
    found = []
    for chapter in sorted(tonight.chapters.keys() | _pool(nights).keys()):
        past = [night.chapters.get(chapter, 0) / night.codes for night in nights]
        middle = median(past)
        value = tonight.chapters.get(chapter, 0) / tonight.codes
        chance = math.sqrt(max(middle, 1 / tonight.codes) * (1 - middle) / tonight.codes)
        found += _judge(f"chapter_{chapter}_share", value, past, chance=chance)
    return found


def _compare_index(index: float, nights: Sequence[NightFigures]) -> list[OutOfBand]:
    past = [
        math.log(measure_stability(night.chapters, _pool([*nights[:place], *nights[place + 1 :]])) + 1e-9)
        for place, night in enumerate(nights)
    ]
    high = max(STABLE_INDEX, math.exp(median(past) + limit_of(len(past)) * _spread(past)))
    return [OutOfBand("chapter_stability_index", index, 0.0, high)] if index > high else []


def _judge(figure: str, value: float, past: Sequence[float], *, chance: float) -> list[OutOfBand]:
    width = limit_of(len(past)) * max(_spread(past), chance, LEAST_SPREAD)
    low, high = median(past) - width, median(past) + width
    return [] if low <= value <= high else [OutOfBand(figure, value, max(low, 0.0), min(high, 1.0))]


def _spread(values: Sequence[float]) -> float:
    middle = median(values)
    return _MAD_TO_DEVIATION * median(abs(value - middle) for value in values)


def _pool(nights: Sequence[NightFigures]) -> dict[str, int]:
    pooled: dict[str, int] = {}
    for night in nights:
        for chapter, count in night.chapters.items():
            pooled[chapter] = pooled.get(chapter, 0) + count
    return pooled
