"""Follows DAG runs: states and durations from Airflow's API, the newest progress line from the task's log file."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

import psutil

from llmcoder_tasks import services
from llmcoder_tasks.demo.display import Display, TaskLine
from llmcoder_tasks.errors import ServiceError
from llmcoder_tasks.services.airflow_api import AirflowApi, DagRun, TaskState
from llmcoder_tasks.settings import Settings

START_SECONDS = 180.0
TAIL_BYTES = 64 * 1024
TAIL_LINES = 15
FAST_POLL_SECONDS = 1.0
SLOW_POLL_SECONDS = 3.0  # once a run takes long, watching it must not take its processor time
MEMORY_INTERVAL_SECONDS = 5.0

_ORDER = (
    "failed",
    "upstream_failed",
    "running",
    "up_for_retry",
    "awaiting_input",
    "queued",
    "scheduled",
    None,
    "skipped",
    "success",
)
"""Of several mapped tasks the state that says most is shown."""


class MemoryMeter:
    """The largest memory that the embedded services, their tasks and this process held together.

    Proportional set size, so that pages shared by several processes count once; resident size where the system knows no better.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._next = 0.0
        self.peak_mib = 0.0

    def measure(self) -> None:
        """Look, unless the last look was a moment ago."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + MEMORY_INTERVAL_SECONDS
        roots = {psutil.Process().pid, *(state.pid for state in services.status(self._settings) if state.pid)}
        pids = set(roots)
        for pid in roots:
            pids |= _list_descendants(pid)
        self.peak_mib = max(self.peak_mib, sum(map(_read_memory, pids)) / 2**20)


def _list_descendants(pid: int) -> set[int]:
    try:
        return {child.pid for child in psutil.Process(pid).children(recursive=True)}
    except psutil.Error:
        return set()


def _read_memory(pid: int) -> int:
    try:
        facts = psutil.Process(pid).memory_full_info()
        return int(getattr(facts, "pss", facts.rss))
    except psutil.Error:
        return 0


class Follower:
    """Shows runs while they go and raises when one fails.

    Args:
        api: of the running Airflow.
        logs_folder: where Airflow writes task logs.
        display: where lines go.
        meter: looked at on every poll.
    """

    def __init__(self, api: AirflowApi, logs_folder: Path, display: Display, meter: MemoryMeter) -> None:
        self._api = api
        self._logs_folder = logs_folder
        self._display = display
        self._meter = meter
        self._since: dict[tuple[str, str, int, int], float] = {}
        self._notes: dict[tuple[str, str, int, int, str | None], str] = {}

    def await_new_run(self, dag_id: str, known: set[str]) -> DagRun:
        """The first run that is not among the known ones. Raises ServiceError when none begins."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            new = [run for run in self._api.list_runs(dag_id) if run.run_id not in known]
            if new:
                return new[-1]
            self._meter.measure()
            time.sleep(FAST_POLL_SECONDS)
        raise ServiceError(f"{dag_id} was not started by its asset within {START_SECONDS:.0f} s: see scheduler.log")

    def follow(self, run: DagRun) -> None:
        """Show a run until its end. Raises ServiceError with the last line and the place of the log when a task fails."""
        began = time.monotonic()
        while True:
            run = self._api.fetch_run(run.dag_id, run.run_id)
            tasks = self._api.list_tasks(run.dag_id, run.run_id)
            self._display.show(self._describe(run, tasks))
            self._meter.measure()
            if run.is_finished:
                break
            time.sleep(FAST_POLL_SECONDS if time.monotonic() - began < 30 else SLOW_POLL_SECONDS)
        if run.state == "failed":
            raise self._explain(run, tasks)

    def _describe(self, run: DagRun, tasks: Iterable[TaskState]) -> list[TaskLine]:
        lines = []
        for task_id, group in groupby(tasks, key=lambda task: task.task_id):
            members = list(group)
            states = [task.state for task in members]
            leading = min(members, key=lambda task: _ORDER.index(task.state) if task.state in _ORDER else len(_ORDER))
            note = self._read_note(run, leading)
            if len(members) > 1:
                done = sum(state in ("success", "skipped") for state in states)
                note = f"{done}/{len(members)} {note}".strip()
            seconds = [duration for task in members if (duration := self._duration(run, task)) is not None]
            lines.append(TaskLine(run.dag_id, task_id, leading.state or "waiting", max(seconds, default=None), note))
        return lines

    def _duration(self, run: DagRun, task: TaskState) -> float | None:
        """Seconds that a task has taken so far; Airflow itself says it only at the end."""
        if task.state != "running":
            return task.duration_seconds
        now = time.monotonic()
        return now - self._since.setdefault((run.run_id, task.task_id, task.map_index, task.try_number), now)

    def _read_note(self, run: DagRun, task: TaskState) -> str:
        """The newest line that a task has logged. Of a finished one it is read once."""
        key = (run.run_id, task.task_id, task.map_index, task.try_number, task.state)
        if key not in self._notes:
            note = next(reversed(read_log_lines(self._log_file(run, task))), "")
            if task.state not in ("success", "skipped"):
                return note
            self._notes[key] = note
        return self._notes[key]

    def _log_file(self, run: DagRun, task: TaskState) -> Path:
        folder = self._logs_folder / f"dag_id={run.dag_id}" / f"run_id={run.run_id}" / f"task_id={task.task_id}"
        if task.map_index >= 0:
            folder /= f"map_index={task.map_index}"
        return folder / f"attempt={task.try_number}.log"

    def _explain(self, run: DagRun, tasks: Iterable[TaskState]) -> ServiceError:
        failed = next((task for task in tasks if task.state == "failed"), None)
        if failed is None:
            return ServiceError(f"{run.dag_id} failed before any of its tasks ran: see scheduler.log")
        log_file = self._log_file(run, failed)
        lines = read_log_lines(log_file)
        self._display.say(f"\nThe end of {log_file}:")
        for line in lines[-TAIL_LINES:]:
            self._display.say(f"  {line}")
        return ServiceError(f"{run.dag_id}.{failed.task_id} failed: {lines[-1] if lines else 'no log'} (see {log_file})")


def read_log_lines(log_file: Path) -> list[str]:
    """What the end of a task log says, oldest first, without Airflow's own bookkeeping."""
    try:
        with log_file.open("rb") as stream:
            stream.seek(max(0, log_file.stat().st_size - TAIL_BYTES))
            raw = stream.read().decode("utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    return [line for line in map(_read_event, raw) if line]


def _read_event(line: str) -> str:
    """What one line of a log file tells a person: our own messages, errors, and why a task was skipped; else ""."""
    try:
        record = json.loads(line)
        errors = record.get("error_detail")
        if errors:
            return f"{errors[0]['exc_type']}: {errors[0]['exc_value']}"
        own = str(record.get("logger", "")).startswith("llmcoder")
        return str(record["event"] if own else record.get("reason", "")).strip()
    except (ValueError, AttributeError, KeyError):  # cut off by the tail
        return ""
