"""The plain text files that say which codes exist: order file, codes file, list of codes.

ASCII, one code a line, CRLF or LF. Every line must have its fixed columns and end with a newline; the first that does not refuses
the file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from llmcoder_tasks.errors import ReleaseError
from llmcoder_tasks.icd10cm.archive import SourceFile
from llmcoder_tasks.icd10cm.code_set import Code

_ORDER_LINE = re.compile(r"(\d{5}) ([A-Z][0-9A-Z]{2}[0-9A-Z ]{4}) ([01]) (\S.{59}) (\S.*)")
_CODES_LINE = re.compile(r"([A-Z][0-9A-Z]{2}[0-9A-Z ]{4}) (\S.*)")
_CODE = re.compile(r"[A-Z][0-9A-Z]{2,6}")
_LIST_ENTRY = re.compile(r"[0-9]{1,2}|[A-Z][0-9A-Z]{2}-[A-Z][0-9A-Z]{2}|[A-Z][0-9A-Z]{2,6}")
_SHOWN = 60


def read_lines(file: SourceFile) -> list[str]:
    """The lines of an ASCII text file, without line ends. Raises ReleaseError on another byte or a missing newline at the end."""
    try:
        text = file.data.decode("ascii")
    except UnicodeDecodeError as error:
        line = file.data.count(b"\n", 0, error.start) + 1
        byte = file.data[error.start]
        raise ReleaseError(
            f"byte 0x{byte:02x} is not ASCII: the file is damaged or no release file", file=file.name, line=line
        ) from None
    lines = text.replace("\r\n", "\n").split("\n")
    if lines.pop() != "":
        raise ReleaseError("the last line has no end: the file is truncated, copy it again", file=file.name, line=len(lines) + 1)
    return lines


def parse_order_file(file: SourceFile) -> tuple[Code, ...]:
    """Every code and header of an order file, in its order.

    Columns: 1-5 order number, 7-13 code, 15 `1` billable or `0` header, 17-76 short title, 78- long title. Raises ReleaseError for a
    line of another form, a number out of sequence (a line is missing), a code that stands twice, or a header without codes.
    """
    codes: list[Code] = []
    for number, line in enumerate(read_lines(file), start=1):
        match = _ORDER_LINE.fullmatch(line)
        if match is None or " " in (code := match[2].rstrip()):
            raise _refuse(file, number, "expected order number, code, 0 or 1, short title and long title in fixed columns", line)
        if int(match[1]) != number:
            raise ReleaseError(
                f"order number {match[1]} where {number:05d} follows: lines are missing or doubled", file=file.name, line=number
            )
        codes.append(Code(code, match[3] == "1", match[4].rstrip(), match[5].rstrip()))
    _verify_distinct([code.code for code in codes], file)
    verify_levels(codes, file.name)
    return tuple(codes)


def parse_codes_file(file: SourceFile) -> tuple[Code, ...]:
    """The billable codes of a codes file (columns 1-7 code, 9- long title), in its order; short title = long title.

    Raises ReleaseError for a line of another form or a code that stands twice.
    """
    codes: list[Code] = []
    for number, line in enumerate(read_lines(file), start=1):
        match = _CODES_LINE.fullmatch(line)
        if match is None or " " in (code := match[1].rstrip()):
            raise _refuse(file, number, "expected a code and a long title in fixed columns", line)
        title = match[2].rstrip()
        codes.append(Code(code, True, title, title))
    _verify_distinct([code.code for code in codes], file)
    return tuple(codes)


def parse_code_list(file: SourceFile) -> frozenset[str]:
    """The codes of a list that holds one code, block (`A00-A09`) or chapter number a line.

    A block of a single category is listed by the category's name too, so that a category may stand twice here.
    """
    lines = [line.strip() for line in file.data.decode("ascii", errors="replace").splitlines()]
    for number, line in enumerate(lines, start=1):
        if not _LIST_ENTRY.fullmatch(line):
            raise _refuse(file, number, "expected a code, a block or a chapter number", line)
    return frozenset(line for line in lines if _CODE.fullmatch(line))


def verify_levels(codes: Sequence[Code], file_name: str) -> None:
    """Raise ReleaseError unless the billable codes are exactly those without a code below them.

    The next code in sorted order is below a code when it starts with it: one pass finds both a header without codes (a truncated
    file) and a billable code with codes below it.
    """
    ordered = sorted(codes)
    for upper, lower in zip(ordered, [*ordered[1:], None], strict=True):
        has_below = lower is not None and lower.code.startswith(upper.code)
        if upper.is_billable == has_below:
            fault = (
                f"is billable although {lower.code} stands below it"
                if lower and has_below
                else "is a header without codes below it"
            )
            line = next(number for number, code in enumerate(codes, start=1) if code.code == upper.code)
            raise ReleaseError(f"{upper.code} {fault}: the file is incomplete or altered", file=file_name, line=line)


def _verify_distinct(codes: Sequence[str], file: SourceFile) -> None:
    if len(set(codes)) == len(codes):
        return
    seen: dict[str, int] = {}
    for number, code in enumerate(codes, start=1):
        if code in seen:
            raise ReleaseError(f"the code {code} stands already in line {seen[code]}", file=file.name, line=number)
        seen[code] = number


def _refuse(file: SourceFile, number: int, expected: str, line: str) -> ReleaseError:
    found = "an empty line" if not line.strip() else repr(line[:_SHOWN])
    return ReleaseError(f"{expected}, found {found}", file=file.name, line=number)
