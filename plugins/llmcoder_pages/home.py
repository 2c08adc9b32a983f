"""The first page: is tonight fine, which model is in service, is a release coming, what waits for a person."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import HTMLResponse

from llmcoder_pages.rendering import render_page
from llmcoder_pages.security import NOTES_DAG, Person, require_reader
from llmcoder_pages.stores import Stores

router = APIRouter()


@router.get("/", name="home")
def show_home(request: Request, stores: Stores, person: Annotated[Person, Depends(require_reader(NOTES_DAG))]) -> HTMLResponse:
    """The state of everything on one screen."""
    night = stores.database.fetch_one("fetch_newest_night")
    return render_page(request, "home.html", night=night)
