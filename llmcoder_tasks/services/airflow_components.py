"""The embedded Airflow: four components on one metadata database, each a process of its own."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import httpx
import psutil

from llmcoder_tasks.errors import ServiceError
from llmcoder_tasks.services.airflow_environment import (
    airflow_home,
    complete_environment,
    fingerprint_environment,
    render_environment,
)
from llmcoder_tasks.services.credentials import Credentials
from llmcoder_tasks.services.processes import (
    ProcessRecord,
    find_family,
    find_process,
    read_record,
    start_process,
    stop_processes,
    write_private,
)
from llmcoder_tasks.settings import Settings

DEFAULT_PORT = 8080
READY_SECONDS = 240.0
STOP_GRACE_SECONDS = 12.0

# Local log files are read by the api-server itself: no component needs to serve its logs on a port of its own.
COMPONENTS: dict[str, tuple[str, ...]] = {
    "api-server": ("api-server",),
    "scheduler": ("scheduler", "--skip-serve-logs"),
    "dag-processor": ("dag-processor",),
    "triggerer": ("triggerer", "--skip-serve-logs"),
}


@dataclass(frozen=True, slots=True)
class Launch:
    """What is to be started, and with what. `missing` is empty when everything runs as it should."""

    port: int
    environment: Mapping[str, str]
    fingerprint: str
    missing: tuple[str, ...]


class EmbeddedAirflow:
    """The Airflow whose state lies in `home/airflow` and whose processes are remembered in `home/run`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.folder = airflow_home(settings)
        self._port_file = settings.home / "run" / "port"
        self._migration_log = settings.home / "logs" / "migration.log"

    @property
    def port(self) -> int | None:
        """The port of the last start."""
        try:
            return int(self._port_file.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None

    @property
    def url(self) -> str:
        """Address of the UI and the API."""
        return f"http://127.0.0.1:{self.port or DEFAULT_PORT}"

    def log_file(self, name: str) -> Path:
        """The log of a component."""
        return self._settings.home / "logs" / f"{name}.log"

    def find(self, name: str) -> tuple[ProcessRecord, psutil.Process] | None:
        """A component's record and process, if it runs."""
        record = self._record(name)
        process = find_process(record)
        return None if record is None or process is None else (record, process)

    def plan_launch(self, credentials: Credentials, metadata_url: str) -> Launch:
        """Decide what to start. Stops what runs with other settings, and what a killed component left behind."""
        port = self.port
        if port is None or self._settings.port not in (None, port) or self.find("api-server") is None:
            self.stop()
            port = choose_port(self._settings, port)
            write_private(self._port_file, f"{port}\n")
        ours = render_environment(self._settings, credentials, metadata_url=metadata_url, port=port)
        fingerprint = fingerprint_environment(ours)
        missing = tuple(name for name in COMPONENTS if not self._runs_with(name, fingerprint))
        self.stop(missing)
        return Launch(port, complete_environment(ours), fingerprint, missing)

    def start_migration(self, launch: Launch) -> subprocess.Popen[bytes]:
        """Begin to create or upgrade the metadata tables; `finish_migration` waits for the end."""
        self._migration_log.parent.mkdir(parents=True, exist_ok=True)
        with self._migration_log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "airflow", "db", "migrate"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=launch.environment,
            )

    def finish_migration(self, process: subprocess.Popen[bytes]) -> None:
        """Wait for the end of a migration. Raises ServiceError with the end of its log."""
        if process.wait() != 0:
            reason = read_last_line(self._migration_log)
            raise ServiceError(f"Airflow's metadata database could not be migrated: {reason} (see {self._migration_log})")

    def start(self, launch: Launch) -> None:
        """Start the missing components side by side and wait until all four answer. Raises ServiceError."""
        for name in launch.missing:
            start_process(
                [sys.executable, "-m", "airflow", *COMPONENTS[name]],
                environment=launch.environment,
                folder=self.folder,
                log_file=self.log_file(name),
                record_file=self._record_file(name),
                fingerprint=launch.fingerprint,
            )
        self._await_ready()

    def stop(self, names: Iterable[str] = tuple(COMPONENTS)) -> list[str]:
        """Stop components and all that they started; the names of those that ran.

        The api-server goes last: tasks that end in the meantime still report to it.
        """
        chosen = set(names)
        return [*self._stop_together(chosen - {"api-server"}), *self._stop_together(chosen & {"api-server"})]

    def _stop_together(self, names: set[str]) -> list[str]:
        records = {name: record for name in COMPONENTS if name in names and (record := self._record(name)) is not None}
        running = [name for name, record in records.items() if find_family(record)]
        stop_processes(records.values(), grace_seconds=STOP_GRACE_SECONDS)
        for name in records:
            self._record_file(name).unlink(missing_ok=True)
        return running

    def _record_file(self, name: str) -> Path:
        return self._settings.home / "run" / f"{name}.json"

    def _record(self, name: str) -> ProcessRecord | None:
        return read_record(self._record_file(name))

    def _runs_with(self, name: str, fingerprint: str) -> bool:
        found = self.find(name)
        return found is not None and found[0].fingerprint == fingerprint

    def _await_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        with httpx.Client(base_url=self.url, timeout=5, trust_env=False) as client:
            while waiting := self._list_waiting(client):
                for name in COMPONENTS:
                    if self.find(name) is None:
                        log_file = self.log_file(name)
                        raise ServiceError(f"Airflow's {name} ended at start: {read_last_line(log_file)} (see {log_file})")
                if time.monotonic() > deadline:
                    logs = self._settings.home / "logs"
                    raise ServiceError(f"Airflow's {', '.join(waiting)} not ready after {READY_SECONDS:.0f} s: see {logs}")
                time.sleep(0.25)

    def _list_waiting(self, client: httpx.Client) -> list[str]:
        try:
            answer = client.get("/api/v2/monitor/health")
            answer.raise_for_status()
        except httpx.HTTPError:
            return ["api-server"]
        health = answer.json()
        return [name for name in ("scheduler", "dag-processor", "triggerer") if not self._has_beaten(name, health)]

    def _has_beaten(self, name: str, health: Mapping[str, Mapping[str, str | None] | None]) -> bool:
        part = name.replace("-", "_")
        beat = (health.get(part) or {}).get(f"latest_{part}_heartbeat")
        record = self._record(name)
        # A heartbeat of the component's former life says nothing about this one.
        return beat is not None and record is not None and datetime.fromisoformat(beat).timestamp() >= record.started_at


def choose_port(settings: Settings, previous: int | None) -> int:
    """LLMCODER_PORT; else the previous port, 8080 or the next free one. Raises ServiceError when the chosen one is taken."""
    if settings.port is not None:
        if not _is_free(settings.port):
            raise ServiceError(f"port {settings.port} is taken by another program: set LLMCODER_PORT to a free one")
        return settings.port
    candidates: list[int] = [*([previous] if previous else []), *range(DEFAULT_PORT, DEFAULT_PORT + 100)]
    for port in candidates:
        if _is_free(port):
            return port
    raise ServiceError(f"no free port from {DEFAULT_PORT} to {candidates[-1]}: set LLMCODER_PORT to a free one")


def read_last_line(log_file: Path) -> str:
    """The last line of a log that says something, or a word about its absence."""
    try:
        lines = log_file.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return "no log"
    return next((line.strip() for line in reversed(lines) if line.strip()), "an empty log")


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
