"""Training at a server: two stages, one paid job whatever happens, and everything that stops before it costs money."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from openai_server import BASE, FakeOpenAI, Fault, serve_openai

from llmcoder_tasks.database import Database
from llmcoder_tasks.dataset.examples import MadeExample
from llmcoder_tasks.dataset.store import DatasetManifest, write_tables
from llmcoder_tasks.errors import LanguageModelUnreachable, ModelError, SettingsError, TrainingError, WorkPending
from llmcoder_tasks.model.manifest import fetch_model
from llmcoder_tasks.model.recipe import ServerRecipe, read_recipe
from llmcoder_tasks.prompt import CODES_SCHEMA, INSTRUCTIONS
from llmcoder_tasks.records import CORRECTIONS, DatasetRef, Example, ModelRef
from llmcoder_tasks.settings import CoderServer
from llmcoder_tasks.steps.train_model import make_model_id, train_model
from llmcoder_tasks.storage import FolderStorage

pytestmark = pytest.mark.integration

TITLES = {f"S{number:02}0": f"burn of part {number}" for number in range(20)}
JOBS = "POST /fine_tuning/jobs"


@pytest.fixture(autouse=True)
def _in_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmcoder_tasks.model.server_training.POLL_SECONDS", 0.01)
    monkeypatch.setattr("llmcoder_tasks.model.server_training.SETTLE_SECONDS", 0.01)
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)


@pytest.fixture
def server() -> Iterator[FakeOpenAI]:
    with serve_openai() as server:
        yield server


class Training:
    """A dataset in real stores, and a server to train at."""

    def __init__(self, server: FakeOpenAI, database: Database, folder: Path) -> None:
        self.fake, self.database, self.folder = server, database, folder
        self.storage = FolderStorage(folder / "store")
        self.server = CoderServer(server.url, "sk-secret", True, train_price=3.0, max_cost=1.0)
        recipe = read_recipe("openai-gpt-4o-mini")
        assert isinstance(recipe, ServerRecipe)
        self.recipe = recipe
        with database.transaction() as transaction:
            transaction.run_script(
                "INSERT INTO releases (release_key, effective_from, source, content_sha256, code_count, billable_count, uri) "
                "VALUES ('FY2026', '2025-10-01', 'made up', 'x', 20, 20, 'x');"
                "INSERT INTO datasets (dataset_id, release_key, uri, manifest) VALUES ('FY2026-d1', 'FY2026', 'x', '{}');"
            )
        self.dataset = self.store_dataset("FY2026-d1", corrections=0)

    def store_dataset(self, dataset_id: str, corrections: int) -> DatasetRef:
        tables = {
            "base": [_made("base", code, title) for code, title in TITLES.items()],
            "reordered": [_made("reordered", code, " ".join(reversed(title.split(" of ")))) for code, title in TITLES.items()],
        }
        for scenario in ("abbreviations", "typos", "sentences", "multiple"):
            tables[scenario] = []
        if corrections:
            tables[CORRECTIONS] = [_made(CORRECTIONS, code, f"my {title}") for code, title in list(TITLES.items())[:corrections]]
        folder = self.folder / dataset_id
        folder.mkdir()
        manifest = DatasetManifest(dataset_id, "FY2026", "0" * 64, 0, "1", "0" * 64, {}, write_tables(tables, folder))
        (folder / "manifest.json").write_text(manifest.to_json(), encoding="utf-8")
        self.storage.publish_folder(folder, f"datasets/{dataset_id}", last="manifest.json")
        return DatasetRef(dataset_id, self.storage.uri_of(f"datasets/{dataset_id}"))

    def train(self, stage: str = "stage_one", base: ModelRef | None = None, **changes: Any) -> ModelRef:
        arguments: dict[str, Any] = {"recipe": self.recipe, "server": self.server} | changes
        return train_model(
            arguments.pop("dataset", self.dataset),
            stage=stage,
            base=base,
            storage=self.storage,
            database=self.database,
            work_folder=self.folder / "work",
            processes=None,
            **arguments,
        )

    @property
    def jobs(self) -> list[dict[str, Any]]:
        """The rows of the table."""
        model_id = make_model_id("FY2026", "FY2026-d1", self.recipe, "stage_one", None)
        return self.database.fetch_all("list_fine_tuning_jobs", model_id=model_id)


def _made(scenario: str, code: str, text: str) -> MadeExample:
    return MadeExample(Example(f"{scenario}-{code}", scenario, "train", text, (code,)), 1)


@pytest.fixture
def training(server: FakeOpenAI, database: Database, tmp_path: Path) -> Training:
    return Training(server, database, tmp_path)


def test_two_stages_are_two_jobs_with_the_hyperparameters_of_the_seed_and_a_second_call_is_none(
    training: Training, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    one = training.train()
    two = training.train("stage_two", one)

    first, second = training.fake.jobs.values()
    assert (first["model"], second["model"]) == (BASE, first["fine_tuned_model"])
    assert first["method"] == {
        "type": "supervised",
        "supervised": {"hyperparameters": {"n_epochs": 10, "learning_rate_multiplier": 1.8}},
    }
    assert second["method"]["supervised"]["hyperparameters"] == {"n_epochs": 5, "learning_rate_multiplier": 1.0}
    assert first["metadata"] == {"llmcoder_model_id": one.model_id}
    line = json.loads(next(iter(training.fake.files.values()))["content"].decode().splitlines()[0])
    assert line["messages"][0] == {"role": "system", "content": INSTRUCTIONS}
    assert json.loads(line["messages"][2]["content"]).keys() == CODES_SCHEMA["properties"].keys()

    folder = fetch_model(training.storage, two.uri, training.folder / "cache")
    named = json.loads((folder / "server_model.json").read_text())
    assert (named["model"], named["base_model"]) == (second["fine_tuned_model"], BASE)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["base_model_id"] == one.model_id
    assert manifest["figures"]["trained_tokens"] == 1234
    assert (manifest["figures"]["first_loss"], manifest["figures"]["final_loss"]) == (2.0, pytest.approx(0.667, abs=0.001))
    row = training.database.fetch_one("fetch_model", model_id=two.model_id) or {}
    assert (row["stage"], row["parent_model_id"]) == ("stage_two", one.model_id)
    assert "20 examples, 10 epochs, about " in caplog.text
    assert "ftjob-1: running, done in about 10 min" in caplog.text
    assert "sk-secret" not in caplog.text + json.dumps(manifest) + json.dumps(named)

    calls = dict(training.fake.calls)
    assert training.train() == one
    assert dict(training.fake.calls) == calls, "what is trained is not asked for again"


def test_without_waiting_the_job_is_begun_once_and_found_again(training: Training) -> None:
    away = replace(training.server, waits=False)
    with pytest.raises(WorkPending, match="ftjob-1 is under way") as pending:
        training.train(server=away)
    assert (pending.value.kind, pending.value.work_id, pending.value.retryable) == ("job", "ftjob-1", True)
    assert [job["job_id"] for job in training.jobs] == ["ftjob-1"]
    training.train(server=training.server)
    assert training.fake.calls[JOBS] == 1


def test_a_crash_between_beginning_and_recording_costs_no_second_job(training: Training, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def die(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("llmcoder_tasks.model.server_training.TuningJobs._record", die)
        with pytest.raises(Killed):
            training.train()
    assert (len(training.fake.jobs), training.jobs) == (1, []), "begun at the server, and no row says so"
    training.train()
    assert (training.fake.calls[JOBS], len(training.fake.jobs)) == (1, 1)
    assert training.fake.calls["POST /files"] == 1
    assert [job["status"] for job in training.jobs] == ["succeeded"]


@pytest.mark.parametrize("fault", [Fault(hang_up=True), Fault(cut=True)])
def test_a_job_whose_beginning_nobody_saw_answered_is_found_and_not_begun_again(training: Training, fault: Fault) -> None:
    training.fake.fail(JOBS, fault)
    training.train()
    assert (training.fake.calls[JOBS], len(training.fake.jobs)) == (1, 1)


@pytest.mark.parametrize("status", [429, 500])
def test_a_job_that_was_not_begun_leaves_the_step_to_be_retried(training: Training, status: int) -> None:
    training.fake.fail(JOBS, Fault(status=status))
    with pytest.raises(LanguageModelUnreachable) as away:
        training.train()
    assert away.value.retryable
    assert training.fake.calls[JOBS] == 1, "what costs money is not repeated by the library"
    training.train()
    assert len(training.fake.jobs) == 1
    assert training.fake.calls["POST /files"] == 1, "the file is at the server already"


def test_an_outage_while_the_job_runs_is_sat_out(training: Training, caplog: pytest.LogCaptureFixture) -> None:
    training.fake.fail("GET /fine_tuning/jobs/ID", *[Fault(status=500)] * 8)
    training.train()
    assert "the job goes on without us" in caplog.text
    assert training.fake.calls[JOBS] == 1


def test_a_failed_job_is_told_with_its_reason_and_only_a_further_run_begins_another(training: Training) -> None:
    training.fake.job_failure = "line 3: content was blocked"
    with pytest.raises(TrainingError, match="ftjob-1 .* failed: line 3: content was blocked") as failed:
        training.train()
    assert not failed.value.retryable
    assert [(job["status"], job["failure"]) for job in training.jobs] == [("failed", "line 3: content was blocked")]
    training.fake.job_failure = None
    training.train()
    assert training.fake.calls[JOBS] == 2


def test_a_cancelled_job_that_nobody_was_told_of_is_told_first(training: Training) -> None:
    with pytest.raises(WorkPending):
        training.train(server=replace(training.server, waits=False))
    training.fake.jobs["ftjob-1"]["status"] = "cancelled"
    with pytest.raises(TrainingError, match="cancelled: the server gives no reason"):
        training.train()
    assert training.fake.calls[JOBS] == 1


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"max_cost": 0.01}, "about 0.0[0-9] in the currency of your prices: above the ceiling of 0.01, nothing was sent"),
        ({"train_price": None}, "a ceiling needs a price: set LLMCODER_TRAIN_PRICE"),
    ],
)
def test_a_ceiling_stops_before_anything_is_sent(training: Training, changes: dict[str, Any], match: str) -> None:
    with pytest.raises(TrainingError, match=match):
        training.train(server=replace(training.server, **changes))
    assert not training.fake.files
    assert not training.fake.jobs


def test_the_ceiling_of_the_recipe_counts_where_no_setting_has_one_and_changes_no_model(training: Training) -> None:
    dear = replace(training.recipe, max_cost=0.01)
    with pytest.raises(TrainingError, match="above the ceiling of 0.01"):
        training.train(recipe=dear, server=replace(training.server, max_cost=None))
    ids = [make_model_id("FY2026", "d", recipe, "stage_one", None) for recipe in (training.recipe, dear)]
    assert ids[0] == ids[1]


@pytest.mark.parametrize("field", ["shutdown_date", "deprecation_date"])
def test_a_model_that_was_shut_down_is_refused_with_what_to_do_instead(training: Training, field: str) -> None:
    training.fake.models[BASE] = {field: "2026-01-31"}
    with pytest.raises(TrainingError, match="was shut down on 2026-01-31.*--recipe llama-3.2-1b"):
        training.train()
    assert not training.fake.files


def test_a_bare_alias_is_refused_with_the_snapshot_to_name(training: Training) -> None:
    with pytest.raises(TrainingError, match=f"gpt-4o-mini is an alias.*name a dated snapshot as base_model, {BASE}"):
        training.train(recipe=replace(training.recipe, base_model="gpt-4o-mini"))


def test_a_model_that_is_not_there_is_refused_with_the_nearest_names(training: Training) -> None:
    with pytest.raises(TrainingError, match=f"no model gpt-4o-mini-2024-07-17: name one that it lists, like {BASE}"):
        training.train(recipe=replace(training.recipe, base_model="gpt-4o-mini-2024-07-17"))


def test_a_server_without_fine_tuning_is_told_from_one_that_is_away(training: Training) -> None:
    training.fake.does_tuning = False
    with pytest.raises(TrainingError, match="does not fine-tune for you: train a recipe of your own GPU instead"):
        training.train()
    training.fake.does_tuning = True
    training.fake.fail(JOBS, Fault(status=403))
    with pytest.raises(TrainingError, match=f"does not fine-tune {BASE} for you"):
        training.train()


def test_a_served_model_is_taken_as_it_is_without_any_job(training: Training) -> None:
    training.fake.does_tuning = False
    training.fake.models["coder"] = {}
    recipe = read_recipe("served")
    one = training.train(recipe=recipe)
    two = training.train("stage_two", one, recipe=recipe)
    folder = fetch_model(training.storage, two.uri, training.folder / "cache")
    assert json.loads((folder / "server_model.json").read_text())["model"] == "coder"
    assert not training.fake.files
    with pytest.raises(TrainingError, match="no model other"):
        training.train(recipe=replace(recipe, base_model="other"))


def test_corrections_are_uploaded_only_where_an_agreement_covers_the_server(training: Training) -> None:
    dataset = training.store_dataset("FY2026-d2", corrections=3)
    training.database.execute(
        "record_dataset", {"dataset_id": "FY2026-d2", "release_key": "FY2026", "uri": dataset.uri, "manifest": "{}"}
    )
    outside = replace(training.server, covers_patients=False)
    one = training.train(dataset=dataset, server=outside)
    with pytest.raises(TrainingError, match="holds 3 phrases that people corrected.*LLMCODER_CODER_LLM_AGREEMENT=127.0.0.1"):
        training.train("stage_two", one, dataset=dataset, server=outside)
    assert not any(b"my burn" in file["content"] for file in training.fake.files.values())
    training.train("stage_two", one, dataset=dataset)
    assert sum(file["content"].count(b"my burn") for file in training.fake.files.values()) == 3


def test_without_a_server_and_with_another_base_the_message_says_what_is_missing(training: Training) -> None:
    with pytest.raises(SettingsError, match="set LLMCODER_CODER_LLM_URL"):
        training.train(server=None)
    with pytest.raises(TrainingError, match="has no stage update"):
        training.train("update", ModelRef("m", "file:///m"))
    one = training.train()
    elsewhere = replace(training.server, url="http://127.0.0.1:9/v1")
    with pytest.raises(WorkPending):
        training.train("stage_two", one, server=replace(training.server, waits=False))
    with pytest.raises(TrainingError, match="has job ftjob-2 at .*: set LLMCODER_CODER_LLM_URL to that server"):
        training.train("stage_two", one, server=elsewhere)


def test_stage_two_starts_from_no_model_that_was_trained_elsewhere(training: Training) -> None:
    from llmcoder_tasks.model.manifest import write_manifest

    folder = training.folder / "local"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    write_manifest(folder, {"model_id": "local", "release_key": "FY2026"})
    training.storage.publish_folder(folder, "training/local", last="manifest.json")
    with pytest.raises(ModelError, match="server_model.json"):
        training.train("stage_two", ModelRef("local", training.storage.uri_of("training/local")))
