"""The processes of a night, to be killed: `python night_processes.py URL STORE FOLDER RUN_ID SHARDS PAUSE`.

The driver does what a scheduler does: it plans, starts a process for each shard and another when one dies, finishes, and begins
again until the run is finished. Every process at work lies as a file under FOLDER/pids, so that it can be found and killed.
The coder is model-free and waits PAUSE seconds on average before each batch, while FOLDER/calm does not exist.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

from llmcoder_tasks.coding.claims import Pace
from llmcoder_tasks.coding.title_coder import TitleCoder
from llmcoder_tasks.database import Database
from llmcoder_tasks.errors import LLMCoderError
from llmcoder_tasks.records import ModelRef
from llmcoder_tasks.steps.code_encounters import Shard, code_shard, finish_night, plan_night
from llmcoder_tasks.storage import FolderStorage

FIRST, LAST = date(2026, 3, 30), date(2026, 4, 30)
PACE = Pace(lease=2.0, heartbeat=0.4, patience=120.0)


class UnhurriedCoder(TitleCoder):
    """Takes its time for each batch that needs the phrase coder, as a model does."""

    folder: Path
    pause: float

    def code_phrases(self, texts: Sequence[str]) -> Any:
        if not (self.folder / "calm").exists():
            time.sleep(random.expovariate(1 / self.pause) if self.pause else 0)
        return super().code_phrases(texts)


def _work(url: str, store: str, folder: Path, shard: Shard) -> int:
    """Code a shard; the exit status."""
    mark = folder / "pids" / f"worker-{os.getpid()}"
    mark.touch()
    try:
        code_shard(
            **shard,
            storage=FolderStorage(Path(store)),
            database=Database(url),
            cache_folder=folder / "cache",
            open_coder=UnhurriedCoder.open,
            pace=PACE,
        )
    except LLMCoderError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        mark.unlink(missing_ok=True)
    return 0


def _start(url: str, store: str, folder: Path, shard: Shard) -> int:
    pid = os.fork()
    if pid == 0:
        status = 2
        with suppress(BaseException):
            status = _work(url, store, folder, shard)
        os._exit(status)
    return pid


def drive(url: str, store: str, folder: Path, run_id: str, shards: int) -> None:
    """A whole night, whoever dies."""
    database = Database(url)
    while True:
        planned = plan_night(FIRST, LAST, model=ModelRef("m1", "x"), shards=shards, coding_run_id=run_id, database=database)
        database.engine.dispose()  # a child must not share a connection
        running = {_start(url, store, folder, shard): shard for shard in planned}
        (folder / "pids" / f"driver-{os.getpid()}").touch()
        while running:
            pid, status = os.wait()
            shard = running.pop(pid)
            if status != 0:
                time.sleep(0.1)
                running[_start(url, store, folder, shard)] = shard
        try:
            finish_night(run_id, database, max_quarantined_share=1.0)
        except LLMCoderError as error:
            print(error, file=sys.stderr)
            continue
        return


def main() -> None:
    url, store, folder, run_id, shards, pause = sys.argv[1:]
    UnhurriedCoder.folder, UnhurriedCoder.pause = Path(folder), float(pause)
    drive(url, store, Path(folder), run_id, int(shards))


if __name__ == "__main__":
    main()
