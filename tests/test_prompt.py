"""Prompts and answers, byte for byte: a change here makes every trained model useless."""

from __future__ import annotations

import pytest

from llmcoder_tasks.errors import ModelError
from llmcoder_tasks.prompt import (
    END,
    category_piece,
    character_piece,
    parse_answer,
    parse_codes_json,
    render_answer,
    render_code_pieces,
    render_codes_json,
    render_prompt,
    render_training_line,
    verify_form,
)

VOCABULARY = {category_piece("E11"), category_piece("I10"), *map(character_piece, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ")}


def test_the_compact_prompt_is_the_text_in_lower_case_on_one_line() -> None:
    assert render_prompt("Type 2  Diabetes\n mellitus; Gout ", "compact") == "type 2 diabetes mellitus; gout"


def test_the_chat_prompt_keeps_capitals_and_ends_in_the_question() -> None:
    assert render_prompt("Type 2 diabetes\nmellitus", "chat") == "Diagnosis: Type 2 diabetes mellitus\nICD-10-CM codes:"


def test_a_note_keeps_its_lines_and_is_asked_about_as_a_note() -> None:
    note = "HPI:  gout \n\n  Plan: rest"
    expected = "Clinical note:\nHPI: gout\nPlan: rest\nICD-10-CM codes:"
    assert render_prompt(note, "chat", "note") == render_prompt(note, "instruct", "note") == expected
    assert render_prompt(note, "compact", "note") == "hpi: gout plan: rest"


def test_a_compact_answer_is_category_then_characters_with_separators() -> None:
    assert render_answer(["E119", "I10"], "compact", VOCABULARY) == "<|E11|><|.9|><|;|><|I10|>"
    assert parse_answer("<|E11|><|.9|><|;|><|I10|><|end|><|E11|>", "compact") == ("E119", "I10")


def test_a_chat_answer_is_a_list_of_codes_with_dots() -> None:
    assert render_answer(["E119", "I10"], "chat") == " E11.9, I10"
    assert parse_answer(" E11.9, I10", "chat") == ("E119", "I10")


def test_a_category_of_a_later_release_is_written_in_characters() -> None:
    assert render_code_pieces("QA01X", "compact", VOCABULARY) == ["<|.Q|>", "<|.A|>", "<|.0|>", "<|.1|>", "<|.X|>"]
    assert parse_answer("<|.Q|><|.A|><|.0|><|.1|><|.X|><|;|><|E11|><|.9|>" + END, "compact") == ("QA01X", "E119")


def test_a_code_that_is_named_twice_counts_once_and_rubbish_is_left_out() -> None:
    assert parse_answer("<|E11|><|.9|><|;|><|E11|><|.9|><|;|>hello", "compact") == ("E119",)
    assert parse_answer(" E11.9, E11.9,", "chat") == ("E119",)


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(ModelError, match="'alpaca' is no prompt form"):
        verify_form("alpaca")


def test_a_training_line_is_instructions_text_and_answer_byte_for_byte() -> None:
    assert render_training_line("Type 2  diabetes\n mellitus; gout ", ["E119", "M109"]) == (
        '{"messages": [{"role": "system", "content": "Give the ICD-10-CM codes of the conditions that the text names, in order of '
        'mention."}, {"role": "user", "content": "Type 2 diabetes mellitus; gout"}, {"role": "assistant", "content": '
        '"{\\"codes\\":[\\"E11.9\\",\\"M10.9\\"]}"}]}'
    )


def test_an_answer_as_json_is_read_back_and_another_form_is_none() -> None:
    assert render_codes_json(["E119", "I10"]) == '{"codes":["E11.9","I10"]}'
    assert parse_codes_json('{"codes":["e11.9","I10","I10",""]}') == ("E119", "I10")
    for other in ("E11.9", '{"code": []}', '{"codes": [1]}', '["E11.9"]', '{"codes": 3}', '{"codes": ["E11.9"', "[" * 100_000):
        assert parse_codes_json(other) is None
