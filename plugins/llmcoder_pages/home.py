"""Home, on one screen: is tonight fine, which model is in service, is a release coming, what waits for a person."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import HTMLResponse, RedirectResponse

from llmcoder_pages.rendering import format_count, path_of, render_page, routes_of
from llmcoder_pages.security import NOTES_DAG, Person, require_reader
from llmcoder_pages.stores import Stores
from llmcoder_tasks.connections import Connections
from llmcoder_tasks.database import Row
from llmcoder_tasks.records import render_release_key
from llmcoder_tasks.steps.check_deadlines import list_deadlines

router = APIRouter()

Reader = Annotated[Person, Depends(require_reader(NOTES_DAG))]

LATE_AFTER = timedelta(hours=26)
"""A night begins every 24 hours; two more for one that waits for the night before."""

LEAST_NIGHTS = 7
"""Fewer nights before it, and a night is not compared: `evaluation/drift.py`."""

RELEASE_HORIZON_DAYS = 400
"""Releases are loaded months before they take effect: all of them are shown."""

MOST_REVIEWS = 10_000
"""Where counting the queue ends."""

SECTION_OF_DAG = {
    "build_dataset": "models",
    "check_deadlines": "releases",
    "code_encounters": "nights",
    "export_encounters": "review",
    "ingest_release": "releases",
    "rollback_model": "models",
    "train_model": "models",
}


@dataclass(frozen=True, slots=True)
class Tonight:
    """The answer to whether tonight is fine: a class of a banner (`good`, `warn`, `bad`), a word and a sentence."""

    kind: str
    answer: str
    why: str


@router.get("/", name="home")
def show_home(request: Request, stores: Stores, person: Reader) -> HTMLResponse:
    """The state of everything on one screen."""
    database = stores.database
    night = database.fetch_one("fetch_newest_night")
    model = database.fetch_one("fetch_model_in_service")
    today = datetime.now(UTC).date()
    return render_page(
        request,
        "home.html",
        night=night,
        tonight=judge_tonight(night),
        model=model,
        **_find_releases(stores, model, today),
        reviews=database.fetch_one("count_open_reviews", person=person.name, most=MOST_REVIEWS + 1),
        most_reviews=MOST_REVIEWS,
        mine=database.fetch_all("list_my_reviews", person=person.name, limit=5) if person.may_read_notes else [],
        verdicts=database.fetch_all("list_waiting_verdicts"),
    )


@router.get("/runs", name="run")
def show_run(request: Request, stores: Stores, person: Reader, dag_id: str, run_id: str) -> RedirectResponse:
    """What a DAG run is about: its night, or the group of pages of its DAG. Airflow shows this beside each run."""
    night = stores.database.fetch_one("find_night_of_run", run_id=run_id) if dag_id == NOTES_DAG else None
    if night:
        return RedirectResponse(path_of(request, "night", coding_run_id=night["coding_run_id"]), 303)
    section = SECTION_OF_DAG.get(dag_id, "home")
    return RedirectResponse(path_of(request, section if section in routes_of(request) else "home"), 303)


def judge_tonight(night: Row | None) -> Tonight:
    """Whether the newest night (a row of `fetch_newest_night`) is as it should be, and if not, what is wrong first."""
    if night is None:
        return Tonight("warn", "No night yet", "Nothing was coded here so far.")
    late = night["age"] > LATE_AFTER
    if night["status"] == "running":
        done = f"{format_count(night['coded'])} of {format_count(night['encounter_count'])} encounters are coded."
        return Tonight("bad" if late else "good", "Late" if late else "Running", done)
    if night["status"] == "failed":
        return Tonight("bad", "No", "The newest night failed. What it coded is kept; the rest is coded when its tasks are cleared.")
    if late:
        return Tonight("bad", "Late", f"No night began for {night['age'].total_seconds() / 3600:.0f} hours: is the DAG paused?")
    return _judge_figures(night)


def _judge_figures(night: Row) -> Tonight:
    if left := night["out_of_band_count"]:
        return Tonight("warn", "Look at it", f"{left} figure{'s' if left > 1 else ''} left the band of the nights before.")
    if failed := round((night["failed_share"] or 0) * (night["notes"] or 0)):
        return Tonight("warn", "Nearly", f"Coded, but for {format_count(failed)} note{'s' if failed > 1 else ''} that failed.")
    if night["nights_compared"] is None:
        return Tonight("warn", "Not measured", "Coded to its end, but its figures were not compared with the nights before.")
    if night["nights_compared"] < LEAST_NIGHTS:
        return Tonight("good", "Yes", "Coded to its end. There are too few nights before it to compare its figures with.")
    return Tonight("good", "Yes", "Coded to its end, every figure as in the nights before.")


def _find_releases(stores: Connections, model: Row | None, today: date) -> dict[str, Any]:
    """Values of the template: releases that the model in service did not learn, the newest, one that nobody loaded, the next."""
    learnt = model["release_key"] if model else None
    deadlines = list_deadlines(learnt, on=today, days=RELEASE_HORIZON_DAYS, database=stores.database)
    newest = stores.database.fetch_one("fetch_newest_release", today=today)
    last, coming = find_release_days(today)
    is_missing = newest is None or newest["in_effect_from"] is None or newest["in_effect_from"] < last
    return {
        "deadlines": deadlines,
        "newest_release": newest,
        "missing_release": (render_release_key(last), last) if is_missing else None,
        "next_release": (render_release_key(coming), coming, (coming - today).days),
    }


def find_release_days(today: date) -> tuple[date, date]:
    """The last and the next day on which releases regularly take effect: 1 April and 1 October."""
    days = [date(year, month, 1) for year in (today.year - 1, today.year, today.year + 1) for month in (4, 10)]
    return max(day for day in days if day <= today), min(day for day in days if day > today)
