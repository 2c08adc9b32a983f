"""Matches, intervals and tests against values worked by hand or printed in textbooks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcoder_tasks.evaluation.metrics import (
    MicroScores,
    calculate_item_f1,
    calculate_micro_scores,
    calculate_paired_p_value,
    estimate_share,
    is_category_match,
    is_exact_match,
)


def codes(*values: str) -> frozenset[str]:
    return frozenset(values)


def test_wilson_interval_of_81_in_263_is_the_published_one() -> None:
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3: 81/263 -> 0.2553 to 0.3662.
    share = estimate_share(81, 263)
    assert (round(share.value, 4), round(share.low, 4), round(share.high, 4)) == (0.3080, 0.2553, 0.3662)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    # Newcombe (1998), table I, method 3.
    [(15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718), (20, 20, 0.8389, 1.0)],
)
def test_wilson_interval_agrees_with_the_published_table(successes: int, n: int, low: float, high: float) -> None:
    share = estimate_share(successes, n)
    assert (round(share.low, 4), round(share.high, 4)) == (low, high)


@given(n=st.integers(1, 5000), data=st.data())
def test_interval_always_holds_its_share_inside_zero_and_one(n: int, data: st.DataObject) -> None:
    share = estimate_share(data.draw(st.integers(0, n)), n)
    assert 0 <= share.low <= share.value <= share.high <= 1


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (3, 2), (-1, 2)])
def test_impossible_counts_are_refused(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="is no share"):
        estimate_share(successes, n)


def test_exact_match_ignores_order_but_no_code() -> None:
    assert is_exact_match(codes("E119", "I10"), codes("I10", "E119"))
    assert not is_exact_match(codes("E119", "I10"), codes("E119"))
    assert not is_exact_match(codes("E119"), codes())


def test_category_match_compares_three_characters_as_sets() -> None:
    assert is_category_match(codes("E119"), codes("E1165"))
    assert is_category_match(codes("E119", "I10"), codes("I10", "E1122", "E1121"))
    assert not is_category_match(codes("E119", "I10"), codes("E119"))
    assert not is_category_match(codes("E119"), codes("E109"))


def test_micro_scores_weigh_every_code_alike() -> None:
    # right: 1 + 1 = 2; predicted: 1 + 3 = 4; true: 2 + 1 = 3. Precision 2/4, recall 2/3, F1 = 2 * 2 / 7.
    pairs = [(codes("E119", "I10"), codes("I10")), (codes("J449"), codes("J449", "J45909", "R05"))]
    assert calculate_micro_scores(pairs) == MicroScores(2 / 4, 2 / 3, 4 / 7)


def test_micro_scores_of_silence_are_zero() -> None:
    assert calculate_micro_scores([(codes("I10"), codes())]) == MicroScores(0.0, 0.0, 0.0)
    assert calculate_micro_scores([(codes(), codes())]) == MicroScores(0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("only_first", "only_second", "p_value"),
    [
        (0, 0, 1.0),
        (0, 5, 2 / 32),  # 2 * (1/2)^5
        (1, 8, 2 * (1 + 9) / 512),  # C(9,0) + C(9,1) = 10
        (8, 1, 2 * (1 + 9) / 512),
        (4, 4, 1.0),  # the doubled tail passes 1
    ],
)
def test_exact_mcnemar_by_hand(only_first: int, only_second: int, p_value: float) -> None:
    assert calculate_paired_p_value(only_first, only_second) == pytest.approx(p_value, abs=1e-12)


def test_exact_mcnemar_stays_exact_on_thousands_of_items() -> None:
    assert 0 < calculate_paired_p_value(1000, 3000) < 1e-200


def test_item_f1_by_hand() -> None:
    assert calculate_item_f1(codes("E119", "I10"), codes("I10")) == pytest.approx(2 / 3)
    assert calculate_item_f1(codes("I10"), codes()) == 0
    assert calculate_item_f1(codes("I10"), codes("I10")) == 1
    assert calculate_item_f1(codes(), codes()) == 1
