"""Cursors: what was handed out comes back typed, anything else is a readable 400."""

from __future__ import annotations

from datetime import date

import pytest
from fastapi import HTTPException

from llmcoder_pages.paging import decode_cursor, encode_cursor, take_page

READERS = (date.fromisoformat, str)


def test_a_cursor_brings_back_the_key_of_the_last_row_shown() -> None:
    rows = [{"day": date(2026, 1, number), "run_id": f"run {number}", "more": "x"} for number in (5, 4, 3)]
    page = take_page(rows, 2, ("day", "run_id"))
    assert [row["run_id"] for row in page.rows] == ["run 5", "run 4"]
    assert decode_cursor(page.next_cursor, READERS) == [date(2026, 1, 4), "run 4"]


def test_the_last_page_has_no_cursor() -> None:
    assert take_page([{"day": 1}], 2, ("day",)).next_cursor is None
    assert take_page([{"day": 1}, {"day": 2}], 2, ("day",)).next_cursor is None
    assert take_page([], 2, ("day",)).next_cursor is None


def test_without_a_cursor_a_list_begins_at_its_beginning() -> None:
    assert decode_cursor(None, READERS) == [None, None]
    assert decode_cursor("", READERS) == [None, None]


@pytest.mark.parametrize(
    "cursor",
    [
        "x",
        "é",
        "!!!!",
        encode_cursor(["2026-01-04"]),
        encode_cursor(["today", "a"]),
        encode_cursor([1, 2]),
    ],
)
def test_a_damaged_cursor_is_a_400(cursor: str) -> None:
    with pytest.raises(HTTPException) as refused:
        decode_cursor(cursor, READERS)
    assert refused.value.status_code == 400


def test_a_number_that_no_row_can_have_is_a_400() -> None:
    with pytest.raises(HTTPException) as refused:
        decode_cursor(encode_cursor([2**63]), (int,))
    assert refused.value.status_code == 400
