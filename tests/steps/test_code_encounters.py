"""The night against a real PostgreSQL: each note once, under the release of its day, whatever dies in between."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hospital import NEW, NOTE, OLD, PRESSURE, admit, open_hospital, publish_models, query, results_of, write_note
from sqlalchemy import text

from llmcoder_tasks.coding.claims import Claims, Pace
from llmcoder_tasks.coding.title_coder import TitleCoder
from llmcoder_tasks.database import Database
from llmcoder_tasks.errors import ModelError, NoteError, ReleaseError
from llmcoder_tasks.records import ModelRef
from llmcoder_tasks.steps import code_encounters as steps
from llmcoder_tasks.steps.code_encounters import (
    CodedNight,
    CodedShard,
    code_encounters,
    code_shard,
    finish_night,
    plan_night,
    recode_encounters,
)
from llmcoder_tasks.storage import FolderStorage

pytestmark = pytest.mark.integration

SECRET = "Zebediah Quux"
FIRST, LAST = date(2026, 3, 30), date(2026, 4, 30)
AMENDED = f"Final diagnosis: {PRESSURE}"


@pytest.fixture
def storage(tmp_path: Path) -> FolderStorage:
    return publish_models(tmp_path)


@pytest.fixture
def hospital(database: Database) -> Database:
    return open_hospital(database)


@pytest.fixture
def night(hospital: Database, storage: FolderStorage, tmp_path: Path) -> Callable[..., CodedNight]:
    def run(run_id: str = "night", model_id: str = "m1", open_coder: Any = TitleCoder.open, **options: Any) -> CodedNight:
        return code_encounters(
            FIRST, LAST, model=ModelRef(model_id, f"{storage.uri}/models/{model_id}"), coding_run_id=run_id,
            storage=storage, database=hospital, cache_folder=tmp_path / "cache", open_coder=open_coder, **options,
        )  # fmt: skip

    return run


def test_a_note_is_coded_under_the_release_of_its_day_with_evidence(hospital: Database, night: Callable[..., CodedNight]) -> None:
    admit(hospital, 1, on=date(2026, 3, 31))
    admit(hospital, 1, on=date(2026, 4, 1), first=1)
    assert night() == CodedNight(
        "night", encounters=2, coded=2, failed=0, uncoded=0, quarantined=0, predictions=4, auto=4, review=0
    )
    rows = query(
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
    admit(hospital, 3)
    first = night()
    before = results_of(hospital), query(hospital, "SELECT * FROM coding_runs")
    assert night() == first
    assert (results_of(hospital), query(hospital, "SELECT * FROM coding_runs")) == before
    assert night("another night").coded == 0
    assert results_of(hospital) == before[0]


def test_only_the_newest_text_is_coded_and_an_amended_one_again(hospital: Database, night: Callable[..., CodedNight]) -> None:
    admit(hospital, 1)
    assert night("one").coded == 1
    with hospital.engine.begin() as connection:
        write_note(connection, "E000", AMENDED, 2)
    assert night("two").coded == 1
    assert query(hospital, "SELECT count(*) FROM coded_notes") == [(2,)]
    digest = hashlib.sha256(AMENDED.encode()).hexdigest()
    assert [row[4] for row in results_of(hospital) if row[1] == digest] == ["I10"]


def test_another_model_codes_the_same_notes_beside_the_first(hospital: Database, night: Callable[..., CodedNight]) -> None:
    admit(hospital, 2)
    night("one", "m1")
    night("two", "m2")
    assert query(hospital, "SELECT model_id, count(*) FROM coded_notes GROUP BY 1 ORDER BY 1") == [("m1", 2), ("m2", 2)]


def test_shards_part_the_night_without_gap_or_overlap(hospital: Database, storage: FolderStorage, tmp_path: Path) -> None:
    admit(hospital, 20)
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
    assert night() == CodedNight("night", 0, 0, 0, 0, 0, 0, 0, 0)


def test_encounters_without_release_or_summary_are_counted_with_their_reason(
    hospital: Database, storage: FolderStorage, tmp_path: Path
) -> None:
    admit(hospital, 1, on=date(2025, 9, 30))
    with hospital.engine.begin() as connection:
        connection.execute(
            text("INSERT INTO encounters (encounter_id, discharge_date, source) VALUES ('E900', '2025-10-02', 'test')")
        )
    done = code_encounters(
        date(2025, 9, 1), date(2025, 10, 2), model=ModelRef("m1", "x"), coding_run_id="night", storage=storage,
        database=hospital, cache_folder=tmp_path / "cache", open_coder=TitleCoder.open,
    )  # fmt: skip
    assert (done.encounters, done.coded, done.uncoded) == (2, 0, 2)
    gap, summary = query(hospital, "SELECT encounter_id, reason, message FROM uncoded_encounters ORDER BY 1")
    assert gap[:2] == ("E000", "no_release_on_discharge_date")
    assert gap[2].startswith("no loaded release is valid on 2025-09-30 (loaded: FY2026 from 2025-10-01, FY2026-April from ")
    assert summary[:2] == ("E900", "no_discharge_summary")


def test_findings_and_groups_are_written_with_the_codes(hospital: Database, night: Callable[..., CodedNight]) -> None:
    admit(hospital, 1, note=f"DISCHARGE DIAGNOSES:\n1. {PRESSURE}\n")
    night()
    assert query(hospital, "SELECT rank, rule, action, code, related_code, evidence_start, evidence_end FROM findings") == [
        (1, "edits_skipped", "flagged", "I10", None, 24, 56),
        (2, "edit_questionable_admission", "flagged", "I10", None, 24, 56),
    ]
    assert query(hospital, "SELECT basis, grouper_version, drg, category FROM drgs ORDER BY basis") == [
        ("all", 431, 305, 5),  # hypertension without MCC
        ("auto", 431, 305, 5),
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
    admit(hospital, 3)
    admit(hospital, 1, note=f"{NOTE}4. {SECRET} disease\n", first=3)
    done = night("one", open_coder=_Stumbling.open)
    assert (done.coded, done.failed) == (3, 1)
    assert query(hospital, "SELECT encounter_id, failure FROM coded_notes WHERE status = 'failed'") == [
        ("E003", "RuntimeError while coding")
    ]
    assert SECRET not in caplog.text
    done = night("two")
    assert (done.coded, done.failed) == (1, 0)
    assert query(hospital, "SELECT count(*) FROM coded_notes WHERE status = 'failed'") == [(0,)]


def test_two_workers_on_one_shard_write_each_note_once(hospital: Database, storage: FolderStorage, tmp_path: Path) -> None:
    admit(hospital, 40)
    (shard,) = plan_night(FIRST, LAST, model=ModelRef("m1", "x"), shards=1, coding_run_id="night", database=hospital)

    def work(_: int) -> CodedShard:
        return code_shard(
            **shard,
            storage=storage,
            database=hospital,
            cache_folder=tmp_path / "cache",
            open_coder=TitleCoder.open,
            pace=Pace(lease=2, heartbeat=0.2),
        )

    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(work, range(2)))
    assert sum(shard.coded for shard in done) == 40
    assert len(results_of(hospital)) == 80


DYING_WORKER = """
    import os, signal, sys
    from pathlib import Path
    from llmcoder_tasks.coding.claims import Pace
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
               cache_folder=Path(sys.argv[3]), open_coder=Dying.open, pace=Pace(lease=2, heartbeat=0.2))
