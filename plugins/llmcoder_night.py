"""Which discharge dates a run of `code_encounters` covers, and as of which day it works."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

from llmcoder_tasks.errors import NoteError

LOOKBACK_DAYS = 7
"""Notes are signed and amended days after discharge; what is coded already is not coded twice."""


def find_night(dag_run: Any, params: Any) -> tuple[date, date]:
    """First and last discharge date: as the params say, or the days before the run's date.

    Raises NoteError on half a range.
    """
    first, last = params["from_date"], params["to_date"]
    if bool(first) != bool(last):
        raise NoteError("from_date and to_date go together: give both, or none for the days before this run")
    if first:
        return date.fromisoformat(first), date.fromisoformat(last)
    day = _day_of(dag_run)
    return day - timedelta(days=LOOKBACK_DAYS), day - timedelta(days=1)


def find_coding_date(dag_run: Any, params: Any) -> date:
    """The day that a discharge cannot lie after: that of the run, or the last date asked for when that is later."""
    return max(_day_of(dag_run), find_night(dag_run, params)[1])


def _day_of(dag_run: Any) -> date:
    """A night of the schedule or of a backfill has a logical date; a run by hand may have none, and is due when asked for."""
    day: date = (dag_run.logical_date or dag_run.run_after).date()
    return day
