"""Exactly once, whatever dies: workers, the driver of the night and the whole PostgreSQL server are killed while notes are coded.

Longer by one command: `NIGHT_KILLS=400 NIGHT_OUTAGE_SECONDS=60 make test ARGS=tests/steps/test_kills.py`.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

import psutil
import pytest
from hospital import NOTE, admit, open_hospital, publish_models, query, results_of
from night_processes import FIRST, LAST

from llmcoder_tasks.coding.title_coder import TitleCoder
from llmcoder_tasks.database import Database
from llmcoder_tasks.records import ModelRef
from llmcoder_tasks.services.postgres import EmbeddedPostgres
from llmcoder_tasks.steps.code_encounters import code_encounters
from llmcoder_tasks.storage import FolderStorage

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1200)]

PROGRAM = Path(__file__).resolve().parents[1] / "night_processes.py"
KILLS = int(os.environ.get("NIGHT_KILLS", "100"))
OUTAGE_SECONDS = float(os.environ.get("NIGHT_OUTAGE_SECONDS", "6"))
NOTES = 3000
PAUSE = 6.0
SHARDS = 3
VICTIMS = ("worker", "worker", "worker", "driver", "postgres")
UNKNOWN_LINE = f"{NOTE}4. strange malady\n"  # an ambiguous line makes every batch ask the phrase coder
HTML = f"<html><body>{NOTE}</body></html>\n"


class Hospital:
    """A server of its own, a store, and the night's processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server = EmbeddedPostgres(folder)
        self.storage: FolderStorage = publish_models(folder)
        self.drivers: list[subprocess.Popen[bytes]] = []
        (folder / "pids").mkdir()

    def open_database(self, name: str) -> Database:
        """A database with the same notes as every other."""
        running = self.server.start()
        self.server.ensure_database(running, name)
        database = Database(running.url(name))
        database.migrate()
        return open_hospital(database)

    def drive(self, database: Database, run_id: str = "night", pause: float = 0.0) -> None:
        """Start a driver, as a scheduler would be started."""
        url = database.engine.url.render_as_string(hide_password=False)
        command = [sys.executable, str(PROGRAM), url, str(self.storage.folder), str(self.folder), run_id, str(SHARDS), str(pause)]
        with (self.folder / "drivers.log").open("ab") as log:
            environment = {**os.environ, "PYTHONPATH": str(PROGRAM.parents[1]), "OMP_NUM_THREADS": "1"}
            self.drivers.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))

    def pids(self, kind: str) -> list[int]:
        """Living processes of a kind."""
        found = [int(path.name.partition("-")[2]) for path in (self.folder / "pids").glob(f"{kind}-*")]
        return sorted(pid for pid in found if _is_ours(pid))

    def kill(self, kind: str, chance: random.Random) -> bool:
        """Kill one process of a kind without warning; whether there was one."""
        if kind == "postgres":
            running = self.server.find()
            pids = [running.pid] if running else []
        else:
            pids = self.pids(kind)
        if not pids:
            return False
        victim = psutil.Process(chance.choice(pids))
        victim.kill()
        with suppress(psutil.NoSuchProcess):
            while victim.status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.01)
        return True

    def await_end(self, seconds: float) -> None:
        """Wait for the last driver, and for workers that lost theirs."""
        assert self.drivers[-1].wait(seconds) == 0, self.last_words()
        deadline = time.monotonic() + 30
        while self.pids("worker") and time.monotonic() < deadline:
            time.sleep(0.2)
        assert self.pids("worker") == []

    def last_words(self) -> str:
        return (self.folder / "drivers.log").read_text(errors="replace")[-3000:]

    def close(self) -> None:
        """End everything that was started."""
        for pid in [*self.pids("driver"), *self.pids("worker")]:
            os.kill(pid, signal.SIGKILL)
        for driver in self.drivers:
            driver.kill()
            driver.wait()
        self.server.stop()


def _is_ours(pid: int) -> bool:
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and str(PROGRAM) in process.cmdline()
    except psutil.Error:
        return False


@pytest.fixture
def hospital() -> Iterator[Hospital]:
    folder = Path(tempfile.mkdtemp(prefix="kills-"))
    folder.chmod(0o755)
    found = Hospital(folder)
    try:
        yield found
    finally:
        found.close()
        shutil.rmtree(folder, ignore_errors=True)


def _fill(database: Database, notes: int) -> None:
    """Notes of two releases, of which every hundredth is HTML."""
    bad = notes // 100
    half = (notes - bad) // 2
    admit(database, half, on=date(2026, 3, 31), note=UNKNOWN_LINE)
    admit(database, notes - bad - half, on=date(2026, 4, 2), note=UNKNOWN_LINE, first=half)
    admit(database, bad, on=date(2026, 4, 3), note=HTML, first=notes - bad)


