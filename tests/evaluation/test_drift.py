"""Nights against the nights before: values worked by hand, quiet nights without an alarm, and shifts that are caught."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from llmcoder_tasks.evaluation.drift import (
    Drift,
    NightFigures,
    compare_night,
    count_chapters,
    limit_of,
    measure_stability,
)

CHAPTERS = np.array([3, 5, 4, 11, 6, 5, 1, 1, 17, 9, 9, 3, 5, 7, 1, 1, 1, 8, 6, 3, 12, 1], dtype=float)
"""Codes by chapter in a hundred or so, as a general hospital has them: the circulatory system most."""


def _steady(auto_share: float, notes: int = 1000) -> NightFigures:
    return NightFigures(notes, 4 * notes, 0.8, 0.1, auto_share, 0.5, 0.0, 0.3, {"9": 2 * notes, "10": 2 * notes})


def _quiet_nights(seed: int, count: int) -> list[NightFigures]:
    """Nights of one hospital: fewer notes on weekends, and a mix that varies somewhat more than chance would have it."""
    chance = np.random.default_rng(seed)
    working, precision = chance.integers(100, 1001), chance.uniform(300, 3000)
    levels = {"auto": chance.uniform(0.3, 0.9), "review": chance.uniform(0.3, 0.8), "unknown": chance.uniform(0.1, 0.6)}
    nights = []
    for day in range(count):
        notes = int(chance.poisson(working * (0.5 if day % 7 > 4 else 1)))
        codes = int(chance.poisson(notes * 6))
        mix = chance.multinomial(codes, chance.dirichlet(CHAPTERS / CHAPTERS.sum() * precision))
        shares = {
            name: float(chance.normal(level, 0.01) + chance.normal(0, 0.5 / notes**0.5) / 3) for name, level in levels.items()
        }
        nights.append(
            NightFigures(
                notes=notes,
                codes=codes,
                mean_confidence=float(chance.normal(0.8, 0.006)),
                confidence_deviation=0.15,
                auto_share=shares["auto"],
                review_share=shares["review"],
                failed_share=float(chance.binomial(notes, 0.002) / notes),
                unknown_word_share=shares["unknown"],
                chapters={str(number): int(n) for number, n in enumerate(mix, start=1)},
            )
        )
    return nights


def count_false_alarms(hospitals: int, nights: int) -> tuple[int, int]:
    """(nights with an alarm, nights) after thirty nights of history in each simulated hospital."""
    alarms = 0
    for seed in range(hospitals):
        series = _quiet_nights(seed, 30 + nights)
        alarms += sum(bool(compare_night(series[day], series[:day]).out_of_band) for day in range(30, 30 + nights))
    return alarms, hospitals * nights


def _figures(drift: Drift) -> set[str]:
    return {found.figure for found in drift.out_of_band}


def test_the_stability_index_is_what_it_is_by_hand() -> None:
    # With half a code added to each side: p = 50.5/101 = 0.5 twice; q = 80.5/101 = 0.79703 and 20.5/101 = 0.20297.
    # (0.5 - 0.79703) * ln(0.5 / 0.79703) + (0.5 - 0.20297) * ln(0.5 / 0.20297) = 0.13850 + 0.26779
    assert measure_stability({"9": 50, "10": 50}, {"9": 80, "10": 20}) == pytest.approx(0.4063, abs=1e-4)
    assert measure_stability({"9": 50, "10": 50}, {"9": 50, "10": 50}) == 0.0


def test_the_band_of_a_share_is_what_it_is_by_hand() -> None:
    # Median 0.71; deviations from it 0.01 twenty times and 0 ten times, so 1.4826 * 0.01 = 0.014826 a spread, which is more than
    # chance: sqrt(0.71 * 0.29 / 1000) = 0.01435. The limit for thirty nights is 5.058: 0.71 -+ 0.0750.
    before = [_steady(share) for share in (0.70, 0.71, 0.72)] * 10
    (found,) = compare_night(_steady(0.63), before).out_of_band
    assert (found.figure, found.value) == ("auto_share", 0.63)
    assert (found.low, found.high) == pytest.approx((0.635, 0.785), abs=1e-4)
    assert compare_night(_steady(0.64), before).out_of_band == ()


def test_the_fewer_nights_are_known_the_wider_the_band() -> None:
    assert [round(limit_of(nights), 1) for nights in (7, 14, 30)] == [25.3, 8.3, 5.1]


def test_before_seven_nights_nothing_is_out_of_band() -> None:
    ruined = replace(_steady(0.0), mean_confidence=0.0, notes=5)
    drift = compare_night(ruined, [_steady(0.7)] * 6)
    assert drift.out_of_band == ()
    assert str(drift) == "not enough nights to compare with: 6 of 7"
    assert compare_night(ruined, [_steady(0.7)] * 7).out_of_band


def test_thirty_quiet_nights_give_no_alarm() -> None:
    series = _quiet_nights(seed=1, count=60)
    assert [str(compare_night(series[day], series[:day])) for day in range(30, 60)] == [
        "against 30 nights: every figure within its band"
    ] * 30


def test_false_alarms_are_rare_in_many_hospitals() -> None:
    alarms, nights = count_false_alarms(hospitals=10, nights=20)
    assert alarms / nights <= 0.03


def test_a_coder_that_falls_back_is_caught() -> None:
    series = _quiet_nights(seed=2, count=31)
    fallen = replace(series[30], mean_confidence=0.6, auto_share=0.0, review_share=1.0)
    assert {"mean_confidence", "auto_share", "review_share"} <= _figures(compare_night(fallen, series[:30]))


def test_a_chapter_that_loses_half_of_its_codes_is_caught_and_named() -> None:
    series = _quiet_nights(seed=3, count=31)
    lost = series[30].chapters["9"] // 2
    halved = replace(series[30], codes=series[30].codes - lost, chapters={**series[30].chapters, "9": lost})
    assert "chapter_9_share" in _figures(compare_night(halved, series[:30]))


def test_another_mix_of_chapters_is_out_of_the_index() -> None:
    series = _quiet_nights(seed=4, count=31)
    turned = replace(series[30], chapters=dict(zip(series[30].chapters, reversed(list(series[30].chapters.values())), strict=True)))
    assert "chapter_stability_index" in _figures(compare_night(turned, series[:30]))


def test_notes_in_another_writing_and_failures_are_caught() -> None:
    series = _quiet_nights(seed=5, count=31)
    found = _figures(compare_night(replace(series[30], unknown_word_share=0.95, failed_share=0.1), series[:30]))
    assert {"unknown_word_share", "failed_share"} <= found


def test_an_empty_night_and_a_flood_are_caught_and_a_weekend_is_not() -> None:
    series = _quiet_nights(seed=6, count=30)
    largest = max(night.notes for night in series)
    for notes in (0, 3 * largest):
        assert "notes" in _figures(compare_night(replace(series[0], notes=notes), series))
    assert compare_night(min(series, key=lambda night: night.notes), series).out_of_band == ()


def test_codes_are_counted_by_chapter() -> None:
    assert count_chapters({"I10": 3, "I509": 2, "J189": 1, "Z8673": 4}) == {"9": 5, "10": 1, "21": 4}
