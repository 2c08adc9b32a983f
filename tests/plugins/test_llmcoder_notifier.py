"""The notifier against a real HTTP server on this machine: when it speaks, what it says, and to whom."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest
from llmcoder_notifier import (
    DeadlineNotifier,
    DriftNotifier,
    FailureNotifier,
    ReleaseNotifier,
    VerdictNotifier,
    tell_late,
)

CONFIDENCE = {"figure": "mean_confidence", "value": 0.2, "low": 0.7, "high": 0.9}
MEASURED = {
    "coding_run_id": "scheduled__2026-04-18",
    "notes": 412,
    "nights_compared": 30,
    "stability_index": 0.02,
    "out_of_band": [CONFIDENCE],
    "summary": "against 30 nights: mean_confidence 0.2, expected 0.7 to 0.9",
}


class _Webhook:
    """What came in: paths, bodies and logins; `status` is what it answers."""

    def __init__(self) -> None:
        self.received: list[tuple[str, dict[str, Any], str | None]] = []
        self.status = 200
        self.port = 0


@pytest.fixture
def webhook() -> Iterator[_Webhook]:
    hook = _Webhook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            hook.received.append((self.path, body, self.headers["Authorization"]))
            self.send_response(hook.status)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hook.port = server.server_port
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hook
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch, webhook: _Webhook) -> None:
    """What an operator sets up, here by an environment variable."""
    described = {"conn_type": "http", "host": "127.0.0.1", "port": webhook.port, "schema": "http", "password": "t0ken"}
    monkeypatch.setenv("AIRFLOW_CONN_LLMCODER_ALERTS", json.dumps({**described, "extra": {"path": "/hook"}}))


def _context(measured: Any) -> dict[str, Any]:
    return {"ti": SimpleNamespace(task_id="measure_night", xcom_pull=lambda task_ids: measured)}


def test_a_night_out_of_its_band_is_posted_with_its_figures(webhook: _Webhook, connection: None) -> None:
    DriftNotifier()(_context(MEASURED))
    ((path, body, login),) = webhook.received
    assert (path, login) == ("/hook", "Bearer t0ken")
    assert body["text"] == (
        "LLMCoder: the night scheduled__2026-04-18 left its band: against 30 nights: mean_confidence 0.2, expected 0.7 to 0.9"
    )
    assert body["out_of_band"] == [CONFIDENCE]
    assert body.keys() == MEASURED.keys() | {"text"}


@pytest.mark.parametrize("measured", [{**MEASURED, "out_of_band": []}, None])
def test_a_quiet_night_says_nothing(webhook: _Webhook, connection: None, measured: Any) -> None:
    DriftNotifier()(_context(measured))
    assert webhook.received == []


def test_without_a_connection_the_log_alone_says_it(webhook: _Webhook, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        DriftNotifier()(_context(MEASURED))
    assert webhook.received == []


def test_a_webhook_that_refuses_is_an_error_for_the_log(webhook: _Webhook, connection: None) -> None:
    webhook.status = 500
    with pytest.raises(Exception, match="500"):
        DriftNotifier()(_context(MEASURED))


DEADLINE = {"release_key": "FY2027", "days_left": 9, "state": "No dataset is built", "message": "FY2027 takes effect in 9 days"}


def test_a_release_without_a_model_is_posted_with_the_state_of_its_work(webhook: _Webhook, connection: None) -> None:
    DeadlineNotifier()(_context([DEADLINE]))
    ((path, body, _),) = webhook.received
    assert (path, body) == ("/hook", {"text": "LLMCoder: FY2027 takes effect in 9 days", "deadlines": [DEADLINE]})


@pytest.mark.parametrize("deadlines", [[], None])
def test_a_day_on_which_all_is_fine_says_nothing(webhook: _Webhook, connection: None, deadlines: Any) -> None:
    DeadlineNotifier()(_context(deadlines))
    assert webhook.received == []


RUN_PAGE = "/plugin/llmcoder/llmcoder/runs?dag_id=code_encounters&run_id=scheduled__2026-04-18"


def test_a_release_that_has_arrived_is_told_by_each_mapped_task_for_its_own(webhook: _Webhook, connection: None) -> None:
    results = {0: {"key": "FY2027", "uri": "file:///x"}, 1: None}
    for map_index in results:
        ti = SimpleNamespace(
            task_id="ingest_release", map_index=map_index, xcom_pull=lambda task_ids, map_indexes: results[map_indexes]
        )
        ReleaseNotifier()({"ti": ti})
    ((_, body, _),) = webhook.received
    assert body["release_key"] == "FY2027"
    assert "the release FY2027 has arrived" in body["text"]


def test_a_verdict_that_waits_names_where_to_answer(webhook: _Webhook, connection: None) -> None:
    task = SimpleNamespace(verdict={"verdict_id": "v1", "decision": "PROMOTE"})
    VerdictNotifier()({"ti": SimpleNamespace(task=task)})
    ((_, body, _),) = webhook.received
    assert body["verdict_id"] == "v1"
    assert body["text"].endswith("/required_actions")
    assert "/plugin/" not in body["text"]


@pytest.mark.parametrize(
    "context", [{"run_id": "scheduled__2026-04-18"}, {"dag_run": SimpleNamespace(run_id="scheduled__2026-04-18")}]
)
def test_a_night_that_failed_leads_to_its_page(webhook: _Webhook, connection: None, context: dict[str, Any]) -> None:
    FailureNotifier()(context)
    ((_, body, _),) = webhook.received
    assert "scheduled__2026-04-18 failed" in body["text"]
    assert body["text"].endswith(RUN_PAGE)


def test_a_night_that_is_late_is_told_by_the_triggerer(webhook: _Webhook, connection: None) -> None:
    """With the context that Airflow gives the callback of a deadline: the run as its API shows it."""
    asyncio.run(tell_late({"dag_run": {"dag_run_id": "scheduled__2026-04-18", "state": "running"}, "deadline": {"id": "1"}}))
    ((path, body, login),) = webhook.received
    assert (path, login) == ("/hook", "Bearer t0ken")
    assert "scheduled__2026-04-18 is late" in body["text"]
    assert body["text"].endswith(RUN_PAGE)


def test_a_night_that_failed_before_its_deadline_is_not_told_as_late(webhook: _Webhook, connection: None) -> None:
    """Airflow keeps the deadline of a run that failed, and calls when it passes."""
    asyncio.run(tell_late({"dag_run": {"dag_run_id": "scheduled__2026-04-18", "state": "failed"}}))
    assert webhook.received == []


def test_a_late_night_without_a_connection_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    asyncio.run(tell_late({"dag_run": {"dag_run_id": "scheduled__2026-04-18", "state": "running"}}))
    assert "is late" in caplog.text
    assert "nobody is told but this log" in caplog.text