def _state(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    """All that a night leaves, without ids, times and the name of the run."""
    return {
        "predictions": results_of(database),
        "coded_notes": query(
            database,
            "SELECT encounter_id, note_sha256, model_id, release_key, status, failure FROM coded_notes ORDER BY 1, 2, 3, 4",
        ),
        "quarantine": query(database, "SELECT content_sha256, place, source, reason FROM quarantined_notes ORDER BY 1, 2"),
        "claims": query(database, "SELECT * FROM note_claims"),
    }


def _undisturbed(hospital: Hospital, notes: int) -> dict[str, list[tuple[Any, ...]]]:
    database = hospital.open_database("undisturbed")
    _fill(database, notes)
    done = code_encounters(
        FIRST, LAST, model=ModelRef("m1", "x"), coding_run_id="night", storage=hospital.storage, database=database,
        cache_folder=hospital.folder / "cache", open_coder=TitleCoder.open, max_quarantined_share=1.0,
    )  # fmt: skip
    assert (done.coded, done.quarantined) == (notes - notes // 100, notes // 100)
    state = _state(database)
    database.engine.dispose()
    return state


def test_kills_of_workers_driver_and_database_leave_every_note_coded_exactly_once(hospital: Hospital) -> None:
    chance = random.Random(20261124)
    expected = _undisturbed(hospital, NOTES)
    database = hospital.open_database("disturbed")
    _fill(database, NOTES)
    hospital.drive(database, pause=PAUSE)
    killed: Counter[str] = Counter()
    deadline = time.monotonic() + 10 * KILLS
    while killed.total() < KILLS:
        time.sleep(chance.uniform(0.05, 0.5))
        kind = chance.choice(VICTIMS)
        while not (hospital.pids("worker") and hospital.kill(kind, chance)):  # nobody is killed before the night is at work
            assert time.monotonic() < deadline, f"{dict(killed)}\n{hospital.last_words()}"
            assert hospital.drivers[-1].poll() is None, f"the night ended after {killed.total()} kills\n{hospital.last_words()}"
            time.sleep(0.05)
        killed[kind] += 1
        if kind == "driver":
            hospital.drivers[-1].wait(10)
            hospital.drive(database, pause=PAUSE)
        if kind == "postgres":
            hospital.server.start()
    left = NOTES - query(database, "SELECT count(*) FROM coded_notes")[0][0]
    (hospital.folder / "calm").touch()
    hospital.await_end(300)

    print(f"killed {dict(killed)}; {left} notes were still to be coded after the last kill")
    assert left > 0, "the night ended before the kills did: make the coder slower"
    assert min(killed[kind] for kind in set(VICTIMS)) > 0
    assert _state(database) == expected
    assert query(database, "SELECT status FROM coding_runs") == [("finished",)]
    database.engine.dispose()


def test_two_nights_started_at_once_code_every_note_exactly_once(hospital: Hospital) -> None:
    notes = 600
    expected = _undisturbed(hospital, notes)
    database = hospital.open_database("two_nights")
    _fill(database, notes)
    hospital.drive(database, "one", pause=0.1)
    hospital.drive(database, "two", pause=0.1)
    assert hospital.drivers[0].wait(120) == 0, hospital.last_words()
    hospital.await_end(120)

    assert _state(database) == expected
    shares = query(database, "SELECT coding_run_id, count(*) FROM coded_notes GROUP BY 1 ORDER BY 1")
    assert [run for run, _ in shares] == ["one", "two"], "both nights take part"
    assert query(database, "SELECT DISTINCT status FROM coding_runs") == [("finished",)]
    lost = query(database, "SELECT coalesce(sum((detail->>'lost')::integer), 0) FROM step_runs WHERE step = 'code_shard'")
    assert lost == [(0,)], "two workers did the same work"
    database.engine.dispose()


def test_a_night_waits_for_a_database_that_is_gone_and_goes_on(hospital: Hospital) -> None:
    notes = 600
    expected = _undisturbed(hospital, notes)
    database = hospital.open_database("outage")
    _fill(database, notes)
    hospital.drive(database, pause=0.3)
    deadline = time.monotonic() + 60
    while query(database, "SELECT count(*) FROM coded_notes")[0][0] < 50:
        assert time.monotonic() < deadline, hospital.last_words()
        time.sleep(0.1)
    database.engine.dispose()
    workers = hospital.pids("worker")
    assert hospital.server.stop()
    time.sleep(OUTAGE_SECONDS)
    assert hospital.pids("worker") == workers, "nobody gave up"
    hospital.server.start()
    hospital.await_end(120)

    assert query(database, "SELECT count(*) FROM coding_runs WHERE status = 'finished'") == [(1,)]
    assert _state(database) == expected
    database.engine.dispose()
