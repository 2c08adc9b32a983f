"""A small client of Airflow's REST API: what the demo and the tests need, with errors for a person."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, stop_after_delay, wait_fixed

from llmcoder_tasks.errors import ServiceError

FINISHED_STATES = frozenset({"success", "failed"})
_PAGE = 100
_PATIENCE_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class DagRun:
    """One run of a DAG. Times are ISO 8601 or None while there is none."""

    dag_id: str
    run_id: str
    state: str
    start_date: str | None
    end_date: str | None
    partition_key: str | None

    @property
    def is_finished(self) -> bool:
        """Whether no task of it will run any more."""
        return self.state in FINISHED_STATES


@dataclass(frozen=True, slots=True)
class TaskState:
    """One task instance. `state` is None before it is scheduled; `map_index` is -1 for a task that is not mapped."""

    task_id: str
    map_index: int
    state: str | None
    try_number: int
    duration_seconds: float | None


class AirflowApi:
    """Talks to one Airflow as one user; renews its token by itself. Use it as a context manager."""

    def __init__(self, url: str, username: str, password: str, *, timeout_seconds: float = 30.0) -> None:
        self.url = url
        self._username = username
        self._password = password
        # trust_env: a proxy of the surroundings must not see requests to this machine.
        self._client = httpx.Client(base_url=url, timeout=timeout_seconds, trust_env=False)

    def __enter__(self) -> AirflowApi:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def list_dags(self) -> dict[str, bool]:
        """Every DAG that has been parsed, and whether it is paused."""
        return {dag["dag_id"]: dag["is_paused"] for dag in self._get_all("/api/v2/dags", "dags")}

    def list_import_errors(self) -> dict[str, str]:
        """DAG files that could not be parsed, with the trace."""
        return {row["filename"]: row["stack_trace"] for row in self._get_all("/api/v2/importErrors", "import_errors")}

    def set_paused(self, dag_id: str, *, paused: bool) -> None:
        """Pause or unpause a DAG."""
        self._request("PATCH", f"/api/v2/dags/{quote(dag_id)}", json={"is_paused": paused})

    def trigger_dag(
        self, dag_id: str, *, conf: dict[str, Any] | None = None, run_id: str | None = None, partition_key: str | None = None
    ) -> DagRun:
        """Start a run by hand. Raises ServiceError with Airflow's words when `conf` does not fit the DAG's params."""
        body: dict[str, Any] = {"logical_date": None, "conf": conf or {}}
        if run_id is not None:
            body["dag_run_id"] = run_id
        if partition_key is not None:
            body["partition_key"] = partition_key
        return _parse_run(self._request("POST", f"/api/v2/dags/{quote(dag_id)}/dagRuns", json=body))

    def list_runs(self, dag_id: str) -> list[DagRun]:
        """All runs of a DAG, the newest first."""
        rows = self._get_all(f"/api/v2/dags/{quote(dag_id)}/dagRuns", "dag_runs", order_by="-run_after")
        return [_parse_run(row) for row in rows]

    def fetch_run(self, dag_id: str, run_id: str) -> DagRun:
        """One run as it is now."""
        return _parse_run(self._request("GET", f"/api/v2/dags/{quote(dag_id)}/dagRuns/{quote(run_id, safe='')}"))

    def list_tasks(self, dag_id: str, run_id: str) -> list[TaskState]:
        """The task instances of a run."""
        rows = self._get_all(f"/api/v2/dags/{quote(dag_id)}/dagRuns/{quote(run_id, safe='')}/taskInstances", "task_instances")
        return [TaskState(row["task_id"], row["map_index"], row["state"], row["try_number"], row["duration"]) for row in rows]

    def read_log(self, dag_id: str, run_id: str, task: TaskState) -> list[str]:
        """The log lines of a task's last try, without their decoration."""
        run = f"/api/v2/dags/{quote(dag_id)}/dagRuns/{quote(run_id, safe='')}"
        path = f"{run}/taskInstances/{quote(task.task_id)}/logs/{task.try_number}"
        answer = self._request("GET", path, params={"map_index": task.map_index, "full_content": True})
        return [row if isinstance(row, str) else str(row.get("event", "")) for row in answer["content"]]

    def ensure_pool(self, name: str, *, slots: int, description: str) -> None:
        """Create a pool, or leave one of that name as it is: its slots may have been changed on purpose."""
        if name not in {pool["name"] for pool in self._get_all("/api/v2/pools", "pools")}:
            self._request("POST", "/api/v2/pools", json={"name": name, "slots": slots, "description": description})

    def await_run(self, dag_id: str, run_id: str, *, timeout_seconds: float, poll_seconds: float = 1.0) -> DagRun:
        """Wait for the end of a run. Raises ServiceError when it takes longer."""
        deadline = time.monotonic() + timeout_seconds
        while not (run := self.fetch_run(dag_id, run_id)).is_finished:
            if time.monotonic() > deadline:
                raise ServiceError(
                    f"{dag_id} {run_id} is still {run.state} after {timeout_seconds:.0f} s: see {self.url}/dags/{dag_id}"
                )
            time.sleep(poll_seconds)
        return run

    def _get_all(self, path: str, key: str, **params: Any) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        while True:
            page = self._request("GET", path, params={**params, "limit": _PAGE, "offset": len(rows)})
            rows.extend(page[key])
            if not page[key] or len(rows) >= page["total_entries"]:
                return rows

    def _request(self, method: str, path: str, **arguments: Any) -> Any:
        for attempt in (1, 2):
            if "Authorization" not in self._client.headers:
                self._log_in()
            answer = self._send(method, path, **arguments)
            if answer.status_code != httpx.codes.UNAUTHORIZED:
                break
            del self._client.headers["Authorization"]
            if attempt == 2:
                raise ServiceError(f"{self.url} does not accept its own token: run `llmcoder down` and `llmcoder up`")
        if answer.is_success:
            return answer.json() if answer.content else None
        raise ServiceError(f"Airflow refused {method} {path} ({answer.status_code}): {_describe(answer)}")

    def _log_in(self) -> None:
        answer = self._send("POST", "/auth/token", json={"username": self._username, "password": self._password})
        if not answer.is_success:
            raise ServiceError(f"{self.url} refuses the user {self._username} ({answer.status_code}): check the password")
        self._client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def _send(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        # While training holds every core an answer can be late. A POST may have been heard all the same: it is not sent twice.
        patience = stop_after_attempt(1) if method == "POST" else stop_after_delay(_PATIENCE_SECONDS)
        attempts = Retrying(retry=retry_if_exception_type(httpx.ReadTimeout), stop=patience, wait=wait_fixed(1), reraise=True)
        try:
            answer: httpx.Response = attempts(self._client.request, method, path, **arguments)
            return answer
        except httpx.HTTPError as error:
            raise ServiceError(f"no answer from Airflow at {self.url} ({type(error).__name__}): run `llmcoder up`") from error


def _parse_run(row: dict[str, Any]) -> DagRun:
    return DagRun(
        dag_id=row["dag_id"],
        run_id=row["dag_run_id"],
        state=row["state"],
        start_date=row["start_date"],
        end_date=row["end_date"],
        partition_key=row.get("partition_key"),
    )


def _describe(answer: httpx.Response) -> str:
    try:
        detail = answer.json()["detail"]
    except (ValueError, KeyError, TypeError):
        return answer.reason_phrase
    return detail if isinstance(detail, str) else str(detail)
