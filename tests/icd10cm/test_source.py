"""Releases from folders, files, S3, URLs, and the embedded package."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from release_files import make_zip, write_folder

from llmcoder_tasks.errors import ReleaseError, StorageUnreachable
from llmcoder_tasks.icd10cm.source import Source, read_embedded_source, read_source
from llmcoder_tasks.storage import open_storage

ZIP = make_zip({"inside/order.txt": b"one"})


class _Site(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/moved.zip":
            self.send_response(302)
            self.send_header("Location", "/files/2027%20codes.zip")
        elif path == "/away":
            self.send_response(302)
            self.send_header("Location", "file:///etc/passwd")
        elif path.startswith("/files/"):
            self.send_response(200)
        else:
            self.send_response(503 if path == "/busy.zip" else 404)
        self.end_headers()
        if path.startswith("/files/"):
            self.wfile.write(ZIP)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def site() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Site)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def _names(source: Source) -> list[str]:
    return [file.name for file in source.files]


def test_a_folder_gives_its_files_unpacked_and_as_they_came(tmp_path: Path) -> None:
    packed = gzip.compress(b"one")
    folder = write_folder(
        tmp_path / "FY2027", {"order.txt.gz": packed, "sub/codes.txt": b"two", "all.zip": ZIP, ".DS_Store": b"x", ".git/x": b"y"}
    )
    source = read_source(str(folder))
    assert _names(source) == ["all.zip/inside/order.txt", "order.txt", "sub/codes.txt"]
    assert [original.name for original in source.originals] == ["all.zip", "order.txt.gz", "sub/codes.txt"]
    assert source.originals[1].data == packed
    assert source.name == "FY2027"
    assert source.label == folder.as_uri() == read_source(folder.as_uri()).label


def test_a_single_zip_is_a_source(tmp_path: Path) -> None:
    write_folder(tmp_path, {"FY2027.zip": ZIP})
    assert _names(read_source(str(tmp_path / "FY2027.zip"))) == ["FY2027.zip/inside/order.txt"]


def test_a_symbolic_link_in_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "order.txt").symlink_to("/etc/passwd")
    with pytest.raises(ReleaseError, match=r"order.txt: this is a symbolic link"):
        read_source(str(tmp_path))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere", "there is no file or folder"),
        ("ftp://host/x", "ftp:// is no place for a release"),
        ("empty", "no file in file://"),
    ],
)
def test_nothing_to_read_is_refused(source: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ReleaseError, match=message):
        read_source(source)


def test_the_same_file_packed_and_unpacked_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, {"order.txt": b"one", "order.txt.gz": gzip.compress(b"one")})
    with pytest.raises(ReleaseError, match=r"order.txt: the file is there twice, packed and unpacked"):
        read_source(str(tmp_path))


def test_a_url_is_fetched_and_its_secrets_are_not_kept(site: str) -> None:
    source = read_source(site.replace("//", "//user:secret@") + "/files/FY2027.zip?token=secret")
    assert _names(source) == ["FY2027.zip/inside/order.txt"]
    assert source.label == f"{site}/files/FY2027.zip"


def test_a_redirect_is_followed_to_http_only(site: str) -> None:
    assert _names(read_source(f"{site}/moved.zip")) == ["2027 codes.zip/inside/order.txt"]
    with pytest.raises(ReleaseError, match="UnsupportedProtocol"):
        read_source(f"{site}/away")


def test_a_url_that_answers_with_an_error_says_so(site: str) -> None:
    with pytest.raises(ReleaseError, match="answers 404: check the address"):
        read_source(f"{site}/none.zip?token=secret")
    with pytest.raises(StorageUnreachable, match="answers 503: try again later"):
        read_source(f"{site}/busy.zip")
    with pytest.raises(StorageUnreachable, match="no answer from http://127.0.0.1:9/x"):
        read_source("http://127.0.0.1:9/x")


@pytest.mark.integration
def test_an_s3_prefix_and_an_s3_object_are_sources(s3_endpoint: str) -> None:
    bucket = open_storage("s3://artifacts/landing", endpoint_url=s3_endpoint)
    bucket.write_bytes("FY2027/order.txt", b"one")
    bucket.write_bytes("FY2027/more/codes.zip", ZIP)
    bucket.write_bytes("FY2027b/order.txt", b"of another prefix")
    source = read_source("s3://artifacts/landing/FY2027", s3_endpoint_url=s3_endpoint)
    assert _names(source) == ["more/codes.zip/inside/order.txt", "order.txt"]
    assert source.name == "FY2027"
    alone = read_source("s3://artifacts/landing/FY2027/more/codes.zip", s3_endpoint_url=s3_endpoint)
    assert _names(alone) == ["codes.zip/inside/order.txt"]
    with pytest.raises(ReleaseError, match="no file in s3://artifacts/landing/FY2030"):
        read_source("s3://artifacts/landing/FY2030", s3_endpoint_url=s3_endpoint)


def test_the_embedded_source_is_the_packages_data() -> None:
    source = read_embedded_source()
    assert _names(source) == ["code-list-April-2026.txt", "icd10c-tabular-April-1-2026.xml"]
    assert source.label == "simple-icd-10-cm 1.5.0"
