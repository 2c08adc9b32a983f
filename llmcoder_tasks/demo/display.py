"""One line for each task: redrawn in place in a terminal, printed when something changes everywhere else."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

NOTE_INTERVAL_SECONDS = 20.0

_STYLES = {
    "success": "green",
    "failed": "bold red",
    "upstream_failed": "red",
    "running": "yellow",
    "up_for_retry": "magenta",
    "skipped": "dim",
}


@dataclass(frozen=True, slots=True)
class TaskLine:
    """A task as it stands. `note` is its newest log line while it runs; `seconds` is None before it began."""

    dag_id: str
    task_id: str
    state: str
    seconds: float | None
    note: str


class Display(Protocol):
    """Where the demo shows how far it is."""

    def show(self, lines: Sequence[TaskLine]) -> None:
        """Replace what stands of these tasks."""

    def say(self, text: str) -> None:
        """Add a line that stays."""


@contextmanager
def open_display(console: Console) -> Iterator[Display]:
    """The display that fits the console."""
    if not console.is_terminal:
        yield PlainDisplay(console)
        return
    with Live(console=console, refresh_per_second=2) as live:
        yield LiveDisplay(live)


class LiveDisplay:
    """A table that is redrawn in place."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._lines: dict[tuple[str, str], TaskLine] = {}

    def show(self, lines: Sequence[TaskLine]) -> None:
        self._lines |= {(line.dag_id, line.task_id): line for line in lines}
        self._live.update(_render_table(list(self._lines.values())))

    def say(self, text: str) -> None:
        self._live.console.print(escape(text))


class PlainDisplay:
    """A line whenever a task changes its state, and now and then the newest log line of a running one."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown: dict[tuple[str, str], tuple[str, float]] = {}

    def show(self, lines: Sequence[TaskLine]) -> None:
        for line in lines:
            key = (line.dag_id, line.task_id)
            state, at = self._shown.get(key, ("waiting", 0.0))
            now = time.monotonic()
            if line.state == state and not (line.state == "running" and now - at >= NOTE_INTERVAL_SECONDS):
                continue
            self._shown[key] = (line.state, now)
            if line.state not in ("queued", "scheduled"):
                name = f"{line.dag_id}.{line.task_id}"
                self.say(f"{name:<32} {line.state:<12} {_render_seconds(line.seconds):>8}  {line.note}".rstrip())

    def say(self, text: str) -> None:
        self._console.print(escape(text), soft_wrap=True)


def _render_table(lines: Sequence[TaskLine]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, justify="right")
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    previous = ""
    for line in lines:
        if line.dag_id != previous:
            table.add_row(Text(line.dag_id, style="bold"))
            previous = line.dag_id
        table.add_row(
            Text(f"  {line.task_id}"),
            Text(line.state, style=_STYLES.get(line.state, "")),
            _render_seconds(line.seconds),
            Text(line.note),
        )
    return table


def _render_seconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.1f} s"
