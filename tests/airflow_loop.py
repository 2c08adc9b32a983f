"""A running loop for tests: a real Airflow and PostgreSQL in a folder of their own, and what a person does there."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from chromium import open_chromium

from llmcoder_tasks import services
from llmcoder_tasks.connections import Connections, connect
from llmcoder_tasks.services.airflow_api import AirflowApi, DagRun
from llmcoder_tasks.settings import Settings

READING_SECONDS = 5
"""A person reads before they answer. An answer that comes before the scheduler has booked the end of the asking process, seconds
after the task began to wait, is lost on Airflow 3.3.2: it takes that end for a crash, tries the task again, and asks again."""


@dataclass(frozen=True)
class Loop:
    """A running loop: its services, its stores, and who may log in."""

    settings: Settings
    running: services.RunningServices
    api: AirflowApi
    stores: Connections


Approve = Callable[["Loop", DagRun, str], None]
"""Answers the question of a run with a comment."""


@contextmanager
def open_loop(home: Path, settings: Mapping[str, str]) -> Iterator[Loop]:
    """Everything up under `home`, and down at the end."""
    environment = {"LLMCODER_HOME": str(home), "LLMCODER_PORT": str(_free_port()), "LLMCODER_RECIPE": "tiny", **settings}
    environment.setdefault("LLMCODER_LANDING_SECONDS", "5")  # tests put whole releases there
    checked = Settings.from_environment(environment)
    try:
        running = services.up(checked)
        with running.open_api() as api:
            yield Loop(checked, running, api, connect(checked))
    finally:
        services.down(checked)


def unpause(loop: Loop, *dag_ids: str) -> None:
    """Start what a new Airflow keeps paused, once it knows it."""
    await_until(lambda: set(dag_ids) <= loop.api.list_dags().keys(), "Airflow parses the DAGs", 120)
    for dag_id in dag_ids:
        loop.api.set_paused(dag_id, paused=False)


def land(loop: Loop, name: str, files: Mapping[str, bytes]) -> None:
    """Put release files into the landing folder, whole at once."""
    incoming = loop.settings.home / "incoming"
    incoming.mkdir()
    for file_name, data in files.items():
        (incoming / file_name).write_bytes(data)
    os.rename(incoming, loop.settings.home / "landing" / name)


def await_until(
    condition: Callable[[], bool], what: str, seconds: float, api: AirflowApi | None = None, run: DagRun | None = None
) -> None:
    """Wait until something holds; fail when it does not in time, or when a run that has to bring it about has ended."""
    deadline = time.monotonic() + seconds
    while not condition():
        if run is not None and api is not None and api.fetch_run(run.dag_id, run.run_id).is_finished:
            pytest.fail(f"the run ended before {what}:\n{explain(api, run)}")
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds:.0f} s: {what}")
        time.sleep(1)


def await_run(api: AirflowApi, dag_id: str, *, partition_key: str | None = None, seconds: float = 180) -> DagRun:
    """The oldest run of a DAG, or of a partition of it, once it is there."""

    def find() -> list[DagRun]:
        return [run for run in api.list_runs(dag_id) if partition_key in (None, run.partition_key)]

    await_until(lambda: bool(find()), f"{dag_id} {partition_key or ''} starts by itself", seconds)
    return find()[-1]


def follow(api: AirflowApi, run: DagRun, seconds: float) -> DagRun:
    """Wait for the good end of a run."""
    ended = api.await_run(run.dag_id, run.run_id, timeout_seconds=seconds)
    assert ended.state == "success", explain(api, run)
    return ended


def state_of(api: AirflowApi, run: DagRun, task_id: str) -> Any:
    """The state of a task of a run."""
    return next((task.state for task in api.list_tasks(run.dag_id, run.run_id) if task.task_id == task_id), None)


def explain(api: AirflowApi, run: DagRun) -> str:
    """States of all tasks, and the end of the log of those that did not succeed."""
    lines = []
    for task in api.list_tasks(run.dag_id, run.run_id):
        lines.append(f"{task.task_id}[{task.map_index}]: {task.state}")
        if task.state in ("failed", "up_for_retry", "skipped"):
            lines += [f"    {line}" for line in api.read_log(run.dag_id, run.run_id, task)[-12:]]
    return "\n".join(lines)


def approve_by_api(loop: Loop, run: DagRun, comment: str) -> None:
    """Answer as a program of the admin does."""
    with httpx.Client(base_url=loop.running.ui_url, trust_env=False, timeout=30) as client:
        credentials = {"username": loop.running.username, "password": loop.running.password}
        token = client.post("/auth/token", json=credentials).raise_for_status().json()["access_token"]
        client.headers["Authorization"] = f"Bearer {token}"
        question = client.get(hitl_path(run)).raise_for_status().json()
        assert "was judged **PROMOTE**" in question["body"]
        answer = {"chosen_options": ["Approve"], "params_input": {"comment": comment}}
        client.patch(hitl_path(run), json=answer).raise_for_status()


def approve_in_ui(loop: Loop, run: DagRun, comment: str) -> None:
    """Answer as the admin does: log in, find the question among the required actions, read the verdict, comment, approve."""
    with open_ui(loop) as page:
        page.goto(f"{loop.running.ui_url}/required_actions")
        page.get_by_role("link", name="Put this model into service?").first.click()
        page.get_by_text("was judged").wait_for()
        page.locator("#element_comment").fill(comment)
        page.get_by_role("button", name="Approve").click()
        page.get_by_text("Response received").wait_for()


@contextmanager
def open_ui(loop: Loop) -> Iterator[Any]:
    """A page of a real browser in which the admin has logged in to Airflow."""
    with open_chromium() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(60_000)
        page.goto(loop.running.ui_url)
        page.locator("input[name=username]").fill(loop.running.username)
        page.locator("input[name=password]").fill(loop.running.password)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(lambda url: "/login" not in url)
        yield page


def follow_and_approve(loop: Loop, run: DagRun, comment: str, *, approve: Approve = approve_by_api, seconds: float = 900) -> DagRun:
    """Wait until a run of train_model asks, approve, and wait for its end."""
    await_until(
        lambda: state_of(loop.api, run, "approve") == "awaiting_input", "train_model asks for approval", seconds, loop.api, run
    )
    await_until(lambda: _approve_when_asked(loop, run, comment, approve), "train_model ends", 300)
    return follow(loop.api, run, 10)


def _approve_when_asked(loop: Loop, run: DagRun, comment: str, approve: Approve) -> bool:
    """Approve if the run asks for it now; whether it has ended."""
    if state_of(loop.api, run, "approve") == "awaiting_input":
        time.sleep(READING_SECONDS)
        approve(loop, run, comment)
    return loop.api.fetch_run(run.dag_id, run.run_id).is_finished


def hitl_path(run: DagRun) -> str:
    """Where the question of a run stands in Airflow's API."""
    return f"/api/v2/dags/{run.dag_id}/dagRuns/{quote(run.run_id, safe='')}/taskInstances/approve/-1/hitlDetails"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
