"""Files are told apart by what is in them."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from release_files import CHOLERA, CHOLERA_TABULAR, codes_file, order_addenda, order_file

from llmcoder_tasks.errors import ReleaseError
from llmcoder_tasks.icd10cm.file_kind import FileKind, recognise_kind

NO_CHANGES = order_addenda([], before=6, after=6)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (order_file(CHOLERA), "order"),
        (order_file(CHOLERA, eol="\n"), "order"),
        (b"garbage\r\n" + order_file(CHOLERA), "order"),  # one broken line is for the parser to refuse
        (codes_file(CHOLERA), "codes"),
        (order_addenda([("Add", "1", "QA01", "x")], before=6, after=7), "order_addenda"),
        (NO_CHANGES, "order_addenda"),
        (NO_CHANGES[NO_CHANGES.index(b"Codes") :], "codes_addenda"),
        (b"Add:         A0001   Something\r\n", "codes_addenda"),
        (b"1\nA00-A09\nA00\nA000\n", "code_list"),
        (CHOLERA_TABULAR, "tabular"),
        (b"\xef\xbb\xbf" + CHOLERA_TABULAR, "tabular"),
        (b"<?xml version='1.0'?>\n<feed/>", "other"),
        (b"%PDF-1.7 ...", "other"),
        (b"Please read this first.\nThen that.\n", "other"),
        (b"\x00\x01\x02\xff\xfe", "other"),
        (b"PK\x03\x04 xl/workbook.xml", "conversion"),
    ],
)
def test_a_file_is_recognised_by_its_content(data: bytes, kind: FileKind) -> None:
    assert recognise_kind("any.name", data) == kind


@pytest.mark.parametrize(
    "page", [b"<!DOCTYPE html><html></html>", b"\n  <HTML lang='en'>", b"<?xml version='1.0'?><!doctype HTML>"]
)
def test_an_html_page_in_place_of_a_file_is_refused(page: bytes) -> None:
    with pytest.raises(ReleaseError, match="order.txt: this is an HTML page, not a release file"):
        recognise_kind("order.txt", page)


def test_an_empty_file_is_refused() -> None:
    with pytest.raises(ReleaseError, match="order.txt: the file is empty"):
        recognise_kind("order.txt", b"")


def test_every_official_file_is_recognised(official_releases: Path) -> None:
    words = {
        "drug": "drug_table",
        "neoplasm": "neoplasm_table",
        "eindex": "external_cause_index",
        "order addenda": "order_addenda",
        "codes addenda": "codes_addenda",
        "order": "order",
        "codes": "codes",
        "tabular": "tabular",
        "index": "index",
        "conversion": "conversion",
    }
    files = [path for path in official_releases.glob("FY*/*") if path.is_file()]
    assert len(files) > 50
    for path in files:
        name = path.name.lower().replace("-", " ").replace("_", " ")
        expected = next(kind for word, kind in words.items() if word in name)
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        assert recognise_kind(path.name, data) == expected, path
