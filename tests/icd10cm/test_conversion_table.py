"""The conversion table, a workbook."""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import date, datetime

import pytest

from llmcoder_tasks.errors import ReleaseError
from llmcoder_tasks.icd10cm.archive import SourceFile
from llmcoder_tasks.icd10cm.conversion_table import parse_conversion_table
from llmcoder_tasks.icd10cm.release import Conversion

HEAD = [["Codes which will become effective April 1, 2026.", None, None], ["Current code assignment", "Effective", "Previous"]]
OCTOBER = date(2025, 10, 1)


def _workbook(rows: Sequence[Sequence[object]]) -> SourceFile:
    from openpyxl import Workbook

    book = Workbook()
    for row in rows:
        book.worksheets[0].append(list(row))
    buffer = io.BytesIO()
    book.save(buffer)
    return SourceFile("table.xlsx", buffer.getvalue())


@pytest.mark.parametrize(
    ("cell", "previous"),
    [
        ("A04.7", ["A047"]),
        ("T56.892A ", ["T56892A"]),
        ("E11.69 and R40.20", ["E1169", "R4020"]),
        ("K58.9 AND K59.00", ["K589", "K5900"]),
        ("E75.240, E75.241, E75.248 ", ["E75240", "E75241", "E75248"]),
        ("M96.89 & Y84.8", ["M9689", "Y848"]),
        ("H44.20-H44.23 and H33.2", ["H4420-H4423", "H332"]),
        ("Codes in Categories T15-T19", ["T15-T19"]),
        ("I63.- and P91.88", ["I63-", "P9188"]),
        ("QA0.0140", ["QA00140"]),
        ("None", [""]),
        (None, [""]),
    ],
)
def test_one_cell_may_name_several_codes_and_ranges(cell: str | None, previous: list[str]) -> None:
    effective, rows = parse_conversion_table(_workbook([*HEAD, ["W45.3XXA ", 2025, cell], [None, None, None]])) or (None, ())
    assert effective == date(2026, 4, 1)
    assert rows == tuple(Conversion("W453XXA", code, OCTOBER) for code in previous)


def test_a_date_stands_as_it_is_and_a_year_means_october() -> None:
    _, rows = parse_conversion_table(_workbook([*HEAD, ["A04.71", 2017, "A04.7"], ["U09.9", datetime(2022, 4, 1), "B94.8"]])) or (
        None,
        (),
    )
    assert [row.effective_from for row in rows] == [date(2017, 10, 1), date(2022, 4, 1)]


def test_another_workbook_is_no_conversion_table() -> None:
    assert parse_conversion_table(_workbook([["Name", "Value"], ["x", 1]])) is None


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (["hello", 2025, "A04.7"], "table.xlsx:3: 'hello' is not a code"),
        (["A04.7", "soon", "A04"], "table.xlsx:3: 'soon' is neither a year"),
    ],
)
def test_a_broken_row_is_refused_with_its_number(row: list[object], message: str) -> None:
    with pytest.raises(ReleaseError, match=message):
        parse_conversion_table(_workbook([*HEAD, row]))


def test_a_damaged_or_empty_table_is_refused() -> None:
    with pytest.raises(ReleaseError, match="table.xlsx: the conversion table has no row"):
        parse_conversion_table(_workbook(HEAD))
    with pytest.raises(ReleaseError, match="table.xlsx: damaged workbook"):
        parse_conversion_table(SourceFile("table.xlsx", _workbook(HEAD).data[:400]))
