"""Puts the files of a release together: recognises each, reads it, and refuses the whole when they do not fit each other.

Which codes exist is decided by, in this order: the order file; the codes file; a list of codes; the tabular list with its own note
on 7th characters that do not apply. Whatever else is there must agree with it.
"""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from itertools import pairwise
from typing import TypeVar

from llmcoder_tasks.errors import ReleaseError
from llmcoder_tasks.icd10cm.addenda import Addenda, parse_codes_addenda, parse_order_addenda
from llmcoder_tasks.icd10cm.alphabetic_index import parse_index
from llmcoder_tasks.icd10cm.archive import SourceFile
from llmcoder_tasks.icd10cm.code_set import Code, CodeTerm
from llmcoder_tasks.icd10cm.conversion_table import parse_conversion_table
from llmcoder_tasks.icd10cm.file_kind import INDEX_KINDS, FileKind, recognise_kind
from llmcoder_tasks.icd10cm.order_file import parse_code_list, parse_codes_file, parse_order_file
from llmcoder_tasks.icd10cm.release import Conversion, FileRecord, Release
from llmcoder_tasks.icd10cm.release_key import Evidence, infer_release_key, read_name
from llmcoder_tasks.icd10cm.source import Source
from llmcoder_tasks.icd10cm.tabular import Tabular, parse_tabular
from llmcoder_tasks.records import render_release_key

logger = logging.getLogger(__name__)

T = TypeVar("T")

_NAMED_BY_RELEASE: frozenset[FileKind] = frozenset({"order", "codes", "order_addenda", "codes_addenda", "tabular", "code_list"})
"""Kinds whose file name carries the release. A conversion table's name mixes several dates; its text is used instead."""


@dataclass
class _Contents:
    """Everything read, by kind."""

    order: tuple[Code, ...] | None = None
    codes: tuple[Code, ...] | None = None
    code_list: frozenset[str] | None = None
    tabular: Tabular | None = None
    addenda: list[Addenda] = field(default_factory=list)
    index_terms: list[CodeTerm] = field(default_factory=list)
    conversions: tuple[Conversion, ...] = ()
    evidence: list[Evidence] = field(default_factory=list)
    records: list[FileRecord] = field(default_factory=list)


def read_release(source: Source, *, release_key: str | None) -> Release:
    """Read a release from its files. Raises ReleaseError with file, line and reason when any of them is not as it must be."""
    kinds: dict[FileKind, list[SourceFile]] = defaultdict(list)
    for file in source.files:
        kinds[recognise_kind(file.name, file.data)].append(file)
    _verify_usable(kinds)
    contents = _read_contents(kinds)
    key = infer_release_key(release_key, source.name, contents.evidence)
    codes = _combine_codes(contents)
    _verify_counts(contents.addenda, codes)
    return Release(
        release_key=key,
        codes=codes,
        terms=_select_terms(contents, codes),
        seventh_characters=tuple(contents.tabular.seventh_characters) if contents.tabular else (),
        conversions=contents.conversions,
        addenda=tuple(sorted(contents.addenda, key=lambda addenda: not addenda.covers_short_titles)),
        files=tuple(contents.records),
    )


def _verify_usable(kinds: Mapping[FileKind, Sequence[SourceFile]]) -> None:
    if not any(kinds.get(kind) for kind in ("order", "codes", "tabular")):
        found = "; ".join(f"{file.name} ({kind})" for kind, files in kinds.items() for file in files[:5])
        raise ReleaseError(f"there is no order file, codes file or tabular list here, only: {found}")
    for kind, files in kinds.items():
        if kind != "other" and len(files) > 1:
            names = " and ".join(file.name for file in files[:2])
            raise ReleaseError(f"two files of the kind {kind!r}: {names}; keep the one of this release")


def _read_contents(kinds: Mapping[FileKind, Sequence[SourceFile]]) -> _Contents:
    contents = _Contents()
    for kind, files in kinds.items():
        for file in files:
            count = _READERS[kind](contents, file)
            recorded: FileKind = "other" if kind == "conversion" and not count else kind
            contents.records.append(FileRecord(file.name, recorded, hashlib.sha256(file.data).hexdigest(), count))
            if kind in _NAMED_BY_RELEASE:
                contents.evidence.append(read_name(file.name.rpartition("/")[2]))
    contents.records.sort()
    return contents


def _read_order(contents: _Contents, file: SourceFile) -> int:
    contents.order = parse_order_file(file)
    return len(contents.order)


def _read_codes(contents: _Contents, file: SourceFile) -> int:
    contents.codes = parse_codes_file(file)
    return len(contents.codes)


def _read_code_list(contents: _Contents, file: SourceFile) -> int:
    contents.code_list = parse_code_list(file)
    return len(contents.code_list)


def _read_addenda(parse: Callable[[SourceFile], Addenda]) -> Callable[[_Contents, SourceFile], int]:
    def read(contents: _Contents, file: SourceFile) -> int:
        addenda = parse(file)
        contents.addenda.append(addenda)
        contents.evidence.append(Evidence(f"the footer of {file.name}", addenda.year, None))
        return len(addenda.added) + len(addenda.deleted) + len(addenda.revised)

    return read


def _read_tabular(contents: _Contents, file: SourceFile) -> int:
    contents.tabular = parse_tabular(file)
    contents.evidence.append(Evidence(f"the <version> in {file.name}", contents.tabular.year, None))
    return len(contents.tabular.titles)


def _read_index(contents: _Contents, file: SourceFile) -> int:
    year, terms = parse_index(file)
    contents.index_terms += terms
    contents.evidence.append(Evidence(f"the <version> in {file.name}", year, None))
    return len(terms)


