"""A dataset in the store: the same bytes twice, verified when fetched, read back as it was."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from llmcoder_tasks.dataset.examples import Tables
from llmcoder_tasks.dataset.store import (
    MANIFEST,
    DatasetManifest,
    fetch_dataset,
    read_examples,
    read_manifest,
    write_tables,
)
from llmcoder_tasks.errors import ArtifactMissing, DatasetError
from llmcoder_tasks.records import DatasetRef
from llmcoder_tasks.storage import FolderStorage, Storage, open_storage


def _store(tables: Tables, storage: Storage, folder: Path) -> DatasetRef:
    folder.mkdir()
    manifest = DatasetManifest("d1", "FY2026-April", "0" * 64, 7, "1", "1" * 64, {"typos": 1}, write_tables(tables, folder))
    (folder / MANIFEST).write_text(manifest.to_json())
    storage.publish_folder(folder, "datasets/d1", last=MANIFEST)
    return DatasetRef("d1", storage.uri_of("datasets/d1"))


def test_the_same_examples_give_the_same_bytes(tables: Tables, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_tables(tables, tmp_path / name)
    for scenario in tables:
        assert (tmp_path / "one" / f"{scenario}.parquet").read_bytes() == (tmp_path / "two" / f"{scenario}.parquet").read_bytes()


def test_examples_come_back_as_they_were_written(tables: Tables, tmp_path: Path) -> None:
    write_tables(tables, tmp_path)
    for scenario, rows in tables.items():
        assert read_examples(tmp_path, scenario) == [made.example for made in rows]
    held_out = [made.example for made in tables["multiple"] if made.example.split == "test"]
    assert read_examples(tmp_path, "multiple", split="test") == held_out
    assert read_examples(tmp_path, "multiple", split="test", limit=3) == held_out[:3]
    assert read_examples(tmp_path, "base", limit=10) == [made.example for made in tables["base"][:10]]


def test_an_unknown_scenario_and_a_missing_table_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="unknown scenario 'typo'.*typos"):
        read_examples(tmp_path, "typo")
    with pytest.raises(DatasetError, match="no typos.parquet"):
        read_examples(tmp_path, "typos")


def test_a_fetched_dataset_is_verified_and_fetched_once(tables: Tables, tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path / "store")
    dataset = _store(tables, storage, tmp_path / "made")
    folder = fetch_dataset(storage, dataset, tmp_path / "cache")
    assert read_examples(folder, "typos") == [made.example for made in tables["typos"]]
    assert DatasetManifest.from_json((folder / MANIFEST).read_text()) == read_manifest(storage, dataset.uri)
    (tmp_path / "store" / "datasets" / "d1" / "typos.parquet").unlink()
    assert fetch_dataset(storage, dataset, tmp_path / "cache") == folder
    assert list((tmp_path / "cache").iterdir()) == [folder]


def test_an_altered_table_is_refused_and_nothing_is_cached(tables: Tables, tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path / "store")
    dataset = _store(tables, storage, tmp_path / "made")
    storage.write_bytes("datasets/d1/typos.parquet", b"something else")
    with pytest.raises(DatasetError, match="typos.parquet is not the file of its manifest"):
        fetch_dataset(storage, dataset, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_several_workers_may_fetch_at_once(tables: Tables, tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path / "store")
    dataset = _store(tables, storage, tmp_path / "made")
    with ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(lambda _: fetch_dataset(storage, dataset, tmp_path / "cache"), range(8)))
    assert len(folders) == 1
    assert list((tmp_path / "cache").iterdir()) == list(folders)


@pytest.mark.integration
def test_a_dataset_is_fetched_from_s3_too(tables: Tables, tmp_path: Path, s3_endpoint: str) -> None:
    storage = open_storage("s3://artifacts/dataset-test", endpoint_url=s3_endpoint)
    dataset = _store(tables, storage, tmp_path / "made")
    folder = fetch_dataset(storage, dataset, tmp_path / "cache")
    assert len(read_examples(folder, "base")) == len(tables["base"])


def test_a_dataset_that_is_not_there_says_so(tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path)
    with pytest.raises(ArtifactMissing, match="datasets/none"):
        read_manifest(storage, storage.uri_of("datasets/none"))


@pytest.mark.parametrize("text", ["{}", "[]", '{"tables": {}, "colour": 1}', "not json"])
def test_a_file_that_is_no_manifest_is_refused(text: str) -> None:
    with pytest.raises(DatasetError, match="no manifest of a dataset"):
        DatasetManifest.from_json(text)
