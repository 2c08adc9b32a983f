"""The devices that a training would take, and the lease that keeps a second training off them.

Airflow's pool counts tasks of one scheduler and may be given away twice; a lease is a lock on a file of the device, held by the
training processes themselves. The kernel frees it with the last of them, however they ended.
"""

from __future__ import annotations

import csv
import fcntl
import logging
import os
import re
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

import psutil

from llmcoder_tasks.errors import TrainingError

logger = logging.getLogger(__name__)

_QUERY = ("nvidia-smi", "--query-gpu=index,uuid,name,memory.total", "--format=csv,noheader,nounits")


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU, or all cores of this machine. `identity` is the same for everybody who sees it; the memory is None where not known."""

    name: str
    identity: str
    memory_bytes: int | None
    is_gpu: bool


def list_devices(processes: int, environment: Mapping[str, str] = os.environ) -> list[Device]:
    """The devices of `processes` training processes on this machine: one GPU each, or its cores together.

    Raises TrainingError when there are GPUs, but not enough.
    """
    gpus = _choose_visible(_list_gpus(), environment.get("CUDA_VISIBLE_DEVICES"))
    if not gpus:
        name = f"the cores of {socket.gethostname()}"
        return [Device(name, f"cpu-{socket.gethostname()}", psutil.virtual_memory().total, is_gpu=False)]
    if len(gpus) < processes:
        raise TrainingError(
            f"{processes} training processes need a GPU each, and {len(gpus)} can be seen here: set LLMCODER_TRAINING_PROCESSES to "
            f"{len(gpus)}, or CUDA_VISIBLE_DEVICES to more"
        )
    return gpus[:processes]


def _list_gpus() -> list[Device]:
    try:
        answer = subprocess.run(_QUERY, capture_output=True, text=True, timeout=60, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return []
    rows = csv.reader(answer.stdout.splitlines(), skipinitialspace=True)
    return [Device(name, uuid, int(mebibytes) << 20, is_gpu=True) for _, uuid, name, mebibytes in rows]


def _choose_visible(gpus: Sequence[Device], visible: str | None) -> list[Device]:
    """Those that CUDA_VISIBLE_DEVICES names, in its order: by number, or by the beginning of a UUID."""
    if visible is None:
        return list(gpus)
    chosen: list[Device] = []
    for name in filter(None, (part.strip() for part in visible.split(","))):
        if name.isdigit():
            chosen += gpus[int(name) : int(name) + 1]
        elif name != "-1":
            found = [gpu for gpu in gpus if gpu.identity.startswith(name)]
            chosen += found or [Device(f"GPU {name}", name, None, is_gpu=True)]  # a part of one (MIG)
    return chosen


@contextmanager
def lease_devices(devices: Sequence[Device], folder: Path, holder: str) -> Iterator[list[int]]:
    """Wait until nobody trains on the devices, and keep them; yields the descriptors that hold the lease.

    `folder` is one for all who share the devices. Hand the descriptors to the training processes: they keep the lease then, should
    this process die before them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        streams = []
        for device in sorted(devices, key=lambda found: found.identity):  # in one order, so that no two wait for each other
            path = folder / f"{re.sub(r'[^A-Za-z0-9.-]', '_', device.identity)}.lock"
            stream = stack.enter_context(path.open("a+", encoding="utf-8"))
            _wait_for(stream, device)
            stream.truncate(0)
            stream.write(f"{holder}, since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC, process {os.getpid()}")
            stream.flush()
            streams.append(stream)
        yield [stream.fileno() for stream in streams]


def _wait_for(stream: TextIO, device: Device) -> None:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        stream.seek(0)
        logger.info("%s: taken by %s; waiting until it is free", device.name, stream.read() or "another training")
        fcntl.flock(stream, fcntl.LOCK_EX)
        logger.info("%s is free", device.name)
