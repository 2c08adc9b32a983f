"""Nights: what each run of `code_encounters` did, whether it looks like the nights before it, and what it did not code."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, Request
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse

from llmcoder_pages.night_figures import (
    NIGHTS_COMPARED,
    REASONS,
    compare_figures,
    draw_chapters,
    draw_trends,
    list_chapters,
    name_figure,
    write_figure,
)
from llmcoder_pages.paging import decode_cursor, take_page
from llmcoder_pages.rendering import render_page
from llmcoder_pages.security import NOTES_DAG, require_reader
from llmcoder_pages.stores import Stores
from llmcoder_tasks.connections import Connections
from llmcoder_tasks.database import Row

router = APIRouter(prefix="/nights", dependencies=[Depends(require_reader(NOTES_DAG))])

PAGE_SIZE = 30


@router.get("", name="nights")
def list_nights(request: Request, stores: Stores, after: str | None = None) -> HTMLResponse:
    """All nights, the newest first."""
    started_at, run_id = decode_cursor(after, (datetime.fromisoformat, str))
    rows = stores.database.fetch_all("list_nights", after_started_at=started_at, after_run_id=run_id, limit=PAGE_SIZE + 1)
    page = take_page([_with_speed(row) for row in rows], PAGE_SIZE, ("started_at", "coding_run_id"))
    return render_page(request, "nights.html", page=page, is_later_page=after is not None)


@router.get("/gaps/{coding_run_id:path}", name="night_gaps")
def list_gaps(request: Request, stores: Stores, coding_run_id: str, after: str | None = None) -> HTMLResponse:
    """What a night did not code, row by row. 404 when no such run was planned."""
    night = _fetch_night(stores, coding_run_id)
    kind, place = decode_cursor(after, (str, str))
    rows = stores.database.fetch_all(
        "list_night_gaps", coding_run_id=coding_run_id, after_kind=kind, after_place=place, limit=PAGE_SIZE + 1
    )
    page = take_page(rows, PAGE_SIZE, ("kind", "place"))
    return render_page(request, "nights/gaps.html", night=night, page=page, is_later_page=after is not None, reasons=REASONS)


@router.get("/{coding_run_id:path}", name="night")
def show_night(request: Request, stores: Stores, coding_run_id: str) -> HTMLResponse:
    """One night. 404 when no such run was planned."""
    night = _fetch_night(stores, coding_run_id)
    before = stores.database.fetch_all("list_nights_before", coding_run_id=coding_run_id, limit=NIGHTS_COMPARED)
    values: dict[str, Any] = {
        "night": night,
        "counted": stores.database.fetch_one("count_night_notes", coding_run_id=coding_run_id),
        "work": stores.database.fetch_one("sum_night_work", coding_run_id=coding_run_id),
        "gaps": stores.database.fetch_all("count_night_gaps", coding_run_id=coding_run_id),
        "reasons": REASONS,
        "left": [(name_figure(left["figure"]), left) for left in night["out_of_band"]],
        "write_figure": write_figure,
        "before": before,
        "run_path": run_path(coding_run_id),
    }
    if night["notes"] is not None:
        values["comparisons"] = compare_figures(night, before)
        values["trends"] = draw_trends(night, before) if before else {}
        values["chapters"] = draw_chapters(night, before)
        values["chapter_rows"] = list_chapters(night, before)
    return render_page(request, "nights/night.html", **values)


def run_path(coding_run_id: str) -> str | None:
    """Where Airflow shows the run that coded a night; None for a night coded from a shell."""
    run_id, _, model_id = coding_run_id.partition(" ")
    return f"/dags/{NOTES_DAG}/runs/{quote(run_id, safe='')}" if model_id else None


def _fetch_night(stores: Connections, coding_run_id: str) -> Row:
    night = stores.database.fetch_one("fetch_night", coding_run_id=coding_run_id)
    if night is None:
        raise HTTPException(404)
    return _with_speed(night)


def _with_speed(night: Row) -> Row:
    """With how long it took and how many notes a second that makes, both None while it runs."""
    span = night["finished_at"] - night["started_at"] if night["finished_at"] else None
    seconds = span.total_seconds() if span else 0.0
    speed = night["notes"] / seconds if night["notes"] and seconds else None
    return {**night, "duration": span, "notes_per_second": speed}
