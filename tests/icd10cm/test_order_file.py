"""Order and codes files, line by line."""

from __future__ import annotations

import pytest
from release_files import CHOLERA, codes_file, order_file

from llmcoder_tasks.errors import ReleaseError
from llmcoder_tasks.icd10cm.archive import SourceFile
from llmcoder_tasks.icd10cm.code_set import Code
from llmcoder_tasks.icd10cm.order_file import parse_code_list, parse_codes_file, parse_order_file


def _order(data: bytes) -> tuple[Code, ...]:
    return parse_order_file(SourceFile("order.txt", data))


@pytest.mark.parametrize("eol", ["\r\n", "\n"])
def test_an_order_file_is_read_in_its_own_order_with_either_line_end(eol: str) -> None:
    codes = _order(order_file(CHOLERA, eol=eol, short_titles={"A000": "Cholera d/t V. cholerae 01, biovar cholerae"}))
    assert codes[0] == Code("A00", False, "Cholera", "Cholera")
    assert codes[1] == Code(
        "A000", True, "Cholera d/t V. cholerae 01, biovar cholerae", "Cholera due to Vibrio cholerae 01, biovar cholerae"
    )
    assert [code.code for code in codes] == [row[0] for row in CHOLERA]  # C4A9 stands before C44, as in tabular order


def test_codes_with_letters_and_double_spaces_stay_as_they_are() -> None:
    assert _order(order_file(CHOLERA))[-1] == Code(
        "QA00", True, "Neurodevelopmental disorder,  gene", "Neurodevelopmental disorder,  gene"
    )


def test_a_codes_file_holds_the_billable_rows() -> None:
    codes = parse_codes_file(SourceFile("codes.txt", codes_file(CHOLERA)))
    assert codes == tuple(Code(code, True, title, title) for code, flag, title in CHOLERA if flag == "1")


def _with_line(number: int, line: bytes) -> bytes:
    lines = order_file(CHOLERA).split(b"\r\n")
    lines[number - 1] = line
    return b"\r\n".join(lines)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (order_file(CHOLERA)[:-30], r"order.txt:9: the last line has no end: the file is truncated"),
        (order_file(CHOLERA[:5]), r"order.txt:5: C4A is a header without codes below it: the file is incomplete"),
        (_with_line(3, b""), r"order.txt:3: expected order number.*found an empty line"),
        (_with_line(2, b"00002 A000"), r"order.txt:2: expected order number.*found '00002 A000'"),
        (_with_line(2, b"00002 A0 0    1 " + b"x".ljust(60) + b" x"), r"order.txt:2: expected order number"),
        (_with_line(2, b"00002 A000    2 " + b"x".ljust(60) + b" x"), r"order.txt:2: expected order number"),
        (_with_line(4, b"00004 A001    1 " + b"x".ljust(60) + b" x"), r"order.txt:4: the code A001 stands already in line 3"),
        (_with_line(4, b"00005 A009    1 " + b"x".ljust(60) + b" x"), r"order.txt:4: order number 00005 where 00004 follows"),
        (_with_line(4, b"00004 A0099   1 " + b"Beh\xe7et".ljust(60) + b" x"), r"order.txt:4: byte 0xe7 is not printable ASCII"),
        (_with_line(4, b"00004 A0099   1 " + b"a\tb".ljust(60) + b" x"), r"order.txt:4: byte 0x09 is not printable ASCII"),
        (
            _with_line(4, b"00004 A0001   1 " + b"x".ljust(60) + b" x"),
            r"order.txt:2: A000 is billable although A0001 stands below it",
        ),
    ],
)
def test_a_broken_order_file_is_refused_with_its_line(data: bytes, message: str) -> None:
    with pytest.raises(ReleaseError, match=message):
        _order(data)


def test_a_code_list_gives_codes_without_chapters_and_blocks() -> None:
    data = b"1\nA00-A09\nA00\nA000\nB20\nB20\n"
    assert parse_code_list(SourceFile("list.txt", data)) == {"A00", "A000", "B20"}


def test_a_code_list_with_another_line_is_refused() -> None:
    with pytest.raises(ReleaseError, match=r"list.txt:2: expected a code, a block or a chapter number, found 'hello there'"):
        parse_code_list(SourceFile("list.txt", b"A00\nhello there\n"))
