"""Which release is this? Told by what its files say, and by their names only where the files are silent."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from llmcoder_tasks.errors import ReleaseError
from llmcoder_tasks.records import parse_release_key

_KEY_IN_NAME = re.compile(r"(?<![0-9A-Za-z])FY20\d\d(?:-(?:January|April|July))?(?![0-9A-Za-z])")
_YEAR_IN_NAME = re.compile(r"(?<!\d)(20\d\d)(?!\d)")
_MONTH_IN_NAME = re.compile(r"(?<![a-z])(jan(?:uary)?|apr(?:il)?|jul(?:y)?)(?![a-z])", re.IGNORECASE)
_MONTHS = {"jan": "January", "apr": "April", "jul": "July"}


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one place says: a fiscal year, and a month (`April`; "" for October), each None when it is silent."""

    place: str
    year: int | None
    month: str | None


def read_name(name: str, *, place: str | None = None) -> Evidence:
    """What a file name says: `icd10cm-order- April 1 2023.txt` is April of fiscal year 2023. A name without a month says none."""
    words = name.replace("_", " ").replace("-", " ")
    years = set(_YEAR_IN_NAME.findall(words))
    months = {_MONTHS[match[:3].lower()] for match in _MONTH_IN_NAME.findall(words)}
    year = int(years.pop()) if len(years) == 1 else None
    return Evidence(place or f"the name {name!r}", year, months.pop() if len(months) == 1 else None)


def find_key(name: str) -> str | None:
    """A release key that stands in a folder's or archive's name: `FY2026-April`."""
    keys = set(_KEY_IN_NAME.findall(name))
    return keys.pop() if len(keys) == 1 else None


def infer_release_key(given: str | None, source_name: str, evidence: Iterable[Evidence]) -> str:
    """The key given by the operator, else the one in the source's name, else the one that all evidence agrees on.

    An October release is the one whose files name no month. Raises ReleaseError when the years disagree with each other or with the
    key, when files name a month that the key does not have, or when nothing names a year.
    """
    known = list(evidence)
    key = given or find_key(source_name)
    if key is None:
        key = _combine(known)
    effective = parse_release_key(key)
    year = effective.year + (effective.month == 10)
    month = key.partition("-")[2]
    for one in known:
        if one.year is not None and one.year != year:
            raise ReleaseError(f"wrong year: {one.place} says fiscal year {one.year}, but the release is {key}")
        if one.month and one.month != month:
            raise ReleaseError(f"wrong release: {one.place} says {one.month}, but the release is {key}")
    return key


def _combine(evidence: list[Evidence]) -> str:
    years = {one.year: one.place for one in evidence if one.year is not None}
    if not years:
        raise ReleaseError("nothing in the files or their names tells the year: give the release key, such as FY2026-April")
    if len(years) > 1:
        said = ", ".join(f"{place} says {year}" for year, place in sorted(years.items()))
        raise ReleaseError(f"the files belong to different years: {said}")
    months = {one.month for one in evidence if one.month}
    if len(months) > 1:
        raise ReleaseError(f"the files belong to different updates ({', '.join(sorted(months))}): give the release key")
    return "-".join([f"FY{next(iter(years))}", *months])
