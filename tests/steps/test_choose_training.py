"""The way of training is chosen from the model in service, the release that it learnt and the one of the dataset."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from pathlib import Path

import pytest

from llmcoder_tasks.database import Database
from llmcoder_tasks.dataset.store import DatasetManifest
from llmcoder_tasks.errors import TrainingError
from llmcoder_tasks.evaluation.registry import POINTER_KEY, Promotion
from llmcoder_tasks.model.manifest import write_manifest
from llmcoder_tasks.model.recipe import read_recipe
from llmcoder_tasks.records import DatasetRef, ReleaseRef
from llmcoder_tasks.steps.choose_training import choose_training
from llmcoder_tasks.storage import FolderStorage

pytestmark = pytest.mark.integration

RECIPE = read_recipe("tiny")


@pytest.fixture
def dataset(release: ReleaseRef, database: Database, storage: FolderStorage) -> DatasetRef:
    """A dataset of FY2027, which has all codes of the release before it and one more."""
    assert release.key == "FY2026-April"
    with database.transaction() as transaction:
        transaction.run_script(
            """
            INSERT INTO releases (release_key, effective_from, source, content_sha256, code_count, billable_count, uri)
            SELECT 'FY2027', '2026-10-01', 'test', 'def', code_count + 1, billable_count + 1, 'file:///releases'
            FROM releases WHERE release_key = 'FY2026-April';
            INSERT INTO codes SELECT 'FY2027', code, is_billable, short_title, long_title, position FROM codes;
            INSERT INTO codes VALUES ('FY2027', 'Z9999', true, 'New', 'A new condition', 100000);
            """
        )
    manifest = DatasetManifest("FY2027-d1", "FY2027", "0" * 64, 0, "1", "0" * 64, {}, {})
    storage.write_bytes("datasets/FY2027-d1/manifest.json", manifest.to_json().encode())
    return DatasetRef("FY2027-d1", storage.uri_of("datasets/FY2027-d1"))


def put_into_service(storage: FolderStorage, folder: Path) -> None:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    facts = {"model_id": "m1", "stage": "stage_two", "release_key": "FY2026-April", "recipe_settings": RECIPE.to_dict()}
    write_manifest(folder, facts)
    storage.publish_folder(folder, "models/m1", last="manifest.json")
    promotion = Promotion(1, "promote", "m1", storage.uri_of("models/m1"), "FY2026-April", "v1", "e1", None, "A. Person")
    storage.write_pointer(POINTER_KEY, json.dumps(asdict(promotion)).encode(), replaces=None)


def test_the_model_in_service_is_updated_and_the_log_says_why(
    dataset: DatasetRef, database: Database, storage: FolderStorage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    put_into_service(storage, tmp_path / "m1")
    way = choose_training(dataset, wanted="auto", recipe=RECIPE, storage=storage, database=database)
    assert (way.kind, way.base_model_id) == ("update", "m1")
    assert "update: 1 of " in caplog.text
    assert "codes changed from FY2026-April to FY2027" in caplog.text
    assert choose_training(dataset, wanted="full", recipe=RECIPE, storage=storage, database=database).kind == "full"


def test_the_first_model_is_trained_in_full(dataset: DatasetRef, database: Database, storage: FolderStorage) -> None:
    way = choose_training(dataset, wanted="auto", recipe=RECIPE, storage=storage, database=database)
    assert (way.kind, way.reason) == ("full", "no model is in service")
    with pytest.raises(TrainingError, match="no update is possible: no model is in service"):
        choose_training(dataset, wanted="update", recipe=RECIPE, storage=storage, database=database)


def test_a_model_that_learnt_the_withdrawn_content_is_updated_with_the_corrected(
    dataset: DatasetRef, database: Database, storage: FolderStorage, tmp_path: Path
) -> None:
    put_into_service(storage, tmp_path / "m1")
    with database.transaction() as transaction:
        transaction.run_script(
            """
            UPDATE releases SET withdrawn_at = now() WHERE release_key = 'FY2026-April';
            INSERT INTO releases (release_key, effective_from, source, content_sha256, code_count, billable_count, uri)
                SELECT 'FY2026-April-corrected-1', '2026-04-01', 'test', 'def', code_count, billable_count, 'u' FROM releases
                WHERE release_key = 'FY2027';
            INSERT INTO codes SELECT 'FY2026-April-corrected-1', code, is_billable, short_title, long_title, position FROM codes
                WHERE release_key = 'FY2027';
            """
        )
    manifest = DatasetManifest("d2", "FY2026-April-corrected-1", "0" * 64, 0, "1", "0" * 64, {}, {})
    storage.write_bytes("datasets/d2/manifest.json", manifest.to_json().encode())
    corrected = DatasetRef("d2", storage.uri_of("datasets/d2"))
    way = choose_training(corrected, wanted="auto", recipe=RECIPE, storage=storage, database=database)
    assert (way.kind, way.base_model_id) == ("update", "m1")
    assert "codes changed from FY2026-April to FY2026-April-corrected-1" in way.reason
