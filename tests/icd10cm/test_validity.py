"""Codes by date: intervals put together by hand, and the view behind them in a real PostgreSQL."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import text

from llmcoder_tasks.cli import main
from llmcoder_tasks.database import Database, load_queries
from llmcoder_tasks.icd10cm.code_set import find_release
from llmcoder_tasks.icd10cm.release_reader import read_release
from llmcoder_tasks.icd10cm.source import read_source
from llmcoder_tasks.icd10cm.validity import CodeInterval, explain_gap, find_interval, join_intervals
from llmcoder_tasks.records import parse_release_key

RELEASES = ("FY2021-January", "FY2023", "FY2024", "FY2025", "FY2026", "FY2026-April", "FY2027")


def _row(year: int, *, until: date | None = None, is_billable: bool = True) -> CodeInterval:
    return CodeInterval("E119", f"Title of {year}", is_billable, date(year - 1, 10, 1), until, f"FY{year}")


def test_neighbouring_releases_are_one_interval_and_a_gap_or_a_header_ends_it() -> None:
    rows = [
        _row(2022, until=date(2022, 9, 30)),
        _row(2024, until=date(2024, 9, 30)),
        _row(2025, until=date(2025, 9, 30)),
        _row(2026, is_billable=False),
    ]
    joined = join_intervals(rows)
    assert [(one.valid_from, one.valid_until, one.title) for one in joined] == [
        (date(2021, 10, 1), date(2022, 9, 30), "Title of 2022"),
        (date(2023, 10, 1), date(2025, 9, 30), "Title of 2025"),
        (date(2025, 10, 1), None, "Title of 2026"),
    ]
    assert find_interval(joined, date(2023, 1, 1)) is None
    assert find_interval(joined, date(2024, 9, 30)) == joined[1]
    assert find_interval(joined, date(2099, 1, 1)) == joined[2]


def test_a_gap_is_said_with_its_day_what_is_loaded_and_what_to_do() -> None:
    said = explain_gap(date(2023, 10, 1), [("FY2026", date(2025, 10, 1))])
    assert said.startswith("no loaded release is valid on 2023-10-01 (loaded: FY2026 from 2025-10-01): load FY2024, ")
    assert "load FY2023, " in explain_gap(date(2023, 9, 30), [])


def _load(database: Database, key: str, codes: list[tuple[str, bool, str]]) -> None:
    with database.transaction() as transaction:
        transaction.execute(
            "upsert_release",
            {"release_key": key, "effective_from": parse_release_key(key), "source": "test", "content_sha256": key,
             "previous_release_key": None, "code_count": len(codes), "billable_count": sum(code[1] for code in codes), "uri": "file:///x"},
        )  # fmt: skip
        transaction.copy_rows(
            "codes",
            ["release_key", "code", "is_billable", "short_title", "long_title", "position"],
            [(key, code, billable, title, title, position) for position, (code, billable, title) in enumerate(codes, start=1)],
        )


@pytest.mark.integration
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_each_release_ends_before_the_next_or_with_its_year_in_whatever_order_they_came(
    database: Database, order: tuple[int, ...]
) -> None:
    keys = ("FY2023-April", "FY2025", "FY2025-April")
    for place in order:
        _load(database, keys[place], [("E119", True, "Diabetes")])
    days = ("2023-03-31", "2023-04-01", "2023-09-30", "2023-10-01", "2024-10-01", "2025-03-31", "2025-04-01", "2030-01-01")
    found = [find_release(database, date.fromisoformat(day)) for day in days]
    assert [release and release.key for release in found] == [
        None, "FY2023-April", "FY2023-April", None, "FY2025", "FY2025", "FY2025-April", "FY2025-April",
    ]  # fmt: skip


@pytest.fixture
def many_releases(database: Database, request: pytest.FixtureRequest) -> Database:
    """Seven official releases where they are beside the project, made ones otherwise."""
    folder = Path(__file__).resolve().parents[3] / "shared" / "data" / "icd10cm"
    for key in RELEASES:
        if folder.is_dir():
            release = read_release(read_source(str(folder / key)), release_key=key)
            codes = [(code.code, code.is_billable, code.long_title) for code in release.codes]
        else:
            codes = [(f"A{number:05d}", True, f"Condition {number}") for number in range(20_000)] + [("E119", True, "Diabetes")]
        _load(database, key, codes)
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE"))
    return database


@pytest.mark.integration
def test_a_code_on_a_date_is_found_by_an_index_among_all_releases(many_releases: Database) -> None:
    found: Any = many_releases.fetch_one("find_code_on", code="E119", on_date=date(2025, 9, 30))
    assert (found["release_key"], found["valid_until"]) == ("FY2025", date(2025, 9, 30))
    with many_releases.engine.connect() as connection:
        rows = connection.execute(text("EXPLAIN " + load_queries()["find_code_on"]), {"code": "E119", "on_date": date(2025, 9, 30)})
        plan = "\n".join(row[0] for row in rows)
    assert "Index" in plan
    assert "Seq Scan on codes" not in plan


@pytest.mark.integration
def test_the_command_shows_interval_release_and_successors(database: Database, tmp_path: Path) -> None:
    _load(database, "FY2024", [("E668", True, "Other obesity"), ("E669", True, "Obesity, unspecified")])
    _load(database, "FY2025", [("E668", False, "Other obesity"), ("E6681", True, "Obesity class"), ("E669", True, "Obesity")])
    with database.transaction() as transaction:
        transaction.copy_rows(
            "code_conversions",
            ["release_key", "code", "previous_code", "effective_from"],
            [("FY2025", "E6681", "E668", "2024-10-01")],
        )
    environment = {
        "LLMCODER_HOME": str(tmp_path),
        "LLMCODER_DATABASE_URL": database.engine.url.render_as_string(hide_password=False),
    }

    def ask(*arguments: str) -> Any:
        return CliRunner().invoke(main, ["code-on-date", *arguments], env=environment)

    before = json.loads(ask("e66.8", "2024-09-30").output)
    assert before == {
        "code": "E66.8", "on": "2024-09-30", "release": "FY2024", "is_billable": True, "title": "Other obesity",
        "valid_from": "2023-10-01", "valid_until": "2024-09-30", "successors": {},
    }  # fmt: skip
    after = json.loads(ask("E66.8", "2024-10-01").output)
    assert (after["is_billable"], after["valid_from"], after["successors"]) == (False, "2024-10-01", {"E66.81": "Obesity class"})
    unchanged = json.loads(ask("E66.9", "2026-01-01").output)
    assert (unchanged["valid_from"], unchanged["valid_until"], unchanged["title"]) == ("2023-10-01", None, "Obesity")
    assert "no loaded release is valid on 2020-01-01" in ask("E66.9", "2020-01-01").output
    assert "Z99.9 is in no loaded release" in ask("Z99.9", "2026-01-01").output
