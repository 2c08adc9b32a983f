"""Release keys, codes and output rows."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcoder_tasks.errors import ReleaseError
from llmcoder_tasks.records import (
    CodePrediction,
    CodingResult,
    Drg,
    Finding,
    Grouping,
    find_effective_date,
    name_correction,
    parse_code,
    parse_release_key,
    render_code,
    render_release_key,
)


@pytest.mark.parametrize(
    ("key", "effective"),
    [
        ("FY2026", date(2025, 10, 1)),
        ("FY2026-April", date(2026, 4, 1)),
        ("FY2021-January", date(2021, 1, 1)),
        ("FY2025-July", date(2025, 7, 1)),
    ],
)
def test_release_key_and_effective_date_are_inverse(key: str, effective: date) -> None:
    assert parse_release_key(key) == effective
    assert render_release_key(effective) == key


@pytest.mark.parametrize("key", ["2026", "FY26", "FY2026-October", "fy2026", "FY2026-April ", "FY1999", "", "FY2026/../x"])
def test_other_release_keys_are_refused_with_the_form(key: str) -> None:
    with pytest.raises(ReleaseError, match="write FY2026 for October 2025"):
        parse_release_key(key)


def test_a_correction_has_a_key_and_the_date_of_its_release() -> None:
    assert name_correction("FY2026-April", 1) == "FY2026-April-corrected-1"
    assert name_correction("FY2026-April-corrected-1", 2) == "FY2026-April-corrected-2"
    assert find_effective_date("FY2026-April-corrected-12") == find_effective_date("FY2026-April") == date(2026, 4, 1)
    with pytest.raises(ReleaseError, match="is no release key"):  # no publisher writes it: it names nothing that arrives
        parse_release_key("FY2026-corrected-1")


@pytest.mark.parametrize("effective", [date(2026, 4, 2), date(2026, 5, 1), date(2025, 10, 31)])
def test_a_date_on_which_no_release_takes_effect_is_refused(effective: date) -> None:
    with pytest.raises(ReleaseError, match=str(effective)):
        render_release_key(effective)


@pytest.mark.parametrize(("stored", "shown"), [("E119", "E11.9"), ("I10", "I10"), ("S52501A", "S52.501A"), ("QA0", "QA0")])
def test_the_dot_stands_after_the_category(stored: str, shown: str) -> None:
    assert render_code(stored) == shown
    assert parse_code(shown) == stored


def test_codes_are_read_however_people_type_them() -> None:
    assert parse_code("  e11.9\n") == "E119"


@given(st.from_regex(r"[A-Z][0-9A-Z]{2,6}", fullmatch=True))
def test_rendering_a_code_loses_nothing(code: str) -> None:
    assert parse_code(render_code(code)) == code


def test_an_output_row_shows_codes_with_the_dot_and_no_error() -> None:
    prediction = CodePrediction("E119", "Type 2 diabetes mellitus without complications", 0.9, "auto", 3, 9)
    assert CodingResult("r1", "FY2026", "model-1", (prediction,)).to_row() == {
        "id": "r1",
        "release": "FY2026",
        "model": "model-1",
        "codes": [
            {
                "code": "E11.9",
                "description": "Type 2 diabetes mellitus without complications",
                "confidence": 0.9,
                "decision": "auto",
                "start": 3,
                "end": 9,
            }
        ],
        "error": None,
    }


def test_a_bad_row_has_a_reason_and_no_code() -> None:
    row = CodingResult("r2", None, None, error="the text is empty").to_row()
    assert (row["codes"], row["error"]) == ([], "the text is empty")


def test_findings_and_group_stand_in_a_row_only_where_there_are_any() -> None:
    finding = Finding("excludes1", "removed", "I10", "I110", "I11.0 holds it", 3, 9)
    group = Grouping(431, Drg(291, 5, "Heart failure and shock with MCC"), None)
    row = CodingResult("r3", "FY2026", "model-1", findings=(finding,), grouping=group).to_row()
    assert (row["findings"][0]["code"], row["findings"][0]["related_code"]) == ("I10", "I11.0")
    assert row["grouping"] == {
        "version": 431,
        "with_all": {"number": 291, "category": 5, "title": "Heart failure and shock with MCC"},
        "with_auto": None,
    }
