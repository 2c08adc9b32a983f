"""What the lexical search looks through: every billable title, and every other name of a billable code.

- A term of the release names its code; a term of a header names the descendant whose title adds nothing but "unspecified" or
  "initial encounter" to the header's, and, with the words that a descendant adds, that descendant: `Striate keratitis` of `Macular
  keratitis` also gives `Striate keratitis, right eye`.
- A title without `, unspecified` or `without complications` names the same code: who says no more is coded so. Neither is the first
  encounter said, nor a side that nobody named: `Fracture of femur` is `Unspecified fracture of unspecified femur, initial encounter
  for closed fracture`, as the coding guidelines have it.
- What clinicians say (`spoken_names.tsv`) names the code of the title or term beside it.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmcoder_tasks.coding.spoken_names import read_spoken_names

if TYPE_CHECKING:
    from llmcoder_tasks.icd10cm.code_set import Code, CodeSet

TERM_KINDS = frozenset({"inclusion_term", "index_term"})

_ADDS_NOTHING = re.compile(r"(?:(?:, | of )?(?:unspecified|NOS)\b[^,]*|, initial encounter(?: for closed fracture)?)+")
_LEFT_UNSAID = re.compile(
    r",? (?:unspecified|uncomplicated|unspecified organism|site not specified|unspecified site|without complications?"
    r"|not intractable)$"
)
_FIRST_ENCOUNTER = re.compile(r", initial encounter(?: for closed fracture)?$")
_LATER_ENCOUNTER = re.compile(r"(?:subsequent encounter\b.*|sequela|initial encounter for open fracture\b.*)$")
_UNNAMED_PART = re.compile(
    r"(?:,| of| at) unspecified (?:body region|degree|level|part|site|type)\b|\bunspecified (?=\w)", re.IGNORECASE
)
_NOT_OTHERWISE_SPECIFIED = re.compile(r",? \b(?:NOS|NEC)\b")


@dataclass(frozen=True, slots=True)
class Document:
    """A text that names a billable code; `is_title` where it is the code's long title."""

    code: str
    text: str
    is_title: bool


def list_documents(code_set: CodeSet, spoken_names: Sequence[tuple[str, str]] | None = None) -> list[Document]:
    """Titles in tabular order, then terms in the release's order, each code and text once.

    `spoken_names` are pairs of what clinicians say and a name of the release (default: the shipped list).
    """
    documents = [Document(code.code, code.long_title, True) for code in code_set.billable]
    seen = {(document.code, document.text.casefold()) for document in documents}
    for document in _term_documents(code_set):
        key = (document.code, document.text.casefold())
        if key not in seen:
            seen.add(key)
            documents.append(document)
    return documents + list(_short_names(documents, read_spoken_names() if spoken_names is None else spoken_names))


def _short_names(documents: Sequence[Document], spoken_names: Sequence[tuple[str, str]]) -> Iterator[Document]:
    """Titles without what goes unsaid, and spoken names, each for one code: the first that offers it."""
    code_of = {document.text.casefold(): document.code for document in reversed(documents)}
    bare = {name: document.code for document in reversed(documents) if document.is_title for name in list_bare_names(document.text)}
    spoken = {said: code_of[meant.casefold()] for said, meant in spoken_names if meant.casefold() in code_of}
    for text, code in {**bare, **spoken}.items():
        if text in spoken or text.casefold() not in code_of:
            yield Document(code, text, False)


def list_bare_names(title: str) -> tuple[str, ...]:
    """A title without what goes unsaid; none for a later encounter, which has to be said."""
    bare = _LEFT_UNSAID.sub("", title)
    if _LATER_ENCOUNTER.search(title):
        return (bare,)
    return tuple(dict.fromkeys((bare, _UNNAMED_PART.sub("", _LEFT_UNSAID.sub("", _FIRST_ENCOUNTER.sub("", title))).strip())))


def is_left_unsaid(title: str, words: Sequence[str]) -> bool:
    """Whether a text of these words leaves open what the title settles: an encounter, or which side or part it is."""
    if _FIRST_ENCOUNTER.search(title) and "encounter" not in words:
        return True
    bare = _LEFT_UNSAID.sub("", title)
    return bare.count(" unspecified ") > words.count("unspecified")


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
