"""The application: every group of pages under one guard, and errors as pages of the same style."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from llmcoder_pages import codes, home, models, nights, releases, reports, review
from llmcoder_pages.rendering import STATIC_FOLDER, render_page
from llmcoder_pages.responses import GuardedResponses
from llmcoder_pages.security import find_person, verify_rights
from llmcoder_pages.stores import OpenStores, open_once
from llmcoder_tasks.connections import connect
from llmcoder_tasks.errors import DatabaseUnreachable, LLMCoderError, ReviewError, ReviewTaken, SettingsError, StorageUnreachable
from llmcoder_tasks.settings import Settings

logger = logging.getLogger(__name__)

PAGES: Sequence[APIRouter] = (
    home.router,
    nights.router,
    models.router,
    releases.router,
    codes.router,
    review.router,
    reports.router,
)
"""Every group of pages; a new one goes in here."""

UNREACHABLE = (DatabaseUnreachable, StorageUnreachable, SettingsError)


def create_app(settings: Settings, open_stores: OpenStores = connect, routers: Sequence[APIRouter] = PAGES) -> FastAPI:
    """All pages behind Airflow's login. Connects to nothing. Raises ServiceError when a route declares no right."""
    # Airflow asks for a login in each of its own routes, and in none of a plugin's.
    app = FastAPI(dependencies=[Depends(find_person)], docs_url=None, redoc_url=None, openapi_url=None)
    app.state.settings = settings
    app.state.open_stores = open_once(settings, open_stores)
    for router in routers:
        app.include_router(router)
    app.mount("/static", LongKeptFiles(directory=STATIC_FOLDER), name="static")
    app.add_middleware(GuardedResponses, render_error=_show_unexpected)
    app.add_exception_handler(HTTPException, _show_http_error)
    app.add_exception_handler(RequestValidationError, _show_bad_request)
    app.add_exception_handler(LLMCoderError, _show_our_error)
    verify_rights(app)
    return app


class LongKeptFiles(StaticFiles):
    """Files whose address changes with their content (`url_for`): a browser asks for each once."""

    def file_response(self, *arguments: Any, **options: Any) -> Response:
        response = super().file_response(*arguments, **options)
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        return response


def _show_error(request: Request, status_code: int, message: str) -> Response:
    title = HTTPStatus(status_code).phrase
    return render_page(request, "error.html", status_code=status_code, title=title, message=message)


def _show_http_error(request: Request, error: Any) -> Response:
    messages = {
        401: "You are not logged in to Airflow, or no longer: log in, then load this page again.",
        404: "There is nothing at this address. What you look for may have another name, or is not loaded here.",
        405: "This address does not take such a request.",
    }
    is_plain = error.detail == HTTPStatus(error.status_code).phrase or error.status_code == 401
    return _show_error(request, error.status_code, messages.get(error.status_code, error.detail) if is_plain else error.detail)


def _show_bad_request(request: Request, error: Any) -> Response:
    # Names of fields alone: their values may be of a patient.
    fields = ", ".join(str(fault["loc"][-1]) for fault in error.errors())
    return _show_error(request, 422, f"The address or the form is not as it should be: {fields}. Go back and try again.")


def _show_our_error(request: Request, error: Any) -> Response:
    if isinstance(error, ReviewError):
        return _show_error(request, 409 if isinstance(error, ReviewTaken) else 400, str(error))
    logger.error("%s: %s: %s", getattr(request.scope.get("route"), "path", "?"), type(error).__name__, error)
    if isinstance(error, UNREACHABLE):
        return _show_error(
            request, 503, "The results database or the artifact store does not answer. Nothing is lost; try again in a minute. "
            "The log of Airflow's API server has the reason."
        )  # fmt: skip
    return _show_unexpected(request)


def _show_unexpected(request: Request) -> Response:
    return _show_error(request, 500, "Something went wrong on our side. The log of Airflow's API server says where.")
