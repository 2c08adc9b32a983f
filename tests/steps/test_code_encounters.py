"""The night against a real PostgreSQL: each note once, under the release of its day, whatever dies in between."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from llmcoder_tasks.coding.title_coder import TitleCoder
from llmcoder_tasks.database import Database
from llmcoder_tasks.errors import ModelError, NoteError
from llmcoder_tasks.model.manifest import write_manifest
from llmcoder_tasks.records import ModelRef
from llmcoder_tasks.steps.code_encounters import CodedNight, CodedShard, code_encounters, code_shard, finish_night, plan_night
from llmcoder_tasks.storage import FolderStorage

pytestmark = pytest.mark.integration

SECRET = "Zebediah Quux"
FIRST, LAST = date(2026, 3, 30), date(2026, 4, 30)
OLD, NEW = "FY2026", "FY2026-April"
PNEUMONIA, PRESSURE = "Pneumonia, unspecified organism", "Essential (primary) hypertension"
INFECTION = "Urinary tract infection, site not specified"
CODES = {
    OLD: [("A00", False, "Cholera"), ("I10", True, PRESSURE), ("J189", True, PNEUMONIA)],
    NEW: [("A00", False, "Cholera"), ("I10", True, PRESSURE), ("N390", True, INFECTION)],
}
NOTE = f"DISCHARGE DIAGNOSES:\n1. {PNEUMONIA}\n2. {PRESSURE}\n3. {INFECTION}\n"
AMENDED = f"Final diagnosis: {PRESSURE}"


@pytest.fixture
def storage(tmp_path: Path) -> FolderStorage:
    """An artifact store with the published models `m1` and `m2`."""
    storage = FolderStorage(tmp_path / "artifacts")
    for model_id in ("m1", "m2"):
        folder = tmp_path / model_id
        folder.mkdir()
        (folder / "coder.json").write_text("{}")
        write_manifest(folder, {"model_id": model_id})
        storage.publish_folder(folder, f"models/{model_id}", last="manifest.json")
    return storage


@pytest.fixture
def hospital(database: Database) -> Database:
    """A database with two releases, two models and no encounter yet."""
    with database.engine.begin() as connection:
        for key, effective in ((OLD, date(2025, 10, 1)), (NEW, date(2026, 4, 1))):
            connection.execute(
                text("INSERT INTO releases (release_key, effective_from, source, content_sha256, code_count, billable_count, uri) "
                     "VALUES (:key, :effective, 'test', 'x', 3, 2, 'file:///x')"),
                {"key": key, "effective": effective},
            )  # fmt: skip
            for position, (code, is_billable, title) in enumerate(CODES[key], start=1):
                connection.execute(
                    text("INSERT INTO codes VALUES (:key, :code, :is_billable, :title, :title, :position)"),
                    {"key": key, "code": code, "is_billable": is_billable, "title": title, "position": position},
                )
        connection.execute(
            text("INSERT INTO datasets (dataset_id, release_key, uri, manifest) VALUES ('d', 'FY2026', 'file:///d', '{}')")
        )
        for model_id in ("m1", "m2"):
            connection.execute(
                text("INSERT INTO models (model_id, release_key, dataset_id, recipe, stage, uri, manifest) "
                     "VALUES (:id, 'FY2026', 'd', 'compact', 'stage_one', 'file:///m', '{}')"),
                {"id": model_id},
            )  # fmt: skip
    return database


def _admit(database: Database, count: int, *, on: date = date(2026, 4, 2), note: str = NOTE, first: int = 0) -> None:
    with database.engine.begin() as connection:
        for number in range(first, first + count):
            key = f"E{number:03d}"
            connection.execute(
                text("INSERT INTO encounters (encounter_id, discharge_date, source) VALUES (:key, :on, 'test')"),
                {"key": key, "on": on},
            )
            _write_note(connection, key, f"{note}Seen as number {number}.", 1)


def _write_note(connection: Any, key: str, note: str, version: int) -> None:
    connection.execute(
        text("INSERT INTO discharge_summaries VALUES (:key, :sha, :note, :version)"),
        {"key": key, "sha": hashlib.sha256(note.encode()).hexdigest(), "note": note, "version": version},
    )


def _query(database: Database, statement: str) -> list[tuple[Any, ...]]:
    with database.engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(statement))]


def _results(database: Database) -> list[tuple[Any, ...]]:
    """All that a night wrote, without ids and times."""
    return _query(
        database,
        "SELECT encounter_id, note_sha256, model_id, release_key, code, rank, confidence, decision, evidence_start, evidence_end "
        "FROM predictions ORDER BY encounter_id, note_sha256, model_id, release_key, rank",
    )


@pytest.fixture
def night(hospital: Database, storage: FolderStorage, tmp_path: Path) -> Callable[..., CodedNight]:
    def run(run_id: str = "night", model_id: str = "m1", open_coder: Any = TitleCoder.open) -> CodedNight:
        return code_encounters(
            FIRST, LAST, model=ModelRef(model_id, f"{storage.uri}/models/{model_id}"), coding_run_id=run_id,
            storage=storage, database=hospital, cache_folder=tmp_path / "cache", open_coder=open_coder,
        )  # fmt: skip

    return run


def test_a_note_is_coded_under_the_release_of_its_day_with_evidence(hospital: Database, night: Callable[..., CodedNight]) -> None:
    _admit(hospital, 1, on=date(2026, 3, 31))
    _admit(hospital, 1, on=date(2026, 4, 1), first=1)
    assert night() == CodedNight("night", encounters=2, coded=2, failed=0, uncoded=0, predictions=4, auto=4, review=0)
    rows = _query(
        hospital,
        "SELECT encounter_id, release_key, code, rank, substr(note_text, evidence_start + 1, evidence_end - evidence_start) "
        "FROM predictions JOIN discharge_summaries USING (encounter_id, note_sha256) ORDER BY encounter_id, rank",
    )
    assert rows == [
        ("E000", OLD, "J189", 1, "Pneumonia, unspecified organism"),
        ("E000", OLD, "I10", 2, "Essential (primary) hypertension"),
        ("E001", NEW, "I10", 1, "Essential (primary) hypertension"),
        ("E001", NEW, "N390", 2, "Urinary tract infection, site not specified"),
    ]


def test_a_second_night_over_the_same_notes_changes_nothing(hospital: Database, night: Callable[..., CodedNight]) -> None:
    _admit(hospital, 3)
    first = night()
    before = _results(hospital), _query(hospital, "SELECT * FROM coding_runs")
    assert night() == first
    assert (_results(hospital), _query(hospital, "SELECT * FROM coding_runs")) == before
    assert night("another night").coded == 0
    assert _results(hospital) == before[0]


def test_only_the_newest_text_is_coded_and_an_amended_one_again(hospital: Database, night: Callable[..., CodedNight]) -> None:
    _admit(hospital, 1)
    assert night("one").coded == 1
    with hospital.engine.begin() as connection:
        _write_note(connection, "E000", AMENDED, 2)
    assert night("two").coded == 1
    assert _query(hospital, "SELECT count(*) FROM coded_notes") == [(2,)]
    digest = hashlib.sha256(AMENDED.encode()).hexdigest()
    assert [row[4] for row in _results(hospital) if row[1] == digest] == ["I10"]


def test_another_model_codes_the_same_notes_beside_the_first(hospital: Database, night: Callable[..., CodedNight]) -> None:
    _admit(hospital, 2)
    night("one", "m1")
    night("two", "m2")
    assert _query(hospital, "SELECT model_id, count(*) FROM coded_notes GROUP BY 1 ORDER BY 1") == [("m1", 2), ("m2", 2)]


def test_shards_part_the_night_without_gap_or_overlap(hospital: Database, storage: FolderStorage, tmp_path: Path) -> None:
    _admit(hospital, 20)
    planned = plan_night(FIRST, LAST, model=ModelRef("m1", "x"), shards=4, coding_run_id="night", database=hospital)
    assert [shard["shard"] for shard in planned] == [0, 1, 2, 3]
    done = [
        code_shard(**shard, storage=storage, database=hospital, cache_folder=tmp_path / "cache", open_coder=TitleCoder.open)
        for shard in planned
    ]
    assert sum(shard.coded for shard in done) == 20
    assert all(shard.coded for shard in done)
    assert finish_night("night", hospital).coded == 20


def test_an_empty_night_is_planned_as_one_shard_with_nothing_to_do(hospital: Database, night: Callable[..., CodedNight]) -> None:
    assert plan_night(FIRST, LAST, model=ModelRef("m1", "x"), shards=4, coding_run_id="night", database=hospital) == [
        {"coding_run_id": "night", "shard": 0, "shards": 4}
    ]
    assert night() == CodedNight("night", 0, 0, 0, 0, 0, 0, 0)


def test_encounters_without_release_or_summary_are_counted_with_their_reason(
    hospital: Database, storage: FolderStorage, tmp_path: Path
) -> None:
    _admit(hospital, 1, on=date(2025, 9, 30))
    with hospital.engine.begin() as connection:
        connection.execute(
            text("INSERT INTO encounters (encounter_id, discharge_date, source) VALUES ('E900', '2025-10-02', 'test')")
        )
    done = code_encounters(
        date(2025, 9, 1), date(2025, 10, 2), model=ModelRef("m1", "x"), coding_run_id="night", storage=storage,
        database=hospital, cache_folder=tmp_path / "cache", open_coder=TitleCoder.open,
    )  # fmt: skip
    assert (done.encounters, done.coded, done.uncoded) == (2, 0, 2)
    assert _query(hospital, "SELECT encounter_id, reason FROM uncoded_encounters ORDER BY 1") == [
        ("E000", "no_release_on_discharge_date"),
        ("E900", "no_discharge_summary"),
    ]


class _Stumbling(TitleCoder):
    """Fails on a phrase, with the phrase in its message, as libraries do."""

    def code_phrases(self, texts: Sequence[str]) -> Any:
        for phrase in texts:
            if SECRET in phrase:
                raise RuntimeError(f"cannot code {phrase}")
        return super().code_phrases(texts)


def test_a_note_that_fails_stops_no_other_and_is_tried_again_the_next_night(
    hospital: Database, night: Callable[..., CodedNight], caplog: pytest.LogCaptureFixture
) -> None:
    _admit(hospital, 3)
    _admit(hospital, 1, note=f"{NOTE}4. {SECRET} disease\n", first=3)
    done = night("one", open_coder=_Stumbling.open)
    assert (done.coded, done.failed) == (3, 1)
    assert _query(hospital, "SELECT encounter_id, failure FROM coded_notes WHERE status = 'failed'") == [
        ("E003", "RuntimeError while coding")
    ]
    assert SECRET not in caplog.text
    done = night("two")
    assert (done.coded, done.failed) == (1, 0)
    assert _query(hospital, "SELECT count(*) FROM coded_notes WHERE status = 'failed'") == [(0,)]


def test_two_workers_on_one_shard_write_each_note_once(hospital: Database, storage: FolderStorage, tmp_path: Path) -> None:
    _admit(hospital, 40)
    (shard,) = plan_night(FIRST, LAST, model=ModelRef("m1", "x"), shards=1, coding_run_id="night", database=hospital)

    def work(_: int) -> CodedShard:
        return code_shard(**shard, storage=storage, database=hospital, cache_folder=tmp_path / "cache", open_coder=TitleCoder.open)

    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(work, range(2)))
    assert sum(shard.coded for shard in done) == 40
    assert len(_results(hospital)) == 80


DYING_WORKER = """
    import os, signal, sys
    from pathlib import Path
    from llmcoder_tasks.coding.title_coder import TitleCoder
    from llmcoder_tasks.database import Database
    from llmcoder_tasks.steps.code_encounters import code_shard
    from llmcoder_tasks.storage import FolderStorage

    class Dying(TitleCoder):
        batches = 0
        def code_phrases(self, texts):
            Dying.batches += 1
            if Dying.batches == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().code_phrases(texts)

    code_shard("night", 0, shards=1, storage=FolderStorage(Path(sys.argv[2])), database=Database(sys.argv[1]),
               cache_folder=Path(sys.argv[3]), open_coder=Dying.open)
