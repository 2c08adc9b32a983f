"""What a decision does to a code set, and the order of the queue, by hand."""

from __future__ import annotations

import pytest

from llmcoder_tasks.coding.review import (
    ReviewCode,
    accept,
    add,
    from_json,
    rank_note,
    remove,
    replace_code,
    to_json,
    verify_decided,
)
from llmcoder_tasks.errors import ReviewError

PROPOSED = ReviewCode("E119", 1, "predicted", "open", 7, 0, 13)
ADDED = ReviewCode("I10", 2, "added", "accepted", None, None, None)


def test_the_priority_of_a_note_is_the_weighted_sum_of_its_terms() -> None:
    priority = rank_note([0.9, 0.2, 0.4, 0.6], [3, 9, 30, 99], money=1.0)
    assert priority.uncertainty == pytest.approx(0.6)  # 1 - (0.2 + 0.4 + 0.6) / 3
    assert priority.rarity == pytest.approx(0.25)  # the rarest was accepted three times
    assert priority.total == pytest.approx(0.4 * 0.6 + 0.4 * 1.0 + 0.2 * 0.25)


def test_a_note_without_a_code_is_as_urgent_as_can_be_but_for_money() -> None:
    assert rank_note([], [], money=0.0).total == pytest.approx(0.6)


def test_accepting_and_removing_a_proposal_keep_its_row() -> None:
    assert accept([PROPOSED], "E119").after[0].state == "accepted"
    assert remove([PROPOSED], "E119").after[0].state == "removed"


def test_removing_what_a_person_added_leaves_nothing() -> None:
    assert remove([PROPOSED, ADDED], "I10").after == ()


def test_a_replacement_takes_rank_proposal_and_evidence_of_what_it_replaces() -> None:
    removed, fresh = replace_code([PROPOSED, ADDED], "E119", "E1122", None).after
    assert (removed.code, removed.state) == ("E119", "removed")
    assert fresh == ReviewCode("E1122", 1, "replaced", "accepted", 7, 0, 13)


def test_replacing_a_replacement_leaves_one_of_them() -> None:
    replaced = ReviewCode("E1122", 1, "replaced", "accepted", 7, 0, 13)
    (fresh,) = replace_code([replaced], "E1122", "I10", (3, 9)).after
    assert fresh == ReviewCode("I10", 1, "replaced", "accepted", 7, 3, 9)


def test_an_added_code_stands_last_with_or_without_evidence() -> None:
    assert add([PROPOSED], "I10", None).after == (ADDED,)
    assert add([PROPOSED], "I10", (4, 9)).after[0].evidence_end == 9


@pytest.mark.parametrize(
    ("attempt", "reason"),
    [
        (lambda: accept([PROPOSED], "J189"), "J18.9 is not among the codes of this review: add it instead"),
        (lambda: accept([ADDED], "I10"), "I10 is accepted already"),
        (lambda: add([PROPOSED], "E119", None), "E11.9 is among the codes of this review already, open: accept it instead"),
        (lambda: replace_code([PROPOSED, ADDED], "E119", "I10", None), "I10 is among the codes of this review already, accepted"),
        (lambda: remove(remove([PROPOSED], "E119").after, "E119"), "E11.9 is removed already"),
        (lambda: replace_code(remove([PROPOSED], "E119").after, "E119", "I10", None), "E11.9 is removed: add I10 instead"),
        (lambda: verify_decided([PROPOSED, ADDED]), "E11.9 still to be decided"),
    ],
)
def test_a_decision_that_makes_no_sense_is_refused_with_the_cure(attempt: object, reason: str) -> None:
    with pytest.raises(ReviewError, match=reason):
        attempt()  # type: ignore[operator]


def test_rows_survive_the_audit_and_a_change_can_be_reversed() -> None:
    change = replace_code([PROPOSED], "E119", "E1122", None)
    assert from_json(to_json(change.after)) == change.after
    assert change.reversed().after == (PROPOSED,)
