"""The conversion table, an Excel workbook: which code took over from which, cumulative since 2016."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from datetime import date, datetime
from typing import Any

from llmcoder_tasks.errors import ReleaseError
from llmcoder_tasks.icd10cm.archive import SourceFile
from llmcoder_tasks.icd10cm.release import Conversion

_HEADER = "current code assignment"
_ONE_CODE = r"[A-Z](?=[0-9A-Z]?[0-9])[0-9A-Z]{2}\.?[0-9A-Z]{0,4}"
_CODE = re.compile(_ONE_CODE)
_REFERENCE = re.compile(rf"\b({_ONE_CODE})(-(?:{_ONE_CODE})?)?")
_EFFECTIVE = re.compile(r"become effective (January|April|July|October)(?: 1,)? (20\d\d)")
_MONTHS = {"January": 1, "April": 4, "July": 7, "October": 10}
_MAX_ROWS = 100_000


def parse_conversion_table(file: SourceFile) -> tuple[date | None, tuple[Conversion, ...]] | None:
    """The date on which its release takes effect, where the text above the table says so, and its rows. None for another workbook.

    The effective column holds a year (`2025` is 1 October 2025) or a date. One cell may name several codes, and ranges. Raises
    ReleaseError for a damaged workbook or a row of another form.
    """
    rows = list(_read_rows(file))
    start = next((number for number, row in enumerate(rows) if str(row[0] or "").strip().lower() == _HEADER), None)
    if start is None:
        return None
    introduction = " ".join(str(cell) for row in rows[:start] for cell in row if cell)
    match = _EFFECTIVE.search(introduction)
    effective = date(int(match[2]), _MONTHS[match[1]], 1) if match else None
    found: dict[tuple[str, str], Conversion] = {}
    for number, row in enumerate(rows[start + 1 :], start=start + 2):
        if row[0] is not None:
            for conversion in _parse_row(file, number, row):
                found.setdefault((conversion.code, conversion.previous_code), conversion)
    if not found:
        raise ReleaseError("the conversion table has no row: the file is incomplete", file=file.name)
    return effective, tuple(found.values())


def _read_rows(file: SourceFile) -> Iterator[tuple[Any, ...]]:
    from openpyxl import load_workbook
    from openpyxl.utils.exceptions import InvalidFileException

    try:
        sheet = load_workbook(io.BytesIO(file.data), read_only=True, data_only=True).worksheets[0]
        for row in sheet.iter_rows(max_row=_MAX_ROWS, max_col=3, values_only=True):
            yield (*row, None, None, None)[:3]
    except (InvalidFileException, zipfile.BadZipFile, KeyError, IndexError, ValueError, OSError, SyntaxError) as error:
        raise ReleaseError(f"damaged workbook ({type(error).__name__}): copy it again", file=file.name) from None


def _parse_row(file: SourceFile, number: int, row: tuple[Any, ...]) -> Iterator[Conversion]:
    code = str(row[0]).strip()
    if not _CODE.fullmatch(code):
        raise ReleaseError(f"{code[:40]!r} is not a code", file=file.name, line=number)
    effective = _parse_effective(file, number, row[1])
    previous = [_render_reference(match) for match in _REFERENCE.finditer(str(row[2] or ""))]
    for name in previous or [""]:
        yield Conversion(code.replace(".", ""), name, effective)


def _render_reference(match: re.Match[str]) -> str:
    return f"{match[1]}{match[2] or ''}".replace(".", "")


def _parse_effective(file: SourceFile, number: int, value: object) -> date:
    if isinstance(value, datetime):
        return value.date()
    if isinstance(value, int) and 2015 <= value <= 2099:
        return date(value, 10, 1)
    raise ReleaseError(f"{value!r} is neither a year nor a date", file=file.name, line=number)