"""


def test_a_killed_worker_leaves_whole_batches_and_the_next_one_does_the_rest(
    hospital: Database, storage: FolderStorage, tmp_path: Path, night: Callable[..., CodedNight]
) -> None:
    # An ambiguous line makes every batch ask the phrase coder.
    _admit(hospital, 50, note=f"{NOTE}4. strange malady\n")
    plan_night(FIRST, LAST, model=ModelRef("m1", "x"), shards=1, coding_run_id="night", database=hospital)
    url = hospital.engine.url.render_as_string(hide_password=False)
    worker = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(DYING_WORKER), url, str(storage.folder), str(tmp_path / "cache")],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        check=False,
    )
    assert worker.returncode == -signal.SIGKILL
    assert _query(hospital, "SELECT count(*) FROM coded_notes") == [(32,)]
    with pytest.raises(NoteError, match="18 notes are still to be coded"):
        finish_night("night", hospital)
    assert _query(hospital, "SELECT status FROM coding_runs") == [("failed",)]

    assert night().coded == 50
    assert _query(hospital, "SELECT status FROM coding_runs") == [("finished",)]
    resumed = _results(hospital)
    with hospital.engine.begin() as connection:
        connection.execute(text("TRUNCATE predictions, findings, drgs, coded_notes, coding_runs, uncoded_encounters"))
    night()
    assert _results(hospital) == resumed


def test_a_run_id_is_not_used_for_another_night(hospital: Database, night: Callable[..., CodedNight]) -> None:
    night()
    with pytest.raises(NoteError, match="exists with model_id m1, not m2"):
        night(model_id="m2")


def test_an_unknown_model_run_or_order_of_dates_is_refused(hospital: Database, storage: FolderStorage, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="m9 is not in the table models"):
        plan_night(FIRST, LAST, model=ModelRef("m9", "x"), shards=1, coding_run_id="night", database=hospital)
    with pytest.raises(NoteError, match="swap the dates"):
        plan_night(LAST, FIRST, model=ModelRef("m1", "x"), shards=1, coding_run_id="night", database=hospital)
    with pytest.raises(NoteError, match="was not planned"):
        code_shard("night", 0, shards=1, storage=storage, database=hospital, cache_folder=tmp_path / "cache")
