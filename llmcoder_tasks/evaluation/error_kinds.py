"""The four kinds of wrong answer, as the paper behind LLMCoder names them."""

from __future__ import annotations

from collections.abc import Set
from typing import Literal, get_args

ErrorKind = Literal["nonexistent", "quantity", "level", "character"]

ERROR_KINDS: tuple[ErrorKind, ...] = get_args(ErrorKind)
"""In the order in which an item is tested for them: each wrong item has exactly one kind."""

ERROR_MEANINGS: dict[ErrorKind, str] = {
    "nonexistent": "a predicted code is not in the release",
    "quantity": "the number of codes differs",
    "level": "each wrong code is a parent or a child of a true one",
    "character": "any other wrong code",
}


def find_error_kind(true: frozenset[str], predicted: frozenset[str], *, known_codes: Set[str]) -> ErrorKind | None:
    """What is wrong with the predicted codes, or None. `known_codes` holds all codes of the release, headers too."""
    if predicted == true:
        return None
    if not predicted <= known_codes:
        return "nonexistent"
    if len(predicted) != len(true):
        return "quantity"
    missed = true - predicted
    if all(any(_is_prefix_either_way(wrong, code) for code in missed) for wrong in predicted - true):
        return "level"
    return "character"


def _is_prefix_either_way(first: str, second: str) -> bool:
    return first.startswith(second) or second.startswith(first)
