"""Builds small release files in the official formats, so that tests say only what they are about."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

Row = tuple[str, str, str]
"""Code, `1` billable or `0` header, title (short and long alike)."""

CHOLERA: tuple[Row, ...] = (
    ("A00", "0", "Cholera"),
    ("A000", "1", "Cholera due to Vibrio cholerae 01, biovar cholerae"),
    ("A001", "1", "Cholera due to Vibrio cholerae 01, biovar eltor"),
    ("A009", "1", "Cholera, unspecified"),
    ("C4A", "0", "Merkel cell carcinoma"),
    ("C4A9", "1", "Merkel cell carcinoma, unspecified"),
    ("C44", "1", "Other malignant neoplasm of skin"),
    ("QA0", "0", "Neurodevelopmental disorder"),
    ("QA00", "1", "Neurodevelopmental disorder,  gene"),
)


def order_file(rows: Sequence[Row], *, eol: str = "\r\n", short_titles: Mapping[str, str] | None = None) -> bytes:
    lines = [
        f"{number:05d} {code:7} {flag} {(short_titles or {}).get(code, title)[:60]:60} {title}{eol}"
        for number, (code, flag, title) in enumerate(rows, start=1)
    ]
    return "".join(lines).encode("latin-1")


def codes_file(rows: Sequence[Row], *, eol: str = "\r\n") -> bytes:
    return "".join(f"{code:7} {title}{eol}" for code, flag, title in rows if flag == "1").encode("latin-1")


def order_addenda(changes: Sequence[tuple[str, str, str, str]], *, before: int, after: int, year: int = 2027) -> bytes:
    """`changes` are action, flag, code, title. Counts of headers are not read, so that they stay zero here."""
    lines = [f"{action + ':':12} {flag} {code:7} {title[:60]:60} {title}" for action, flag, code, title in changes]
    counts = {action: sum(1 for change in changes if change[:2] == (action, "1")) for action in ("Add", "Delete", "Revise to")}
    lines += ["", "Headers", f"  0 headers in icd10cm_order_{year - 1}.txt", f"  0 headers in icd10cm_order_{year}.txt"]
    lines += ["", "Codes", f"  {before} codes in icd10cm_order_{year - 1}.txt", f"  {after} codes in icd10cm_order_{year}.txt"]
    lines += [f"    {counts['Add']} additions", f"    {counts['Delete']} deletions", f"    {counts['Revise to']} revisions"]
    return "".join(f"{line}\r\n" for line in lines).encode()


def tabular(entries: str, *, year: int = 2027) -> bytes:
    """A tabular list of one chapter and one block around `entries`."""
    return (
        f'<?xml version="1.0" encoding="utf-8"?>\r\n<ICD10CM.tabular>\r\n<version>{year}</version>\r\n<chapter><name>1</name>'
        "<desc>Everything (A00-Z99)</desc><includes><note>all there is</note></includes>"
        f'<section id="A00-A09"><desc>A block</desc>\r\n{entries}\r\n</section></chapter>\r\n</ICD10CM.tabular>\r\n'
    ).encode()


CHOLERA_TABULAR = tabular(
    """
<diag><name>A00</name><desc>Cholera</desc>
<excludes1><note>carrier of cholera  (Z22.1)</note></excludes1>
<diag><name>A00.0</name><desc>Cholera due to Vibrio cholerae 01, biovar cholerae</desc>
<inclusionTerm><note>Classical cholera</note></inclusionTerm><codeAlso><note></note></codeAlso></diag>
<diag><name>A00.1</name><desc>Cholera due to Vibrio cholerae 01, biovar eltor</desc></diag>
<diag><name>A00.9</name><desc>Cholera, unspecified</desc></diag></diag>
<diag><name>C4A</name><desc>Merkel cell carcinoma</desc>
<diag><name>C4A.9</name><desc>Merkel cell carcinoma, unspecified</desc></diag></diag>
<diag><name>C44</name><desc>Other malignant neoplasm of skin</desc></diag>
<diag><name>QA0</name><desc>Neurodevelopmental disorder</desc>
<diag><name>QA0.0</name><desc>Neurodevelopmental disorder,  gene</desc></diag></diag>"""
)


def make_zip(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def write_folder(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder
