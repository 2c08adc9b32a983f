"""Zip and gzip from outside: unpacked within limits, or refused."""

from __future__ import annotations

import gzip
import io
import zipfile

import pytest
from release_files import make_zip

from llmcoder_tasks.errors import ReleaseError
from llmcoder_tasks.icd10cm.archive import Budget, SourceFile, unpack


def _unpack(name: str, data: bytes, budget: Budget | None = None) -> list[SourceFile]:
    return list(unpack(name, data, budget or Budget()))


def test_files_come_out_of_zips_gzips_and_zips_in_zips() -> None:
    inner = make_zip({"b.txt": b"two"})
    outer = make_zip({"folder/a.txt": b"one", "inner.zip": inner, "c.txt.gz": gzip.compress(b"three"), "__MACOSX/x": b"clutter"})
    assert {(file.name, file.data) for file in _unpack("r.zip", outer)} == {
        ("r.zip/folder/a.txt", b"one"),
        ("r.zip/inner.zip/b.txt", b"two"),
        ("r.zip/c.txt", b"three"),
    }


def test_a_workbook_is_a_zip_that_stays_whole() -> None:
    workbook = make_zip({"xl/workbook.xml": b"<workbook/>"})
    assert _unpack("table.xlsx", workbook) == [SourceFile("table.xlsx", workbook)]


@pytest.mark.parametrize("member", ["../evil.txt", "/etc/passwd", "a/../../b.txt", "..\\evil.txt", "C:\\evil.txt"])
def test_a_path_that_leads_out_of_the_zip_is_refused(member: str) -> None:
    with pytest.raises(ReleaseError, match=r"r\.zip: the member .* leads out of the archive"):
        _unpack("r.zip", make_zip({"fine.txt": b"x", member: b"x"}))


def test_a_symbolic_link_in_a_zip_is_refused() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        link = zipfile.ZipInfo("order.txt")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(ReleaseError, match=r"r\.zip: the member 'order.txt' is a symbolic link"):
        _unpack("r.zip", buffer.getvalue())


def test_an_encrypted_member_is_refused() -> None:
    data = bytearray(make_zip({"a.txt": b"x"}))
    data[data.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(ReleaseError, match="is encrypted"):
        _unpack("r.zip", bytes(data))


def test_a_member_that_stands_twice_is_refused() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a\\b.txt", b"x")
        archive.writestr("a/b.txt", b"y")
    with pytest.raises(ReleaseError, match=r"'a/b.txt' stands twice"):
        _unpack("r.zip", buffer.getvalue())


def test_bombs_are_refused_by_their_ratio() -> None:
    zeros = bytes(8 * 1024**2)
    with pytest.raises(ReleaseError, match="zip bomb"):
        _unpack("bomb.zip", make_zip({"a.txt": zeros}))
    with pytest.raises(ReleaseError, match=r"bomb\.txt\.gz: it unpacks to more than 100 times its size"):
        _unpack("bomb.txt.gz", gzip.compress(zeros))


def test_a_zip_that_lies_about_its_sizes_is_refused() -> None:
    data = make_zip({"a.txt": bytes(8 * 1024**2)})
    lying = data.replace((8 * 1024**2).to_bytes(4, "little"), (64).to_bytes(4, "little"))
    assert lying != data
    with pytest.raises(ReleaseError, match=r"bomb\.zip"):
        _unpack("bomb.zip", lying)


def test_a_release_that_unpacks_to_too_much_is_refused() -> None:
    with pytest.raises(ReleaseError, match=r"a\.gz: the release unpacks to more than"):
        _unpack("a.gz", gzip.compress(b"twenty bytes of text"), Budget(max_bytes=10))
    with pytest.raises(ReleaseError, match="more than 500 files"):
        _unpack("r.zip", make_zip({"a": b"1", "b": b"2"}), Budget(max_files=1))


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.gz", gzip.compress(b"hello" * 100)[:-9], "truncated gzip file"),
        ("a.gz", gzip.compress(b"hello" * 100)[:-6] + b"\0" * 6, "damaged gzip file"),
        ("a.zip", make_zip({"a.txt": b"hello"})[:-10], "damaged zip file"),
        ("a.zip", make_zip({"a.txt": b"hello"}).replace(b"\xcbH\xcd\xc9\xc9", b"\xcbH\xcd\xc9\xc8"), "damaged zip file"),
    ],
    ids=[
        "cut gzip",
        "changed gzip",
        "cut zip",
        "changed zip",
    ],  # a gzip holds the second it was made in
)
def test_a_damaged_archive_is_refused(name: str, data: bytes, reason: str) -> None:
    with pytest.raises(ReleaseError, match=f"{name}: {reason}"):
        _unpack(name, data)


def test_archives_nested_too_deep_are_refused() -> None:
    data = b"x"
    for _ in range(4):
        data = make_zip({"a.zip": data})
    with pytest.raises(ReleaseError, match="nested more than 2 deep"):
        _unpack("r.zip", data)
