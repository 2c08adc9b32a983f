"""Each wrong answer has one kind."""

from __future__ import annotations

import pytest

from llmcoder_tasks.evaluation.error_kinds import ERROR_KINDS, ERROR_MEANINGS, find_error_kind

KNOWN = {"E11", "E116", "E119", "E1165", "I10", "I110", "J449", "S52501A", "S52501D", "S52502A"}


@pytest.mark.parametrize(
    ("true", "predicted", "kind"),
    [
        ({"E119"}, {"E119"}, None),
        ({"E119", "I10"}, {"I10", "E119"}, None),
        ({"E119"}, {"E1199"}, "nonexistent"),
        ({"E119", "I10"}, {"E1199"}, "nonexistent"),  # before the quantity
        ({"E1165"}, {"E11"}, "level"),  # a header in place of its child
        ({"E116"}, {"E1165"}, "level"),  # a child in place of its parent
        ({"E1165", "I10"}, {"E116", "I10"}, "level"),  # only the wrong code is looked at
        ({"E1165", "I10"}, {"E116", "I110"}, "character"),  # I110 is no child of I10
        ({"E119", "I10"}, {"E119"}, "quantity"),
        ({"E119"}, {"E119", "I10"}, "quantity"),
        ({"E119"}, set(), "quantity"),
        ({"S52501A"}, {"S52501D"}, "character"),
        ({"S52501A"}, {"J449"}, "character"),
    ],
)
def test_error_kind_by_hand(true: set[str], predicted: set[str], kind: str | None) -> None:
    assert find_error_kind(frozenset(true), frozenset(predicted), known_codes=KNOWN) == kind


def test_a_wrong_code_beside_its_own_prefix_relative_that_was_found_is_a_character_error() -> None:
    # E116 is a prefix of E1165, but E1165 was found: what was missed is I10.
    true, predicted = frozenset({"E1165", "I10"}), frozenset({"E1165", "E116"})
    assert find_error_kind(true, predicted, known_codes=KNOWN) == "character"


def test_every_kind_has_a_meaning() -> None:
    assert set(ERROR_MEANINGS) == set(ERROR_KINDS)
