"""Processes that outlive the command that started them.

Each runs in a session of its own and is remembered by its pid and its birth: a pid alone may belong to somebody else after a crash
or a reboot. Everything is ended by id: first asked (TERM), then, after a grace, killed.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

LOG_LIMIT_BYTES = 10 * 2**20
MARK = "EMBEDDED_SERVICE"

# Popen warns when it is forgotten before its process ended; ours are meant to go on.
_started: dict[int, subprocess.Popen[bytes]] = {}


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """A started service as `run/<name>.json` remembers it.

    Attributes:
        pid: process id, also the id of its session.
        birth: start of the process in the machine's own terms; tells a recycled pid.
        started_at: seconds since the epoch.
        fingerprint: of the settings it was started with.
        mark: what its environment, and that of all it starts, holds under MARK.
        folder: its working folder.
    """

    pid: int
    birth: str
    started_at: float
    fingerprint: str
    mark: str
    folder: str


def start_process(
    command: Sequence[str], *, environment: Mapping[str, str], folder: Path, log_file: Path, record_file: Path, fingerprint: str
) -> ProcessRecord:
    """Start `command` in a session of its own, its output appended to `log_file`, and remember it in `record_file`."""
    log_file.parent.mkdir(parents=True, exist_ok=True)
    if log_file.exists() and log_file.stat().st_size > LOG_LIMIT_BYTES:
        log_file.replace(log_file.with_suffix(".1.log"))
    mark = str(record_file)
    with log_file.open("ab") as log:
        process = subprocess.Popen(  # noqa: S603 - our own command
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={**environment, MARK: mark},
            start_new_session=True,
        )
    _started[process.pid] = process
    record = ProcessRecord(process.pid, read_birth(process.pid) or "", time.time(), fingerprint, mark, str(folder))
    write_private(record_file, json.dumps(asdict(record)))
    return record


def read_record(record_file: Path) -> ProcessRecord | None:
    """What `start_process` remembered; None when there is nothing or nothing legible (a crash in the middle of a write)."""
    try:
        return ProcessRecord(**json.loads(record_file.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.touch(mode=0o600)
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def read_birth(pid: int) -> str | None:
    """When a process started, None when there is none; on Linux as boot and clock ticks, which no change of the clock moves."""
    with suppress(OSError):
        ticks = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text(encoding='utf-8').strip()}:{ticks}"
    try:
        return f"{psutil.Process(pid).create_time():.0f}"
    except psutil.Error:
        return None


def find_process(record: ProcessRecord | None) -> psutil.Process | None:
    """The process of a record, if that very process still runs."""
    if record is None:
        return None
    if record.pid in _started:
        _started[record.pid].poll()  # a child of this very program would stay a zombie
    if not record.birth or read_birth(record.pid) != record.birth:
        return None
    try:
        process = psutil.Process(record.pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process
    except psutil.Error:
        return None


def find_family(record: ProcessRecord) -> list[psutil.Process]:
    """All processes of a service: its session, what descends from it, and what outlived it with its mark in the environment."""
    leader = find_process(record)
    found: dict[int, psutil.Process] = {}
    if leader is not None:
        with suppress(psutil.Error):
            found.update({process.pid: process for process in leader.children(recursive=True)})
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if _has_mark(process, record) or (os.getsid(process.pid) == record.pid and (leader or process.cwd() == record.folder)):
                found[process.pid] = process
    return [process for process in found.values() if process.status() != psutil.STATUS_ZOMBIE]


def stop_processes(records: Iterable[ProcessRecord], *, grace_seconds: float) -> None:
    """End the services of `records` with all that they started.

    The leaders are asked first, so that they can end their own children; what is left after the grace is asked, then killed.
    """
    chosen = list(records)
    families = [process for record in chosen for process in find_family(record)]
    leaders = [leader for record in chosen if (leader := find_process(record)) is not None]
    _signal(leaders, "terminate")
    psutil.wait_procs(leaders, timeout=grace_seconds)
    _signal(families, "terminate")
    _, stubborn = psutil.wait_procs(families, timeout=2)
    _signal(stubborn, "kill")
    psutil.wait_procs(stubborn, timeout=5)


def _signal(processes: Iterable[psutil.Process], method: str) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):  # psutil refuses a recycled pid
            getattr(process, method)()


def _has_mark(process: psutil.Process, record: ProcessRecord) -> bool:
    # A process that renames itself overwrites its environment: those are found by their session and folder.
    return bool(process.environ().get(MARK) == record.mark)
