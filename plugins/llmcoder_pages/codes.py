"""Codes: search in any loaded release by a code or by words, and the history of one code over all of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta

from fastapi import APIRouter, Depends, Request
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse

from llmcoder_pages.paging import decode_cursor, take_page
from llmcoder_pages.releases import RELEASES_DAG
from llmcoder_pages.rendering import render_page
from llmcoder_pages.security import require_reader
from llmcoder_pages.stores import Stores
from llmcoder_tasks.database import Database, Row
from llmcoder_tasks.records import parse_code

router = APIRouter(prefix="/codes", dependencies=[Depends(require_reader(RELEASES_DAG))])

PAGE_SIZE = 50
MOST_WORDS = 6
MOST_CHARACTERS = 200

_CODE = re.compile(r"[A-Z]\d[0-9A-Z]?\.?[0-9A-Z]{0,4}", re.IGNORECASE)
"""The beginning of a code; every one has a digit in second place, so that few words look like one."""

TERM_KINDS = {
    "inclusion_term": "Other names", "includes": "Includes", "index_term": "In the alphabetic index", "excludes1": "Excludes 1",
    "excludes2": "Excludes 2", "code_first": "Code first", "use_additional_code": "Use additional code", "code_also": "Code also",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Era:
    """The days, both included, on which loaded releases say the same of a code. `title` None: it is in none of them."""

    title: str | None
    is_billable: bool | None
    valid_from: date
    valid_until: date | None
    first_release: str
    last_release: str


@router.get("", name="codes")
def search_codes(
    request: Request, stores: Stores, q: str = "", release: str | None = None, after: str | None = None
) -> HTMLResponse:
    """Codes of a release, in the order of its list; without a release of the one that is valid today, or of the newest."""
    query = " ".join(q.split())[:MOST_CHARACTERS]
    (position,) = decode_cursor(after, (int,))
    releases = stores.database.fetch_all("list_release_keys")
    chosen = _choose_release(releases, release)
    rows = _find_codes(stores.database, chosen["release_key"], query, position or 0) if chosen and query else []
    return render_page(
        request,
        "releases/search.html",
        query=query,
        words=_split_words(query),
        most_words=MOST_WORDS,
        releases=releases,
        chosen=chosen,
        page=take_page(rows, PAGE_SIZE, ("position",)),
        is_later_page=after is not None,
    )


@router.get("/{code}", name="code")
def show_code(request: Request, stores: Stores, code: str) -> HTMLResponse:
    """What all loaded releases say of a code. 404 when none has it."""
    name = parse_code(code)
    rows = stores.database.fetch_all("list_code_history", code=name)
    having = [row for row in rows if row["title"] is not None]
    if not having:
        raise HTTPException(404, f"No loaded release has the code {code}.")
    newest = having[-1]
    kin = stores.database.fetch_all("list_code_kin", code=name)
    return render_page(
        request,
        "releases/code.html",
        code=name,
        newest=newest,
        is_dead=rows[-1]["title"] is None,
        eras=list(reversed(join_eras(rows))),
        predecessors=[row for row in kin if row["direction"] == "predecessor"],
        successors=[row for row in kin if row["direction"] == "successor"],
        terms=_group_terms(stores.database.fetch_all("list_code_terms", release_key=newest["release_key"], code=name)),
        below=stores.database.fetch_all("list_codes_below", release_key=newest["release_key"], code=name),
    )


def join_eras(rows: Sequence[Row]) -> list[Era]:
    """What releases say of a code, by date, with neighbours joined that say the same without a gap between them."""
    eras: list[Era] = []
    for row in rows:
        before = eras[-1] if eras else None
        is_same = before and (before.title, before.is_billable) == (row["title"], row["is_billable"])
        if before and is_same and before.valid_until == row["effective_from"] - timedelta(days=1):
            eras[-1] = replace(before, valid_until=row["effective_to"], last_release=row["release_key"])
        else:
            key = row["release_key"]
            eras.append(Era(row["title"], row["is_billable"], row["effective_from"], row["effective_to"], key, key))
    return eras


def _choose_release(releases: Sequence[Row], key: str | None) -> Row | None:
    """The release asked for (404 when it is not loaded), else the one of today, else the newest; None: nothing is loaded."""
    if key:
        chosen = next((row for row in releases if row["release_key"] == key), None)
        if chosen is None:
            raise HTTPException(404, f"The release {key} is not loaded.")
        return chosen
    return next((row for row in releases if row["is_valid_today"]), releases[0] if releases else None)


def _find_codes(database: Database, release_key: str, query: str, after: int) -> list[Row]:
    page = {"release_key": release_key, "after_position": after, "limit": PAGE_SIZE + 1}
    if _CODE.fullmatch(query):
        found = database.fetch_all("find_codes_by_prefix", prefix=parse_code(query), **page)
        if found or after:
            return found  # else it is a word like B12
    words = sorted(_split_words(query), key=len, reverse=True)[:MOST_WORDS]
    if not words:
        return []
    patterns = [_write_patterns(word) for word in words] + [["%"]] * (MOST_WORDS - len(words))
    return database.fetch_all(
        "find_codes_by_words", **{f"word_{number}": pattern for number, pattern in enumerate(patterns, start=1)}, **page
    )


def _split_words(query: str) -> list[str]:
    return list(dict.fromkeys(re.findall(r"[^\s,;()\[\]]+", query.lower())))


def _write_patterns(word: str) -> list[str]:
    """What `LIKE` finds a word by, or the beginning or another part of one, however titles write it."""
    literal = re.sub(r"([\\%_])", r"\\\1", word)
    return [f"%{form}%" for form in (literal, literal[:1].upper() + literal[1:], literal.upper())]


def _group_terms(rows: Sequence[Row]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for row in rows:
        groups.setdefault(TERM_KINDS.get(row["kind"], row["kind"]), []).append(row["term"])
    return groups
