"""The step against a server that speaks the API, a real PostgreSQL and a folder as store: from titles to a dataset."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from llmcoder_tasks.cli import main
from llmcoder_tasks.database import Database
from llmcoder_tasks.dataset.config import DatasetConfig
from llmcoder_tasks.dataset.llm_config import AskingConfig, VariationsConfig
from llmcoder_tasks.dataset.llm_store import read_variations, read_variations_manifest
from llmcoder_tasks.dataset.splits import split_of
from llmcoder_tasks.dataset.store import fetch_dataset, read_examples
from llmcoder_tasks.errors import ArtifactMissing, DatasetError, LanguageModelUnreachable, ReleaseError
from llmcoder_tasks.icd10cm.code_set import default_code_set
from llmcoder_tasks.records import DatasetRef, ReleaseRef, VariationsRef
from llmcoder_tasks.settings import LanguageModel
from llmcoder_tasks.steps.build_dataset import build_dataset
from llmcoder_tasks.steps.generate_variations import estimate_variations, generate_variations
from llmcoder_tasks.storage import FolderStorage
from tests.llm_server import Behaviour, FakeLanguageModel, Items, serve_language_model

pytestmark = pytest.mark.integration

CONFIG = VariationsConfig(count=2, limit=60, scenarios=("abbreviations", "typos"), held_out_share=0.1)
ASKING = AskingConfig(retries=0)
DATASET = DatasetConfig(notes=20, held_out_share=0.1)


@pytest.fixture
def server() -> Iterator[FakeLanguageModel]:
    with serve_language_model() as model:
        yield model


@pytest.fixture
def place(server: FakeLanguageModel, database: Database, storage: FolderStorage, tmp_path: Path) -> dict[str, Any]:
    """Where the step works, and whom it asks."""
    return {
        "model": LanguageModel(server.url, "fake", "sk-secret-123", 1.0, 2.0),
        "storage": storage,
        "database": database,
        "work_folder": tmp_path / "work",
    }


def _generate(release: ReleaseRef, place: dict[str, Any], tmp_path: Path, *, said: list[str] | None = None, **changes: Any) -> Any:
    lines = [] if said is None else said
    arguments = {"config": CONFIG, "asking": ASKING, "docs_folder": tmp_path / "docs", "report": lines.append, **place, **changes}
    return generate_variations(release, **arguments)


def _build(release: ReleaseRef, place: dict[str, Any], tmp_path: Path, config: DatasetConfig, chosen: Any) -> DatasetRef:
    return build_dataset(
        release,
        config=config,
        storage=place["storage"],
        database=place["database"],
        docs_folder=tmp_path / "docs",
        variations=chosen,
    )


def test_titles_become_variations_and_join_the_train_split_of_a_dataset(
    release: ReleaseRef, place: dict[str, Any], server: FakeLanguageModel, tmp_path: Path
) -> None:
    said: list[str] = []
    variations = _generate(release, place, tmp_path, said=said)
    manifest = read_variations_manifest(place["storage"], variations)
    assert {name: table.rows for name, table in manifest.tables.items()} == {"abbreviations": 120, "typos": 120}
    assert manifest.model == "fake"
    assert (tmp_path / "docs" / variations.variations_id / "index.html").is_file()
    assert said[0].startswith("to ask: 120 titles in 6 requests, about ")
    assert said[1].startswith("asked: 6 requests, 6,000 input and 3,000 output tokens, 0.01 in the currency of your prices")
    assert all(split_of(code, seed=0, held_out_share=0.1) == "train" for code in server.asked)
    (run,) = place["database"].fetch_all("list_step_runs")
    assert (run["step"], run["subject"], run["detail"]["requests"]) == ("generate_variations", variations.variations_id, 6)

    without = _build(release, place, tmp_path, DATASET, None)
    dataset = _build(release, place, tmp_path, DATASET, variations)
    assert dataset != without
    folder = fetch_dataset(place["storage"], dataset, tmp_path / "cache")
    plain = fetch_dataset(place["storage"], without, tmp_path / "cache")
    for scenario in ("abbreviations", "typos"):
        added = [example for example in read_examples(folder, scenario) if "-llm-" in example.example_id]
        assert len(added) == 120
        assert {example.split for example in added} == {"train"}
        assert added[0].example_id in {f"{scenario}-{added[0].codes[0]}-llm-{n}" for n in (0, 1)}
        others = [example for example in read_examples(folder, scenario) if "-llm-" not in example.example_id]
        assert others == read_examples(plain, scenario)
    assert _build(release, place, tmp_path, DATASET, variations) == dataset


def test_only_codes_that_the_dataset_trains_on_are_taken(release: ReleaseRef, place: dict[str, Any], tmp_path: Path) -> None:
    variations = _generate(release, place, tmp_path, config=replace(CONFIG, scenarios=("typos",)))
    other_seed = replace(DATASET, seed=5)
    dataset = _build(release, place, tmp_path, other_seed, variations)
    folder = fetch_dataset(place["storage"], dataset, tmp_path / "cache")
    codes = {example.codes[0] for example in read_examples(folder, "typos") if "-llm-" in example.example_id}
    asked = {made.example.codes[0] for made in read_variations(place["storage"], variations)["typos"]}
    assert codes == {code for code in asked if split_of(code, seed=5, held_out_share=0.1) == "train"}
    assert codes < asked


def test_a_set_that_is_whole_is_not_asked_for_again(
    release: ReleaseRef, place: dict[str, Any], server: FakeLanguageModel, tmp_path: Path
) -> None:
    first = _generate(release, place, tmp_path)
    server.requests.clear()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*")}
    said: list[str] = []
    assert _generate(release, place, tmp_path, said=said) == first
    assert said == [f"variations {first.variations_id} are already there, nothing to do"]
    assert server.requests == []
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*")} == before


def test_a_run_that_failed_publishes_nothing_and_the_next_goes_on_where_it_ended(
    release: ReleaseRef, place: dict[str, Any], server: FakeLanguageModel, tmp_path: Path
) -> None:
    one_by_one = replace(ASKING, concurrency=1)
    server.behave(Behaviour(), Behaviour(), Behaviour(status=500))
    with pytest.raises(LanguageModelUnreachable, match="what was answered is kept"):
        _generate(release, place, tmp_path, asking=one_by_one)
    assert place["storage"].list_keys("variations") == []
    arguments = {"config": CONFIG, "asking": ASKING, **place}
    left = estimate_variations(release, **arguments)
    answered = 120 - left.titles
    assert left.kept == answered >= 40
    server.requests.clear()
    said: list[str] = []
    variations = _generate(release, place, tmp_path, said=said)
    assert len(server.asked) == left.titles
    assert f"to ask: {left.titles} titles ({answered} more are already answered)" in said[0]
    assert read_variations_manifest(place["storage"], variations).tables["typos"].rows == 120


def test_another_model_count_or_seed_is_another_set(release: ReleaseRef, place: dict[str, Any], tmp_path: Path) -> None:
    ids = {
        _generate(release, {**place, "model": replace(place["model"], name=name)}, tmp_path, config=config).variations_id
        for name, config in [
            ("fake", replace(CONFIG, limit=4)),
            ("other", replace(CONFIG, limit=4)),
            ("fake", replace(CONFIG, limit=4, count=1)),
            ("fake", replace(CONFIG, limit=4, seed=1)),
        ]
    }
    assert len(ids) == 4


def test_a_cost_above_the_ceiling_is_refused_before_anything_is_asked(
    release: ReleaseRef, place: dict[str, Any], server: FakeLanguageModel, tmp_path: Path
) -> None:
    with pytest.raises(DatasetError, match="above the ceiling of 0.00; raise --max-cost, or ask for less"):
        _generate(release, place, tmp_path, asking=replace(ASKING, max_cost=0.001))
    assert server.requests == []


def test_titles_without_a_usable_answer_stop_the_run_only_when_they_are_many(
    release: ReleaseRef, place: dict[str, Any], server: FakeLanguageModel, tmp_path: Path
) -> None:
    codes = [code.code for code in default_code_set().billable[::200]]

    def keep_silent_about(hidden: set[str]) -> Behaviour:
        def change(items: Items) -> Items:
            return [item for item in items if item["code"] not in hidden]

        return Behaviour(change=change)

    server.always = keep_silent_about(set(codes[::3]))
    with pytest.raises(DatasetError, match=r"abbreviations: no usable variation for \d+ of 60 titles, for example "):
        _generate(release, place, tmp_path)
    asked = sorted(set(server.asked))
    server.always = keep_silent_about(set(asked[:4]))
    variations = _generate(release, place, tmp_path)
    rows = read_variations_manifest(place["storage"], variations).tables["typos"].rows
    assert rows == 2 * 56


def test_a_text_that_stands_for_two_codes_is_dropped(
    release: ReleaseRef, place: dict[str, Any], server: FakeLanguageModel, tmp_path: Path
) -> None:
    def say_the_same(items: Items) -> Items:
        return [{**item, "variations": ["a dz", *item["variations"][1:]]} for item in items]

    server.always = Behaviour(change=say_the_same)
    variations = _generate(release, place, tmp_path, config=replace(CONFIG, scenarios=("abbreviations",)))
    rows = read_variations(place["storage"], variations)["abbreviations"]
    assert len(rows) == 60
    assert all(made.example.text != "a dz" for made in rows)


def test_a_set_of_another_release_an_altered_one_and_none_are_refused(
    release: ReleaseRef, place: dict[str, Any], database: Database, tmp_path: Path
) -> None:
    variations = _generate(release, place, tmp_path, config=replace(CONFIG, limit=30))
    with pytest.raises(ArtifactMissing):
        _build(release, place, tmp_path, DATASET, VariationsRef("none", place["storage"].uri_of("variations/none")))
    table = tmp_path / "store" / "variations" / variations.variations_id / "typos.parquet"
    whole = table.read_bytes()
    table.write_bytes(whole + b" ")
    with pytest.raises(DatasetError, match="typos.parquet is not the file of its manifest"):
        _build(release, place, tmp_path, DATASET, variations)
    table.write_bytes(whole)
    with database.transaction() as transaction:
        transaction.run_script("UPDATE releases SET content_sha256 = 'other'")
    with pytest.raises(DatasetError, match="not for FY2026-April as it is loaded now: run `llmcoder generate-variations`"):
        _build(release, place, tmp_path, DATASET, variations)


def test_a_release_that_is_not_loaded_is_refused_with_the_cure(place: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match="FY2025 is not loaded: run `llmcoder ingest-release`"):
        _generate(ReleaseRef("FY2025", "x"), place, tmp_path)


def test_the_command_estimates_asks_and_hands_its_set_to_build_dataset(
    release: ReleaseRef, database: Database, server: FakeLanguageModel, tmp_path: Path
) -> None:
    environment = {
        "LLMCODER_HOME": str(tmp_path / "home"),
        "LLMCODER_DATABASE_URL": database.engine.url.render_as_string(hide_password=False),
    }
    command = ["generate-variations", release.key, "--scenario", "typos", "--limit", "20", "--batch-size", "10"]

    def run(*arguments: str) -> Any:
        return CliRunner().invoke(main, arguments, env=environment)

    missing = run(*command)
    assert missing.exit_code == 1
    assert "no language model: set LLMCODER_LLM_URL and LLMCODER_LLM_MODEL" in missing.output
    environment |= {"LLMCODER_LLM_URL": server.url, "LLMCODER_LLM_MODEL": "fake", "LLMCODER_LLM_KEY": "sk-secret-123"}
    dry = run(*command, "--dry-run")
    assert dry.exit_code == 0, dry.output
    assert dry.output.startswith("to ask: 20 titles in 2 requests, about ")
    assert dry.output.endswith("unknown price\n")
    assert server.requests == []
    assert run(*command, "--max-cost", "5").output.startswith("to ask: 20 titles")
    assert server.requests == []
    done = run(*command)
    assert done.exit_code == 0, done.output
    assert "sk-secret" not in done.output
    reference = json.loads(done.stdout)
    built = run("build-dataset", release.key, "--variations", reference["variations_id"])
    assert built.exit_code == 0, built.output
    manifest = json.loads(
        (tmp_path / "home/artifacts/datasets" / json.loads(built.stdout)["dataset_id"] / "manifest.json").read_text()
    )
    assert manifest["config"]["variations"] == reference["variations_id"]
