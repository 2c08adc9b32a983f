"""From answers to outcomes, cells, JSON and Parquet."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from evaluation_fakes import KNOWN_CODES, RIGHT, WRONG, LookupPredictor, answer_suite, make_scorecard, make_suite

from llmcoder_tasks.errors import EvaluationError
from llmcoder_tasks.evaluation.metrics import MicroScores, Share
from llmcoder_tasks.evaluation.outcomes import CoderRow, Outcome, read_outcomes, score_suite, write_outcomes
from llmcoder_tasks.evaluation.scorecard import Mistake, Scorecard, build_cells, parse_scorecard
from llmcoder_tasks.evaluation.suites import Suite
from llmcoder_tasks.records import Example

SUITE = Suite(
    "multiple",
    (
        Example("m-1", "multiple", "test", "diabetes and hypertension", ("E119", "I10")),
        Example("m-2", "multiple", "test", "diabetes", ("E119",)),
        Example("m-3", "multiple", "test", "hypertension", ("I10",)),
        Example("m-4", "multiple", "test", "high blood pressure", ("I10",)),
    ),
)
ANSWERS = {
    "diabetes and hypertension": ("I10", "E119"),
    "diabetes": ("E11",),
    "hypertension": ("I10", "E119"),
    "high blood pressure": ("I1099",),
}


def make_card() -> tuple[Scorecard, list[Outcome]]:
    outcomes = score_suite("together", LookupPredictor(ANSWERS), SUITE, known_codes=KNOWN_CODES)
    return make_scorecard(outcomes, [SUITE], model_id="m1", evaluation_id="m1-x", coder_json=b"{}"), outcomes


def test_a_cell_by_hand() -> None:
    (cell,) = make_card()[0].cells
    # Exact: the first of four. Category: the first, E11 for E119, and I1099 for I10: three of four.
    assert (cell.n, cell.exact.value, cell.category.value) == (4, 0.25, 0.75)
    assert (round(cell.exact.low, 4), round(cell.exact.high, 4)) == (0.0456, 0.6994)
    # Right codes 2 + 0 + 1 + 0; predicted 2 + 1 + 2 + 1; true 2 + 1 + 1 + 1.
    assert cell.micro == MicroScores(3 / 6, 3 / 5, 6 / 11)
    assert cell.errors == {"nonexistent": 1, "quantity": 1, "level": 1, "character": 0}
    assert cell.worst == (
        Mistake("nonexistent", "high blood pressure", ("I10",), ("I1099",)),
        Mistake("quantity", "hypertension", ("I10",), ("I10", "E119")),
        Mistake("level", "diabetes", ("E119",), ("E11",)),
    )


def test_worst_answers_are_three_of_a_kind_wrong_categories_first() -> None:
    suite = Suite("typos", tuple(Example(f"t-{i}", "typos", "test", f"text {i}", ("E1165",)) for i in range(5)))
    answers = {f"text {i}": ("E1122",) if i < 3 else ("I10",) for i in range(5)}
    outcomes = score_suite("together", LookupPredictor(answers), suite, known_codes={"E1165", "E1122", "I10"})
    (cell,) = build_cells(outcomes, [suite])
    assert [mistake.text for mistake in cell.worst] == ["text 3", "text 4", "text 0"]


def test_a_predictor_that_loses_an_answer_is_named() -> None:
    with pytest.raises(EvaluationError, match="together gave 1 answers to the 4 items of multiple"):
        score_suite("together", lambda texts: [("I10",)], SUITE, known_codes=KNOWN_CODES)


def test_notes_go_to_the_note_predictor_and_slow_rows_answer_fewer() -> None:
    phrases = LookupPredictor({f"typos text {i}": (RIGHT,) for i in range(2)})
    notes = LookupPredictor({f"notes text {i}": (WRONG,) for i in range(2)})
    row = CoderRow("untrained", phrases, notes, limit=2)
    assert [outcome.exact for outcome in row.score(make_suite("typos", 5), known_codes=KNOWN_CODES)] == [True, True]
    assert [outcome.exact for outcome in row.score(make_suite("notes", 5), known_codes=KNOWN_CODES)] == [False, False]
    assert (phrases.calls, notes.calls) == (1, 1)


def test_a_scorecard_survives_json_and_is_the_same_bytes_each_time() -> None:
    card = make_card()[0]
    assert parse_scorecard(card.to_json()) == card
    assert make_card()[0].to_json() == card.to_json()
    assert json.loads(card.to_json())["schema_version"] == 2


def test_a_scorecard_with_a_figure_that_is_not_a_number_is_not_written() -> None:
    card = make_card()[0]
    broken = replace(card, cells=(replace(card.cells[0], exact=Share(float("nan"), 0.0, 1.0)),))
    with pytest.raises(EvaluationError, match="not a number"):
        broken.to_json()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema_version": 2}', '{"schema_version": 2, "cells": [{}]}'])
def test_what_is_no_scorecard_is_refused(text: str) -> None:
    with pytest.raises(EvaluationError, match="evaluate the model again"):
        parse_scorecard(text)


def test_a_scorecard_of_another_schema_version_is_refused() -> None:
    document = json.loads(make_card()[0].to_json()) | {"schema_version": 1}
    with pytest.raises(EvaluationError, match="schema version 1, this program reads 2"):
        parse_scorecard(json.dumps(document))


def test_outcomes_survive_parquet(tmp_path: Path) -> None:
    outcomes = make_card()[1] + answer_suite("lexical", make_suite("base", 3), 1)
    write_outcomes(outcomes, tmp_path / "outcomes.parquet")
    assert read_outcomes(tmp_path / "outcomes.parquet") == outcomes


def test_a_file_that_holds_no_outcomes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "outcomes.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(EvaluationError, match="holds no outcomes"):
        read_outcomes(tmp_path / "outcomes.parquet")
