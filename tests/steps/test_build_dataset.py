"""The step against a real PostgreSQL and a folder as store: once, twice, and with a broken release."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from llmcoder_tasks.database import Database
from llmcoder_tasks.dataset import examples
from llmcoder_tasks.dataset.config import DatasetConfig
from llmcoder_tasks.dataset.store import read_manifest
from llmcoder_tasks.errors import ExpectationsFailed, ReleaseError
from llmcoder_tasks.icd10cm.code_set import default_code_set
from llmcoder_tasks.records import ReleaseRef
from llmcoder_tasks.steps import build_dataset as step
from llmcoder_tasks.steps.build_dataset import build_dataset
from llmcoder_tasks.storage import FolderStorage

pytestmark = pytest.mark.integration

CONFIG = DatasetConfig(notes=20, held_out_share=0.1)


def test_a_dataset_is_stored_recorded_and_documented(
    release: ReleaseRef, database: Database, storage: FolderStorage, tmp_path: Path
) -> None:
    dataset = build_dataset(release, config=CONFIG, storage=storage, database=database, docs_folder=tmp_path / "docs")
    assert dataset.dataset_id.startswith("FY2026-April-")
    manifest = read_manifest(storage, dataset.uri)
    assert manifest.release_key == "FY2026-April"
    assert manifest.tables["base"].rows == len(default_code_set().billable[::200])
    assert (tmp_path / "docs" / dataset.dataset_id / "index.html").is_file()
    with database.engine.connect() as connection:
        row = connection.exec_driver_sql("SELECT dataset_id, release_key, uri, manifest FROM datasets").one()
    assert row[:3] == (dataset.dataset_id, "FY2026-April", dataset.uri)
    assert row[3] == json.loads(manifest.to_json())
    steps = database.fetch_all("list_step_runs")
    assert [run["step"] for run in steps] == ["build_dataset"]
    assert steps[0]["detail"]["base"] == manifest.tables["base"].rows


def test_a_second_run_changes_nothing_and_says_so(
    release: ReleaseRef, database: Database, storage: FolderStorage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = build_dataset(release, config=CONFIG, storage=storage, database=database, docs_folder=tmp_path / "docs")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*")}
    with caplog.at_level(logging.INFO):
        second = build_dataset(release, config=CONFIG, storage=storage, database=database, docs_folder=tmp_path / "docs")
    assert second == first
    assert f"dataset {first.dataset_id} is already there, nothing to do" in caplog.text
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*")} == before


def test_the_name_of_a_corrected_release_gives_a_dataset_of_the_corrected_content(
    release: ReleaseRef, database: Database, storage: FolderStorage, tmp_path: Path
) -> None:
    first = build_dataset(release, config=CONFIG, storage=storage, database=database, docs_folder=tmp_path / "docs")
    with database.transaction() as transaction:
        transaction.run_script(
            """
            UPDATE releases SET withdrawn_at = now();
            INSERT INTO releases (release_key, effective_from, source, content_sha256, code_count, billable_count, uri)
                SELECT 'FY2026-April-corrected-1', effective_from, 'test', 'def', code_count, billable_count, 'x' FROM releases;
            INSERT INTO codes
                SELECT 'FY2026-April-corrected-1', code, is_billable, short_title, long_title, position FROM codes;
            """
        )
    second = build_dataset(release, config=CONFIG, storage=storage, database=database, docs_folder=tmp_path / "docs")
    assert second.dataset_id.startswith("FY2026-April-corrected-1-")
    with database.engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT release_key, dataset_id FROM datasets ORDER BY 1").all()
    assert [tuple(row) for row in rows] == [
        ("FY2026-April", first.dataset_id),
        ("FY2026-April-corrected-1", second.dataset_id),
    ]


def test_an_interrupted_run_is_made_whole_with_the_same_bytes(
    release: ReleaseRef, database: Database, storage: FolderStorage, tmp_path: Path
) -> None:
    dataset = build_dataset(release, config=CONFIG, storage=storage, database=database, docs_folder=tmp_path / "docs")
    folder = tmp_path / "store" / "datasets" / dataset.dataset_id
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / "manifest.json").unlink()
    (folder / "typos.parquet").unlink()
    assert build_dataset(release, config=CONFIG, storage=storage, database=database, docs_folder=tmp_path / "docs") == dataset
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_another_seed_or_config_is_another_dataset(
    release: ReleaseRef, database: Database, storage: FolderStorage, tmp_path: Path
) -> None:
    ids = {
        build_dataset(release, config=config, storage=storage, database=database, docs_folder=tmp_path / "docs").dataset_id
        for config in (CONFIG, replace(CONFIG, seed=1), replace(CONFIG, notes=21))
    }
    assert len(ids) == 3


def test_a_broken_row_stores_nothing(
    release: ReleaseRef, database: Database, storage: FolderStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make_broken(*arguments: object) -> examples.Tables:
        tables = examples.make_examples(*arguments)  # type: ignore[arg-type]
        first = tables["typos"][0]
        tables["typos"][0] = replace(first, example=replace(first.example, text=" "))
        return tables

    monkeypatch.setattr(step, "make_examples", make_broken)
    with pytest.raises(ExpectationsFailed, match="suite typos: expectation 'text not empty' failed on column text: 1 of "):
        build_dataset(release, config=CONFIG, storage=storage, database=database, docs_folder=tmp_path / "docs")
    assert storage.list_keys("datasets") == []
    with database.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM datasets").scalar() == 0


def test_a_release_that_is_not_loaded_is_refused_with_the_cure(database: Database, storage: FolderStorage, tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match="FY2025 is not loaded: run `llmcoder ingest-release`"):
        build_dataset(ReleaseRef("FY2025", "x"), config=CONFIG, storage=storage, database=database, docs_folder=tmp_path)
