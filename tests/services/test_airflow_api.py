"""The REST client against a server that answers like Airflow: tokens that expire, pages, refusals."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from llmcoder_tasks.errors import ServiceError
from llmcoder_tasks.services.airflow_api import AirflowApi


class FakeAirflow(ThreadingHTTPServer):
    """Knows one user, 250 DAGs and one run; each token is good for `uses` requests."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.uses = 1000
        self.tokens: dict[str, int] = {}
        self.triggered: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: FakeAirflow

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        if self._is_known():
            query = {name: int(values[0]) for name, values in parse_qs(urlsplit(self.path).query).items()}
            names = [f"dag_{number:03d}" for number in range(250)][query["offset"] :][: query["limit"]]
            self._answer(200, {"dags": [{"dag_id": name, "is_paused": name == "dag_007"} for name in names], "total_entries": 250})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/auth/token":
            if body != {"username": "admin", "password": "right"}:
                return self._answer(401, {"detail": "Invalid credentials"})
            token = f"token {len(self.server.tokens)}"
            self.server.tokens[token] = self.server.uses
            return self._answer(201, {"access_token": token})
        if self._is_known():
            if body["conf"].get("release") == "nonsense":
                return self._answer(400, {"detail": "release: 'nonsense' does not match"})
            self.server.triggered.append(body)
            run = {"dag_id": "d", "dag_run_id": "r", "state": "queued", "start_date": None, "end_date": None}
            return self._answer(200, run)
        return None

    def _is_known(self) -> bool:
        token = (self.headers["Authorization"] or "").removeprefix("Bearer ")
        left = self.server.tokens.get(token, 0)
        if left <= 0:
            self._answer(401, {"detail": "expired"})
            return False
        self.server.tokens[token] = left - 1
        return True

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def airflow() -> Iterator[FakeAirflow]:
    server = FakeAirflow()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_all_pages_are_read(airflow: FakeAirflow) -> None:
    with AirflowApi(airflow.url, "admin", "right") as api:
        dags = api.list_dags()
    assert len(dags) == 250
    assert [name for name, is_paused in dags.items() if is_paused] == ["dag_007"]


def test_an_expired_token_is_renewed_unseen(airflow: FakeAirflow) -> None:
    airflow.uses = 1
    with AirflowApi(airflow.url, "admin", "right") as api:
        assert len(api.list_dags()) == 250  # three requests, three tokens
    assert len(airflow.tokens) == 3


def test_a_server_that_accepts_none_of_its_tokens_is_an_error(airflow: FakeAirflow) -> None:
    airflow.uses = 0
    with AirflowApi(airflow.url, "admin", "right") as api, pytest.raises(ServiceError, match="does not accept its own token"):
        api.list_dags()


def test_a_wrong_password_is_named_without_being_shown(airflow: FakeAirflow) -> None:
    with (
        AirflowApi(airflow.url, "admin", "wrongword") as api,
        pytest.raises(ServiceError, match="refuses the user admin") as caught,
    ):
        api.list_dags()
    assert "wrongword" not in str(caught.value)


def test_a_run_is_triggered_without_a_logical_date(airflow: FakeAirflow) -> None:
    with AirflowApi(airflow.url, "admin", "right") as api:
        run = api.trigger_dag("d", conf={"release": "FY2026"}, partition_key="FY2026")
    assert (run.run_id, run.state, run.is_finished) == ("r", "queued", False)
    assert airflow.triggered == [{"logical_date": None, "conf": {"release": "FY2026"}, "partition_key": "FY2026"}]


def test_a_refusal_is_told_in_airflows_words(airflow: FakeAirflow) -> None:
    with AirflowApi(airflow.url, "admin", "right") as api, pytest.raises(ServiceError, match=r"\(400\): release: 'nonsense'"):
        api.trigger_dag("d", conf={"release": "nonsense"})


def test_no_answer_is_an_error_with_the_cure() -> None:
    with AirflowApi("http://127.0.0.1:9", "admin", "right") as api, pytest.raises(ServiceError, match="run `llmcoder up`"):
        api.list_dags()
