"""The whole loop through a real Airflow: a release lands, and in the end discharge summaries have codes in the database.

Chapters of the real April 2026 release arrive in the landing folder as an order file; from there on nobody does anything but
the person who approves. Scheduler, triggerer, api-server, dag-processor and PostgreSQL are real, and live in a folder of their own.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pyarrow.parquet as pq
import pytest
from airflow_loop import (
    Loop,
    approve_by_api,
    approve_in_ui,
    await_run,
    await_until,
    follow,
    follow_and_approve,
    hitl_path,
    land,
    open_loop,
    open_ui,
    unpause,
)
from chromium import find_chromium
from hospital import query
from release_files import order_file
from sqlalchemy import create_engine, make_url, text

from llmcoder_tasks import services
from llmcoder_tasks.icd10cm.code_set import default_code_set
from llmcoder_tasks.services.airflow_api import DagRun
from llmcoder_tasks.services.credentials import USERNAME
from llmcoder_tasks.settings import SAMPLES_FOLDER, Settings
from llmcoder_tasks.steps.review_encounters import accept_code, claim_next, finish_review

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(1800)]

CHAPTERS = "DEGIJKLMNR"
"""First letters of the codes that land: some ten thousand, so that each suite has the hundred items that the gate asks for."""

CANARY = "Quixworth-Zebulon-9471"
CANARY_NOTE = f"""DISCHARGE SUMMARY

Patient: {CANARY}

HOSPITAL COURSE:
{CANARY} was admitted with pneumonia and treated with antibiotics.

