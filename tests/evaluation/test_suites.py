"""What is scored: items of a dataset, or a suite file with good and bad rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from evaluation_fakes import make_suite

from llmcoder_tasks.dataset.examples import MadeExample
from llmcoder_tasks.dataset.store import write_tables
from llmcoder_tasks.errors import EvaluationError
from llmcoder_tasks.evaluation.suites import BadRow, Suite, hash_item, hash_suites, read_suite_file, read_suites
from llmcoder_tasks.records import Example, Split


def row(scenario: str, number: int, split: Split) -> MadeExample:
    return MadeExample(Example(f"{scenario}-{number}", scenario, split, f"text {number}", ("E119",)), 1)


@pytest.fixture
def dataset_folder(tmp_path: Path) -> Path:
    tables = {
        "base": [row("base", number, "train") for number in range(6)],
        "typos": [row("typos", number, split) for number, split in enumerate(("train", "test", "validation", "test"))],  # type: ignore[arg-type]
        "notes": [],
    }
    write_tables(tables, tmp_path)
    return tmp_path


def test_suites_are_learnt_items_of_base_and_test_items_of_the_rest(dataset_folder: Path) -> None:
    suites = read_suites(dataset_folder, ["typos", "base", "notes"], limit=4)
    assert [(suite.scenario, [example.example_id for example in suite.examples]) for suite in suites] == [
        ("base", ["base-0", "base-1", "base-2", "base-3"]),
        ("typos", ["typos-1", "typos-3"]),
    ]


def test_a_smaller_suite_is_the_beginning_of_a_larger_one(dataset_folder: Path) -> None:
    (large,) = read_suites(dataset_folder, ["base"], limit=5)
    (small,) = read_suites(dataset_folder, ["base"], limit=2)
    assert large.head(2) == small


def test_the_hash_of_suites_changes_with_every_id_text_label_and_scenario() -> None:
    suite = make_suite("typos", 3)
    first = suite.examples[0]
    variants = [
        suite,
        suite.head(2),
        Suite("base", suite.examples),
        Suite("typos", (Example("other", "typos", "test", first.text, first.codes), *suite.examples[1:])),
        Suite("typos", (Example(first.example_id, "typos", "test", "other", first.codes), *suite.examples[1:])),
        Suite("typos", (Example(first.example_id, "typos", "test", first.text, ("I10",)), *suite.examples[1:])),
    ]
    hashes = [hash_suites([variant]) for variant in variants]
    assert len(set(hashes)) == len(variants)
    assert hash_suites([make_suite("typos", 3)]) == hashes[0]


def test_an_item_is_the_same_under_another_id_and_with_its_codes_in_another_order() -> None:
    first = Example("a", "typos", "test", "text", ("E119", "I10"))
    assert hash_item(first) == hash_item(Example("b", "multiple", "train", "text", ("I10", "E119")))
    assert hash_item(first) != hash_item(Example("a", "typos", "test", "text", ("E119",)))
    assert hash_item(first) != hash_item(Example("a", "typos", "test", "Text", ("E119", "I10")))


def write_rows(path: Path, *rows: Any) -> Path:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return path


def test_codes_may_carry_the_dot_and_stand_in_lower_case(tmp_path: Path) -> None:
    rows = [
        {"id": "a", "text": "one", "codes": ["E11.9", "i10", "E119"]},
        {"id": 7, "text": "two", "codes": ["S52501A"], "more": 1},
    ]
    examples, bad_rows = read_suite_file(write_rows(tmp_path / "suite.jsonl", *rows))
    assert [(example.example_id, example.text, example.codes) for example in examples] == [
        ("a", "one", ("E119", "I10")),
        ("7", "two", ("S52501A",)),
    ]
    assert bad_rows == []


def test_every_bad_row_is_reported_with_its_line_and_harms_no_other(tmp_path: Path) -> None:
    good = {"id": "a", "text": "one", "codes": ["I10"]}
    path = write_rows(
        tmp_path / "suite.jsonl",
        good,
        "",
        "not json",
        [1],
        {"id": "b", "text": "x"},
        {"id": None, "text": "x", "codes": ["I10"]},
        {"id": "c", "text": " ", "codes": ["I10"]},
        {"id": "d", "text": "x", "codes": []},
        {"id": "e", "text": "x", "codes": ["I10", "Mrs Canary"]},
        good,
    )
    examples, bad_rows = read_suite_file(path)
    assert [example.example_id for example in examples] == ["a"]
    assert bad_rows == [
        BadRow(3, "it is no JSON"),
        BadRow(4, "it is no JSON object"),
        BadRow(5, "it lacks codes"),
        BadRow(6, "its id is neither text nor a whole number"),
        BadRow(7, "its text is empty or no text"),
        BadRow(8, "its codes are not a list of at least one code"),
        BadRow(9, "code 2 of 2 does not look like an ICD-10-CM code"),
        BadRow(10, "its id stands on line 1 already"),
    ]


def test_a_text_with_unicode_line_separators_stays_one_row(tmp_path: Path) -> None:
    line = json.dumps({"id": "a", "text": "one\u2028two\x85three", "codes": ["I10"]}, ensure_ascii=False)
    examples, bad_rows = read_suite_file(write_rows(tmp_path / "suite.jsonl", line))
    assert (examples[0].text, bad_rows) == ("one\u2028two\x85three", [])


@pytest.mark.parametrize("content", ["", "\n\n", '{"id": 1}'])
def test_a_suite_without_any_row_to_score_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(EvaluationError, match="no row that can be scored"):
        read_suite_file(write_rows(tmp_path / "suite.jsonl", content))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="absent.jsonl: No such file"):
        read_suite_file(tmp_path / "absent.jsonl")
    (tmp_path / "latin.jsonl").write_bytes(b'{"id": "\xe9"}')
    with pytest.raises(EvaluationError, match="it is not UTF-8"):
        read_suite_file(tmp_path / "latin.jsonl")
