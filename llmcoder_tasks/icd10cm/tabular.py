"""The tabular list: titles, notes, and the 7th characters from which the full codes follow.

The list does not spell 7th-character codes out. They follow from the nearest `sevenChrDef` at or above a code without codes
below it: the code filled with `X` to six characters, then the character; title = title of the code, a comma, the meaning of the
character. That rule makes a few codes too many, which the list excludes in a note of its own ("7th characters D and S do not
apply to codes in category S06 with 6th character 7 ..., or 8 ..."): `excluded` holds those.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llmcoder_tasks.errors import ReleaseError
from llmcoder_tasks.icd10cm.archive import SourceFile
from llmcoder_tasks.icd10cm.code_set import CodeTerm, TermKind
from llmcoder_tasks.icd10cm.release import SeventhCharacter
from llmcoder_tasks.icd10cm.xml_file import parse_xml, read_year, squeeze

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_NOTE_KINDS: Mapping[str, TermKind] = {
    "inclusionTerm": "inclusion_term",
    "includes": "includes",
    "excludes1": "excludes1",
    "excludes2": "excludes2",
    "codeFirst": "code_first",
    "useAdditionalCode": "use_additional_code",
    "codeAlso": "code_also",
}
_CODE = re.compile(r"[A-Z][0-9A-Z]{2,6}")
_CHAPTER_RANGE = re.compile(r"\(([A-Z][0-9A-Z]{2}-[A-Z][0-9A-Z]{2})\)")
_EXCLUSION = re.compile(
    r"7th characters? (?P<characters>[0-9A-Z](?:(?:, | and | or |, and )[0-9A-Z])*) do(?:es)? not apply to codes in category "
    r"(?P<category>[A-Z][0-9A-Z]{2}) with 6th character (?P<sixth>.+)"
)


@dataclass
class Tabular:
    """What a tabular list holds.

    `titles` maps every code and header, expanded and in tabular order, to its title without diacritics, as the order file has it.
    `expanded` are the codes made from a 7th character, `excluded` those among them that the list itself rules out. Terms keep their
    diacritics.
    """

    file_name: str
    year: int
    titles: dict[str, str] = field(default_factory=dict)
    expanded: set[str] = field(default_factory=set)
    excluded: set[str] = field(default_factory=set)
    terms: list[CodeTerm] = field(default_factory=list)
    seventh_characters: list[SeventhCharacter] = field(default_factory=list)


@dataclass(frozen=True)
class _Exclusion:
    """A note that some 7th characters do not apply."""

    category: str
    sixth: frozenset[str]
    characters: frozenset[str]

    def covers(self, code: str) -> bool:
        return code.startswith(self.category) and code[5] in self.sixth and code[6] in self.characters


def parse_tabular(file: SourceFile) -> Tabular:
    """Read a tabular list.

    Raises ReleaseError for broken XML, a code of another form, a code that stands twice, an entry without title, or a note on 7th
    characters that do not apply whose wording is unknown.
    """
    root = parse_xml(file)
    return _TabularReader(file, Tabular(file.name, read_year(root, file)), list(_find_exclusions(root, file))).read(root)


def fold_diacritics(title: str) -> str:
    """`Behçet` as the text files write it: `Behcet`."""
    if title.isascii():
        return title
    return "".join(character for character in unicodedata.normalize("NFKD", title) if not unicodedata.combining(character))


class _TabularReader:
    """Walks the list once and fills a Tabular."""

    def __init__(self, file: SourceFile, tabular: Tabular, exclusions: list[_Exclusion]) -> None:
        self._file = file
        self._tabular = tabular
        self._exclusions = exclusions

    def read(self, root: Element) -> Tabular:
        for chapter in root.iterfind("chapter"):
            block = _CHAPTER_RANGE.search(chapter.findtext("desc") or "")
            if block:
                self._read_notes(chapter, block[1])
            for section in chapter.iterfind("section"):
                name = section.get("id", "")
                self._read_notes(section, name if "-" in name else f"{name}-{name}")  # a block of one category: `B20-B20`
                for entry in section.iterfind("diag"):
                    self._read_entry(entry, {})
        if not self._tabular.titles:
            raise ReleaseError("the tabular list holds no code: the file is incomplete", file=self._file.name)
        return self._tabular

    def _read_entry(self, entry: Element, inherited: Mapping[str, str]) -> None:
        name = squeeze(entry.findtext("name"))
        code = name.replace(".", "")
        title = fold_diacritics((entry.findtext("desc") or "").strip())
        if not _CODE.fullmatch(code):
            raise self._refuse(name, f"{name!r} is not a code")
        if not title:
            raise self._refuse(name, f"{name} has no title")
        self._add(code, title, name)
        self._read_notes(entry, code)
        definition = entry.find("sevenChrDef")
        meanings = inherited if definition is None else self._read_definition(definition, code, name)
        below = entry.findall("diag")
        for child in below:
            self._read_entry(child, meanings)
        if not below and meanings:
            self._expand(code, title, meanings, name)

    def _read_definition(self, definition: Element, code: str, name: str) -> dict[str, str]:
        """Meaning of each 7th character. A `<note>` after one explains it: that goes into its stored meaning, not into titles."""
        meanings: dict[str, str] = {}
        explained: dict[str, str] = {}
        character = ""
        for element in definition:
            text = squeeze(element.text)
            if element.tag == "extension":
                character = element.get("char", "")
                if len(character) != 1 or not text or character in meanings:
                    raise self._refuse(name, f"{name} defines the 7th character {character!r} twice or without a meaning")
                meanings[character] = explained[character] = text
            elif element.tag == "note" and character and text:
                explained[character] += f"; {text}"
        self._tabular.seventh_characters += [SeventhCharacter(code, key, text) for key, text in explained.items()]
        return meanings

    def _expand(self, code: str, title: str, meanings: Mapping[str, str], name: str) -> None:
        if len(code) > 6:
            raise self._refuse(name, f"{name} has seven characters already and a 7th character defined")
        for character, meaning in meanings.items():
            full = code.ljust(6, "X") + character
            self._add(full, f"{title}, {fold_diacritics(meaning)}", name)
            self._tabular.expanded.add(full)
            if any(exclusion.covers(full) for exclusion in self._exclusions):
                self._tabular.excluded.add(full)

    def _add(self, code: str, title: str, name: str) -> None:
        if code in self._tabular.titles:
            raise self._refuse(name, f"the code {code} stands already above", last=True)
        self._tabular.titles[code] = title

    def _read_notes(self, element: Element, code: str) -> None:
        for child in element:
            kind = _NOTE_KINDS.get(child.tag)
            if kind is not None:
                texts = (squeeze(note.text) for note in child)  # one official list has an empty note
                self._tabular.terms += [CodeTerm(code, kind, text) for text in texts if text]

    def _refuse(self, name: str, reason: str, *, last: bool = False) -> ReleaseError:
        needle = f"<name>{name}</name>".encode()
        place = self._file.data.rfind(needle) if last else self._file.data.find(needle)
        line = self._file.data.count(b"\n", 0, place) + 1 if place >= 0 else 0
        return ReleaseError(reason, file=self._file.name, line=line)


def _find_exclusions(root: Element, file: SourceFile) -> Iterator[_Exclusion]:
    for notes in root.iter("notes"):
        for note in notes:
            text = squeeze(note.text)
            if not text.startswith("7th character") or "not apply" not in text:
                continue
            match = _EXCLUSION.match(text)
            sixth = re.findall(r"(?:^|or |, )([0-9A-Z]) - ", match["sixth"]) if match else []
            if match is None or not sixth:
                raise ReleaseError(
                    f"cannot read the note {text[:90]!r}: give the order file too, and without this list until it is understood",
                    file=file.name,
                )
            characters = re.findall(r"\b[0-9A-Z]\b", match["characters"])
            yield _Exclusion(match["category"], frozenset(sixth), frozenset(characters))
