"""How long the dataset of the whole release takes: python tests/benchmarks/bench_dataset.py"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from llmcoder_tasks.dataset.config import DatasetConfig
from llmcoder_tasks.dataset.examples import make_examples
from llmcoder_tasks.dataset.expectations import verify_examples
from llmcoder_tasks.dataset.store import write_tables
from llmcoder_tasks.icd10cm.code_set import default_code_set

T = TypeVar("T")


def _measure(what: str, work: Callable[[], T]) -> T:
    wall, cpu = time.monotonic(), time.process_time()
    result = work()
    print(f"{what:<10} {time.monotonic() - wall:6.1f} s wall {time.process_time() - cpu:6.1f} s cpu")
    return result


def main() -> None:
    """Print seconds of each part, and rows of each table."""
    code_set = _measure("release", default_code_set)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tables = _measure("generate", lambda: make_examples(code_set, DatasetConfig()))
        _measure("validate", lambda: verify_examples(tables, code_set=code_set, subject="bench", docs_folder=folder / "docs"))
        facts = _measure("write", lambda: write_tables(tables, folder))
    for scenario, table in facts.items():
        print(f"{scenario:<14} {table.rows:>7,} rows  {table.sha256[:16]}  {table.rows_by_split}")


if __name__ == "__main__":
    main()
