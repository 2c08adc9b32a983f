"""Bounds, thresholds and confidences against hand-worked values."""

from __future__ import annotations

import math

import pytest

from llmcoder_tasks.coding.calibration import NO_AUTO_ACCEPT, bound_error, choose_threshold, fit_calibration, list_bins
from llmcoder_tasks.coding.candidates import Candidate
from llmcoder_tasks.coding.coder_fit import CoderFit
from llmcoder_tasks.coding.combination import Judged, describe, fit_weight, rank, share_confidence
from llmcoder_tasks.errors import ModelError


def test_a_faultless_record_is_bounded_by_the_rule_of_three() -> None:
    # (1 - p)^299 = 0.05 gives p = 0.009969; 298 items give 0.010003.
    assert bound_error(0, 299) == pytest.approx(1 - 0.05 ** (1 / 299), abs=1e-9)
    assert bound_error(0, 299) < 0.01 < bound_error(0, 298)
    # Clopper and Pearson by the binomial: P(at most 2 errors of 100 | p) = 0.05 at the bound.
    p = bound_error(2, 100)
    assert sum(math.comb(100, k) * p**k * (1 - p) ** (100 - k) for k in range(3)) == pytest.approx(0.05, abs=1e-9)
    assert bound_error(5, 5) == 1.0


def test_the_threshold_stops_before_the_first_broken_promise() -> None:
    # 400 right answers at 0.9 and above, then only wrong ones.
    confidences = [0.99 - index * 1e-4 for index in range(500)]
    right = [index < 400 for index in range(500)]
    threshold = choose_threshold(confidences, right)
    # Tried at 299, 319, ... 399 (no error), 419 (19 errors: broken).
    assert (threshold.accepted, threshold.errors, threshold.n) == (399, 0, 500)
    assert threshold.value == pytest.approx(0.99 - 398e-4)
    assert threshold.error_bound == pytest.approx(bound_error(0, 399))
    assert threshold.coverage == pytest.approx(399 / 500)


@pytest.mark.parametrize(
    ("n", "wrong"),
    [(298, ()), (0, ()), (400, (0, 5, 9))],
    ids=["too few to prove it", "none", "errors among the surest"],
)
def test_no_threshold_is_given_without_proof(n: int, wrong: tuple[int, ...]) -> None:
    right = [index not in wrong for index in range(n)]
    assert choose_threshold([1 - index / 1000 for index in range(n)], right).value == NO_AUTO_ACCEPT


def test_items_of_one_confidence_are_accepted_together() -> None:
    threshold = choose_threshold([0.9] * 350 + [0.5] * 10, [True] * 350 + [False] * 10)
    assert (threshold.accepted, threshold.value) == (350, 0.9)


def test_a_fit_tells_right_from_wrong_and_a_one_sided_record_gives_its_share() -> None:
    rows = [[index / 1000] for index in range(1000)]
    right = [index >= 300 for index in range(1000)]
    fitted = fit_calibration(("similarity",), rows, right)
    assert fitted.estimate([0.05]) < 0.2
    assert fitted.estimate([0.9]) > 0.8
    assert fitted.threshold.errors == 0
    assert 0.3 < fitted.threshold.value < 1
    always = fit_calibration(("similarity",), rows, [True] * 1000)
    assert always.estimate([0.5]) == pytest.approx(501 / 502)


def test_bins_hold_equal_numbers_and_honest_means() -> None:
    bins = list_bins([0.1, 0.9, 0.2, 0.8], [False, True, True, True], most=2)
    assert [(round(entry.confidence, 3), entry.accuracy, entry.n) for entry in bins] == [(0.15, 0.5, 2), (0.85, 1.0, 2)]


def _judged(*pairs: tuple[str, float, float]) -> Judged:
    return Judged([Candidate(code, similarity, "") for code, similarity, _ in pairs], [value for *_, value in pairs], 1.0)


def test_the_score_is_log_probability_plus_weighted_similarity() -> None:
    judged = _judged(("A00", 0.9, -5.0), ("B00", 0.8, -1.0))
    # 10 x 0.9 - 5 = 4 and 10 x 0.8 - 1 = 7; with weight 100: 85 and 79.
    assert rank(judged, 10) == [1, 0]
    assert rank(judged, 100) == [0, 1]


def test_the_weight_that_ranks_most_truths_first_is_fitted() -> None:
    model_is_right = [_judged(("A00", 0.90, -9.0), ("B00", 0.85, -1.0))] * 3  # B00 wins below weight 160
    words_are_right = [_judged(("C00", 0.90, -9.0), ("D00", 0.50, -1.0))] * 3  # C00 wins above weight 20
    weight = fit_weight([*model_is_right, *words_are_right], ["B00"] * 3 + ["C00"] * 3)
    assert 20 < weight < 160


def test_features_are_what_they_say() -> None:
    judged = _judged(("A00", 0.9, -5.0), ("B00", 1.0, -1.0))
    similarity, log_margin, is_behind, same_words, known, value, margin = describe(judged, 0)
    assert (similarity, is_behind, same_words, known, value, margin) == (0.9, 1.0, 0.0, 1.0, -5.0, -4.0)
    assert log_margin == pytest.approx(math.log(1e-3))
    assert describe(judged, 1)[1] == pytest.approx(math.log(0.1))


def test_alternatives_share_what_the_answer_leaves() -> None:
    assert share_confidence(0.8, [5.0, 1.0, 1.0]) == pytest.approx([0.8, 0.1, 0.1])
    assert share_confidence(0.3, [5.0, 4.0]) == [0.3, 0.3]
    assert share_confidence(0.7, [1.0]) == [0.7]


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"schema_version": 99}', b'{"schema_version": 1, "weight": "x"}'])
def test_a_malformed_coder_file_is_refused_with_the_cure(data: bytes) -> None:
    with pytest.raises(ModelError, match="coder.json"):
        CoderFit.parse(data)
