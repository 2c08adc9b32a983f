"""What the lexical search looks through: every billable title, and every other name of a billable code.

- A term of the release names its code; a term of a header names the descendant whose title adds nothing but "unspecified" or
  "initial encounter" to the header's, and, with the words that a descendant adds, that descendant: `Striate keratitis` of `Macular
  keratitis` also gives `Striate keratitis, right eye`.
- A title without `, unspecified` or `without complications` names the same code: who says no more is coded so.
- What clinicians say (`spoken_names.tsv`) names the code of the title or term beside it.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmcoder_tasks.icd10cm.code_set import Code, CodeSet

SPOKEN_NAMES_FILE = Path(__file__).with_name("spoken_names.tsv")

TERM_KINDS = frozenset({"inclusion_term", "index_term"})

_ADDS_NOTHING = re.compile(r"(?:(?:, | of )?(?:unspecified|NOS)\b[^,]*|, initial encounter(?: for closed fracture)?)+")
_LEFT_UNSAID = re.compile(
    r",? (?:unspecified|uncomplicated|unspecified organism|site not specified|unspecified site|without complications?"
    r"|not intractable)$"
)
_NOT_OTHERWISE_SPECIFIED = re.compile(r",? \b(?:NOS|NEC)\b")


@dataclass(frozen=True, slots=True)
class Document:
    """A text that names a billable code; `is_title` where it is the code's long title."""

    code: str
    text: str
    is_title: bool


def list_documents(code_set: CodeSet) -> list[Document]:
    """Titles in tabular order, then terms in the release's order, each code and text once."""
    documents = [Document(code.code, code.long_title, True) for code in code_set.billable]
    seen = {(document.code, document.text.casefold()) for document in documents}
    for document in _term_documents(code_set):
        key = (document.code, document.text.casefold())
        if key not in seen:
            seen.add(key)
            documents.append(document)
    return documents + list(_short_names(documents))


def _short_names(documents: Sequence[Document]) -> Iterator[Document]:
    """Titles without what goes unsaid, and spoken names, each for one code: the first that offers it."""
    code_of = {document.text.casefold(): document.code for document in reversed(documents)}
    bare = {_LEFT_UNSAID.sub("", document.text): document.code for document in reversed(documents) if document.is_title}
    spoken = {said: code_of[meant.casefold()] for said, meant in read_spoken_names() if meant.casefold() in code_of}
    for text, code in {**bare, **spoken}.items():
        if text in spoken or text.casefold() not in code_of:
            yield Document(code, text, False)


def read_spoken_names() -> list[tuple[str, str]]:
    """What clinicians say, and the name in the release that they mean."""
    lines = SPOKEN_NAMES_FILE.read_text(encoding="utf-8").splitlines()
    return [(said, meant) for said, _, meant in (line.partition("\t") for line in lines if line and not line.startswith("#"))]


def _term_documents(code_set: CodeSet) -> Iterator[Document]:
    family = _Family(code_set.codes)
    for term in code_set.terms:
        if term.kind not in TERM_KINDS:
            continue
        text = _NOT_OTHERWISE_SPECIFIED.sub("", term.term)
        if term.code in code_set.titles:
            yield Document(term.code, text, False)
        else:
            for code, added in family.additions(term.code):
                yield Document(code, text if _ADDS_NOTHING.fullmatch(added) else text + added, False)


class _Family:
    """The billable descendants of a header."""

    def __init__(self, codes: Sequence[Code]) -> None:
        self._codes = sorted((code for code in codes if code.is_billable), key=lambda code: code.code)
        self._keys = [code.code for code in self._codes]
        self._headers = {code.code: code.long_title for code in codes if not code.is_billable}

    def additions(self, header: str) -> Iterator[tuple[str, str]]:
        """Each billable descendant whose title begins with the header's title, and what it adds to it."""
        title = self._headers.get(header)
        if title is None:
            return
        title = re.sub(r",? unspecified$", "", title)
        for index in range(bisect_left(self._keys, header), len(self._keys)):
            code = self._codes[index]
            if not code.code.startswith(header):
                return
            if code.long_title.startswith(title):
                yield code.code, code.long_title[len(title) :]
