"""A release without its model: when people are told, of what, how often, and when there is silence."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import pytest

from llmcoder_tasks.database import Database
from llmcoder_tasks.evaluation.registry import POINTER_KEY, Promotion, put_into_service, read_standing
from llmcoder_tasks.steps.check_deadlines import Deadline, book_alerts, check_deadlines
from llmcoder_tasks.storage import FolderStorage

pytestmark = pytest.mark.integration

EFFECTIVE = date(2026, 10, 1)


@pytest.fixture
def store(tmp_path: Path) -> FolderStorage:
    return FolderStorage(tmp_path / "store")


@pytest.fixture
def hospital(database: Database) -> Database:
    """FY2026 and FY2027 are loaded; nothing is built of either."""
    run(
        database,
        """INSERT INTO releases (release_key, effective_from, source, content_sha256, code_count, billable_count, uri) VALUES
            ('FY2026', '2025-10-01', 'test', 'x', 1, 1, 'u'), ('FY2027', '2026-10-01', 'test', 'y', 1, 1, 'u')""",
    )
    return database


def run(database: Database, script: str) -> None:
    with database.transaction() as transaction:
        transaction.run_script(script)


def serve(release_key: str, store: FolderStorage, database: Database) -> None:
    promotion = Promotion(1, "promote", "m", "u", release_key, "v", "e", None, "A. Person")
    put_into_service(store, database, promotion, replaces=read_standing(store))


def look(store: FolderStorage, database: Database, *, days_before: int, days: int = 14) -> list[Deadline]:
    return check_deadlines(on=EFFECTIVE - timedelta(days=days_before), days=days, storage=store, database=database)


def test_nobody_is_told_before_the_fortnight(hospital: Database, store: FolderStorage) -> None:
    serve("FY2026", store, hospital)
    assert look(store, hospital, days_before=15) == []
    assert [deadline.release_key for deadline in look(store, hospital, days_before=15, days=15)] == ["FY2027"]


@pytest.mark.parametrize(
    ("days_before", "said"), [(14, "takes effect in 14 days, on 2026-10-01"), (0, "is in effect since"), (-9, "is in effect since")]
)
def test_from_then_on_they_are_told_also_after_the_day(
    hospital: Database, store: FolderStorage, days_before: int, said: str
) -> None:
    serve("FY2026", store, hospital)
    (deadline,) = look(store, hospital, days_before=days_before)
    assert (deadline.release_key, deadline.days_left) == ("FY2027", days_before)
    assert deadline.message.startswith(f"FY2027 {said}")


@pytest.mark.parametrize("days_before", [14, -100])
def test_with_its_model_in_service_there_is_silence(hospital: Database, store: FolderStorage, days_before: int) -> None:
    serve("FY2027", store, hospital)
    assert look(store, hospital, days_before=days_before) == []


def test_without_any_model_the_release_in_effect_is_told_and_those_before_it_are_not(
    hospital: Database, store: FolderStorage
) -> None:
    assert [deadline.release_key for deadline in look(store, hospital, days_before=10)] == ["FY2026", "FY2027"]
    assert [deadline.release_key for deadline in look(store, hospital, days_before=-1)] == ["FY2027"]


DATASET = "INSERT INTO datasets (dataset_id, release_key, uri, manifest) VALUES ('d7', 'FY2027', 'u', '{}');"
STAGE_ONE = """INSERT INTO models (model_id, release_key, dataset_id, recipe, stage, uri, manifest)
    VALUES ('m6', 'FY2027', 'd7', 'tiny', 'stage_one', 'u', '{}');"""
MODEL = """INSERT INTO models (model_id, release_key, dataset_id, recipe, stage, parent_model_id, uri, manifest)
    VALUES ('m7', 'FY2027', 'd7', 'tiny', 'stage_two', 'm6', 'u', '{}');"""
VERDICT = """INSERT INTO scorecards (evaluation_id, model_id, dataset_id, suites_sha256, uri, scorecard)
        VALUES ('e7', 'm7', 'd7', 's', 'u', '{{}}');
    INSERT INTO verdicts (verdict_id, evaluation_id, model_id, decision, reasons) VALUES ('v7', 'e7', 'm7', '{}', '[]');"""
ANSWER = "INSERT INTO approvals (verdict_id, approved, answered_by) VALUES ('v7', {}, 'A. Person');"


@pytest.mark.parametrize(
    ("done", "state"),
    [
        ([], "No dataset is built: run the DAG build_dataset with the key FY2027"),
        ([DATASET], "Dataset d7 is built, no model is trained: look at the run of the DAG train_model for d7"),
        ([DATASET, STAGE_ONE], "Dataset d7 is built, no model is trained"),
        ([DATASET, STAGE_ONE, MODEL], "Model m7 is trained and not judged: look at the run"),
        ([DATASET, STAGE_ONE, MODEL, VERDICT.format("HOLD")], "Model m7 was judged HOLD: read the reasons"),
        ([DATASET, STAGE_ONE, MODEL, VERDICT.format("PROMOTE")], "Model m7 waits for a person's approval: answer in Airflow"),
        (
            [DATASET, STAGE_ONE, MODEL, VERDICT.format("PROMOTE"), ANSWER.format("false")],
            "Model m7 was rejected by A. Person: clear approve",
        ),
        (
            [DATASET, STAGE_ONE, MODEL, VERDICT.format("PROMOTE"), ANSWER.format("true")],
            "Model m7 was approved and is not in service: clear promote_model",
        ),
    ],
)
def test_the_message_says_how_far_the_work_is_and_what_to_do(
    hospital: Database, store: FolderStorage, done: list[str], state: str
) -> None:
    serve("FY2026", store, hospital)
    for script in done:
        run(hospital, script)
    (deadline,) = look(store, hospital, days_before=9)
    assert f"no model that learnt it is in service. {state}" in deadline.message


def test_a_release_is_told_once_a_day(hospital: Database, store: FolderStorage) -> None:
    serve("FY2026", store, hospital)
    found = look(store, hospital, days_before=9)
    day = EFFECTIVE - timedelta(days=9)
    assert book_alerts(found, on=day, database=hospital) == found
    assert book_alerts(found, on=day, database=hospital) == []
    assert book_alerts(found, on=day + timedelta(days=1), database=hospital) == found


def test_looking_moves_and_books_nothing(hospital: Database, store: FolderStorage) -> None:
    serve("FY2026", store, hospital)
    before = store.read_bytes(POINTER_KEY)
    found = look(store, hospital, days_before=9)
    assert store.read_bytes(POINTER_KEY) == before
    assert book_alerts(found, on=EFFECTIVE, database=hospital) == found
