"""Which discharge dates a night covers."""

from __future__ import annotations

from datetime import UTC, date, datetime
from types import SimpleNamespace

import pytest
from llmcoder_night import find_coding_date, find_night

from llmcoder_tasks.errors import NoteError

DUE = datetime(2026, 11, 24, 2, 0, tzinfo=UTC)
BY_HAND = SimpleNamespace(logical_date=None, run_after=DUE)
NIGHTLY = SimpleNamespace(logical_date=DUE, run_after=DUE)
BACKFILL = SimpleNamespace(logical_date=datetime(2026, 5, 2, 2, 0, tzinfo=UTC), run_after=DUE)
NO_PARAMS = {"from_date": None, "to_date": None}


def test_a_scheduled_night_covers_the_week_up_to_yesterday() -> None:
    assert find_night(NIGHTLY, NO_PARAMS) == (date(2026, 11, 17), date(2026, 11, 23))


def test_a_night_of_a_backfill_covers_the_week_before_its_own_date() -> None:
    assert find_night(BACKFILL, NO_PARAMS) == (date(2026, 4, 25), date(2026, 5, 1))
    assert find_coding_date(BACKFILL, NO_PARAMS) == date(2026, 5, 2)


def test_a_run_by_hand_covers_what_it_says() -> None:
    assert find_night(BY_HAND, {"from_date": "2026-09-21", "to_date": "2026-09-23"}) == (date(2026, 9, 21), date(2026, 9, 23))


def test_a_run_by_hand_may_look_ahead_of_its_day() -> None:
    assert find_coding_date(BY_HAND, {"from_date": "2027-01-01", "to_date": "2027-01-02"}) == date(2027, 1, 2)
    assert find_coding_date(BY_HAND, {"from_date": "2026-01-01", "to_date": "2026-01-02"}) == DUE.date()


@pytest.mark.parametrize("params", [{"from_date": "2026-09-21", "to_date": None}, {"from_date": None, "to_date": "2026-09-21"}])
def test_half_a_range_is_refused(params: dict[str, str | None]) -> None:
    with pytest.raises(NoteError, match="give both"):
        find_night(NIGHTLY, params)
