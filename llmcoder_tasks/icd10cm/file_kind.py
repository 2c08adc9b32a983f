"""What a release file is, told by its content.

Names are no help: CDC and CMS name the same bytes differently, CMS gives the October and the April file one name, and a drug table
has come as `.txt`.
"""

from __future__ import annotations

import re
from typing import Literal

from llmcoder_tasks.errors import ReleaseError

FileKind = Literal[
    "order",
    "codes",
    "order_addenda",
    "codes_addenda",
    "code_list",  # codes without titles, among chapters and blocks: what the simple-icd-10-cm package ships
    "tabular",
    "index",
    "external_cause_index",
    "neoplasm_table",
    "drug_table",
    "conversion",
    "other",  # recorded and left alone: a PDF, a read-me
]

INDEX_KINDS: frozenset[FileKind] = frozenset({"index", "external_cause_index", "neoplasm_table", "drug_table"})

_HEAD_BYTES = 8192
_SAMPLE_LINES = 40

_LINE_PATTERNS: tuple[tuple[FileKind, re.Pattern[str]], ...] = (
    ("order", re.compile(r"\d{5} [A-Z][0-9A-Z]{2,6} *[01] \S")),
    ("order_addenda", re.compile(r"(Add|Delete|Revise from|Revise to): +[01] [A-Z][0-9A-Z]{2,6} +\S")),
    ("codes_addenda", re.compile(r"(Add|Delete|Revise from|Revise to): +[A-Z][0-9A-Z]{2,6} +\S")),
    ("code_list", re.compile(r"[0-9]{1,2}|[A-Z][0-9A-Z]{2,6}|[A-Z][0-9A-Z]{2}-[A-Z][0-9A-Z]{2}")),
    ("codes", re.compile(r"[A-Z][0-9A-Z]{2,6} +\S.*")),
)


def recognise_kind(name: str, data: bytes) -> FileKind:
    """The kind of an unpacked file.

    Raises ReleaseError for an empty file and for an HTML page: the first is a copy that failed, the second an error page or a
    portal saved in place of the file.
    """
    if not data:
        raise ReleaseError("the file is empty: copy it again", file=name)
    head = data[:_HEAD_BYTES].decode("latin-1").removeprefix("\xef\xbb\xbf").lstrip()
    if re.search(r"<!doctype html|<html[\s>]", head, re.IGNORECASE):
        raise ReleaseError(
            "this is an HTML page, not a release file: the download went to an error page; fetch it again", file=name
        )
    if data.startswith(b"PK\x03\x04"):
        return "conversion" if b"xl/workbook.xml" in data else "other"
    if head.startswith("<"):
        return _recognise_xml(head)
    return _recognise_text(head)


def _recognise_xml(head: str) -> FileKind:
    if "<ICD10CM.tabular" in head:
        return "tabular"
    if "<ICD10CM.index" not in head:
        return "other"
    heading = re.search(r'<head col="1">\s*(\w+)', head)
    if heading:
        return {"Substance": "drug_table", "Neoplasm": "neoplasm_table"}.get(heading[1], "other")  # type: ignore[return-value]
    title = re.search(r"<title>([^<]*)", head)
    return "external_cause_index" if title and "external cause" in title[1].lower() else "index"


def _recognise_text(head: str) -> FileKind:
    """The kind that most of the first lines agree on, so that one broken line is refused as such by the parser, not overlooked."""
    lines = [line.rstrip() for line in head.splitlines()[:_SAMPLE_LINES] if line.strip()]
    if lines[0] in {"Headers", "Codes"} and len(lines) > 1 and re.match(r" *\d+ (headers|codes) in ", lines[1]):
        return "order_addenda" if lines[0] == "Headers" else "codes_addenda"  # an update without any change
    changes = [line for line in lines if re.match(r"(Add|Delete|Revise from|Revise to):", line)]
    sample = changes or lines
    for kind, pattern in _LINE_PATTERNS:
        if 2 * sum(1 for line in sample if pattern.fullmatch(line) or (kind != "code_list" and pattern.match(line))) > len(sample):
            return kind
    return "other"
