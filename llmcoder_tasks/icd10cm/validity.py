"""Which codes are valid on a date: the rows of the view `code_validity`, put together to intervals, and what is said of gaps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta


@dataclass(frozen=True, slots=True)
class CodeInterval:
    """The days, both included, on which loaded releases agree whether a code is billable. `until` is None until further notice.

    `title` and `release_key` are those of the last release in it.
    """

    code: str
    title: str
    is_billable: bool
    valid_from: date
    valid_until: date | None
    release_key: str


def join_intervals(rows: Sequence[CodeInterval]) -> list[CodeInterval]:
    """What releases say of one code, in order of date, with neighbours joined that follow each other without a gap."""
    joined: list[CodeInterval] = []
    for row in rows:
        before = joined[-1] if joined else None
        if before and before.is_billable == row.is_billable and before.valid_until == row.valid_from - timedelta(days=1):
            joined[-1] = replace(row, valid_from=before.valid_from)
        else:
            joined.append(row)
    return joined


def find_interval(intervals: Sequence[CodeInterval], on: date) -> CodeInterval | None:
    """The interval that a day lies in."""
    return next((one for one in intervals if one.valid_from <= on and (one.valid_until is None or on <= one.valid_until)), None)


def explain_gap(on: date, loaded: Sequence[tuple[str, date]]) -> str:
    """What is said where no loaded release is valid on a day: the day, what is loaded since when, and what to do."""
    year = on.year + (on.month >= 10)  # the fiscal year begins on 1 October of the year before
    known = ", ".join(f"{key} from {effective_from}" for key, effective_from in loaded) or "none"
    return (
        f"no loaded release is valid on {on} (loaded: {known}): load FY{year}, with the update of that day if there was one, "
        "by `llmcoder ingest-release`, then code this date again"
    )
