"""The results database and the artifact store, opened at the first request that needs them and kept from then on."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Annotated

from fastapi import Depends, Request

from llmcoder_tasks.connections import Connections
from llmcoder_tasks.settings import Settings

OpenStores = Callable[[Settings], Connections]


def open_once(settings: Settings, open_stores: OpenStores) -> Callable[[], Connections]:
    """Opens the stores at the first call and hands out the same ones later; tries again after a call that failed."""
    lock = Lock()
    opened: list[Connections] = []

    def get() -> Connections:
        with lock:
            if not opened:
                opened.append(open_stores(settings))
            return opened[0]

    return get


def get_stores(request: Request) -> Connections:
    """The stores of this application. Raises what opening them raises."""
    stores: Connections = request.app.state.open_stores()
    return stores


Stores = Annotated[Connections, Depends(get_stores)]
"""Parameter of a page that reads the database or the artifact store."""
