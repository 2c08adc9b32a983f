"""Answers that are paid for, kept on disk as they come: one file of JSON lines for each fingerprint of the question.

A line is `{"code": "I10", "variations": ["HTN"]}`. A line cut off by a crash is skipped when the file is read again.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

from llmcoder_tasks.dataset.titles import normalise_text
from llmcoder_tasks.errors import DatasetError
from llmcoder_tasks.kept_lines import KeptLines


class KeptAnswers:
    """The variations kept in one file, by code, in the order in which they came. Threads may add at the same time."""

    def __init__(self, path: Path) -> None:
        self._lines = KeptLines(path)
        self._lock = Lock()
        self._texts: dict[str, dict[str, str]] = {}
        for row in self._lines.read():
            self._remember(row)

    def variations_of(self, code: str) -> tuple[str, ...]:
        """What is kept for a code, each text once."""
        return tuple(self._texts.get(code, {}).values())

    def add(self, variations: Mapping[str, Sequence[str]]) -> None:
        """Keep the answers to one question: on disk before the call returns."""
        rows = [{"code": code, "variations": list(texts)} for code, texts in variations.items() if texts]
        with self._lock:
            self._lines.append(rows)
            for row in rows:
                self._remember(row)

    def _remember(self, row: Mapping[str, Any]) -> None:
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