def _read_conversions(contents: _Contents, file: SourceFile) -> int:
    table = parse_conversion_table(file)
    if table is None:
        return 0
    effective, contents.conversions = table
    if effective is not None:
        contents.evidence.append(_date_evidence(file.name, effective))
    return len(contents.conversions)


def _date_evidence(name: str, effective: date) -> Evidence:
    key, _, month = render_release_key(effective).partition("-")
    return Evidence(f"the text in {name}", int(key[2:]), month or None)


def _read_other(contents: _Contents, file: SourceFile) -> int:
    logger.info("%s is no release file that is known: recorded and left alone", file.name)
    return 0


_READERS: Mapping[FileKind, Callable[[_Contents, SourceFile], int]] = {
    "order": _read_order,
    "codes": _read_codes,
    "code_list": _read_code_list,
    "order_addenda": _read_addenda(parse_order_addenda),
    "codes_addenda": _read_addenda(parse_codes_addenda),
    "tabular": _read_tabular,
    **dict.fromkeys(INDEX_KINDS, _read_index),
    "conversion": _read_conversions,
    "other": _read_other,
}


def _combine_codes(contents: _Contents) -> tuple[Code, ...]:
    """The codes of the release, in tabular order, from the best file there is; the other files must agree with it."""
    if contents.order is not None:
        if contents.codes is not None:
            _verify_same_codes(contents.order, contents.codes)
        if contents.tabular is not None:
            _verify_tabular(contents.tabular, {code.code: code.long_title for code in contents.order})
        return contents.order
    if contents.tabular is None:
        return contents.codes or ()  # _verify_usable saw to it that there are some
    titles = _existing_titles(contents.tabular, contents)
    codes = _with_levels(titles)
    if contents.codes is not None:
        _verify_same_codes(codes, contents.codes)
    return codes


def _existing_titles(tabular: Tabular, contents: _Contents) -> dict[str, str]:
    """Titles of the codes that exist, when there is no order file."""
    if contents.codes is not None:
        billable = {code.code for code in contents.codes}
        doubtful = tabular.expanded - billable
    elif contents.code_list is not None:
        doubtful = tabular.expanded - contents.code_list
        _verify_tabular(tabular, {code: tabular.titles.get(code, "") for code in contents.code_list})
    else:
        doubtful = tabular.excluded
    if doubtful:
        logger.info("%s: %d 7th-character codes that do not exist left out", tabular.file_name, len(doubtful))
    return {code: title for code, title in tabular.titles.items() if code not in doubtful}


def _with_levels(titles: Mapping[str, str]) -> tuple[Code, ...]:
    """Codes with their level: a code is a header when another code stands below it. Short title = long title."""
    ordered = sorted(titles)
    headers = {upper for upper, lower in pairwise(ordered) if lower.startswith(upper)}
    return tuple(Code(code, code not in headers, title, title) for code, title in titles.items())


def _verify_tabular(tabular: Tabular, titles: Mapping[str, str]) -> None:
    """Raise ReleaseError unless the tabular list fits the codes that exist: only 7th-character codes may be too many."""
    missing = sorted(titles.keys() - tabular.titles.keys())
    too_many = sorted(tabular.titles.keys() - titles.keys() - tabular.expanded)
    differing = [code for code, title in titles.items() if code in tabular.titles and tabular.titles[code] != title]
    for codes, fault in (
        (missing, "are not in the tabular list"),
        (too_many, "are in the tabular list only"),
        (differing, "differ in title"),
    ):
        if codes:
            raise ReleaseError(
                f"{len(codes)} codes {fault} ({', '.join(codes[:3])}): this list belongs to another release", file=tabular.file_name
            )


def _verify_same_codes(full: Sequence[Code], codes: Sequence[Code]) -> None:
    """Raise ReleaseError unless the codes file is exactly the billable rows, in the same order, with the same long titles."""
    billable = [(code.code, code.long_title) for code in full if code.is_billable]
    listed = [(code.code, code.long_title) for code in codes]
    if billable == listed:
        return
    first = next(
        (number for number, (one, other) in enumerate(zip(billable, listed, strict=False)) if one != other),
        min(len(billable), len(listed)),
    )
    shown = [side[first][0] if first < len(side) else "nothing" for side in (listed, billable)]
    raise ReleaseError(
        f"the codes file has {len(listed):,} codes, the order file or tabular list {len(billable):,}; they part at "
        f"line {first + 1} ({shown[0]} against {shown[1]}): one of the two is truncated or of another release"
    )


def _verify_counts(addenda: Sequence[Addenda], codes: Sequence[Code]) -> None:
    billable = sum(1 for code in codes if code.is_billable)
    for one in addenda:
        if one.count_after != billable:
            raise ReleaseError(
                f"the addenda count {one.count_after:,} codes in this release, its files hold {billable:,}: a file is truncated "
                "or of another release",
                file=one.file_name,
            )


def _select_terms(contents: _Contents, codes: Sequence[Code]) -> tuple[CodeTerm, ...]:
    """Terms of tabular list and indexes, each once. An index term for a code that the release lacks is left out."""
    known = {code.code for code in codes}
    terms = list(contents.tabular.terms) if contents.tabular else []
    kept = [term for term in contents.index_terms if term.code in known]
    if len(kept) < len(contents.index_terms):
        logger.warning("%d index terms name codes that this release lacks: left out", len(contents.index_terms) - len(kept))
    return tuple(dict.fromkeys(terms + kept))
