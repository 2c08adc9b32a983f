"""Rows that are paid for, kept on disk as they come: a file of JSON lines. A line that a crash cut off spoils no other."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from threading import Lock
from typing import Any


class KeptLines:
    """One file of JSON objects. Threads may append at the same time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = Lock()

    def read(self) -> Iterator[dict[str, Any]]:
        """Every whole row, in the order in which they came."""
        if not self.path.is_file():
            return
        for line in self.path.read_text(encoding="utf-8", errors="replace").split("\n"):
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict):
                yield row

    def append(self, rows: Iterable[Mapping[str, Any]], *, is_synced: bool = True) -> None:
        """Keep rows: on disk before the call returns; without `is_synced` safe from the end of this process alone."""
        # The break stands first: a line cut off before spoils nothing.
        text = "".join(f"\n{json.dumps(row, ensure_ascii=False)}" for row in rows)
        with self._lock:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                if is_synced:  # some 25 ms a call
                    os.fsync(stream.fileno())
