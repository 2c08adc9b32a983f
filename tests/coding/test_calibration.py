"""Bounds, thresholds and confidences against hand-worked values."""

from __future__ import annotations

import math

import pytest

from llmcoder_tasks.coding.calibration import (
    NO_AUTO_ACCEPT,
    Calibration,
    Observation,
    bound_error,
    choose_threshold,
    fit_calibration,
    list_bins,
)
from llmcoder_tasks.coding.candidates import Candidate
from llmcoder_tasks.coding.coder_fit import CoderFit, leave_out, scramble, shorten
from llmcoder_tasks.coding.combination import TOGETHER_FEATURES, Judged, describe, fit_weight, rank, share_confidence
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
    # 500 right answers at 0.9 and above, then only wrong ones.
    confidences = [0.99 - index * 1e-4 for index in range(600)]
    right = [index < 500 for index in range(600)]
    threshold = choose_threshold(confidences, right)
    # ln 0.025 / ln 0.99 = 367.04: tried at 368, 388, ... 488 (no error), 508 (8 errors: broken).
    assert (threshold.accepted, threshold.errors, threshold.n) == (488, 0, 600)
    assert threshold.value == pytest.approx(0.99 - 487e-4)
    assert threshold.error_bound == pytest.approx(bound_error(0, 488, 0.975))
    assert threshold.coverage == pytest.approx(488 / 600)


def test_an_early_error_does_not_end_the_search_from_half_of_the_items() -> None:
    right = [index not in (5, 9) for index in range(3000)]
    threshold = choose_threshold([1 - index / 4000 for index in range(3000)], right)
    # 2 errors among 368 miss the bound, 2 among 3000 keep it.
    assert (threshold.accepted, threshold.errors) == (3000, 2)
    assert bound_error(2, 368, 0.975) > 0.01 > threshold.error_bound


@pytest.mark.parametrize(
    ("n", "wrong"),
    [(367, ()), (0, ()), (400, (0, 5, 9))],
    ids=["too few to prove it", "none", "errors among the surest"],
)
def test_no_threshold_is_given_without_proof(n: int, wrong: tuple[int, ...]) -> None:
    right = [index not in wrong for index in range(n)]
    assert choose_threshold([1 - index / 1000 for index in range(n)], right).value == NO_AUTO_ACCEPT


def test_items_of_one_confidence_are_accepted_together() -> None:
    threshold = choose_threshold([0.9] * 380 + [0.5] * 10, [True] * 380 + [False] * 10)
    assert (threshold.accepted, threshold.value) == (380, 0.9)


def _fit(right: list[bool]) -> Calibration:
    observations = [
        Observation([index / 1000], right[index], "typos" if index % 4 else "base", index % 2 == 1) for index in range(1000)
    ]
    return fit_calibration(("similarity",), observations)


def test_a_fit_tells_right_from_wrong_and_a_one_sided_record_gives_its_share() -> None:
    fitted = _fit([index >= 100 for index in range(1000)])
    assert fitted.estimate([0.01]) < 0.3
    assert fitted.estimate([0.9]) > 0.9
    assert (fitted.fitted_on, fitted.threshold.n) == (500, 500)
    assert fitted.threshold.errors == 0
    assert 0.05 < fitted.threshold.value < 1
    # 500 right ones are learnt from: rule of succession.
    assert _fit([True] * 1000).estimate([0.5]) == pytest.approx(501 / 502)


def test_evidence_is_kept_for_each_kind_of_text() -> None:
    fitted = _fit([index >= 100 for index in range(1000)])
    # Held out are the odd indices: none of them divides by four.
    (typos,) = fitted.kinds
    assert (typos.kind, typos.n, typos.right, typos.accepted) == ("typos", 500, 450, fitted.threshold.accepted)
    assert fitted.sum_kinds(["typos"]).accepted == typos.accepted
    assert fitted.sum_kinds(["base"]).n == 0
    assert Calibration.from_document(fitted.to_document()) == fitted


def test_odd_texts_say_less_than_their_title() -> None:
    title = "Displaced fracture of shaft of left clavicle, initial encounter for closed fracture"
    assert leave_out(title) == "Displaced fracture of shaft of clavicle"
    assert leave_out("Contusion of eyelid, right eye, sequela") == "Contusion of eyelid eye"
    assert leave_out("Gout, unspecified") == "Gout, unspecified"
    assert shorten(title) in title
    assert len(shorten(title).split()) <= 2
    assert scramble("Gout of hip") == "tuoG fo pih"


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
    first = Candidate("A00", 0.9, "Fracture of femur")
    judged = Judged(
        [first, Candidate("B00", 1.0, "x"), Candidate("C00", 0.86, "y")], [-5.0, -1.0, -9.0], 1.0, ("fracture", "femur", "left")
    )
    title = "Unspecified fracture of unspecified femur, initial encounter for closed fracture"
    named = dict(zip(TOGETHER_FEATURES, describe(judged, 0, title), strict=True))
    assert (named["similarity"], named["is_behind"], named["same_words"], named["known_share"]) == (0.9, 1.0, 0.0, 1.0)
    assert (named["log_probability"], named["log_probability_margin"]) == (-5.0, -4.0)
    assert named["log_margin"] == pytest.approx(math.log(1e-3))
    # Three words, of which "left" is beside the title; of its words "fracture of femur" only "of" is missing.
    assert named["log_words"] == pytest.approx(math.log(4))
    assert named["share_beside"] == pytest.approx(1 / 3)
    assert named["log_rivals"] == pytest.approx(math.log(3))
    assert named["is_unsaid"] == 1.0
    assert dict(zip(TOGETHER_FEATURES, describe(judged, 0, "Gout, unspecified"), strict=True))["is_unsaid"] == 0.0
    assert describe(judged, 1, "x")[1] == pytest.approx(math.log(0.1))


def test_alternatives_share_what_the_answer_leaves() -> None:
    assert share_confidence(0.8, [5.0, 1.0, 1.0]) == pytest.approx([0.8, 0.1, 0.1])
    assert share_confidence(0.3, [5.0, 4.0]) == [0.3, 0.3]
    assert share_confidence(0.7, [1.0]) == [0.7]


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"schema_version": 99}', b'{"schema_version": 2, "weight": "x"}'])
def test_a_malformed_coder_file_is_refused_with_the_cure(data: bytes) -> None:
    with pytest.raises(ModelError, match="coder.json"):
        CoderFit.parse(data)
