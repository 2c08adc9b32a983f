"""Which discharge dates a run of `code_encounters` covers, and under which model and name it codes them."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any

from llmcoder_tasks.errors import NoteError

LOOKBACK_DAYS = 7
"""Notes are signed and amended days after discharge; what is coded already is not coded twice."""


def find_night(run_after: datetime, params: Any) -> tuple[date, date]:
    """First and last discharge date: as the params say, or the days before the run was due.

    `run_after` is when the run was due, also of one by hand, which has no logical date. Raises NoteError on half a range.
    """
    first, last = params["from_date"], params["to_date"]
    if bool(first) != bool(last):
        raise NoteError("from_date and to_date go together: give both, or none for the days before this run")
    if first:
        return date.fromisoformat(first), date.fromisoformat(last)
    return run_after.date() - timedelta(days=LOOKBACK_DAYS), run_after.date() - timedelta(days=1)
