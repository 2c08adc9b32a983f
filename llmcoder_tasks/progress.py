"""Progress that fits where it is read: a bar in a terminal, a plain line every few seconds in a task log; and what a step cost."""

from __future__ import annotations

import json
import logging
import resource
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from llmcoder_tasks.database import Database, keep_trying

logger = logging.getLogger(__name__)

T = TypeVar("T")

LINE_INTERVAL_SECONDS = 10.0


def track(items: Iterable[T], label: str, *, total: int, unit: str = "items") -> Iterator[T]:
    """Pass items on while showing how many are done, the rate and the time left."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import track as show_bar

        yield from show_bar(items, description=label, total=total, console=Console(stderr=True))
        return
    started = last = time.monotonic()
    done = 0
    for item in items:
        yield item
        done += 1
        now = time.monotonic()
        if now - last >= LINE_INTERVAL_SECONDS:
            last = now
            logger.info(render_progress(label, done, total, now - started, unit))
    logger.info("%s: %d %s in %.1f s", label, done, unit, time.monotonic() - started)


def render_progress(label: str, done: int, total: int, elapsed_seconds: float, unit: str) -> str:
    """`training: 300/1,200 steps (25 %), 12.0 steps/s, 75 s left`."""
    rate = done / elapsed_seconds if elapsed_seconds > 0 else 0.0
    left = f"{(total - done) / rate:,.0f} s left" if rate else "time left unknown"
    share = 100 * done / total if total else 100.0
    return f"{label}: {done:,}/{total:,} {unit} ({share:.0f} %), {rate:,.1f} {unit}/s, {left}"


@contextmanager
def record_step(database: Database, step: str, subject: str) -> Iterator[dict[str, Any]]:
    """Write how long the block took and its peak memory into `step_runs`. The block may put figures into the yielded dictionary.

    A `subject` put there replaces the given one: a step that finds out within the block what it works on says so at its end.

    Peak memory is the largest resident set of this process or of any child that ended, in MiB.
    """
    detail: dict[str, Any] = {}
    started = time.monotonic()
    yield detail
    peak_kib = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    row = {
        "step": step,
        "subject": detail.pop("subject", subject),
        "seconds": time.monotonic() - started,
        "peak_memory_mib": peak_kib / 1024,
        "detail": json.dumps(detail),
    }
    keep_trying(lambda: database.execute("record_step_run", row))
