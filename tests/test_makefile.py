"""The commands for life: listed, passing options on, and clear about a Python that is too old."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from llmcoder_tasks.settings import PROJECT_FOLDER

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def _make(*arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    if path is not None:
        environment["PATH"] = path
    make = shutil.which("make") or "make"
    return subprocess.run(
        [make, *arguments], cwd=PROJECT_FOLDER, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_help_lists_every_command() -> None:
    listed = {line.split()[1] for line in _make().stdout.splitlines()}
    assert listed == {"help", "demo", "test", "lint", "up", "down", "status", "clean"}


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (("demo", "--", "--exit"), ".venv/bin/llmcoder demo --exit"),
        (("demo",), ".venv/bin/llmcoder demo"),
        (
            ("test", "ARGS=-k ingest", "TEST_PROCESSES=2"),
            ".venv/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -k ingest",
        ),
    ],
)
def test_options_reach_the_command(arguments: tuple[str, ...], command: str) -> None:
    result = _make("--dry-run", *arguments)
    assert result.returncode == 0, result.stderr
    assert command in [line.strip() for line in result.stdout.splitlines()]


def test_a_python_that_is_too_old_is_named_with_the_cure(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text('#!/bin/sh\nif [ "$1" = --version ]; then echo Python 3.9.1; else exit 1; fi\n')
    old.chmod(0o755)
    venv = tmp_path / "venv"
    result = _make(f"VENV={venv}", "status", "SHELL=/bin/sh", path=str(tmp_path))
    assert result.returncode != 0
    assert "needs Python 3.11, 3.12 or 3.13, and found Python 3.9.1" in result.stderr
    assert "make PYTHON=" in result.stderr
    assert not venv.exists()
