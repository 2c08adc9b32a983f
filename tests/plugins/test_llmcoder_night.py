"""Which discharge dates a night covers."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest
from llmcoder_night import find_night

from llmcoder_tasks.errors import NoteError

DUE = datetime(2026, 11, 24, 2, 0, tzinfo=UTC)


def test_a_scheduled_night_covers_the_week_up_to_yesterday() -> None:
    assert find_night(DUE, {"from_date": None, "to_date": None}) == (date(2026, 11, 17), date(2026, 11, 23))


def test_a_run_by_hand_covers_what_it_says() -> None:
    assert find_night(DUE, {"from_date": "2026-09-21", "to_date": "2026-09-23"}) == (date(2026, 9, 21), date(2026, 9, 23))


@pytest.mark.parametrize("params", [{"from_date": "2026-09-21", "to_date": None}, {"from_date": None, "to_date": "2026-09-21"}])
def test_half_a_range_is_refused(params: dict[str, str | None]) -> None:
    with pytest.raises(NoteError, match="give both"):
        find_night(DUE, params)
