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

# The look-behinds say where the code's seven columns and the blank after them must end.
_ORDER_LINE = re.compile(r"^(\d{5}) ([A-Z][0-9A-Z]{2,6}) {1,5}(?<=^.{14})([01]) (\S.{59}) (\S.*)$", re.MULTILINE)
_CODES_LINE = re.compile(r"^([A-Z][0-9A-Z]{2,6}) {1,5}(?<=^.{8})(\S.*)$", re.MULTILINE)
_CODE = re.compile(r"[A-Z][0-9A-Z]{2,6}")
_LIST_ENTRY = re.compile(r"[0-9]{1,2}|[A-Z][0-9A-Z]{2}-[A-Z][0-9A-Z]{2}|[A-Z][0-9A-Z]{2,6}")
_ALIEN = re.compile(r"[^\n -~]")
_SHOWN = 60


def read_text(file: SourceFile) -> str:
    """A text file with LF as line end. Raises ReleaseError on a byte that is not printable ASCII or a last line without end."""
    text = file.data.replace(b"\r\n", b"\n").decode("latin-1")
    alien = _ALIEN.search(text)
    if alien:
        line = text.count("\n", 0, alien.start()) + 1
        raise ReleaseError(
            f"byte 0x{ord(alien[0]):02x} is not printable ASCII: the file is damaged or no release file", file=file.name, line=line
        )
    if not text.endswith("\n"):
        line = text.count("\n") + 1
        raise ReleaseError("the last line has no end: the file is truncated, copy it again", file=file.name, line=line)
    return text


def parse_order_file(file: SourceFile) -> tuple[Code, ...]:
    """Every code and header of an order file, in its order.

    Columns: 1-5 order number, 7-13 code, 15 `1` billable or `0` header, 17-76 short title, 78- long title. Raises ReleaseError for
    a line of another form, a number out of sequence (a line is missing), a code that stands twice, or a header without codes.
    """
    rows = _match_lines(file, _ORDER_LINE, "expected order number, code, 0 or 1, short title and long title in fixed columns")
    for expected, row in enumerate(rows, start=1):
        if int(row[0]) != expected:
            raise ReleaseError(
                f"order number {row[0]} where {expected:05d} follows: lines are missing", file=file.name, line=expected
            )
    codes = tuple(Code(code, flag == "1", short.rstrip(), long.rstrip()) for _, code, flag, short, long in rows)
    _verify_distinct([code.code for code in codes], file)
    _verify_levels(codes, file)
    return codes


def parse_codes_file(file: SourceFile) -> tuple[Code, ...]:
    """The billable codes of a codes file (columns 1-7 code, 9- long title), in its order; short title = long title.

    Raises ReleaseError for a line of another form or a code that stands twice.
    """
    rows = _match_lines(file, _CODES_LINE, "expected a code and a long title in fixed columns")
    codes = tuple(Code(code, True, title.rstrip(), title.rstrip()) for code, title in rows)
    _verify_distinct([code.code for code in codes], file)
    _verify_levels(codes, file)
    return codes


def parse_code_list(file: SourceFile) -> frozenset[str]:
    """The codes of a list that holds one code, block (`A00-A09`) or chapter number a line.

    A block of a single category is listed by the category's name too, so that a category may stand twice here.
    """
    lines = [line.strip() for line in file.data.decode("ascii", errors="replace").splitlines()]
    for number, line in enumerate(lines, start=1):
        if not _LIST_ENTRY.fullmatch(line):
            raise _refuse(file, number, "expected a code, a block or a chapter number", line)
    return frozenset(line for line in lines if _CODE.fullmatch(line))


def _match_lines(file: SourceFile, pattern: re.Pattern[str], expected: str) -> list[tuple[str, ...]]:
    """The groups of every line, in one pass over the whole text; one line that does not match refuses the file."""
    text = read_text(file)
    rows: list[tuple[str, ...]] = pattern.findall(text)
    if len(rows) != text.count("\n"):
        lines = text.split("\n")
        number = next(number for number, line in enumerate(lines, start=1) if not pattern.fullmatch(line))
        raise _refuse(file, number, expected, lines[number - 1])
    return rows


def _verify_levels(codes: Sequence[Code], file: SourceFile) -> None:
    """Raise ReleaseError unless the billable codes are exactly those without a code below them.

    The next code in sorted order is below a code when it starts with it: one pass finds both a header without codes (a truncated
    file) and a billable code with codes below it.
    """
    levels = {code.code: code.is_billable for code in codes}
    ordered = sorted(levels)
    for upper, lower in zip(ordered, [*ordered[1:], ""], strict=True):
        has_below = lower.startswith(upper)
        if levels[upper] == has_below:
            fault = f"is billable although {lower} stands below it" if has_below else "is a header without codes below it"
            line = next(number for number, code in enumerate(codes, start=1) if code.code == upper)
            raise ReleaseError(f"{upper} {fault}: the file is incomplete or altered", file=file.name, line=line)


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