"""


def test_a_killed_worker_leaves_whole_batches_and_the_next_one_does_the_rest(
    hospital: Database, storage: FolderStorage, tmp_path: Path, night: Callable[..., CodedNight]
) -> None:
    # An ambiguous line makes every batch ask the phrase coder.
    admit(hospital, 50, note=f"{NOTE}4. strange malady\n")
    plan_night(FIRST, LAST, model=ModelRef("m1", "x"), shards=1, coding_run_id="night", database=hospital)
    url = hospital.engine.url.render_as_string(hide_password=False)
    worker = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(DYING_WORKER), url, str(storage.folder), str(tmp_path / "cache")],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        check=False,
    )
    assert worker.returncode == -signal.SIGKILL
    assert query(hospital, "SELECT count(*) FROM coded_notes") == [(32,)]
    with pytest.raises(NoteError, match="18 notes are still to be coded"):
        finish_night("night", hospital)
    assert query(hospital, "SELECT status FROM coding_runs") == [("failed",)]

    assert night(pace=Pace(lease=2, heartbeat=0.2)).coded == 50
    assert query(hospital, "SELECT status FROM coding_runs") == [("finished",)]
    resumed = results_of(hospital)
    with hospital.engine.begin() as connection:
        connection.execute(text("TRUNCATE coding_runs CASCADE"))
    night()
    assert results_of(hospital) == resumed


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


def test_an_amended_note_keeps_the_codes_of_the_text_before(hospital: Database, night: Callable[..., CodedNight]) -> None:
    admit(hospital, 1)
    night("one")
    with hospital.engine.begin() as connection:
        write_note(connection, "E000", AMENDED, 2)
    night("two")
    linked = query(
        hospital,
        "SELECT version, count(*) FROM predictions JOIN discharge_summaries USING (encounter_id, note_sha256) "
        "GROUP BY version ORDER BY version",
    )
    assert linked == [(1, 2), (2, 1)]


BAD_NOTES = {
    "X100": ("empty_note", " \n "),
    "X101": ("note_too_long", NOTE * 50_000),
    "X102": ("rtf", "{\\rtf1\\ansi " + NOTE),
    "X103": ("html", f"<!DOCTYPE html><html><body>{NOTE}</body></html>"),
    "X104": ("binary", "%PDF-1.7 " + NOTE),
    "X105": ("binary", NOTE + "\x01\x02\x03\x04"),
    "X106": ("wrong_encoding", NOTE + "cafÃ© naÃ¯ve rÃ©sumÃ©"),
}


def test_bad_notes_in_the_table_go_into_quarantine_and_the_night_goes_on(
    hospital: Database, night: Callable[..., CodedNight], caplog: pytest.LogCaptureFixture
) -> None:
    admit(hospital, 200)
    _admit_texts(hospital, {key: note for key, (_, note) in BAD_NOTES.items()})
    done = night()
    assert (done.coded, done.quarantined, done.failed) == (200, 7, 0)
    rows = query(hospital, "SELECT encounter_id, reason, source, coding_date FROM quarantined_notes ORDER BY 1")
    assert rows == [(key, reason, "discharge_summaries", LAST) for key, (reason, _) in BAD_NOTES.items()]
    again = night("another night")
    assert (again.coded, again.quarantined) == (0, 0)
    assert query(hospital, "SELECT count(*) FROM quarantined_notes") == [(7,)]
    assert "strange" not in caplog.text


def test_a_note_taken_out_of_quarantine_is_looked_at_again(hospital: Database, night: Callable[..., CodedNight]) -> None:
    _admit_texts(hospital, {"X103": BAD_NOTES["X103"][1]})
    assert night("one").quarantined == 1
    with hospital.engine.begin() as connection:
        connection.execute(text("DELETE FROM quarantined_notes"))
    assert night("two").quarantined == 1


def test_too_many_bad_notes_fail_the_night_with_counts_by_reason(hospital: Database, night: Callable[..., CodedNight]) -> None:
    admit(hospital, 20)
    _admit_texts(hospital, {key: note for key, (_, note) in BAD_NOTES.items()})
    with pytest.raises(NoteError, match=r"7 of 27 notes are in quarantine, more than 5.0% \(binary 2, empty_note 1, html 1, "):
        night()
    assert query(hospital, "SELECT status FROM coding_runs") == [("failed",)]
    assert query(hospital, "SELECT count(*) FROM coded_notes WHERE status = 'coded'") == [(20,)]


def test_unknown_sex_and_age_are_no_fault(hospital: Database, night: Callable[..., CodedNight]) -> None:
    admit(hospital, 1)
    assert query(hospital, "SELECT sex, age_years FROM encounters") == [(None, None)]
    assert night().coded == 1


def _admit_texts(database: Database, notes: dict[str, str]) -> None:
    with database.engine.begin() as connection:
        for key, note in notes.items():
            connection.execute(
                text("INSERT INTO encounters (encounter_id, discharge_date, source) VALUES (:key, '2026-04-02', 'test')"),
                {"key": key},
            )
            write_note(connection, key, note, 1)


def _claims(database: Database, lease: float) -> Claims:
    return Claims("night", "m1", database, Pace(lease=lease, heartbeat=lease / 5))


def _keys(database: Database) -> list[tuple[str, str]]:
    return [(row[0], row[1]) for row in query(database, "SELECT encounter_id, note_sha256 FROM discharge_summaries ORDER BY 1")]


def test_a_claimed_note_is_nobody_elses_until_the_claim_expires(hospital: Database) -> None:
    admit(hospital, 3)
    plan_night(FIRST, LAST, model=ModelRef("m1", "x"), shards=1, coding_run_id="night", database=hospital)
    first, second = _claims(hospital, 0.5), _claims(hospital, 0.5)
    assert len(first.take(_keys(hospital), NEW)) == 3
    assert second.take(_keys(hospital), NEW) == []
    time.sleep(0.6)
    assert [note.encounter_id for note in second.take(_keys(hospital), NEW)] == ["E000", "E001", "E002"]
    with hospital.transaction() as transaction:
        assert first.give_back(transaction) == set()
    with hospital.transaction() as transaction:
        assert len(second.give_back(transaction)) == 3


def test_a_heartbeat_keeps_claims_and_their_end_gives_them_back(hospital: Database) -> None:
    admit(hospital, 3)
    plan_night(FIRST, LAST, model=ModelRef("m1", "x"), shards=1, coding_run_id="night", database=hospital)
    first, second = _claims(hospital, 0.5), _claims(hospital, 0.5)
    with first.kept_alive():
        first.take(_keys(hospital), NEW)
        time.sleep(1.0)
        assert second.take(_keys(hospital), NEW) == []
    assert len(second.take(_keys(hospital), NEW)) == 3


def test_what_was_coded_between_listing_and_claiming_is_not_claimed(hospital: Database, night: Callable[..., CodedNight]) -> None:
    admit(hospital, 3)
    night()
    assert _claims(hospital, 5).take(_keys(hospital), NEW) == []


def test_the_model_is_opened_once_for_many_batches(hospital: Database, night: Callable[..., CodedNight]) -> None:
    opened = []

    class Counting(TitleCoder):
        @classmethod
        def open(cls, model_folder: Path, code_set: Any) -> TitleCoder:
            opened.append(model_folder)
            return cls(code_set)

    admit(hospital, 100)
    assert night(open_coder=Counting.open).coded == 100
    assert len(opened) == 1


def test_a_model_whose_file_was_altered_codes_nothing(
    hospital: Database, storage: FolderStorage, night: Callable[..., CodedNight]
) -> None:
    admit(hospital, 1)
    (storage.folder / "models" / "m1" / "coder.json").write_text('{"altered": true}')
    with pytest.raises(ModelError, match="sha256 differs"):
        night()
    assert query(hospital, "SELECT count(*) FROM coded_notes") == [(0,)]
    assert query(hospital, "SELECT count(*) FROM note_claims") == [(0,)]


def _load_release(hospital: Database, key: str, effective: date) -> None:
    """A release with the codes of the newest of the hospital's."""
    with hospital.engine.begin() as connection:
        connection.execute(
            text("INSERT INTO releases (release_key, effective_from, source, content_sha256, code_count, billable_count, uri) "
                 "VALUES (:key, :effective, 'test', 'x', 3, 2, 'file:///x')"),
            {"key": key, "effective": effective},
        )  # fmt: skip
        connection.execute(
            text("INSERT INTO codes SELECT :key, code, is_billable, short_title, long_title, position FROM codes "
                 "WHERE release_key = :newest"),
            {"key": key, "newest": NEW},
        )  # fmt: skip


