"""A headless Chromium and the pages as a server of this machine."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pages_app
import pytest
from chromium import open_chromium


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium for the tests of a file; they are skipped where there is none.

    Not for longer: playwright keeps an event loop running in the thread of all tests.
    """
    with open_chromium() as started:
        yield started


@pytest.fixture
def server(pages: pages_app.Pages) -> Iterator[str]:
    """The address of the pages, served by uvicorn on this machine: `http://127.0.0.1:PORT/llmcoder/`."""
    import uvicorn

    running = uvicorn.Server(uvicorn.Config(pages.served, host="127.0.0.1", port=0, log_level="warning"))
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not running.started and time.monotonic() < deadline:
        time.sleep(0.02)
    port = running.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}{pages_app.PREFIX}/"
    running.should_exit = True
    thread.join(timeout=10)


class Visitor:
    """Opens pages of the server as somebody with a role: `visit("nights", role="op", dark=True, width=390)`, a playwright page.

    What a page writes to the console as an error, a refused script among them, fails the test at its end.
    """

    def __init__(self, browser: Any, server: str) -> None:
        self.browser, self.server = browser, server
        self.complaints: list[str] = []
        self._contexts: list[Any] = []

    def __call__(self, path: str, *, role: str = "viewer", dark: bool = False, width: int = 1280, height: int = 900) -> Any:
        context = self.browser.new_context(viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light")
        self._contexts.append(context)
        context.add_cookies([{"name": "_token", "value": pages_app.login_token(role, role), "url": self.server}])
        page = context.new_page()
        page.on("console", lambda message: self.complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.goto(self.server + path)
        return page

    def close(self) -> None:
        """Close what was opened. Raises AssertionError with what the pages complained about."""
        for context in self._contexts:
            context.close()
        assert self.complaints == []


@pytest.fixture
def visit(browser: Any, server: str) -> Iterator[Visitor]:
    """See `Visitor`."""
    visitor = Visitor(browser, server)
    yield visitor
    visitor.close()
