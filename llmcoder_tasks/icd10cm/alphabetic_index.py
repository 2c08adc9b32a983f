"""The alphabetic index, and the external-cause, neoplasm and drug tables that share its format.

Each entry that names a code becomes a term: the path of titles that leads there, `Aberrant, artery, cerebral`. In the tables, a
column heading ends the path: `1-propanol, Poisoning Assault`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from llmcoder_tasks.errors import ReleaseError
from llmcoder_tasks.icd10cm.archive import SourceFile
from llmcoder_tasks.icd10cm.code_set import CodeTerm
from llmcoder_tasks.icd10cm.xml_file import parse_xml, read_year, squeeze

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_CODE = re.compile(r"[A-Z][0-9A-Z]{2}(?:\.[0-9A-Z]{1,4})?")


def parse_index(file: SourceFile) -> tuple[int, tuple[CodeTerm, ...]]:
    """The fiscal year and all terms. A code that ends in `-` is kept without it: it names a header.

    Both codes of a pair (`<code>` and `<manif>`) get the term. Raises ReleaseError for broken XML or an index without any code.
    """
    root = parse_xml(file)
    year = read_year(root, file)
    headings = {head.get("col", ""): squeeze(head.text) for head in root.iterfind("indexHeading/head")}
    terms = dict.fromkeys(
        term
        for letter in root.iterfind("letter")
        for entry in letter.iterfind("mainTerm")
        for term in _read_entry(entry, (), headings)
    )
    if not terms:
        raise ReleaseError("the index names no code: the file is incomplete", file=file.name)
    return year, tuple(terms)


def _read_entry(entry: Element, above: tuple[str, ...], headings: Mapping[str, str]) -> Iterator[CodeTerm]:
    title = entry.find("title")
    path = (*above, squeeze(" ".join(title.itertext())) if title is not None else "")
    for element in entry:
        if element.tag == "term":
            yield from _read_entry(element, path, headings)
        elif element.tag in {"code", "manif", "cell"}:
            heading = (headings.get(element.get("col", ""), ""),) if element.tag == "cell" else ()
            text = ", ".join(part for part in (*path, *heading) if part)
            for code in _CODE.findall(element.text or ""):
                yield CodeTerm(code.replace(".", ""), "index_term", text)