def test_the_days_around_october_are_coded_in_one_run_with_a_late_note_and_each_release_opened_once(
    hospital: Database, storage: FolderStorage, tmp_path: Path
) -> None:
    _load_release(hospital, "FY2027", date(2026, 10, 1))
    _load_release(hospital, "FY2023", date(2022, 10, 1))
    opened = []

    def open_coder(model_folder: Path, code_set: Any) -> TitleCoder:
        opened.append(code_set.release_key)
        return TitleCoder.open(model_folder, code_set)

    days = [date(2022, 9, 30), date(2023, 9, 30), date(2023, 10, 1), date(2026, 9, 30), date(2026, 10, 1)]
    for number, day in enumerate(days):
        admit(hospital, 1, on=day, first=number)
    admit(hospital, 40, on=date(2026, 9, 30), first=10)
    admit(hospital, 40, on=date(2026, 10, 1), first=50)
    done = code_encounters(
        date(2022, 9, 1), date(2026, 10, 1), model=ModelRef("m1", "x"), coding_run_id="october", storage=storage,
        database=hospital, cache_folder=tmp_path / "cache", open_coder=open_coder,
    )  # fmt: skip
    assert (done.coded, done.uncoded) == (83, 2)
    assert query(hospital, "SELECT encounter_id, release_key FROM coded_notes WHERE encounter_id < 'E010' ORDER BY 1") == [
        ("E001", "FY2023"),
        ("E003", NEW),
        ("E004", "FY2027"),
    ]
    assert query(hospital, "SELECT encounter_id, reason FROM uncoded_encounters ORDER BY 1") == [
        ("E000", "no_release_on_discharge_date"),  # before the oldest
        ("E002", "no_release_on_discharge_date"),  # between FY2023 and FY2026
    ]
    assert sorted(opened) == ["FY2023", NEW, "FY2027"]
    _load_release(hospital, "FY2024", date(2023, 10, 1))
    late = code_encounters(
        date(2023, 10, 1), date(2023, 10, 1), model=ModelRef("m1", "x"), coding_run_id="late", storage=storage,
        database=hospital, cache_folder=tmp_path / "cache", open_coder=open_coder,
    )  # fmt: skip
    assert (late.coded, late.uncoded) == (1, 0)


