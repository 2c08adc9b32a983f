"""Models: the list, one model with and without its artifacts, two side by side, and what a page costs with many of them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from evaluation_fakes import TrainedModels
from pages_app import Pages
from sqlalchemy import event

from llmcoder_tasks.database import Database
from llmcoder_tasks.evaluation.gate import load_gate
from llmcoder_tasks.evaluation.scorecard import parse_scorecard
from llmcoder_tasks.records import ScorecardRef
from llmcoder_tasks.steps.judge_model import judge_model
from llmcoder_tasks.steps.promote_model import promote_model
from llmcoder_tasks.steps.record_approval import record_approval
from llmcoder_tasks.storage import FolderStorage

WRONG = {"base": 0, "notes": 6}


@contextmanager
def count_statements(database: Database) -> Iterator[list[str]]:
    """The statements that were sent while it was open."""
    sent: list[str] = []

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        sent.append(statement)

    event.listen(database.engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(database.engine, "before_cursor_execute", note)


@pytest.fixture
def models(pages: Pages, database: Database, tmp_path: Path) -> TrainedModels:
    """Three evaluated models: m1 is in service, m2 was evaluated beside it on the same items, m3 on others before all."""
    made = TrainedModels(pages.stores.storage, database, tmp_path)
    for name in ("m1", "m2", "m3"):
        made.train(name)
    made.evaluate("m3", WRONG, n=20, first=500)
    verdict = _judge(made, made.evaluate("m1", WRONG, n=20), "PROMOTE")
    record_approval(verdict, approved=True, answered_by="Ann <Approver>", comment="<script>alert(1)</script>", database=database)
    promote_model(verdict, promoted_by="Ann <Approver>", storage=made.storage, database=database)
    made.evaluate("m2", {"base": 3, "notes": 1}, n=20)
    return made


def _judge(made: TrainedModels, scorecard: ScorecardRef, decision: str) -> Any:
    """A verdict of the gate, whose decision is then set to what the test needs."""
    verdict = judge_model(scorecard, gate=load_gate(), storage=made.storage, database=made.database)
    key = next(key for key in made.storage.list_keys("scorecards") if key.endswith(f"{verdict.verdict_id}.json"))
    document = json.loads(made.storage.read_bytes(key)) | {"decision": decision}
    made.storage.write_bytes(key, json.dumps(document).encode())
    with made.database.transaction() as transaction:
        transaction.run_script(f"UPDATE verdicts SET decision = '{decision}'")
    return verdict


def test_an_empty_database_says_that_no_model_was_trained(pages: Pages) -> None:
    answer = pages.client("viewer").get("models")
    assert answer.status_code == 200
    assert "No model was trained yet." in answer.text


def test_the_list_says_who_put_which_model_into_service(pages: Pages, models: TrainedModels) -> None:
    text = pages.client("viewer").get("models").text
    assert text.count("compact, stage one") == 3
    assert text.count('badge ok">in service') == 1
    assert "by Ann &lt;Approver&gt;" in text


def test_what_is_in_training_stands_on_the_first_page_here_and_at_servers(pages: Pages, database: Database) -> None:
    line = {"step": 300, "steps": 1200, "loss": 0.4123, "learning_rate": 1e-5, "tokens_seen": 10, "tokens_per_second": 56_000.4}
    line |= {"model_flops_utilization": 0.429, "peak_memory_bytes": 21_300_000_000, "seconds_left": 750.0}
    database.execute("record_training_progress", line | {"model_id": "FY2027-llama"})
    job = {"server_url": "https://host/v1", "job_id": "ftjob-1", "model_id": "FY2027-openai", "status": "running", "failure": None}
    job |= {"estimated_tokens": 61_600_000, "estimated_cost": 184.8, "trained_tokens": None}
    database.execute("record_fine_tuning_job", job)

    text = pages.client("viewer").get("models").text

    for told in ("FY2027-llama", "300 of 1,200", "0.412", "1.0e-05", "56,000", "42.9\N{NO-BREAK SPACE}%", "21.3 GB", "12 min 30 s"):
        assert told in text
    for told in ("FY2027-openai", "ftjob-1", "running", "61,600,000", "184.80"):
        assert told in text


@pytest.mark.parametrize(
    "figures",
    [{"examples": 0, "epochs": 0, "trained_tokens": 0}, {"examples": 74_719, "epochs": 10, "trained_tokens": 61_600_000}, {}],
)
def test_a_model_behind_a_server_is_shown_by_the_figures_that_there_are(
    pages: Pages, models: TrainedModels, database: Database, figures: dict[str, int]
) -> None:
    with database.transaction() as transaction:
        transaction.run_script(f"UPDATE models SET manifest = jsonb_build_object('figures', '{json.dumps(figures)}'::jsonb)")
    client = pages.client("viewer")
    for path in ("models", "models/m1", "models/m2?with=m1"):
        assert client.get(path).status_code == 200
    if figures.get("trained_tokens"):
        assert "61.6 M tokens" in client.get("models/m1").text


def test_a_model_shows_its_figures_reasons_and_the_person_who_approved(pages: Pages, models: TrainedModels) -> None:
    text = pages.client("viewer").get("models/m1").text
    assert "70.0\N{NO-BREAK SPACE}%" in text  # 6 of 20 notes are wrong
    assert "notes text 0" in text  # a worst answer
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "<script>alert(1)" not in text
    assert "together on notes: exact match" in text or "notes" in text
    assert "Moves of the promoted pointer" in text
    assert "a" * 64 in text  # provenance


def test_a_model_that_was_evaluated_beside_the_one_in_service_shows_every_slice(pages: Pages, models: TrainedModels) -> None:
    text = pages.client("viewer").get("models/m2").text
    assert "Against the model in service" in text
    # 3 of 20 items of base are wrong, all of them right in service: twenty codes, so twenty units.
    assert "<b>-15.0</b>" in text
    # Notes: five that only this one has right.
    assert "<b>+25.0</b>" in text


def test_two_models_are_compared_both_ways_by_the_evaluation_of_the_later_one(pages: Pages, models: TrainedModels) -> None:
    client = pages.client("viewer")
    one, other = client.get("models/m2?with=m1").text, client.get("models/m1?with=m2").text
    assert "m2 was evaluated while m1 was in service" in one
    assert "<b>-15.0</b>" in one
    assert "<b>+15.0</b>" in other
    assert "<b>+25.0</b>" in one
    assert "<b>-25.0</b>" in other


def test_two_models_on_the_same_suites_are_compared_item_by_item(pages: Pages, models: TrainedModels) -> None:
    models.train("m4")
    models.evaluate("m4", {"base": 5, "notes": 2}, n=20)
    text = pages.client("viewer").get("models/m4?with=m2").text
    assert "they are compared item by item" in text
    assert "<b>-10.0</b>" in text  # base: 5 wrong against 3 of 20
    assert "<b>-5.0</b>" in text  # notes: 2 wrong against 1


def test_models_on_other_suites_get_no_difference_but_the_reason(pages: Pages, models: TrainedModels) -> None:
    text = pages.client("viewer").get("models/m3?with=m2").text
    assert "answered different suites" in text
    assert "Slice by slice" not in text
    assert text.count("70.0\N{NO-BREAK SPACE}%") >= 1


def test_a_model_without_an_evaluation_stands_beside_another_with_the_reason(pages: Pages, models: TrainedModels) -> None:
    models.train("m5")
    text = pages.client("viewer").get("models/m5?with=m1").text
    assert "m5: This model was not evaluated." in text
    assert "70.0\N{NO-BREAK SPACE}%" in text


@pytest.mark.parametrize("path", ["models/none", "models/m1?evaluation=none", "models/m1?with=none", "reports/scorecard/none"])
def test_what_is_unknown_is_a_404(pages: Pages, models: TrainedModels, path: str) -> None:
    assert pages.client("viewer").get(path).status_code == 404


def test_a_damaged_cursor_is_refused(pages: Pages) -> None:
    assert pages.client("viewer").get("models?after=x").status_code == 400


def test_without_its_artifacts_a_model_says_what_is_missing_and_shows_the_rest(pages: Pages, models: TrainedModels) -> None:
    storage = pages.stores.storage
    assert isinstance(storage, FolderStorage)
    for path in storage.folder.rglob("*"):
        if path.name in {"coder.json", "report.html", "outcomes.parquet"}:
            path.unlink()
    client = pages.client("viewer")
    text = client.get("models/m1").text
    assert "coders/m1/coder.json cannot be read from the artifact store" in text
    assert "70.0\N{NO-BREAK SPACE}%" in text
    evaluation = _evaluation_of(pages.stores.database, "m1")
    report = client.get(f"reports/scorecard/{evaluation}")
    assert report.status_code == 404
    assert "no longer in the artifact store" in report.text
    models.train("m4")
    models.evaluate("m4", {"base": 5, "notes": 2}, n=20)
    for path in storage.folder.rglob("outcomes.parquet"):
        path.unlink()
    assert "cannot be put side by side" in client.get("models/m4?with=m2").text


def test_a_scorecard_of_another_version_is_said_and_the_rest_stands(
    pages: Pages, models: TrainedModels, database: Database
) -> None:
    with database.transaction() as transaction:
        transaction.run_script("UPDATE scorecards SET scorecard = scorecard || '{\"schema_version\": 1}' WHERE model_id = 'm2'")
    text = pages.client("viewer").get("models/m2").text
    assert "scorecard of schema version 1" in text
    assert "Provenance" in text


def test_the_report_of_a_scorecard_runs_no_script(pages: Pages, models: TrainedModels) -> None:
    evaluation = _evaluation_of(pages.stores.database, "m1")
    pages.stores.storage.write_bytes(f"scorecards/{evaluation}/report.html", b"<style>p{}</style><script>alert(1)</script>")
    answer = pages.client("viewer").get(f"reports/scorecard/{evaluation}")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "sandbox" in policy
    assert "script-src" not in policy
    assert "allow-scripts" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"


def _evaluation_of(database: Database, model_id: str) -> str:
    return str(database.fetch_all("list_model_scorecards", model_id=model_id)[0]["evaluation_id"])


def test_two_hundred_models_are_paged_and_no_page_asks_the_database_for_each_of_them(
    pages: Pages, models: TrainedModels, database: Database
) -> None:
    row = database.fetch_one("fetch_scorecard", evaluation_id=_evaluation_of(database, "m2"))
    assert row is not None
    assert parse_scorecard(row["scorecard"]).model_id == "m2"
    manifest = {"figures": {"steps": 1000, "seconds": 60.0, "tokens": 2_000_000, "examples": 9, "final_loss": 0.5}}
    with database.transaction() as transaction:
        transaction.run_script(
            f"""
            INSERT INTO models (model_id, release_key, dataset_id, recipe, stage, uri, manifest, created_at)
            SELECT 'model-' || n, 'FY2026-April', 'd1', 'compact', 'stage_one', 'x', '{json.dumps(manifest)}',
                   now() - n * interval '1 hour'
            FROM generate_series(1, 200) AS n;
            INSERT INTO scorecards (evaluation_id, model_id, dataset_id, suites_sha256, uri, scorecard)
            SELECT 'e-' || n, 'model-' || n, 'd1', scorecards.suites_sha256, scorecards.uri, scorecard
            FROM generate_series(1, 200) AS n, scorecards WHERE scorecards.model_id = 'm2';
            INSERT INTO verdicts (verdict_id, evaluation_id, model_id, decision, reasons)
            SELECT 'v-' || n, 'e-' || n, 'model-' || n, 'HOLD', '[]' FROM generate_series(1, 200) AS n;
            INSERT INTO promotions (promotion_id, model_id, kind, verdict_id, promoted_by)
            SELECT 1000 + n, 'model-' || n, 'promote', 'v-' || n, 'Ann' FROM generate_series(1, 200) AS n;
            INSERT INTO training_metrics SELECT 'model-7', n, 1.0 / n, 0.001, n * 1000, 100 FROM generate_series(1, 5000) AS n;
            """
        )
    client = pages.client("viewer")
    seen: list[str] = []
    address: str | None = "models"
    while address:
        with count_statements(database) as statements:
            text = client.get(address).text
        assert len(statements) == (3 if address == "models" else 1), "the first page asks for what is in training too"
        found = [part.split('"')[0] for part in text.split("/llmcoder/models/")[1:]]
        seen += found
        address = text.split("Next page")[0].rpartition('href="/llmcoder/')[2].split('"')[0] if "Next page" in text else None
    assert len(seen) == len(set(seen)) == 203
    client.get("models/model-7")
    with count_statements(database) as statements:
        started = time.monotonic()
        assert client.get("models/model-7").status_code == 200
        seconds = time.monotonic() - started
    assert len(statements) <= 9
    assert seconds < 2, "a page takes 0.1 s on an idle machine"
    curve = database.fetch_all("list_training_curves", model_ids=["model-7"])
    assert len(curve) <= 210
    assert curve[-1]["step"] == 5000
