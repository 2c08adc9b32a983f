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
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llmcoder_tasks.errors import TrainingError, TrainingInterrupted
from llmcoder_tasks.model.compiler_locks import find_operator_cache, remove_abandoned_locks
from llmcoder_tasks.model.flops import ModelShape
from llmcoder_tasks.model.recipe import Recipe, Stage, parse_recipe
from llmcoder_tasks.model.tokenizer import AnswerTokenizer

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
    processes: int  # of one machine
    nodes: int = 1  # machines
    rendezvous: str | None = None  # host:port of the first of several machines, where they meet

    @property
    def world_size(self) -> int:
        """Processes on all machines."""
        return self.processes * self.nodes

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


def read_shape(folder: RunFolder, job: Job, tokenizer: AnswerTokenizer) -> ModelShape:
    """The shape of the model that a run trains. Raises ModelError, and TrainingError when it has none."""
    if job.starts_from_weights:
        return ModelShape.read(folder.start)
    if job.recipe.architecture is None:
        raise TrainingError(f"recipe {job.recipe.name} has neither weights nor an architecture")
    return ModelShape.of(job.recipe.architecture, tokenizer.size)


def launch_training(folder: RunFolder, job: Job, *, locks: Sequence[int], report: ProgressReport) -> None:
    """Run torchrun over the folder until the model is written.

    Output lines come into this process's log as they are printed, progress goes to `report`. If this process is interrupted, the
    training processes are ended; the locks are theirs too, so that neither a retry nor another training can run beside them. Raises
    TrainingError when the run failed by its own fault, TrainingInterrupted when it was ended from outside.
    """
    process = _start(folder, job, locks)
    try:
        failure, last_lines = _follow(process, report)
        code = process.wait()
    finally:
        _end(process)
        if process.stdout:
            process.stdout.close()
    if failure:
        # What failed by itself would fail again from its own checkpoints.
        shutil.rmtree(folder.checkpoints, ignore_errors=True)
        raise TrainingError(f"training {job.model_id} failed: {failure}")
    if code != 0 and folder.model.is_dir():
        logger.warning("%s is whole, though torchrun ended with %d after it was written", job.model_id, code)
    elif code != 0:
        raise TrainingInterrupted(
            f"training {job.model_id} was cut off, torchrun ended with {code}: {' | '.join(last_lines) or 'no output'}; "
            "try again to go on from its last checkpoint"
        )
    if not folder.model.is_dir():
        raise TrainingError(f"training {job.model_id} ended without a model in {folder.model}: look at the lines above")


def _start(folder: RunFolder, job: Job, locks: Sequence[int]) -> subprocess.Popen[str]:
    arguments, environment = make_torchrun_arguments(folder, job), _environment(job)
    if job.nodes > 1:
        words = shlex.join(["torchrun", *arguments])
        logger.info("start this on each of the other %d machines, which must see the same folder: %s", job.nodes - 1, words)
    if job.recipe.deepspeed_zero_stage:
        remove_abandoned_locks(find_operator_cache(environment).resolve())
    return subprocess.Popen(  # noqa: S603  # our own module in our own interpreter
        [sys.executable, "-m", "torch.distributed.run", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        start_new_session=True,
        pass_fds=[*locks],
    )


def _follow(process: subprocess.Popen[str], report: ProgressReport) -> tuple[str, list[str]]:
    """Hand on what torchrun prints; the failure that a process told of, if one did, and the last other lines."""
    last_lines: list[str] = []
    failure = ""
    for line in process.stdout or ():
        text = line.rstrip()
        if text.startswith(PROGRESS_MARK):
            report(json.loads(text.removeprefix(PROGRESS_MARK)))
        elif text.startswith(FAILURE_MARK):
            failure = text.removeprefix(FAILURE_MARK)
        elif text:
            logger.info("torchrun: %s", text)
            last_lines = [*last_lines, text][-5:]
    return failure, last_lines


def make_torchrun_arguments(folder: RunFolder, job: Job) -> list[str]:
    """What torchrun is told: the same on every machine."""
    if job.nodes == 1:
        meeting = ["--standalone", "--local-addr=127.0.0.1"]
    else:
        meeting = [f"--nnodes={job.nodes}", "--rdzv-backend=c10d", f"--rdzv-endpoint={job.rendezvous}"]
        meeting += [f"--rdzv-id={job.model_id}"]
    program = ["-m", "llmcoder_tasks.model.training_process", str(folder.path)]
    return [*meeting, f"--nproc-per-node={job.processes}", *program]


def _environment(job: Job) -> dict[str, str]:
    """What the training processes see: no password of ours, one thread each, and one machine's network where it is enough."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LLMCODER_", "AIRFLOW_", "AWS_"))}
    defaults = {
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
        # Gradients of a few megabytes come and go at every step: keep their memory instead of giving it back to the kernel.
        "MALLOC_MMAP_THRESHOLD_": "1073741824",
        "MALLOC_TRIM_THRESHOLD_": "1073741824",
    }
    if job.nodes == 1:
        defaults["GLOO_SOCKET_IFNAME"] = "lo"
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
