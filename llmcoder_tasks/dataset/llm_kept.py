"""Answers that are paid for, kept on disk as they come: one file of JSON lines for each fingerprint of the question.

A line is `{"code": "I10", "variations": ["HTN"]}`. A line cut off by a crash is skipped when the file is read again.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from llmcoder_tasks.dataset.titles import normalise_text
from llmcoder_tasks.errors import DatasetError


class KeptAnswers:
    """The variations kept in one file, by code, in the order in which they came. Threads may add at the same time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = Lock()
        self._texts: dict[str, dict[str, str]] = {}
        if path.is_file():
            for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
                self._remember(line)

    def variations_of(self, code: str) -> tuple[str, ...]:
        """What is kept for a code, each text once."""
        return tuple(self._texts.get(code, {}).values())

    def add(self, variations: Mapping[str, Sequence[str]]) -> None:
        """Keep the answers to one question: on disk before the call returns."""
        lines = [
            json.dumps({"code": code, "variations": list(texts)}, ensure_ascii=False) for code, texts in variations.items() if texts
        ]
        with self._lock:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write("".join(f"\n{line}" for line in lines))  # the break stands first: a line cut off before spoils nothing
                stream.flush()
                os.fsync(stream.fileno())
            for line in lines:
                self._remember(line)

    def _remember(self, line: str) -> None:
        try:
            row = json.loads(line)
        except ValueError:
            return
        texts = self._texts.setdefault(row["code"], {})
        for text in row["variations"]:
            texts.setdefault(normalise_text(text), text)


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Hold the folder of kept answers. Raises DatasetError when another run holds it: both would pay for the same."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DatasetError(f"another run asks for variations and keeps them in {folder}: wait for its end") from None
        yield
