"""XML from outside, read by defusedxml: no DTD, no entities, no network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmcoder_tasks.errors import ReleaseError
from llmcoder_tasks.icd10cm.archive import SourceFile

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element


def parse_xml(file: SourceFile) -> Element:
    """The root element. Raises ReleaseError with the line when the XML is broken, or when it brings a DTD or entities."""
    from xml.etree.ElementTree import ParseError  # the exception only: parsing is defusedxml's

    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import fromstring

    try:
        root: Element = fromstring(file.data, forbid_dtd=True)
    except ParseError as error:
        raise ReleaseError(
            f"broken XML ({error.msg}): the file is truncated or damaged", file=file.name, line=error.position[0]
        ) from None
    except DefusedXmlException as error:
        raise ReleaseError(f"the XML brings a DTD or entities ({type(error).__name__}): refused", file=file.name) from None
    return root


def read_year(root: Element, file: SourceFile) -> int:
    """The fiscal year in `<version>`. Raises ReleaseError when it is missing."""
    text = (root.findtext("version") or "").strip()
    if not (text.isdigit() and len(text) == 4):
        raise ReleaseError(f"<version> says {text!r}: expected a fiscal year such as 2026", file=file.name)
    return int(text)


def squeeze(text: str | None) -> str:
    """Text with every run of white space as one blank; empty for None."""
    return " ".join((text or "").split())