DISCHARGE DIAGNOSES:
1. Pneumonia, unspecified organism
2. Type 2 diabetes mellitus without complications
"""
BROKEN_ROW = f'{{"encounter_id": "C-2", "discharge_date": "yesterday", "text": "{CANARY} went home."'
COMMENT = "read the reasons and the report"
IN_THE_UI = find_chromium() is not None
"""Whether a real browser does what the person does: approve, find the model, review."""
DAG_IDS = ("ingest_release", "build_dataset", "train_model", "code_encounters", "export_encounters")


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    settings = {"LLMCODER_VARIATIONS_PER_CODE": "1", "LLMCODER_CLAIM_SECONDS": "10", "LLMCODER_APPROVERS": USERNAME}
    with open_loop(tmp_path_factory.mktemp("loop"), settings) as opened:
        yield opened


@pytest.fixture(scope="module")
def promoted(loop: Loop) -> dict[str, DagRun]:
    """Runs of the loop by DAG, after a release landed and a person approved its model."""
    unpause(loop, *DAG_IDS)
    _land_release(loop)
    runs = {}
    for dag_id, seconds in (("ingest_release", 240), ("build_dataset", 400)):
        runs[dag_id] = follow(loop.api, await_run(loop.api, dag_id), seconds)
    approve = approve_in_ui if IN_THE_UI else approve_by_api
    runs["train_model"] = follow_and_approve(loop, await_run(loop.api, "train_model"), COMMENT, approve=approve)
    return runs


def test_a_landed_release_starts_everything_up_to_the_promotion(loop: Loop, promoted: dict[str, DagRun]) -> None:
    dataset_id = promoted["train_model"].partition_key

    assert promoted["build_dataset"].partition_key == "FY2026-April"
    assert dataset_id is not None
    assert loop.stores.storage.exists(f"datasets/{dataset_id}/manifest.json")
    pointer = json.loads(loop.stores.storage.read_bytes("models/promoted.json"))
    assert pointer["release_key"] == "FY2026-April"
    assert loop.stores.storage.exists(f"models/{pointer['model_id']}/manifest.json")
    (promotion,) = loop.stores.database.fetch_all("list_promotions")
    assert promotion["model_id"] == pointer["model_id"]
    assert promotion["promoted_by"] == loop.running.username


def test_the_answer_of_the_approver_is_kept(loop: Loop, promoted: dict[str, DagRun]) -> None:
    (promotion,) = loop.stores.database.fetch_all("list_promotions")

    answer = loop.stores.database.fetch_one("fetch_newest_approval", verdict_id=promotion["verdict_id"])

    assert answer == {"approved": True, "answered_by": loop.running.username, "comment": COMMENT}


def test_the_release_is_told_once(loop: Loop, promoted: dict[str, DagRun]) -> None:
    assert len(loop.api.list_runs("ingest_release")) == 1


@pytest.fixture(scope="module")
def coded(loop: Loop, promoted: dict[str, DagRun]) -> DagRun:
    """A night over the sample encounters and two rows with a canary, of which one is broken."""
    row = {"encounter_id": "C-1", "discharge_date": "2026-09-22", "text": CANARY_NOTE, "codes": ["J18.9", "E11.9"]}
    inbox = loop.settings.inbox_folder
    (inbox / "canary.jsonl").write_text(f"{json.dumps(row)}\n{BROKEN_ROW}\n", encoding="utf-8")
    (inbox / "samples.jsonl").write_bytes((SAMPLES_FOLDER / "encounters.jsonl").read_bytes())
    return follow(loop.api, loop.api.trigger_dag("code_encounters", conf=NIGHT), 240)


NIGHT = {"from_date": "2026-09-21", "to_date": "2026-09-23"}


def test_a_night_codes_every_note_with_evidence(loop: Loop, coded: DagRun) -> None:
    counts = loop.stores.database.fetch_one("count_loop_rows") or {}
    run = loop.stores.database.fetch_one("find_run_that_coded", encounter_id="C-1")
    assert run is not None
    note = loop.stores.database.fetch_one("fetch_coded_note", coding_run_id=run["coding_run_id"], encounter_id="C-1") or {}
    key = {name: note[name] for name in ("encounter_id", "note_sha256", "model_id", "release_key")}
    predictions = {row["code"]: row for row in loop.stores.database.fetch_all("list_note_predictions", **key)}

    assert (counts["encounters"], counts["coded_notes"]) == (27, 27)
    assert {"J189", "E119"} <= predictions.keys()
    assert CANARY_NOTE[predictions["E119"]["start"] : predictions["E119"]["end"]].startswith("Type 2 diabetes")


def test_a_night_queues_what_a_person_has_to_look_at_and_leaves_its_figures(loop: Loop, coded: DagRun) -> None:
    database = loop.stores.database
    to_review = query(
        database,
        """SELECT encounter_id FROM coded_notes AS note
        LEFT JOIN predictions USING (encounter_id, note_sha256, model_id, release_key)
        WHERE note.status = 'coded' GROUP BY encounter_id
        HAVING count(code) = 0 OR count(*) FILTER (WHERE decision = 'review') > 0 ORDER BY 1""",
    )
    counted = query(
        database,
        """SELECT count(DISTINCT encounter_id), count(code), count(*) FILTER (WHERE decision = 'auto'),
            count(DISTINCT encounter_id) FILTER (WHERE decision = 'review')
        FROM coded_notes LEFT JOIN predictions USING (encounter_id, note_sha256, model_id, release_key)
        WHERE coding_run_id = (SELECT coding_run_id FROM coded_notes WHERE encounter_id = 'C-1')""",
    )

    assert query(database, "SELECT encounter_id FROM reviews ORDER BY 1") == to_review != []
    assert counted == query(
        database,
        """SELECT notes, codes, round(auto_share * codes), round(review_share * notes) FROM night_statistics
        WHERE coding_run_id = (SELECT coding_run_id FROM coded_notes WHERE encounter_id = 'C-1')""",
    )


def test_what_people_finished_leaves_once_and_nothing_else_does(loop: Loop, coded: DagRun) -> None:
    database = loop.stores.database
    finished = {_finish_next_review(loop), _finish_next_review(loop)}
    sure = {name for (name,) in query(database, "SELECT encounter_id FROM coded_notes EXCEPT SELECT encounter_id FROM reviews")}
    follow(loop.api, loop.api.trigger_dag("export_encounters"), 120)
    exports = query(database, "SELECT export_id FROM exports ORDER BY 1")

    folders = [f"exports/{number:06d}" for (number,) in exports]
    states = [state for folder in folders for state in _read_parquet(loop, f"{folder}/encounters.parquet")]
    tables = [loop.stores.storage.read_bytes(f"{folder}/codes.csv").decode() for folder in folders]
    rows = [row for table in tables for row in csv.DictReader(io.StringIO(table))]
    parquet = [row for folder in folders for row in _read_parquet(loop, f"{folder}/codes.parquet")]
    bundles = [line for folder in folders for line in loop.stores.storage.read_bytes(f"{folder}/bundles.ndjson").splitlines()]
    codes = sorted((state["encounter_id"], code) for state in states for code in state["codes"])

    assert sorted(state["encounter_id"] for state in states) == sorted(finished | sure)
    assert codes == sorted((row["encounter_id"], row["code"].replace(".", "")) for row in rows) != []
    assert codes == sorted((row["encounter_id"], row["code"].replace(".", "")) for row in parquet)
    assert (len(bundles), sum(_count_conditions(line) for line in bundles)) == (len(states), len(codes))
    assert CANARY not in f"{tables}{states}{parquet}{bundles}"
    follow(loop.api, loop.api.trigger_dag("export_encounters"), 120)
    assert query(database, "SELECT export_id FROM exports ORDER BY 1") == exports


def _finish_next_review(loop: Loop) -> str:
    """Accept every code of the most urgent review; its encounter."""
    database = loop.stores.database
    review = claim_next(person="coder", database=database)
    assert review is not None
    for code in review.codes:
        if code.state == "open":
            review = accept_code(review.review_id, code.code, person="coder", version=review.version, database=database)
    return finish_review(review.review_id, person="coder", version=review.version, database=database).encounter_id


def _read_parquet(loop: Loop, key: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(io.BytesIO(loop.stores.storage.read_bytes(key))).to_pylist()
    return rows


def _count_conditions(bundle: bytes) -> int:
    return sum(entry.get("resource", {}).get("resourceType") == "Condition" for entry in json.loads(bundle)["entry"])


def test_the_same_night_again_changes_nothing(loop: Loop, coded: DagRun) -> None:
    before = loop.stores.database.fetch_one("count_loop_rows")

    follow(loop.api, loop.api.trigger_dag("code_encounters", conf=NIGHT), 240)

    assert loop.stores.database.fetch_one("count_loop_rows") == before


def test_no_patient_text_leaves_the_database(loop: Loop, coded: DagRun) -> None:
    files = [*_files_with(loop.settings.home / "logs", CANARY), *_files_with(loop.settings.home / "data_docs", CANARY)]
    assert files == [], "a log or a document quotes a note"
    assert _tables_with(loop.settings, CANARY) == [], "Airflow's own database quotes a note: XCom, rendered template or event"


def test_the_search_for_patient_text_finds_what_is_there(loop: Loop, coded: DagRun) -> None:
    model_id = json.loads(loop.stores.storage.read_bytes("models/promoted.json"))["model_id"]

    assert _files_with(loop.settings.home / "logs", model_id)
    assert "xcom" in _tables_with(loop.settings, model_id)


@pytest.mark.skipif(not IN_THE_UI, reason="no Chromium: install it, or name it in CHROMIUM")
def test_a_person_finds_the_model_and_reviews_in_the_ui(loop: Loop, coded: DagRun) -> None:
    database = loop.stores.database
    finished = f"SELECT count(*) FROM reviews WHERE status = 'finished' AND finished_by = '{USERNAME}'"
    before = query(database, finished)[0][0]
    model_id = json.loads(loop.stores.storage.read_bytes("models/promoted.json"))["model_id"]
    with open_ui(loop) as page:
        page.goto(f"{loop.running.ui_url}/plugin/llmcoder")
        pages = page.frame_locator("iframe")
        pages.get_by_role("link", name="Models").first.click()
        pages.get_by_role("link", name=model_id).first.click()
        pages.get_by_text(COMMENT).wait_for()
        pages.get_by_role("link", name="Review", exact=True).first.click()
        pages.get_by_role("button", name="Take the most urgent").click()
        pages.locator(".holding", has_text="Yours").wait_for()
        to_decide = pages.locator("#codes > li .badge", has_text="to decide")
        while left := to_decide.count():
            page.keyboard.press("a")
            await_until(lambda left=left: to_decide.count() < left, "a code is accepted by its key", 30)
        page.keyboard.press("f")
        pages.locator(".holding", has_text="Finished by").wait_for()
    assert query(database, finished) == [(before + 1,)]
    assert query(database, "SELECT DISTINCT person FROM note_views") == [(USERNAME,)]


NOTES_OF_A_NIGHT = 1500
CUT_OFF, UNDISTURBED = "2026-09-10", "2026-09-11"


def test_a_night_survives_its_scheduler_and_ends_as_if_nothing_had_happened(loop: Loop, coded: DagRun) -> None:
    _admit_twice(loop)
    night = loop.api.trigger_dag("code_encounters", conf={"from_date": CUT_OFF, "to_date": CUT_OFF})
    await_until(lambda: _count_coded(loop, CUT_OFF) > 0, "the first notes are coded", 180, loop.api, night)
    _kill_scheduler(loop)
    done_before = _count_coded(loop, CUT_OFF)

    assert services.up(loop.settings).started == ("scheduler",)
    follow(loop.api, night, 400)
    follow(loop.api, loop.api.trigger_dag("code_encounters", conf={"from_date": UNDISTURBED, "to_date": UNDISTURBED}), 240)

    assert 0 < done_before < NOTES_OF_A_NIGHT, "the night was not cut off in the middle"
    assert _count_coded(loop, CUT_OFF) == _count_coded(loop, UNDISTURBED) == NOTES_OF_A_NIGHT
    assert _codes_of(loop, CUT_OFF) == _codes_of(loop, UNDISTURBED) != []
    runs = f"""SELECT count(DISTINCT coding_run_id) FROM coded_notes JOIN encounters USING (encounter_id)
        WHERE discharge_date = '{CUT_OFF}'"""
    assert query(loop.stores.database, runs) == [(1,)], "the same run went on"


def _admit_twice(loop: Loop) -> None:
    """The same notes, discharged on two days."""
    samples = [json.loads(line)["text"] for line in (SAMPLES_FOLDER / "encounters.jsonl").read_text(encoding="utf-8").splitlines()]
    rows = [
        {
            "encounter_id": f"{day}-{number}",
            "discharge_date": day,
            "text": f"{samples[number % len(samples)]}\nSeen as number {number}.",
        }
        for day in (CUT_OFF, UNDISTURBED)
        for number in range(NOTES_OF_A_NIGHT)
    ]
    (loop.settings.inbox_folder / "long-night.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _kill_scheduler(loop: Loop) -> None:
    """The scheduler and all that it started, at once, as when a machine dies under them."""
    (pid,) = [state.pid for state in services.status(loop.settings) if state.name == "scheduler"]
    leader = psutil.Process(pid)
    for process in [leader, *leader.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    await_until(lambda: not leader.is_running() or leader.status() == psutil.STATUS_ZOMBIE, "the scheduler is dead", 10)


def _count_coded(loop: Loop, day: str) -> int:
    statement = f"SELECT count(*) FROM coded_notes JOIN encounters USING (encounter_id) WHERE discharge_date = '{day}'"
    return int(query(loop.stores.database, statement)[0][0])


def _codes_of(loop: Loop, day: str) -> list[tuple[Any, ...]]:
    """All codes of the notes of a day, by the hash of their text."""
    return query(
        loop.stores.database,
        f"""SELECT note_sha256, rank, code, confidence, decision, evidence_start, evidence_end, model_id, release_key
        FROM predictions JOIN encounters USING (encounter_id) WHERE discharge_date = '{day}' ORDER BY 1, 2""",
    )


def test_a_stranger_cannot_approve(loop: Loop, promoted: dict[str, DagRun]) -> None:
    answer = httpx.patch(
        f"{loop.running.ui_url}{hitl_path(promoted['train_model'])}", json={"chosen_options": ["Approve"], "params_input": {}}
    )

    assert answer.status_code == 401


def _land_release(loop: Loop) -> None:
    """Put the order file of some chapters into the landing folder."""
    codes = [code for code in default_code_set().codes if code.code[0] in CHAPTERS]
    rows = [(code.code, "1" if code.is_billable else "0", code.long_title) for code in codes]
    land(loop, "FY2026-April", {"icd10cm-order-2026.txt": order_file(rows)})


def _files_with(folder: Path, needle: str) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and needle.encode() in path.read_bytes()]


def _tables_with(settings: Settings, needle: str) -> list[str]:
    """Tables of Airflow's metadata database in which any column of any row holds the text."""
    engine = create_engine(make_url(settings.require_database_url()).set(database="airflow"))
    try:
        with engine.connect() as connection:
            names = connection.execute(
                text("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
            ).scalars()
            query = 'SELECT count(*) FROM "{}" AS whole WHERE whole::text LIKE :pattern'
            pattern = {"pattern": f"%{needle}%"}
            return [name for name in list(names) if connection.execute(text(query.format(name)), pattern).scalar_one()]
    finally:
        engine.dispose()
