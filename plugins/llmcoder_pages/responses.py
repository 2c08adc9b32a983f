"""What every answer has to have: headers against injected scripts and other sites' frames, and no word of an unexpected error.

The wrapper stands around the whole application, so that no route and no error page goes without.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import Response

from llmcoder_tasks.errors import describe_place

logger = logging.getLogger(__name__)

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'self'",  # Airflow's own UI shows the pages in a frame
    )
)

REPORT_POLICY = (
    "sandbox; default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
"""For a report of the artifact store, a page with style sheet and drawings of its own: it runs no script and counts as another
site, so that nothing in it reaches a login."""

HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    # Not no-referrer: browsers would then send `Origin: null` with our own forms.
    "Referrer-Policy": "same-origin",
}


class GuardedResponses:
    """ASGI middleware: adds the headers, and turns an unexpected error into a page and one log line without its message.

    `render_error` makes that page for a request.
    """

    def __init__(self, app: Any, render_error: Callable[[Request], Response]) -> None:
        self.app = app
        self.render_error = render_error

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def send_guarded(message: Any) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in (*HEADERS.items(), ("Cache-Control", "no-store")):
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self.app(scope, receive, send_guarded)
        except Exception as error:
            # Its message may quote a note, and whoever raises it further logs it.
            logger.error("%s %s: %s", scope["method"], getattr(scope.get("route"), "path", "?"), describe_place(error))
            if not started:
                await self.render_error(Request(scope, receive))(scope, receive, send_guarded)
