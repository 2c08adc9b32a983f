"""Which devices a training takes, and that two trainings never share one."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llmcoder_tasks.errors import TrainingError
from llmcoder_tasks.model.devices import Device, lease_devices, list_devices

GPUS = "0, GPU-aaaa, NVIDIA H100 80GB HBM3, 81559\n1, GPU-bbbb, NVIDIA H100 80GB HBM3, 81559\n"
ONE = Device("NVIDIA L4", "GPU-aaaa", 24 * 2**30, is_gpu=True)
TWO = Device("NVIDIA L4", "GPU-bbbb", 24 * 2**30, is_gpu=True)

HOLDER = (
    "import sys, time; from pathlib import Path; from llmcoder_tasks.model.devices import Device, lease_devices\n"
    "import logging; logging.basicConfig(level='INFO', stream=sys.stdout, format='%(message)s')\n"
    "with lease_devices([Device('NVIDIA L4', 'GPU-aaaa', None, True)], Path(sys.argv[1]), sys.argv[2]) as leases:\n"
    "    print('has it', flush=True); child = None\n"
    "    if sys.argv[3] == 'hand on':\n"
    "        import subprocess; child = subprocess.Popen(['sleep', '60'], pass_fds=leases); print(child.pid, flush=True)\n"
    "    time.sleep(float(sys.argv[4]))\n"
)


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with two GPUs, as nvidia-smi tells of them."""
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\nprintf '{GPUS}'\n".replace("\n'", "\\n'"))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


Hold = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def hold(tmp_path: Path) -> Iterator[Hold]:
    """Starts processes that take the lease, and ends them."""
    started: list[subprocess.Popen[str]] = []

    def start(name: str, *, hand_on: bool = False, seconds: float = 60) -> subprocess.Popen[str]:
        words = [sys.executable, "-c", HOLDER, str(tmp_path), name, "hand on" if hand_on else "keep", str(seconds)]
        started.append(subprocess.Popen(words, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def _read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.usefixtures("nvidia_smi")
def test_each_process_takes_a_gpu_that_can_be_seen() -> None:
    first, second = list_devices(2, {})
    assert (first.identity, second.identity) == ("GPU-aaaa", "GPU-bbbb")
    assert first.memory_bytes == 81559 * 2**20
    assert [device.identity for device in list_devices(1, {"CUDA_VISIBLE_DEVICES": "1"})] == ["GPU-bbbb"]
    assert [device.identity for device in list_devices(1, {"CUDA_VISIBLE_DEVICES": "GPU-bb"})] == ["GPU-bbbb"]
    assert list_devices(1, {"CUDA_VISIBLE_DEVICES": "MIG-1"}) == [Device("GPU MIG-1", "MIG-1", None, is_gpu=True)]
    with pytest.raises(TrainingError, match="3 training processes need a GPU each, and 2 can be seen here: set LLMCODER_TRAINING"):
        list_devices(3, {})


def test_without_a_gpu_the_cores_are_one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    (device,) = list_devices(4, {})
    assert device.identity.startswith("cpu-")
    assert device.memory_bytes is not None
    assert not device.is_gpu


def test_of_two_trainings_at_once_the_second_waits_and_says_for_whom(hold: Hold) -> None:
    first = hold("model-one")
    assert _read_line(first) == "has it"
    second = hold("model-two", seconds=0)
    waiting = _read_line(second)
    assert waiting.startswith("NVIDIA L4: taken by model-one, since 20")
    assert waiting.endswith("waiting until it is free")
    assert (first.poll(), second.poll()) == (None, None)
    first.terminate()
    assert _read_line(second) == "NVIDIA L4 is free"
    assert _read_line(second) == "has it"
    assert second.wait(10) == 0


def test_another_device_is_not_waited_for(tmp_path: Path) -> None:
    with lease_devices([ONE], tmp_path, "one"), lease_devices([TWO], tmp_path, "two") as leases:
        assert len(leases) == 1


def test_the_lease_of_a_dead_training_is_free_at_once(hold: Hold, tmp_path: Path) -> None:
    dead = hold("dead")
    assert _read_line(dead) == "has it"
    dead.send_signal(signal.SIGKILL)
    dead.wait()
    started = time.monotonic()
    with lease_devices([ONE], tmp_path, "next"):
        assert time.monotonic() - started < 5


def test_training_processes_keep_the_lease_of_a_dead_launcher(hold: Hold) -> None:
    launcher = hold("orphan", hand_on=True)
    assert _read_line(launcher) == "has it"
    training = int(_read_line(launcher))
    launcher.send_signal(signal.SIGKILL)
    launcher.wait()
    waiting = hold("next", seconds=0)
    assert "taken by orphan" in _read_line(waiting)
    os.kill(training, signal.SIGKILL)
    assert _read_line(waiting) == "NVIDIA L4 is free"
    assert waiting.wait(10) == 0
