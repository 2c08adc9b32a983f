"""Each kind of fault is planted once, and caught by name, count and example."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llmcoder_tasks.dataset.examples import MadeExample, Tables
from llmcoder_tasks.dataset.expectations import verify_codes, verify_examples
from llmcoder_tasks.errors import ExpectationsFailed
from llmcoder_tasks.icd10cm.code_set import Code, CodeSet

CODES = (
    Code("E11", False, "Type 2 diabetes", "Type 2 diabetes mellitus"),
    Code("E119", True, "Type 2 diabetes w/o complications", "Type 2 diabetes mellitus without complications"),
    Code("QA0", False, "Neurodev", "Neurodevelopmental disorders"),
    Code("QA0013", True, "Neurodev 13", "Neurodevelopmental disorder, thirteenth"),
    Code("S060XAS", True, "Concussion, sequela", "Concussion with unknown loss of consciousness, sequela"),
)


def _verify_codes(codes: tuple[Code, ...], folder: Path, **changes: Any) -> Path:
    options: dict[str, Any] = {"release_key": "FY2026", "previous_billable_count": None, "addenda": None, "docs_folder": folder}
    return verify_codes(codes, **{**options, **changes})


def test_sound_codes_pass_and_leave_data_docs(tmp_path: Path) -> None:
    addenda = {"E119": CODES[1].long_title, "E1199": None}
    page = _verify_codes(CODES, tmp_path, previous_billable_count=3, addenda=addenda)
    assert page == tmp_path / "codes-FY2026" / "index.html"
    assert "codes" in page.read_text()
    before = sorted(path for path in tmp_path.rglob("*.html"))
    _verify_codes(CODES, tmp_path, previous_billable_count=3, addenda=addenda)
    assert sorted(path for path in tmp_path.rglob("*.html")) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda codes: (*codes, codes[1]), "'unique codes' failed on column code: 2 of 6 rows, for example code E119"),
        (lambda codes: (*codes, codes[1]._replace(code="e11.8")), "'code pattern' failed on column code: 1 of 6 rows"),
        (
            lambda codes: (codes[0], codes[1]._replace(short_title=" ")),
            "'titles present' failed on column short_title: 1 of 2 rows",
        ),
        (lambda codes: (codes[0], codes[1]._replace(long_title="")), "'titles present' failed on column long_title: 1 of 2 rows"),
        (lambda codes: (codes[1]._replace(long_title="x" * 401),), "'titles not cut or run together'"),
        (lambda codes: (codes[1], codes[4]._replace(long_title=codes[1].long_title)), "'unique titles of billable codes'"),
        (lambda codes: (codes[0]._replace(is_billable=True), codes[1]), "'billable means no code below it'.*E11 "),
        (lambda codes: (codes[0], codes[1], codes[2]), "'billable means no code below it'.*QA0 "),
    ],
)
def test_each_fault_of_a_code_is_caught_by_name(change: Callable[[tuple[Code, ...]], Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ExpectationsFailed, match=message) as caught:
        _verify_codes(change(CODES), tmp_path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("codes-FY2026: suite codes: expectation ")


def test_a_count_far_from_the_release_before_is_caught(tmp_path: Path) -> None:
    with pytest.raises(ExpectationsFailed, match="'billable codes near the release before'.*3 is not between 900 and 1,100"):
        _verify_codes(CODES, tmp_path, previous_billable_count=1000)


@pytest.mark.parametrize(
    ("addenda", "example"),
    [
        ({"E119": "Another title"}, "E119 .*'Another title'"),
        ({"E118": "A code that is not there"}, "E118 .*(deleted)"),
        ({"E119": None}, "E119 .*(deleted)"),
        ({"E11": CODES[0].long_title}, "E11 "),
    ],
)
def test_addenda_that_disagree_are_caught(addenda: dict[str, str | None], example: str, tmp_path: Path) -> None:
    with pytest.raises(ExpectationsFailed, match=f"suite addenda: expectation 'addenda agree'.*1 of 1 rows.*{example}"):
        _verify_codes(CODES, tmp_path, addenda=addenda)


def test_a_sound_dataset_passes_without_a_flood_of_log_lines(
    tables: Tables, code_set: CodeSet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        page = verify_examples(tables, code_set=code_set, subject="d1", docs_folder=tmp_path)
    assert page.is_file()
    assert len(caplog.records) == 1
    assert "expectations hold over" in caplog.text


Fault = Callable[[list[MadeExample]], list[MadeExample]]


def _change(**fields: Any) -> Fault:
    """The first row with other fields."""
    return lambda rows: [replace(rows[0], example=replace(rows[0].example, **fields)), *rows[1:]]


def _leak(rows: list[MadeExample]) -> list[MadeExample]:
    held_out = next(made for made in rows if made.example.split == "test")
    copy = replace(held_out.example, example_id=f"{held_out.example.example_id}9", split="train", text="something trained on")
    return [*rows, replace(held_out, example=copy)]


def _forget_a_code(rows: list[MadeExample]) -> list[MadeExample]:
    example = rows[0].example
    codes = example.codes[:-1]
    renamed = f"multiple-{'+'.join(codes)}-0"
    return [replace(rows[0], example=replace(example, codes=codes, example_id=renamed)), *rows[1:]]


def _repeat(rows: list[MadeExample]) -> list[MadeExample]:
    return [*rows, _change(example_id=f"{rows[0].example.example_id}9")(rows)[0]]


def _too_many_conditions(rows: list[MadeExample]) -> list[MadeExample]:
    return [replace(rows[0], condition_count=6), *rows[1:]]


def _one_condition(rows: list[MadeExample]) -> list[MadeExample]:
    code = rows[0].example.codes[0]
    example = replace(rows[0].example, codes=(code,), example_id=f"multiple-{code}-0")
    return [MadeExample(example, 1), *rows[1:]]


def _only_injuries(rows: list[MadeExample]) -> list[MadeExample]:
    return [made for made in rows if made.example.codes[0][0] == "S"]


@pytest.mark.parametrize(
    ("scenario", "fault", "name", "column"),
    [
        ("typos", _change(text=" "), "text not empty", "text"),
        ("typos", _change(text="x"), "text length", "text"),
        ("sentences", _change(text="word " * 200), "text length", "text"),
        ("typos", _change(codes=("E11",), example_id="typos-E11-0"), "label billable in this release", "unbillable_code"),
        ("typos", _change(codes=("Z9999",)), "label billable in this release", "unbillable_code"),
        ("reordered", lambda rows: _change(codes=rows[1].example.codes)(rows), "label unchanged", "codes and source_codes"),
        ("reordered", _change(split="holdout"), "known split", "split"),
        ("base", _change(split="test"), "known split", "split"),
        ("typos", _leak, "no leak from train into test", "leaked_code"),
        ("multiple", _leak, "no leak from train into test", "leaked_code"),
        ("typos", lambda rows: [*rows, rows[0]], "unique ids", "example_id"),
        ("typos", _repeat, "no duplicate rows", "text and codes"),
        ("multiple", _forget_a_code, "as many conditions as codes", "condition_count and code_count"),
        ("multiple", _too_many_conditions, "as many conditions as codes", "condition_count and code_count"),
        ("multiple", _one_condition, "number of conditions of the scenario", "condition_count"),
        ("base", _change(text="Another title"), "text is the title", "text and title"),
        ("sentences", _only_injuries, "share by chapter as in the release", "excess"),
    ],
)  # fmt: skip
def test_each_fault_of_an_example_is_caught_by_name(
    scenario: str, fault: Fault, name: str, column: str, tables: Tables, code_set: CodeSet, tmp_path: Path
) -> None:
    broken = {scenario: fault(tables[scenario])}
    with pytest.raises(ExpectationsFailed) as caught:
        verify_examples(broken, code_set=code_set, subject="d1", docs_folder=tmp_path)
    message = str(caught.value)
    assert f"expectation {name!r} failed on column {column}: " in message
    assert " rows, for example " in message
    assert "\n" not in message
    assert len(message) < 1000


def test_a_title_left_as_it_was_is_caught(tables: Tables, code_set: CodeSet, tmp_path: Path) -> None:
    title = code_set.titles[tables["typos"][0].example.codes[0]]
    broken = {"typos": _change(text=title.upper())(tables["typos"])}
    with pytest.raises(ExpectationsFailed, match="'text differs from the title' failed on column title_repeated: 1 of"):
        verify_examples(broken, code_set=code_set, subject="d1", docs_folder=tmp_path)


def test_a_text_that_is_another_codes_title_is_caught(tables: Tables, code_set: CodeSet, tmp_path: Path) -> None:
    other = tables["typos"][1].example.codes[0]
    broken = {"typos": _change(text=code_set.titles[other])(tables["typos"])}
    with pytest.raises(ExpectationsFailed, match=f"'text names no other code' failed on column other_code_named: 1 of .*{other}"):
        verify_examples(broken, code_set=code_set, subject="d1", docs_folder=tmp_path)


def test_no_more_than_three_examples_are_shown_and_further_failures_are_counted(
    tables: Tables, code_set: CodeSet, tmp_path: Path
) -> None:
    broken = {"typos": [replace(made, example=replace(made.example, text=" ")) for made in tables["typos"]]}
    with pytest.raises(ExpectationsFailed) as caught:
        verify_examples(broken, code_set=code_set, subject="d1", docs_folder=tmp_path)
    message = str(caught.value)
    assert message.count("example_id") == 3
    assert "; also failed: typos 'text length'; see " in message
