"""Pages of a long list by keyset: a cursor names the last row shown, and the next page begins behind it, however deep it is.

A query takes the values of that row, and NULL for the first page:

    WHERE (CAST(:after_day AS date) IS NULL OR (day, run_id) < (CAST(:after_day AS date), :after_run_id))
    ORDER BY day DESC, run_id DESC LIMIT :limit

It is asked for one row more than is shown, which tells whether there is a next page.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import HTTPException

from llmcoder_tasks.database import Row

_GREATEST = 2**63 - 1
"""Of a number in the database."""


@dataclass(frozen=True, slots=True)
class Page:
    """Rows to show, and the cursor of the page behind them: None on the last one."""

    rows: Sequence[Row]
    next_cursor: str | None


def take_page(rows: Sequence[Row], size: int, key: Sequence[str]) -> Page:
    """The first `size` of `size + 1` rows; `key` names the columns of the order."""
    shown = rows[:size]
    more = len(rows) > size
    return Page(shown, encode_cursor([shown[-1][name] for name in key]) if more else None)


def encode_cursor(values: Sequence[Any]) -> str:
    """The values of a row's key as one word for a URL."""
    return base64.urlsafe_b64encode(json.dumps(values, default=str).encode()).decode().rstrip("=")


def decode_cursor(cursor: str | None, readers: Sequence[Callable[[Any], Any]]) -> list[Any]:
    """The values back, each through its reader, such as `date.fromisoformat`; as many None without a cursor.

    Raises HTTPException 400 on what no page has handed out.
    """
    if not cursor:
        return [None] * len(readers)
    try:
        values = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        read_back = [read(value) for read, value in zip(readers, values, strict=True)]
        if any(isinstance(value, int) and abs(value) > _GREATEST for value in read_back):
            raise ValueError("no row has such a number")
        return read_back
    except (ValueError, TypeError, AttributeError):
        raise HTTPException(400, "This link to a page of the list is damaged: go back to its beginning.") from None
