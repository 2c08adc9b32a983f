"""DeepSpeed through torchrun: machines that meet, the same curve from one process and from two, and a run that was killed.

The operator that DeepSpeed compiles at its first run takes minutes on a busy machine: without it these tests are skipped.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from llama_folder import TEXTS
from torch.utils.cpp_extension import get_default_build_root

from llmcoder_tasks.model.base_weights import start_from_pretrained
from llmcoder_tasks.model.plan import TrainingPlan
from llmcoder_tasks.model.recipe import Recipe, read_recipe
from llmcoder_tasks.model.training_run import Job, RunFolder, launch_training, make_torchrun_arguments
from llmcoder_tasks.records import Example
from llmcoder_tasks.storage import FolderStorage

pytestmark = pytest.mark.skipif(
    not any(Path(get_default_build_root()).glob("*/deepspeed_shm_comm/*.so")), reason="DeepSpeed's operator is not compiled"
)


def _recipe(weights: Path, zero_stage: int | None, **changes: Any) -> Recipe:
    recipe = read_recipe("llama-3.2-1b")
    stage = replace(
        recipe.stages["stage_one"], epochs=60.0, learning_rate=3e-3, tokens_per_step=256, packing=64, warmup_steps=2,
        log_every_steps=1, checkpoint_every_steps=5,
    )  # fmt: skip
    return replace(
        recipe, base_weights=str(weights), stages={"stage_one": stage, "stage_two": stage}, precision="fp32", context_tokens=256,
        answer_tokens=64, deepspeed_zero_stage=zero_stage, gradient_checkpointing=False, **changes,
    )  # fmt: skip


def _lay_out(recipe: Recipe, path: Path, **where: Any) -> tuple[RunFolder, Job]:
    """A run over the same four rows a step for one process and for two."""
    folder = RunFolder(path)
    folder.start.mkdir(parents=True)
    tokenizer = start_from_pretrained(recipe, folder.start, cache_folder=path / "cache", storage=FolderStorage(path))
    examples = [Example(code, "base", "train", text, (code,)) for code, text in TEXTS.items()]
    TrainingPlan.make(examples, recipe.stages["stage_one"], tokenizer, processes=2, seed=1).save(path)
    job = Job(path.name, "stage_one", recipe, True, **{"processes": 1} | where)
    job.write(folder)
    return folder, job


def _run(folder: RunFolder, job: Job, report: Callable[[dict[str, Any]], None] = lambda _: None) -> None:
    with folder.lock() as lock:
        launch_training(folder, job, locks=[lock], report=report)


def _find_free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _read_losses(folder: RunFolder) -> list[float]:
    return [json.loads(line)["loss"] for line in folder.log.read_text().splitlines()]


def test_two_machines_of_one_process_give_the_curve_of_one_alone(weights: Path, tmp_path: Path) -> None:
    """ZeRO-2 on two machines, which are this one twice, against no DeepSpeed at all: the losses of all steps."""
    alone, job = _lay_out(_recipe(weights, None), tmp_path / "alone")
    _run(alone, job)
    meeting = {"nodes": 2, "rendezvous": f"127.0.0.1:{_find_free_port()}"}
    together, job = _lay_out(_recipe(weights, 2), tmp_path / "together", **meeting)
    command = [sys.executable, "-m", "torch.distributed.run", *make_torchrun_arguments(together, job)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    second = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    drained = threading.Thread(target=lambda: second.stdout and second.stdout.read(), daemon=True)
    drained.start()
    try:
        _run(together, job)
        assert second.wait(60) == 0
    finally:
        if second.poll() is None:
            os.killpg(second.pid, signal.SIGKILL)
            second.wait()
        drained.join(10)
        if second.stdout:
            second.stdout.close()
    one, two = _read_losses(alone), _read_losses(together)
    assert len(one) == len(two) > 10
    assert two == pytest.approx(one, rel=0.02, abs=0.01)
    assert one[-1] < 0.7 * one[0], "nothing was learnt"


@pytest.mark.parametrize("zero_stage", [3])
def test_a_killed_run_of_two_processes_goes_on_to_the_weights_of_an_undisturbed_one_bit_for_bit(
    weights: Path, tmp_path: Path, zero_stage: int
) -> None:
    undisturbed, job = _lay_out(_recipe(weights, zero_stage), tmp_path / "undisturbed", processes=2)
    _run(undisturbed, job)
    folder, job = _lay_out(_recipe(weights, zero_stage), tmp_path / "killed", processes=2)
    program = (
        "import sys; from pathlib import Path; from llmcoder_tasks.model.training_run import Job, RunFolder, launch_training\n"
        "folder = RunFolder(Path(sys.argv[1])); job = Job.read(folder)\n"
        "report = lambda line: print(line['step'], flush=True)\n"
        "with folder.lock() as lock: launch_training(folder, job, locks=[lock], report=report)"
    )
    victim = subprocess.Popen([sys.executable, "-c", program, str(folder.path)], stdout=subprocess.PIPE, text=True)
    assert victim.stdout is not None
    with victim.stdout as lines:
        assert any(int(line) >= 7 for line in lines), "the run ended before it could be killed"
        workers = _find_workers(folder.path)
        victim.kill()
        for worker in workers:
            os.kill(worker, signal.SIGKILL)
    victim.wait()
    assert not folder.model.exists()
    seen: list[int] = []
    _run(folder, job, lambda line: seen.append(line["step"]))
    assert seen[0] > 1, "it began anew"
    weights_of = [(run.model / "model.safetensors").read_bytes() for run in (undisturbed, folder)]
    assert weights_of[0] == weights_of[1]
    assert _read_losses(folder) == _read_losses(undisturbed)


def _find_workers(path: Path) -> list[int]:
    """torchrun and its processes over a run's folder."""
    import psutil

    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if str(path) in (process.info["cmdline"] or []) and "-c" not in (process.info["cmdline"] or [])
    ]
