"""The tests behind the gate: against values worked by hand, and against what they promise on simulated models."""

from __future__ import annotations

import math
import random

import pytest

from llmcoder_tasks.evaluation.non_inferiority import (
    Pairs,
    calculate_harm_p_value,
    calculate_loss_p_value,
    calculate_power,
    calculate_score_statistic,
    count_pairs,
    estimate_interval,
    find_needed_pairs,
)


def maximise_likelihood(pairs: Pairs, difference: float) -> float:
    """Tango's statistic with the nuisance share found by looking at every one of a fine grid."""

    def likelihood(share: float) -> float:
        rest = pairs.n - pairs.better - pairs.worse
        return (
            pairs.better * math.log(share + difference)
            + pairs.worse * math.log(share)
            + rest * math.log(1 - 2 * share - difference)
        )

    low, high = max(0.0, -difference), (1 - difference) / 2
    share = max((low + (high - low) * step / 20_000 for step in range(1, 20_000)), key=likelihood)
    variance = pairs.n * (2 * share + difference * (1 - difference))
    return (pairs.better - pairs.worse - pairs.n * difference) / math.sqrt(variance)


@pytest.mark.parametrize(("n", "better", "worse", "difference"), [(200, 5, 9, -0.05), (500, 12, 3, -0.02), (44, 1, 3, 0.1)])
def test_the_score_statistic_is_the_one_of_the_greatest_likelihood(n: int, better: int, worse: int, difference: float) -> None:
    pairs = Pairs(n, better, worse)

    assert calculate_score_statistic(pairs, difference) == pytest.approx(maximise_likelihood(pairs, difference), abs=1e-3)


def test_without_a_difference_in_any_pair_the_statistic_still_grows_with_their_number_only() -> None:
    # The share that is likeliest is the margin itself: n m / sqrt(n m (1 - m)).
    assert calculate_score_statistic(Pairs(98, 0, 0), -0.02) == pytest.approx(math.sqrt(98 * 0.02 / 0.98))
    assert calculate_score_statistic(Pairs(98, 0, 0), 0) == 0


def test_at_no_difference_the_statistic_is_mcnemars() -> None:
    assert calculate_score_statistic(Pairs(300, 4, 12), 0) == pytest.approx((4 - 12) / math.sqrt(16))


def test_harm_is_mcnemars_exact_test_on_one_side() -> None:
    assert calculate_harm_p_value(Pairs(200, 0, 7)) == pytest.approx(1 / 2**7)
    # C(9, 0) + C(9, 1) = 10 of 2^9.
    assert calculate_harm_p_value(Pairs(200, 1, 8)) == pytest.approx(10 / 512)
    assert calculate_harm_p_value(Pairs(200, 3, 0)) == 1


def test_texts_of_one_code_count_as_one_when_they_are_answered_alike() -> None:
    alike = count_pairs([-1, -1, 0, 0, 1, 1], ["a", "a", "b", "b", "c", "c"])
    apart = count_pairs([-1, 0, 1], ["a", "b", "c"])

    assert (apart.n, apart.better, apart.worse) == (3, 1, 1)
    assert (alike.n, alike.better, alike.worse) == (apart.n, pytest.approx(apart.better), pytest.approx(apart.worse))


def test_independent_items_are_counted_as_they_are() -> None:
    pairs = count_pairs([1, 0, -1, 0, 0, -1], range(6))

    assert (pairs.n, pairs.better, pairs.worse) == (6, pytest.approx(1), pytest.approx(2))


def test_a_slice_without_items_has_no_pairs() -> None:
    with pytest.raises(ValueError, match="0 differences in 0 clusters"):
        count_pairs([], [])


@pytest.mark.parametrize(("n", "noise", "margin"), [(1000, 0.02, 0.02), (400, 0.02, 0.03)])
def test_one_model_in_twenty_that_is_worse_by_the_margin_passes_and_an_equal_one_as_often_as_the_power_says(
    n: int, noise: float, margin: float
) -> None:
    chance = random.Random(20260401)

    def passes(worse: float) -> float:
        trials = 1500
        passed = 0
        for _ in range(trials):
            drawn = chance.choices((1, -1, 0), weights=(noise / 2, noise / 2 + worse, 1 - noise - worse), k=n)
            passed += calculate_loss_p_value(Pairs(n, drawn.count(1), drawn.count(-1)), margin) < 0.05
        return passed / trials

    assert passes(margin) == pytest.approx(0.05, abs=0.02)
    assert passes(0) == pytest.approx(calculate_power(n, noise, margin, 0.05), abs=0.02)


def test_the_pairs_that_are_needed_reach_the_power_and_hardly_more() -> None:
    needed = find_needed_pairs(0.02, 0.02, 0.05, 0.99)

    assert calculate_power(needed, 0.02, 0.02, 0.05) >= 0.99 > calculate_power(0.97 * needed, 0.02, 0.02, 0.05)


def test_a_fault_does_not_raise_the_noise_by_which_it_is_judged() -> None:
    assert Pairs(1000, 2, 2).noise == pytest.approx(0.004)
    assert Pairs(1000, 2, 40).noise == pytest.approx(0.005)


def test_the_interval_holds_what_the_test_does_not_rule_out() -> None:
    low, high = estimate_interval(Pairs(500, 12, 3))

    assert low < 9 / 500 < high
    assert calculate_score_statistic(Pairs(500, 12, 3), low) == pytest.approx(1.645, abs=1e-3)
    assert calculate_score_statistic(Pairs(500, 12, 3), high) == pytest.approx(-1.645, abs=1e-3)


def test_the_interval_of_no_difference_at_all_lies_around_zero() -> None:
    low, high = estimate_interval(Pairs(500, 0, 0))

    assert -0.01 < low < 0 < high < 0.01
