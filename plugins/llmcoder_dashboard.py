"""The pages of LLMCoder inside the Airflow UI: an entry in its navigation, and a tab beside each DAG run.

The pages themselves are the package `llmcoder_pages`. It is built at the first request: scheduler, workers and DAG processor load
this plugin too and never need it.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from airflow.plugins_manager import AirflowPlugin
from airflow.sdk.configuration import conf

from llmcoder_tasks.errors import LLMCoderError

logger = logging.getLogger(__name__)

URL_PREFIX = "/llmcoder"
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class LazyPages:
    """An ASGI application that builds the pages when somebody first asks for one, and reads the settings then, once."""

    def __init__(self) -> None:
        self._app: Any = None

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Send) -> None:
        if self._app is None:
            try:
                self._app = _build()
            except LLMCoderError as error:
                logger.error("the pages of LLMCoder cannot be built: %s", error)
                await _refuse(send)
                return
        await self._app(scope, receive, send)


def _build() -> Any:
    from llmcoder_pages.app import create_app
    from llmcoder_tasks.settings import Settings

    return create_app(Settings.from_environment())


async def _refuse(send: Send) -> None:
    text = b"The settings of LLMCoder are not in order; the log of Airflow's API server says which."
    await send({"type": "http.response.start", "status": 503, "headers": [(b"content-type", b"text/plain; charset=utf-8")]})
    await send({"type": "http.response.body", "body": text})


def _href(path: str) -> str:
    """What a browser asks for; Airflow itself may live below a path."""
    return urlsplit(conf.get("api", "base_url", fallback="")).path.rstrip("/") + URL_PREFIX + path


class DashboardPlugin(AirflowPlugin):
    """Registers the pages and where the UI shows them."""

    name = "llmcoder_dashboard"
    fastapi_apps = [{"name": "LLMCoder", "app": LazyPages(), "url_prefix": URL_PREFIX}]  # noqa: RUF012 - wants plain lists
    external_views = [  # noqa: RUF012
        {
            "name": "LLMCoder",
            "href": _href("/"),
            "url_route": "llmcoder",
            "destination": "nav",
            "icon": _href("/static/icon.svg"),
            "icon_dark_mode": _href("/static/icon_dark.svg"),
        },
        {
            "name": "LLMCoder",
            "href": _href("/runs?dag_id={DAG_ID}&run_id={RUN_ID}"),
            "url_route": "llmcoder_run",
            "destination": "dag_run",
        },
    ]
