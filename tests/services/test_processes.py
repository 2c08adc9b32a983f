"""Processes that outlive their starter: found again only if they are the very same, ended with all that they started."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from llmcoder_tasks.services.processes import (
    LOG_LIMIT_BYTES,
    ProcessRecord,
    find_family,
    find_process,
    read_birth,
    read_record,
    start_process,
    stop_processes,
    write_private,
)

Start = Callable[..., ProcessRecord]

# A leader with a child in its session and one in a session of its own, like Airflow's triggerer has.
FAMILY = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; print('child', flush=True); time.sleep(60)"])
subprocess.Popen([sys.executable, "-c", "import time; print('escaped', flush=True); time.sleep(60)"], start_new_session=True)
time.sleep(60)
"""
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    records = []

    def _start(code: str, *, expect: int = 0) -> ProcessRecord:
        record = start_process(
            [sys.executable, "-c", code],
            environment=os.environ,
            folder=tmp_path,
            log_file=tmp_path / "service.log",
            record_file=tmp_path / "service.json",
            fingerprint="f",
        )
        records.append(record)
        _await(lambda: len((tmp_path / "service.log").read_text().split()) >= expect)
        return record

    yield _start
    stop_processes(records, grace_seconds=0)


def _await(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "the processes of the test did not come up"
        time.sleep(0.02)


def test_a_started_process_is_remembered_and_leads_a_session_of_its_own(start: Start, tmp_path: Path) -> None:
    record = start("import time; time.sleep(60)")
    assert read_record(tmp_path / "service.json") == record
    found = find_process(record)
    assert found is not None
    assert found.pid == record.pid
    assert os.getsid(record.pid) == record.pid
    assert abs(record.started_at - time.time()) < 20


def test_a_process_that_ended_is_not_found(start: Start) -> None:
    record = start("pass")
    psutil.Process(record.pid).wait(timeout=20)
    assert find_process(record) is None


def test_a_recycled_pid_is_neither_found_nor_ended(start: Start) -> None:
    stranger = start("import time; time.sleep(60)")
    record = dataclasses.replace(stranger, birth="another boot:1", mark="another service", folder="/elsewhere")
    assert find_process(record) is None
    stop_processes([record], grace_seconds=0)
    assert find_process(stranger) is not None


def test_birth_tells_two_processes_apart(start: Start) -> None:
    first, second = start("import time; time.sleep(60)"), start("import time; time.sleep(60)")
    assert read_birth(first.pid) == first.birth
    assert read_birth(first.pid) != read_birth(os.getpid())
    assert (first.pid, first.birth) != (second.pid, second.birth)
    assert read_birth(2**22 + 1) is None  # above the largest pid of Linux


def test_stopping_ends_children_and_those_that_left_the_session(start: Start) -> None:
    record = start(FAMILY, expect=2)
    family = find_family(record)
    assert len(family) == 3
    stop_processes([record], grace_seconds=5)
    assert not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in family)


def test_what_outlives_a_killed_leader_is_found_and_ended(start: Start) -> None:
    record = start(FAMILY, expect=2)
    os.kill(record.pid, signal.SIGKILL)
    _await(lambda: find_process(record) is None)
    left = find_family(record)
    assert len(left) == 2
    stop_processes([record], grace_seconds=0)
    assert find_family(record) == []


def test_a_process_that_ignores_the_request_is_killed(start: Start) -> None:
    record = start(DEAF, expect=1)
    stop_processes([record], grace_seconds=0.2)
    assert find_process(record) is None


@pytest.mark.parametrize("content", ["", '{"pid": 1', '{"pid": 1}', "[]"])
def test_a_record_cut_short_by_a_crash_counts_as_none(tmp_path: Path, content: str) -> None:
    path = tmp_path / "service.json"
    path.write_text(content)
    assert read_record(path) is None


def test_private_files_are_for_their_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "run" / "secret"
    write_private(path, "one")
    write_private(path, "two")
    assert path.read_text() == "two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["secret"]


def test_a_log_that_grew_too_large_is_set_aside(start: Start, tmp_path: Path) -> None:
    log = tmp_path / "service.log"
    with log.open("wb") as stream:
        stream.truncate(LOG_LIMIT_BYTES + 1)
    start("print('fresh', flush=True)", expect=1)
    assert log.read_text() == "fresh\n"
    assert (tmp_path / "service.1.log").stat().st_size == LOG_LIMIT_BYTES + 1


def test_services_survive_the_program_that_started_them(tmp_path: Path) -> None:
    code = f"""
import os, sys
from pathlib import Path
from llmcoder_tasks.services.processes import start_process
folder = Path({str(tmp_path)!r})
start_process([sys.executable, "-c", "import time; time.sleep(60)"], environment=os.environ, folder=folder,
              log_file=folder / "log", record_file=folder / "record.json", fingerprint="f")
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    record = read_record(tmp_path / "record.json")
    assert record is not None
    assert find_process(record) is not None
    stop_processes([record], grace_seconds=5)
    assert find_process(record) is None
