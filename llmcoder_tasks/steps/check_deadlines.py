"""A release takes effect and no model that learnt it is in service: in how many days, how far the work is, what to do."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from llmcoder_tasks.database import Database, Row
from llmcoder_tasks.evaluation.registry import read_standing
from llmcoder_tasks.progress import record_step
from llmcoder_tasks.storage import Storage

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Deadline:
    """A release without its model. `days_left` is negative when it is in effect already; `message` says all for people."""

    release_key: str
    days_left: int
    state: str
    message: str


def check_deadlines(*, on: date, days: int, storage: Storage, database: Database) -> list[Deadline]:
    """The loaded releases that are in effect on `on`, or will be within `days`, and are newer than that of the model in service.

    What was corrected since that model learnt it is newer too. A release that another one has followed by then is left out. Changes
    nothing.
    """
    promotion = read_standing(storage).promotion
    deadlines = list_deadlines(promotion.release_key if promotion else None, on=on, days=days, database=database)
    for deadline in deadlines:
        logger.warning("%s", deadline.message)
    return deadlines


def list_deadlines(in_service_release_key: str | None, *, on: date, days: int, database: Database) -> list[Deadline]:
    """The same for who knows the release of the model in service (None: no model is), and without a word in the log."""
    rows = database.fetch_all(
        "list_due_releases", on_date=on, horizon=on + timedelta(days=days), in_service_release_key=in_service_release_key
    )
    return [_describe(row, on) for row in rows]


def book_alerts(deadlines: Sequence[Deadline], *, on: date, database: Database) -> list[Deadline]:
    """Those of which nobody was told on this day yet; from now on they count as told."""
    with record_step(database, "check_deadlines", str(on)) as detail:
        new = [
            deadline
            for deadline in deadlines
            if database.execute("book_deadline_alert", {"release_key": deadline.release_key, "told_on": on})
        ]
        detail["told"] = len(new)
    return new


def _describe(row: Row, on: date) -> Deadline:
    days_left = (row["effective_from"] - on).days
    state, to_do = _find_state(row)
    when = f"takes effect in {days_left} days, on" if days_left > 0 else "is in effect since"
    message = f"{row['release_key']} {when} {row['effective_from']}, and no model that learnt it is in service. {state}: {to_do}"
    return Deadline(row["release_key"], days_left, state, message)


def _find_state(row: Row) -> tuple[str, str]:
    """How far the work on a release is, and what to do now."""
    key, dataset, model, verdict = row["release_key"], row["dataset_id"], row["model_id"], row["verdict_id"]
    stages = (
        (dataset is None, "No dataset is built", f"run the DAG build_dataset with the key {key}, or look why its run failed"),
        (
            model is None,
            f"Dataset {dataset} is built, no model is trained",
            f"look at the run of the DAG train_model for {dataset}, or start one",
        ),
        (verdict is None, f"Model {model} is trained and not judged", "look at the run of the DAG train_model that trained it"),
        (
            row["decision"] != "PROMOTE",
            f"Model {model} was judged {row['decision']}",
            "read the reasons in the task check_verdict, mend the cause and train again",
        ),
        (row["approved"] is None, f"Model {model} waits for a person's approval", "answer in Airflow under Required Actions"),
        (
            not row["approved"],
            f"Model {model} was rejected by {row['answered_by']}",
            "clear approve to ask again, or train another one",
        ),
        (True, f"Model {model} was approved and is not in service", "clear promote_model, if it was not rolled back on purpose"),
    )
    return next((state, to_do) for stands_here, state, to_do in stages if stands_here)
