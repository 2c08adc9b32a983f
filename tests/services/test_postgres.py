"""The embedded PostgreSQL: found, killed, started again, and silent about the rows it holds."""

from __future__ import annotations

import os
import signal
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from llmcoder_tasks.database import Database
from llmcoder_tasks.errors import DatabaseError
from llmcoder_tasks.services.postgres import RESULTS_DATABASE, EmbeddedPostgres

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def home(open_folder: Path) -> Iterator[Path]:
    yield open_folder / "home"
    EmbeddedPostgres(open_folder / "home").stop()


@pytest.fixture
def server(home: Path) -> EmbeddedPostgres:
    return EmbeddedPostgres(home)


def _await_end(pid: int) -> None:
    """Wait until a process that is not our child runs no more; as a zombie it counts as ended."""
    deadline = time.monotonic() + 20
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, f"{pid} was killed and still runs"
        time.sleep(0.02)


def test_a_second_start_finds_the_first(server: EmbeddedPostgres) -> None:
    first = server.start()
    assert server.start() == first
    assert server.find() == first
    assert psutil.Process(first.pid).is_running()


def test_only_the_owner_may_use_the_socket_and_no_port_is_open(server: EmbeddedPostgres) -> None:
    running = server.start()
    socket = running.socket_folder / ".s.PGSQL.5432"
    assert stat.S_IMODE(socket.stat().st_mode) == 0o700
    assert [c for c in psutil.Process(running.pid).net_connections(kind="inet") if c.status == psutil.CONN_LISTEN] == []


def test_databases_are_created_once_and_remember_a_mark(server: EmbeddedPostgres) -> None:
    running = server.start()
    for _ in range(2):
        server.ensure_database(running, RESULTS_DATABASE)
    assert server.read_mark(running, RESULTS_DATABASE) == ""
    server.write_mark(running, RESULTS_DATABASE, "version 1")
    assert server.read_mark(running, RESULTS_DATABASE) == "version 1"


def test_data_survive_a_killed_server(server: EmbeddedPostgres) -> None:
    running = server.start()
    server.ensure_database(running, RESULTS_DATABASE)
    database = Database(running.url(RESULTS_DATABASE))
    with database.transaction() as transaction:
        transaction.run_script("CREATE TABLE kept (id integer); INSERT INTO kept VALUES (7);")
    database.engine.dispose()
    os.kill(running.pid, signal.SIGKILL)
    _await_end(running.pid)
    again = server.start()
    assert again.pid != running.pid
    reopened = Database(again.url(RESULTS_DATABASE))
    with reopened.transaction() as transaction:
        transaction.run_script("DO $$ BEGIN IF (SELECT sum(id) FROM kept) <> 7 THEN RAISE 'lost'; END IF; END $$")
    reopened.engine.dispose()


def test_a_postmaster_file_with_a_strangers_pid_does_not_stop_the_start(server: EmbeddedPostgres) -> None:
    """After a reboot the pid in postmaster.pid may belong to any process; here to this very one."""
    server.start()
    path = server.data_folder / "postmaster.pid"
    lines = path.read_text().splitlines()
    server.stop()
    path.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
    assert server.find() is None
    assert server.start().pid != os.getpid()


def test_stopping_twice_stops_once(server: EmbeddedPostgres) -> None:
    server.start()
    assert server.stop() is True
    assert server.stop() is False
    assert server.find() is None


def test_the_log_of_the_server_never_quotes_a_row(server: EmbeddedPostgres) -> None:
    running = server.start()
    server.ensure_database(running, RESULTS_DATABASE)
    database = Database(running.url(RESULTS_DATABASE))
    with database.transaction() as transaction:
        transaction.run_script("CREATE TABLE note (id integer PRIMARY KEY, body text CHECK (length(body) < 10))")
    with pytest.raises(DatabaseError), database.transaction() as transaction:
        transaction.run_script("INSERT INTO note VALUES (1, 'Mrs Canary has pneumonia')")
    with pytest.raises(DatabaseError), database.transaction() as transaction:
        transaction.copy_rows("note", ["id", "body"], [[2, "Mrs Canary has a cough"]])
    with pytest.raises(DatabaseError), database.transaction() as transaction:
        transaction.copy_rows("note", ["id", "body"], [["Mrs Canary has a cold", "x"]])
    database.engine.dispose()
    log = server.log_file.read_text()
    assert "ready to accept connections" in log
    assert "Canary" not in log


@pytest.mark.parametrize("name", ["deep" * 30, "with a space"])
def test_a_folder_that_no_socket_can_live_in_is_served_through_a_private_one(open_folder: Path, name: str) -> None:
    server = EmbeddedPostgres(open_folder / name)
    running = server.start()
    try:
        assert running.socket_folder != server.data_folder
        assert stat.S_IMODE(running.socket_folder.stat().st_mode) == 0o700
        server.ensure_database(running, RESULTS_DATABASE)
        database = Database(running.url(RESULTS_DATABASE))
        assert database.migrate()
        database.engine.dispose()
    finally:
        server.stop()
    assert not running.socket_folder.exists()
