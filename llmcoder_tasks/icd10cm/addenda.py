"""The addenda files: what the publisher says has changed since the release before, checked against what the codes show."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from llmcoder_tasks.errors import ReleaseError
from llmcoder_tasks.icd10cm.archive import SourceFile
from llmcoder_tasks.icd10cm.changes import CodeChange
from llmcoder_tasks.icd10cm.order_file import read_text

_ORDER_CHANGE = re.compile(r"(Add|Delete|Revise from|Revise to): +([01]) ([A-Z][0-9A-Z]{2}[0-9A-Z ]{4}) \S.{59} (\S.*)")
_CODES_CHANGE = re.compile(r"(Add|Delete|Revise from|Revise to): +()([A-Z][0-9A-Z]{2}[0-9A-Z ]{4}) (\S.*)")
_TOTAL = re.compile(r" *(\d+) codes in \S+")
_YEAR = re.compile(r" *\d+ (?:codes|headers) in \S*(20\d\d)[a-z]*\.txt")
_COUNT = re.compile(r" *(\d+) (additions|deletions|revisions)")


@dataclass(frozen=True)
class Addenda:
    """Changes to billable codes, by code: the long title that was added, deleted or revised to.

    `count_before` and `count_after` are the billable codes of the release before and of this one; `year` is the fiscal year that
    the footer names for this release. Addenda to a codes file do not cover revisions of short titles only.
    """

    file_name: str
    added: Mapping[str, str]
    deleted: Mapping[str, str]
    revised: Mapping[str, str]
    count_before: int
    count_after: int
    year: int
    covers_short_titles: bool

    @property
    def expected_titles(self) -> dict[str, str | None]:
        """Long title that each named code must have in this release; None for a code that must not be billable any more."""
        gone: dict[str, str | None] = dict.fromkeys(self.deleted)
        return {**gone, **self.added, **self.revised}


def parse_order_addenda(file: SourceFile) -> Addenda:
    """The addenda to an order file; changes of headers are read and left out. Raises ReleaseError on a line of another form."""
    return _parse(file, _ORDER_CHANGE)


def parse_codes_addenda(file: SourceFile) -> Addenda:
    """The addenda to a codes file. Raises ReleaseError on a line of another form."""
    return _parse(file, _CODES_CHANGE)


def _parse(file: SourceFile, pattern: re.Pattern[str]) -> Addenda:
    lines = read_text(file).splitlines()
    body_end = next((number for number, line in enumerate(lines) if not line.strip() or line in {"Headers", "Codes"}), len(lines))
    found: dict[str, dict[str, str]] = {"Add": {}, "Delete": {}, "Revise from": {}, "Revise to": {}}
    for number, line in enumerate(lines[:body_end], start=1):
        match = pattern.fullmatch(line)
        if match is None or " " in (code := match[3].rstrip()):
            raise ReleaseError(
                f"expected an action, a code and its title in fixed columns, found {line[:60]!r}", file=file.name, line=number
            )
        if match[2] == "0":
            continue
        if code in found[match[1]]:
            raise ReleaseError(f"{match[1]} {code} stands twice", file=file.name, line=number)
        found[match[1]][code] = match[4].rstrip()
    if found["Revise from"].keys() != found["Revise to"].keys():
        raise ReleaseError("a `Revise from` lacks its `Revise to`: the file is incomplete", file=file.name)
    return _with_footer(file, lines[body_end:], found, covers_short=pattern is _ORDER_CHANGE)


def _with_footer(file: SourceFile, footer: list[str], found: dict[str, dict[str, str]], *, covers_short: bool) -> Addenda:
    """The footer's second total is this release's; its counts must be those of the lines above it."""
    section = footer[footer.index("Codes") :] if "Codes" in footer else []
    totals = [int(match[1]) for line in section if (match := _TOTAL.fullmatch(line))]
    years = [int(match[1]) for line in section if (match := _YEAR.fullmatch(line))]
    stated = {match[2]: int(match[1]) for line in section[:6] if (match := _COUNT.fullmatch(line))}
    if len(totals) != 2 or len(years) != 2 or len(stated) != 3:
        raise ReleaseError("the footer with the counts is missing: the file is truncated", file=file.name, line=0)
    read = {"additions": len(found["Add"]), "deletions": len(found["Delete"]), "revisions": len(found["Revise to"])}
    if read != stated:
        raise ReleaseError(f"the footer counts {stated}, the lines above it {read}: the file is incomplete", file=file.name)
    return Addenda(file.name, found["Add"], found["Delete"], found["Revise to"], totals[0], totals[1], years[1], covers_short)


def verify_addenda(addenda: Addenda, changes: Mapping[str, CodeChange], billable_titles: Mapping[str, str]) -> tuple[str, ...]:
    """Compare the publisher's changes with the computed ones.

    `billable_titles` are the long titles of this release. Returns the codes whose title changed in spacing only and that the
    addenda leave out, as the official ones do. Raises ReleaseError, with up to three codes, when they differ in anything else.
    """
    computed: dict[str, set[str]] = {"added": set(), "deleted": set(), "revised": set()}
    for code, change in changes.items():
        if change.kind == "revised" and not addenda.covers_short_titles and change.new_title != billable_titles[code]:
            continue
        computed["deleted" if change.kind == "became_header" else change.kind].add(code)
    spacing = {
        code
        for code in computed["revised"] - addenda.revised.keys()
        if (changes[code].old_title or "").replace(" ", "") == (changes[code].new_title or "").replace(" ", "")
    }
    computed["revised"] -= spacing
    for kind, stated in (("added", addenda.added), ("deleted", addenda.deleted), ("revised", addenda.revised)):
        differing = sorted(computed[kind] ^ stated.keys())
        if differing:
            raise ReleaseError(
                f"{len(differing)} codes are {kind} either by these addenda or by the codes themselves, not by both "
                f"({', '.join(differing[:3])}): the files belong to different releases",
                file=addenda.file_name,
            )
    return tuple(sorted(spacing))
