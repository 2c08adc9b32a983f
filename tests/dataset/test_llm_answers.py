"""Answers of a language model are taken item by item: each fault is counted, none takes a good item with it."""

from __future__ import annotations

import json

import pytest

from llmcoder_tasks.dataset.llm_answers import Guard, check_answer
from llmcoder_tasks.dataset.titles import normalise_text

TITLES = {"I10": "Essential (primary) hypertension", "M109": "Gout, unspecified", "A009": "Cholera, unspecified"}
NAMES = {normalise_text(title): code for code, title in TITLES.items()} | {"high blood pressure": "I10", "cholera": None}
GUARD = Guard(TITLES, NAMES)
ASKED = {"I10": 2, "M109": 1}


def _answer(*items: object) -> str:
    return json.dumps({"items": items})


def _item(code: str, *texts: object) -> dict[str, object]:
    return {"code": code, "variations": list(texts)}


def _faults(answer: str) -> dict[str, int]:
    return {fault: count for fault, count in check_answer(answer, ASKED, GUARD).refused.items() if count}


def test_a_good_answer_is_taken_whole_whatever_its_order() -> None:
    checked = check_answer(_answer(_item("M109", "gout "), _item("I10", "prim HTN", "High blood pressure")), ASKED, GUARD)
    assert checked.variations == {"M109": ["gout"], "I10": ["prim HTN", "High blood pressure"]}
    assert checked.refused.total() == 0


@pytest.mark.parametrize("text", ["", "I am sorry", "[]", '{"items": {}}', '{"items": [{"code": "I10"', "null"])
def test_an_answer_in_another_form_is_one_fault(text: str) -> None:
    checked = check_answer(text, ASKED, GUARD)
    assert checked.variations == {}
    assert checked.refused == {"answer that is no JSON of the asked form": 1}


@pytest.mark.parametrize(
    ("item", "fault"),
    [
        ("I10", "malformed item"),
        ({"code": "I10"}, "malformed item"),
        ({"code": 10, "variations": []}, "malformed item"),
        ({"code": "I10", "variations": "HTN"}, "malformed item"),
        (_item("A009", "cholera NOS"), "code that was not asked for"),
        (_item("M109", "gouty"), "code answered twice"),
    ],
)
def test_a_bad_item_leaves_the_others_alone(item: object, fault: str) -> None:
    answer = _answer(_item("M109", "gout NOS"), item)
    assert check_answer(answer, ASKED, GUARD).variations == {"M109": ["gout NOS"]}
    assert _faults(answer) == {fault: 1, "code without an answer": 1}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("ESSENTIAL primary hypertension", "the title itself"),
        ("gout; unspecified", "another code's name"),
        ("Cholera", "another code's name"),
        ("HTN (I10)", "the code in the text"),
        ("htn i10.", "the code in the text"),
        ("x", "too short or too long"),
        ("hypertension " * 60, "too short or too long"),
        ("  ", "too short or too long"),
        ("high\nblood", "no plain text"),
        ("high\u202eblood", "no plain text"),
        (None, "no plain text"),
        (7, "no plain text"),
    ],
)
def test_a_bad_variation_leaves_the_others_alone(text: object, fault: str) -> None:
    answer = _answer(_item("I10", text, "HTN"), _item("M109", "gout NOS"))
    assert check_answer(answer, ASKED, GUARD).variations == {"I10": ["HTN"], "M109": ["gout NOS"]}
    assert _faults(answer) == {fault: 1}


def test_the_same_text_twice_counts_once_and_more_than_wanted_is_not_read() -> None:
    answer = _answer(_item("I10", "HTN", "htn.", "HBP"), _item("M109", "gout NOS", None))
    assert check_answer(answer, ASKED, GUARD).variations == {"I10": ["HTN"], "M109": ["gout NOS"]}
    assert _faults(answer) == {"the same twice": 1}
