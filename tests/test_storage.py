"""The artifact store as a folder and as a real S3 API: whole or nothing, safe keys, and a pointer that one writer moves."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from llmcoder_tasks.errors import ArtifactMissing, PointerMoved, StorageError, StorageUnreachable
from llmcoder_tasks.storage import FolderStorage, Storage, hash_file, open_storage

pytestmark = pytest.mark.integration


@pytest.fixture(params=["folder", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """Each kind of store, empty."""
    if request.param == "folder":
        return open_storage((tmp_path / "artifacts").as_uri())
    return open_storage(f"s3://artifacts/{uuid.uuid4().hex}", endpoint_url=request.getfixturevalue("s3_endpoint"))


def test_what_is_written_is_read_back_and_replaced_whole(storage: Storage) -> None:
    storage.write_bytes("datasets/d1/manifest.json", b"one")
    storage.write_bytes("datasets/d1/manifest.json", b"\x00two")
    assert storage.read_bytes("datasets/d1/manifest.json") == b"\x00two"
    assert storage.exists("datasets/d1/manifest.json")
    assert not storage.exists("datasets/d1")
    assert not storage.exists("datasets/d1/other.json")


def test_a_missing_key_is_named(storage: Storage, tmp_path: Path) -> None:
    with pytest.raises(ArtifactMissing, match="nothing under .*models/m1/manifest.json"):
        storage.read_bytes("models/m1/manifest.json")
    with pytest.raises(ArtifactMissing, match="models/m1/weights"):
        storage.fetch_file("models/m1/weights", tmp_path / "weights")
    with pytest.raises(ArtifactMissing, match="models/m1"):
        storage.fetch_folder("models/m1", tmp_path / "m1")
    assert storage.read_pointer("models/promoted.json") is None


def test_keys_of_a_folder_are_listed_sorted_without_its_neighbours(storage: Storage) -> None:
    for key in ("models/m1/b", "models/m1/a", "models/m1/deep/c", "models/m10/a", "models/m"):
        storage.write_bytes(key, b"x")
    assert storage.list_keys("models/m1") == ["models/m1/a", "models/m1/b", "models/m1/deep/c"]
    assert storage.list_keys("nothing") == []
    assert len(storage.list_keys("")) == 5


def test_a_folder_survives_the_way_there_and_back(storage: Storage, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "manifest.json").write_bytes(b"{}")
    (source / "deep" / "weights").write_bytes(b"\x00\x01" * 5000)
    storage.publish_folder(source, "models/m1", last="manifest.json")
    storage.fetch_folder("models/m1", tmp_path / "target")
    for path in ("manifest.json", "deep/weights"):
        assert hash_file(tmp_path / "target" / path) == hash_file(source / path)


def test_the_manifest_of_a_folder_is_published_last(tmp_path: Path) -> None:
    published: list[str] = []

    class Recorder(FolderStorage):
        def publish_file(self, source: Path, key: str) -> None:
            published.append(key)

    for name in ("a.txt", "manifest.json", "z.txt"):
        (tmp_path / name).write_text(name)
    Recorder(tmp_path / "store").publish_folder(tmp_path, "models/m1", last="manifest.json")
    assert published == ["models/m1/a.txt", "models/m1/z.txt", "models/m1/manifest.json"]


def test_a_uri_is_taken_apart_only_by_its_own_store(storage: Storage) -> None:
    assert storage.key_of(storage.uri_of("models/m1")) == "models/m1"
    for foreign in ("s3://elsewhere/models/m1", storage.uri + "-other/models/m1", "file:///elsewhere/models/m1"):
        with pytest.raises(StorageError, match="not in the artifact store .*: check LLMCODER_ARTIFACTS"):
            storage.key_of(foreign)


@pytest.mark.parametrize("key", ["../secret", "models/../../secret", "/etc/passwd", ""])
def test_a_key_never_leads_out_of_the_folder(tmp_path: Path, key: str) -> None:
    (tmp_path / "secret").write_text("secret")
    store = FolderStorage(tmp_path / "store")
    calls: list[Callable[[], object]] = [
        lambda: store.read_bytes(key),
        lambda: store.write_bytes(key, b"x"),
        lambda: store.exists(key),
        lambda: store.list_keys(key or "../"),
        lambda: store.fetch_file(key, tmp_path / "out"),
        lambda: store.read_pointer(key),
        lambda: store.write_pointer(key, b"x", replaces=None),
    ]
    for call in calls:
        with pytest.raises(StorageError, match="is not a key"):
            call()
    assert (tmp_path / "secret").read_text() == "secret"


def test_a_pointer_is_moved_only_by_who_knows_where_it_stands(storage: Storage) -> None:
    storage.write_pointer("models/promoted.json", b"one", replaces=None)
    with pytest.raises(PointerMoved, match="was moved by someone else"):
        storage.write_pointer("models/promoted.json", b"two", replaces=None)
    standing = storage.read_pointer("models/promoted.json")
    assert standing is not None
    assert standing[0] == b"one"
    storage.write_pointer("models/promoted.json", b"two", replaces=standing[1])
    with pytest.raises(PointerMoved):
        storage.write_pointer("models/promoted.json", b"three", replaces=standing[1])
    assert storage.read_bytes("models/promoted.json") == b"two"


@pytest.mark.parametrize("is_first", [True, False])
def test_of_many_writers_of_a_pointer_exactly_one_wins(storage: Storage, is_first: bool) -> None:
    key = "models/promoted.json"
    if not is_first:
        storage.write_pointer(key, b"standing", replaces=None)
    standing = storage.read_pointer(key)
    version = standing[1] if standing else None
    start = threading.Barrier(6)

    def write(number: int) -> bytes | None:
        start.wait()
        try:
            storage.write_pointer(key, b"writer %d" % number, replaces=version)
        except PointerMoved:
            return None
        return b"writer %d" % number

    with ThreadPoolExecutor(6) as pool:
        winners = [data for data in pool.map(write, range(6)) if data]
    assert len(winners) == 1
    assert storage.read_bytes(key) == winners[0]


def test_readers_never_see_half_a_file(tmp_path: Path) -> None:
    store = FolderStorage(tmp_path)
    contents = {bytes([letter]) * 500_000 for letter in b"ab"}
    store.write_bytes("key", min(contents))
    is_done = threading.Event()

    def write() -> None:
        for _ in range(30):
            for content in contents:
                store.write_bytes("key", content)
        is_done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not is_done.is_set():
        assert store.read_bytes("key") in contents
    writer.join()


def test_an_interrupted_write_leaves_the_old_content_and_no_rubbish(tmp_path: Path) -> None:
    store = FolderStorage(tmp_path / "store")
    store.write_bytes("models/m1/a", b"old")
    with pytest.raises(FileNotFoundError):
        store.publish_file(tmp_path / "absent", "models/m1/a")
    assert store.read_bytes("models/m1/a") == b"old"
    assert [path.name for path in (tmp_path / "store" / "models" / "m1").iterdir()] == ["a"]


def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(StorageError, match="neither file:// nor s3://"):
        open_storage("gs://bucket/prefix")


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageUnreachable, match="file/store as artifact store"):
        open_storage((tmp_path / "file" / "store").as_uri())


def test_a_folder_with_spaces_and_accents_is_found_by_its_uri(tmp_path: Path) -> None:
    folder = tmp_path / "dossier été"
    store = open_storage(folder.as_uri())
    store.write_bytes("a", b"x")
    assert (folder / "a").read_bytes() == b"x"
    assert store.key_of(store.uri_of("a")) == "a"


def test_a_wrong_bucket_gives_one_line_with_the_cure(s3_endpoint: str) -> None:
    with pytest.raises(StorageError, match="S3 refused s3://no-such-bucket/prefix .*check LLMCODER_ARTIFACTS") as caught:
        open_storage("s3://no-such-bucket/prefix", endpoint_url=s3_endpoint)
    assert "\n" not in str(caught.value)


def test_an_unreachable_endpoint_is_said_quickly_and_is_worth_a_retry(s3_endpoint: str) -> None:
    started = time.monotonic()
    with pytest.raises(StorageUnreachable, match="LLMCODER_S3_ENDPOINT_URL") as caught:
        open_storage("s3://artifacts/prefix", endpoint_url="http://127.0.0.1:9")
    assert time.monotonic() - started < 20
    assert caught.value.retryable
    assert "\n" not in str(caught.value)


def test_a_whole_bucket_can_be_the_store(s3_endpoint: str) -> None:
    store = open_storage("s3://artifacts", endpoint_url=s3_endpoint)
    key = f"{uuid.uuid4().hex}/a"
    store.write_bytes(key, b"x")
    assert store.uri_of(key) == f"s3://artifacts/{key}"
    assert store.list_keys(key.split("/", maxsplit=1)[0]) == [key]
