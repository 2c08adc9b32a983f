"""Files of one release put together: who decides, and what does not fit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from release_files import CHOLERA, CHOLERA_TABULAR, codes_file, order_addenda, order_file, tabular, write_folder

from llmcoder_tasks.errors import ReleaseError
from llmcoder_tasks.icd10cm.archive import SourceFile
from llmcoder_tasks.icd10cm.code_set import Code
from llmcoder_tasks.icd10cm.release import Release
from llmcoder_tasks.icd10cm.release_reader import read_release
from llmcoder_tasks.icd10cm.source import Source, read_source

ORDER = order_file(CHOLERA)
SEVENTH = '<diag><name>S06</name><desc>Injury</desc><sevenChrDef><extension char="A">first</extension></sevenChrDef></diag>'


def _read(files: Mapping[str, bytes], key: str | None = "FY2027") -> Release:
    members = tuple(SourceFile(name, data) for name, data in files.items())
    return read_release(Source("test", "test", members, members), release_key=key)


def test_order_codes_and_tabular_that_agree_make_one_release() -> None:
    release = _read({"a.txt": ORDER, "b.txt": codes_file(CHOLERA), "c.xml": CHOLERA_TABULAR, "readme.txt": b"Hello to all.\n"})
    assert [code.code for code in release.codes] == [row[0] for row in CHOLERA]
    assert len(release.terms) == 3
    assert [(file.name, file.kind, file.row_count) for file in release.files] == [
        ("a.txt", "order", 9),
        ("b.txt", "codes", 6),
        ("c.xml", "tabular", 9),
        ("readme.txt", "other", 0),
    ]


def test_the_content_hash_does_not_depend_on_line_ends_or_names() -> None:
    assert _read({"a.txt": ORDER}).content_sha256 == _read({"b": order_file(CHOLERA, eol="\n")}).content_sha256
    assert _read({"a.txt": ORDER}).content_sha256 != _read({"a.txt": order_file(CHOLERA[:-2])}).content_sha256


def test_a_tabular_list_alone_gives_codes_levels_and_titles() -> None:
    release = _read({"c.xml": CHOLERA_TABULAR}, key=None)
    assert release.release_key == "FY2027"
    assert release.codes == tuple(Code(code, flag == "1", title, title) for code, flag, title in CHOLERA)


def test_a_codes_file_alone_gives_billable_codes_without_headers() -> None:
    assert [code.code for code in _read({"b.txt": codes_file(CHOLERA)}).codes] == [code for code, flag, _ in CHOLERA if flag == "1"]


def test_the_order_file_decides_which_seventh_character_codes_exist() -> None:
    rows = [("S06", "1", "Injury")]
    assert _read({"a": order_file(rows), "c.xml": tabular(SEVENTH)}).codes == (Code("S06", True, "Injury", "Injury"),)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"readme.txt": b"Hello to all.\n"}, r"no order file, codes file or tabular list here, only: readme.txt \(other\)"),
        ({"a.txt": ORDER, "b.txt": ORDER}, "two files of the kind 'order': a.txt and b.txt"),
        ({"a.txt": ORDER, "b.txt": codes_file(CHOLERA[:8])}, r"the codes file has 5 codes.* at line 6 \(nothing against QA00\)"),
        (
            {"a.txt": ORDER, "b.txt": codes_file(CHOLERA).replace(b"eltor", b"Eltor")},
            r"they part at line 2 \(A001 against A001\)",
        ),
        (
            {"a.txt": order_file(CHOLERA[:7]), "c.xml": CHOLERA_TABULAR},
            r"c.xml: 2 codes are in the tabular list only \(QA0, QA00\)",
        ),
        ({"a.txt": ORDER, "c.xml": tabular(SEVENTH)}, r"c.xml: 9 codes are not in the tabular list \(A00, A000, A001\)"),
        (
            {"a.txt": ORDER, "c.xml": CHOLERA_TABULAR.replace(b"biovar eltor", b"biovar Eltor")},
            r"c.xml: 1 codes differ in title \(A001\)",
        ),
        (
            {"a.txt": ORDER, "c.xml": CHOLERA_TABULAR.replace(b"2027", b"2026")},
            "wrong year: the <version> in c.xml says fiscal year 2026",
        ),
        ({"icd10cm_order_2026.txt": ORDER}, "wrong year: the name 'icd10cm_order_2026.txt' says fiscal year 2026"),
        (
            {"a.txt": ORDER, "d.txt": order_addenda([], before=6, after=7)},
            "d.txt: the addenda count 7 codes in this release, its files hold 6",
        ),
        (
            {"a.txt": ORDER, "d.txt": order_addenda([], before=6, after=6, year=2025)},
            "wrong year: the footer of d.txt says fiscal year 2025",
        ),
        ({"a.txt": ORDER, "b.txt": b"<html>"}, "b.txt: this is an HTML page"),
    ],
)
def test_files_that_do_not_fit_are_refused_whole(files: Mapping[str, bytes], message: str) -> None:
    with pytest.raises(ReleaseError, match=message):
        _read(files)


def test_the_april_tabular_alone_makes_the_codes_of_october(official_releases: Path, tmp_path: Path) -> None:
    october = read_release(read_source(str(official_releases / "FY2026")), release_key=None)
    path = next((official_releases / "FY2026-April").glob("*tabular*"))
    write_folder(tmp_path, {path.name: path.read_bytes()})
    april = read_release(read_source(str(tmp_path)), release_key=None)
    assert april.release_key == "FY2026-April"
    assert [(code.code, code.is_billable, code.long_title) for code in april.codes] == [
        (code.code, code.is_billable, code.long_title) for code in october.codes
    ]
    assert len(april.billable_titles) == 74_719


@pytest.mark.parametrize(("key", "excess"), [("FY2021-January", 72), ("FY2023", 76), ("FY2025-April", 76)])
def test_the_tabulars_own_note_excludes_exactly_what_the_order_file_lacks(official_releases: Path, key: str, excess: int) -> None:
    from llmcoder_tasks.icd10cm.tabular import parse_tabular

    files = {
        ("tabular" if "tabular" in file.name else "order"): file
        for file in read_source(str(official_releases / key)).files
        if "tabular" in file.name or ("order" in file.name and "addenda" not in file.name)
    }
    listed = parse_tabular(files["tabular"])
    order = read_release(Source("test", key, (), (files["order"],)), release_key=key)
    assert listed.excluded == listed.titles.keys() - {code.code for code in order.codes}
    assert len(listed.excluded) == excess
