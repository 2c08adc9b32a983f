"""Nights: what each run of `code_encounters` did, and whether it looks like the nights before it."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse

from llmcoder_pages.paging import decode_cursor, take_page
from llmcoder_pages.rendering import render_page
from llmcoder_pages.security import NOTES_DAG, require_reader
from llmcoder_pages.stores import Stores

router = APIRouter(prefix="/nights", dependencies=[Depends(require_reader(NOTES_DAG))])

PAGE_SIZE = 30


@router.get("", name="nights")
def list_nights(request: Request, stores: Stores, after: str | None = None) -> HTMLResponse:
    """All nights, the newest first."""
    from datetime import datetime

    started_at, run_id = decode_cursor(after, (datetime.fromisoformat, str))
    rows = stores.database.fetch_all("list_nights", after_started_at=started_at, after_run_id=run_id, limit=PAGE_SIZE + 1)
    page = take_page(rows, PAGE_SIZE, ("started_at", "coding_run_id"))
    return render_page(request, "nights.html", page=page, is_later_page=after is not None)


@router.get("/{coding_run_id:path}", name="night")
def show_night(request: Request, stores: Stores, coding_run_id: str) -> HTMLResponse:
    """One night. 404 when no such run was planned."""
    night = stores.database.fetch_one("fetch_night", coding_run_id=coding_run_id)
    if night is None:
        raise HTTPException(404)
    return render_page(request, "night.html", night=night)
