"""How training processes are launched: what they see, what their end means."""

from __future__ import annotations

import logging
import stat
import sys
from pathlib import Path

import pytest

from llmcoder_tasks.errors import TrainingError, TrainingInterrupted
from llmcoder_tasks.model.recipe import read_recipe
from llmcoder_tasks.model.training_run import Job, RunFolder, launch_training

JOB = Job("m1", "stage_one", read_recipe("tiny"), False, 1)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    made = RunFolder(tmp_path / "m1")
    made.checkpoints.mkdir(parents=True)
    return made


def _launch(folder: RunFolder, monkeypatch: pytest.MonkeyPatch, script: str) -> list[int]:
    """Launch with a shell script in the place of the interpreter, as if it were torchrun; the steps it reported."""
    program = folder.path / "python"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(sys, "executable", str(program))
    steps: list[int] = []
    with folder.lock() as lock:
        launch_training(folder, JOB, locks=[lock], report=lambda line: steps.append(line["step"]))
    return steps


def test_progress_is_reported_and_other_lines_are_logged(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    script = f"""echo hello; echo '@progress {{"step": 10}}'; mkdir {folder.model}"""
    assert _launch(folder, monkeypatch, script) == [10]
    assert "torchrun: hello" in caplog.text


def test_a_fault_of_its_own_is_told_and_leaves_no_checkpoint_to_go_on_from(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TrainingError, match="training m1 failed: the loss is nan") as caught:
        _launch(folder, monkeypatch, "echo '@failure the loss is nan'; exit 1")
    assert not caught.value.retryable
    assert not folder.checkpoints.exists()


def test_an_end_from_outside_keeps_the_checkpoints_and_is_worth_a_retry(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TrainingInterrupted, match="cut off, torchrun ended with -9: last words; try again") as caught:
        _launch(folder, monkeypatch, "echo last words; kill -9 $$")
    assert caught.value.retryable
    assert folder.checkpoints.exists()


def test_a_process_that_fails_after_the_model_was_written_takes_nothing_away(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _launch(folder, monkeypatch, f"mkdir {folder.model}; kill -6 $$")
    assert "m1 is whole, though torchrun ended with -6 after it was written" in caplog.text


def test_an_end_without_a_model_is_no_success(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TrainingError, match="ended without a model"):
        _launch(folder, monkeypatch, "exit 0")


def test_training_processes_see_no_password_and_one_thread(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMCODER_DATABASE_URL", "postgresql://u:secret@h/d")
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    _launch(folder, monkeypatch, f"env > {folder.path}/seen; mkdir {folder.model}")
    seen = (folder.path / "seen").read_text()
    assert "secret" not in seen
    assert "OMP_NUM_THREADS=1" in seen


def test_a_job_survives_the_disk(folder: RunFolder) -> None:
    JOB.write(folder)
    assert Job.read(folder) == JOB
