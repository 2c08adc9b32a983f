"""The folder of one training run and the launch of its processes; torch stays in those.

    job.json               what to do
    start/                 weights (or only the tokenizer, for a model from nothing) to begin with
    plan.npz               every step of the run
    checkpoints/           where to go on after a kill
    training_log.jsonl     the loss curve so far
    model/                 the finished model, written last

Checkpoints hold weights as safetensors; optimizer and scheduler state are torch files that are read with `weights_only=True`
(DeepSpeed reads its own), from this local folder alone and only into the run that wrote them. They never reach the artifact store.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llmcoder_tasks.errors import TrainingError, TrainingInterrupted
from llmcoder_tasks.model.compiler_locks import find_operator_cache, remove_abandoned_locks
from llmcoder_tasks.model.recipe import Recipe, Stage, parse_recipe

logger = logging.getLogger(__name__)

PROGRESS_MARK = "@progress "
FAILURE_MARK = "@failure "
LOG_NAME = "training_log.jsonl"
RECIPE_NAME = "recipe.yaml"

ProgressReport = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Names of the places in a run's folder."""

    path: Path

    @property
    def start(self) -> Path:
        """What training begins with."""
        return self.path / "start"

    @property
    def checkpoints(self) -> Path:
        """Where to go on after a kill."""
        return self.path / "checkpoints"

    @property
    def log(self) -> Path:
        """The loss curve."""
        return self.path / LOG_NAME

    @property
    def model(self) -> Path:
        """The finished model."""
        return self.path / "model"

    @contextmanager
    def lock(self) -> Iterator[int]:
        """Keep a second run of the same model out, and wait for the first; yields the descriptor that holds the lock."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path.parent / f".{self.path.name}.lock").open("w") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                logger.info("%s is being trained by another process: waiting for it", self.path.name)
                fcntl.flock(stream, fcntl.LOCK_EX)
            yield stream.fileno()


@dataclass(frozen=True, slots=True)
class Job:
    """What the processes are to do."""

    model_id: str
    stage: str
    recipe: Recipe
    starts_from_weights: bool  # else from random ones
    processes: int

    @property
    def stage_settings(self) -> Stage:
        """The settings of the stage to train."""
        return self.recipe.stages[self.stage]

    def write(self, folder: RunFolder) -> None:
        """Write `job.json`."""
        facts = asdict(self) | {"recipe": self.recipe.to_dict()}
        (folder.path / "job.json").write_text(json.dumps(facts, indent=2), encoding="utf-8")

    @classmethod
    def read(cls, folder: RunFolder) -> Job:
        """Read `job.json`."""
        facts = json.loads((folder.path / "job.json").read_text(encoding="utf-8"))
        return cls(**facts | {"recipe": parse_recipe(facts["recipe"], "job.json")})


def launch_training(folder: RunFolder, job: Job, *, lock: int, report: ProgressReport) -> None:
    """Run torchrun over the folder until the model is written.

    Output lines come into this process's log as they are printed, progress goes to `report`. If this process is interrupted, the
    training processes are ended; the lock is theirs too, so that a retry cannot run beside them. Raises TrainingError when the run
    failed by its own fault, TrainingInterrupted when it was ended from outside.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1"]
    command += [f"--nproc-per-node={job.processes}", "-m", "llmcoder_tasks.model.training_process", str(folder.path)]
    environment = _environment()
    if job.recipe.deepspeed_zero_stage:
        remove_abandoned_locks(find_operator_cache(environment).resolve())
    process = subprocess.Popen(  # noqa: S603  # our own module in our own interpreter
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        start_new_session=True,
        pass_fds=[lock],
    )
    last_lines: list[str] = []
    failure = ""
    try:
        for line in process.stdout or ():
            text = line.rstrip()
            if text.startswith(PROGRESS_MARK):
                report(json.loads(text.removeprefix(PROGRESS_MARK)))
            elif text.startswith(FAILURE_MARK):
                failure = text.removeprefix(FAILURE_MARK)
            elif text:
                logger.info("torchrun: %s", text)
                last_lines = [*last_lines, text][-5:]
        code = process.wait()
    finally:
        _end(process)
        if process.stdout:
            process.stdout.close()
    if failure:
        # What failed by itself would fail again from its own checkpoints.
        shutil.rmtree(folder.checkpoints, ignore_errors=True)
        raise TrainingError(f"training {job.model_id} failed: {failure}")
    if code != 0:
        raise TrainingInterrupted(
            f"training {job.model_id} was cut off, torchrun ended with {code}: {' | '.join(last_lines) or 'no output'}; "
            "try again to go on from its last checkpoint"
        )
    if not folder.model.is_dir():
        raise TrainingError(f"training {job.model_id} ended without a model in {folder.model}: look at the lines above")


def _environment() -> dict[str, str]:
    """What the training processes see: no password of ours, one thread each, and one machine's network."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LLMCODER_", "AIRFLOW_", "AWS_"))}
    defaults = {
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "TOKENIZERS_PARALLELISM": "false",
        "GLOO_SOCKET_IFNAME": "lo",
        "PYTHONUNBUFFERED": "1",
        # Gradients of a few megabytes come and go at every step: keep their memory instead of giving it back to the kernel.
        "MALLOC_MMAP_THRESHOLD_": "1073741824",
        "MALLOC_TRIM_THRESHOLD_": "1073741824",
    }
    return defaults | environment


def _end(process: subprocess.Popen[str]) -> None:
    """End torchrun and its workers, if they still run: first politely, then not."""
    for wanted, patience in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 10.0)):
        if process.poll() is not None:
            return
        os.killpg(process.pid, wanted)
        deadline = time.monotonic() + patience
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