def test_two_releases_stay_open_and_a_third_takes_the_place_of_the_one_used_longest_ago() -> None:
    steps._open_coders.clear()
    opened = []

    def open_coder(model_folder: Path, code_set: str) -> Any:
        opened.append(code_set)
        return object()

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(steps, "read_code_set", lambda database, release_key: release_key)
        for key in ("A", "B", "A", "B", "A", "C", "A", "B"):
            steps._coder_of(Path("m"), key, None, open_coder, Pace(1, 1))  # type: ignore[arg-type]
    assert opened == ["A", "B", "C", "B"]


@pytest.fixture
def recode(hospital: Database, storage: FolderStorage, tmp_path: Path) -> Callable[..., CodedNight]:
    def run(release_key: str, run_id: str = "recode") -> CodedNight:
        return recode_encounters(
            release_key, model=ModelRef("m1", "x"), coding_run_id=run_id, storage=storage, database=hospital,
            cache_folder=tmp_path / "cache", open_coder=TitleCoder.open,
        )  # fmt: skip

    return run


def test_a_late_release_has_exactly_what_it_concerns_coded_again_once(
    hospital: Database, night: Callable[..., CodedNight], recode: Callable[..., CodedNight]
) -> None:
    admit(hospital, 1, on=date(2026, 3, 31))
    admit(hospital, 2, on=date(2026, 4, 20), first=1)
    night()
    _load_release(hospital, "FY2026-July", date(2026, 7, 1))
    assert recode("FY2026-July", "nothing").encounters == 0
    with hospital.engine.begin() as connection:  # as if those of April had been coded before the release of April came
        connection.execute(text("DELETE FROM coded_notes"))
        connection.execute(
            text("UPDATE releases SET effective_from = :day WHERE release_key = :key"), {"day": date(2026, 6, 1), "key": NEW}
        )
    night("early")
    with hospital.engine.begin() as connection:
        connection.execute(
            text("UPDATE releases SET effective_from = :day WHERE release_key = :key"), {"day": date(2026, 4, 1), "key": NEW}
        )
    done = recode(NEW)
    assert (done.encounters, done.coded, done.uncoded) == (2, 2, 0)
    assert query(hospital, "SELECT encounter_id, release_key FROM coded_notes ORDER BY 1, 2") == [
        ("E000", OLD), ("E001", OLD), ("E001", NEW), ("E002", OLD), ("E002", NEW),
    ]  # fmt: skip
    before = results_of(hospital)
    assert recode(NEW) == done
    assert recode(NEW, "again").coded == 0
    assert results_of(hospital) == before


def test_recoding_for_a_release_that_is_not_loaded_is_refused(recode: Callable[..., CodedNight]) -> None:
    with pytest.raises(ReleaseError, match="release FY2030 is not loaded"):
        recode("FY2030")
