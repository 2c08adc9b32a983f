"""A model that answers one condition at a time cuts lines by its own probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest

from llmcoder_tasks.coding.model_alone import ModelAlone
from llmcoder_tasks.model.backend import Answer

SURE = {"gout": "M109", "fracture of femur, left, initial encounter": "S7292XA", "hypertension": "I10"}


class SureOfSome:
    """Stands for a trained model: it is sure of SURE, and guesses at everything else."""

    def __init__(self, conditions_per_answer: str) -> None:
        self.conditions_per_answer = conditions_per_answer
        self.asked: list[str] = []

    def answer(self, texts: Sequence[str], *, trie: object) -> list[Answer]:
        self.asked += texts
        return [Answer((SURE[text],), -0.01) if text in SURE else Answer(("R69",), -4.0) for text in texts]

    def predict(self, texts: Sequence[str], *, trie: object) -> list[tuple[str, ...]]:
        return [("E119", "M109") for _ in texts]


def _alone(conditions_per_answer: str) -> tuple[ModelAlone, SureOfSome]:
    model = SureOfSome(conditions_per_answer)
    return ModelAlone(cast(Any, model), cast(Any, None)), model


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("gout", ("M109",)),
        ("fracture of femur, left, initial encounter", ("S7292XA",)),
        ("gout, fracture of femur, left, initial encounter and hypertension", ("M109", "S7292XA", "I10")),
        ("1. gout\n2. hypertension\n3. gout", ("M109", "I10")),
        ("", ("R69",)),
    ],
)
def test_a_line_is_cut_where_the_model_is_sure_of_the_parts(text: str, codes: tuple[str, ...]) -> None:
    alone, _ = _alone("one")
    assert alone.predict([text]) == [codes]


def test_a_sure_line_costs_one_question() -> None:
    alone, model = _alone("one")
    alone.predict(["fracture of femur, left, initial encounter"] * 3)
    assert model.asked == ["fracture of femur, left, initial encounter"]


def test_a_model_that_lists_several_codes_is_asked_as_it_is() -> None:
    alone, model = _alone("several")
    assert alone.predict(["type 2 diabetes; gout"]) == [("E119", "M109")]
    assert not model.asked
