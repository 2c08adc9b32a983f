"""Locks of torch's compiler of operators, which DeepSpeed uses.

A process that is killed while it compiles or loads an operator leaves its lock, and every later one waits for it, for ever.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import psutil

logger = logging.getLogger(__name__)


def find_operator_cache(environment: Mapping[str, str]) -> Path:
    """Where torch keeps operators that it compiled (torch.utils.cpp_extension)."""
    chosen = environment.get("TORCH_EXTENSIONS_DIR")
    if chosen:
        return Path(chosen)
    return Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "torch_extensions"


def remove_abandoned_locks(cache: Path) -> list[Path]:
    """Remove the locks that no process holds, and name them. A process that compiles or loads an operator keeps its lock open."""
    locks = set(cache.rglob("lock"))
    abandoned = sorted(locks - set(_list_open_files())) if locks else []
    for lock in abandoned:
        logger.warning("removing %s: who held it was killed, and nobody could load that operator any more", lock)
        lock.unlink(missing_ok=True)
    return abandoned


def _list_open_files() -> Iterator[Path]:
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            for descriptor in process.open_files():
                yield Path(os.path.realpath(descriptor.path))
