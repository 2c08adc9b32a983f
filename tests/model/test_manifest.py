"""A model folder is used only when every file is the one that was published."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from llmcoder_tasks.errors import ArtifactMissing, ModelError
from llmcoder_tasks.model.manifest import fetch_model, verify_manifest, write_manifest
from llmcoder_tasks.storage import Storage, open_storage


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    made.mkdir()
    (made / "model.safetensors").write_bytes(b"weights")
    (made / "config.json").write_text("{}")
    write_manifest(made, {"model_id": "m1", "seed": 7})
    return made


@pytest.fixture(params=["file", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path, folder: Path) -> Storage:
    """A store that holds the folder under `training/m1`."""
    if request.param == "file":
        store = open_storage((tmp_path / "artifacts").as_uri())
    else:
        store = open_storage(f"s3://artifacts/{tmp_path.name}", endpoint_url=request.getfixturevalue("s3_endpoint"))
    store.publish_folder(folder, "training/m1", last="manifest.json")
    return store


def test_a_manifest_holds_the_sha256_of_every_file_and_the_facts(folder: Path) -> None:
    manifest = verify_manifest(folder)
    assert manifest["seed"] == 7
    assert manifest["files"]["config.json"] == {
        "sha256": "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
        "bytes": 2,
    }
    assert sorted(manifest["files"]) == ["config.json", "model.safetensors"]


def test_an_altered_a_missing_and_a_surplus_file_are_refused(folder: Path) -> None:
    (folder / "config.json").write_text("{ }")
    with pytest.raises(ModelError, match="config.json is not the file that its manifest names"):
        verify_manifest(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match="lacks config.json"):
        verify_manifest(folder)
    (folder / "config.json").write_text("{}")
    (folder / "extra.json").write_text("{}")
    with pytest.raises(ModelError, match="holds extra.json"):
        verify_manifest(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "optimizer.pt", "code.py", ".hidden.json"])
def test_a_kind_of_file_that_could_run_code_is_neither_written_nor_read(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"x")
    with pytest.raises(ModelError, match="may not stand in a model folder"):
        write_manifest(folder, {"model_id": "m1"})


def test_a_manifest_that_names_a_file_elsewhere_is_refused_before_anything_is_fetched(tmp_path: Path, folder: Path) -> None:
    storage = open_storage((tmp_path / "artifacts").as_uri())
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["../../secret.json"] = {"sha256": "0", "bytes": 1}
    storage.write_bytes("training/m1/manifest.json", json.dumps(manifest).encode())
    with pytest.raises(ModelError, match="may not stand in a model folder"):
        fetch_model(storage, storage.uri_of("training/m1"), tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@pytest.mark.integration
def test_a_model_is_fetched_once_by_workers_that_ask_together(storage: Storage, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with ThreadPoolExecutor(4) as pool:
        folders = list(pool.map(lambda _: fetch_model(storage, storage.uri_of("training/m1"), cache), range(4)))
    assert len(set(folders)) == 1
    assert verify_manifest(folders[0])["model_id"] == "m1"
    assert [path.name for path in cache.iterdir() if not path.name.startswith(".")] == [folders[0].name]


@pytest.mark.integration
def test_a_tampered_file_is_refused_and_nothing_stays_in_the_cache(storage: Storage, tmp_path: Path) -> None:
    storage.write_bytes("training/m1/model.safetensors", b"other")
    with pytest.raises(ModelError, match="model.safetensors is not the file"):
        fetch_model(storage, storage.uri_of("training/m1"), tmp_path / "cache")
    assert [path for path in (tmp_path / "cache").iterdir() if path.is_dir()] == []


@pytest.mark.integration
def test_a_cached_copy_that_was_altered_is_refused(storage: Storage, tmp_path: Path) -> None:
    cached = fetch_model(storage, storage.uri_of("training/m1"), tmp_path / "cache")
    (cached / "config.json").write_text("{ }")
    with pytest.raises(ModelError, match="config.json"):
        fetch_model(storage, storage.uri_of("training/m1"), tmp_path / "cache")


@pytest.mark.integration
def test_a_model_published_again_under_its_uri_is_fetched_anew(storage: Storage, folder: Path, tmp_path: Path) -> None:
    first = fetch_model(storage, storage.uri_of("training/m1"), tmp_path / "cache")
    (folder / "coder.json").write_text("{}")
    write_manifest(folder, {"model_id": "m1"})
    storage.publish_folder(folder, "training/m1", last="manifest.json")
    second = fetch_model(storage, storage.uri_of("training/m1"), tmp_path / "cache")
    assert (second / "coder.json").is_file()
    assert first != second


@pytest.mark.integration
def test_a_model_without_a_manifest_does_not_exist(storage: Storage, tmp_path: Path) -> None:
    with pytest.raises(ArtifactMissing, match="its training did not end"):
        fetch_model(storage, storage.uri_of("training/m2"), tmp_path / "cache")


@pytest.mark.parametrize(
    "data", [b"<html>", b"[]", b'{"schema_version": 9, "model_id": "m", "files": {"a.json": {"sha256": "0"}}}']
)
def test_something_else_than_a_manifest_is_refused(tmp_path: Path, data: bytes) -> None:
    storage = open_storage(tmp_path.as_uri())
    storage.write_bytes("training/m1/manifest.json", data)
    with pytest.raises(ModelError, match="training/m1"):
        fetch_model(storage, storage.uri_of("training/m1"), tmp_path / "cache")
