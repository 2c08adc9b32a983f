"""A code on a date: whether it may stand on a claim of that day, since when and until when, and what took over from a dead one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from llmcoder_tasks.database import Database
from llmcoder_tasks.errors import ReleaseError
from llmcoder_tasks.icd10cm.code_set import find_release
from llmcoder_tasks.icd10cm.validity import CodeInterval, explain_gap, find_interval, join_intervals
from llmcoder_tasks.records import parse_code, render_code


@dataclass(frozen=True, slots=True)
class CodeOnDate:
    """What a code is on a day under the release valid then. `valid_from` and `valid_until` (None: until further notice) are days
    of the interval in which it is that, both included; None where the release lacks the code.

    `successors` are the billable codes of that release, with titles, that took over from a code which was billable before.
    """

    code: str
    on: date
    release: str
    is_billable: bool
    title: str | None
    valid_from: date | None
    valid_until: date | None
    successors: dict[str, str]


def find_code_on_date(code: str, on: date, database: Database) -> CodeOnDate:
    """Look a code up, with or without its dot.

    Raises ReleaseError when no loaded release is valid on that day, and when no release at all has the code.
    """
    name = parse_code(code)
    with database.transaction() as transaction:
        rows = [CodeInterval(**row) for row in transaction.fetch_all("list_code_validity", code=name)]
    release = find_release(database, on)
    if release is None:
        loaded = [(row["release_key"], row["effective_from"]) for row in database.fetch_all("list_releases")]
        raise ReleaseError(explain_gap(on, loaded))
    if not rows:
        raise ReleaseError(f"{render_code(name)} is in no loaded release: check the code")
    found = find_interval(join_intervals(rows), on)
    was_billable = any(row.is_billable and row.valid_from <= on for row in rows)
    is_billable = found is not None and found.is_billable
    followers = [] if is_billable or not was_billable else database.fetch_all("list_successors", code=name, release_key=release.key)
    row = database.fetch_one("find_code_on", code=name, on_date=on)
    return CodeOnDate(
        code=render_code(name),
        on=on,
        release=release.key,
        is_billable=is_billable,
        title=row["title"] if row else None,
        valid_from=found.valid_from if found else None,
        valid_until=found.valid_until if found else None,
        successors={render_code(one["code"]): one["title"] for one in followers},
    )
