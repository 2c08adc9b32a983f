"""A loaded release → its report: what changes, what of it the hospital uses, what has to be done. JSON, a page, and a row."""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from dataclasses import dataclass
from datetime import timedelta

from llmcoder_tasks.database import Database, Row
from llmcoder_tasks.dataset.corrections import find_successor
from llmcoder_tasks.dataset.example_frames import chapter_of
from llmcoder_tasks.icd10cm.code_set import Code, CodeSet, require_release
from llmcoder_tasks.icd10cm.release_page import render_page
from llmcoder_tasks.icd10cm.release_report import (
    DeadCorrection,
    OutdatedEncounter,
    Pace,
    ReleaseReport,
    ReleaseTitles,
    Usage,
    build_report,
)
from llmcoder_tasks.progress import record_step
from llmcoder_tasks.storage import Storage

logger = logging.getLogger(__name__)

USED_DAYS = 365
"""Of how many days before the last coded discharge codes count as used."""


@dataclass(frozen=True, slots=True)
class ReportRef:
    """A release report in the artifact store: `report.json` and `report.html` in its folder."""

    report_id: str
    uri: str


def report_release(release_key: str, *, storage: Storage, database: Database) -> ReportRef:
    """Write the report of a release against the loaded one before it, and anew that of the loaded one after it, if there is one.

    That of a corrected release also says what it changed against the withdrawn one; the name of either finds it. Without any change
    since the last time nothing is written. Raises ReleaseError when the release is not loaded.
    """
    with record_step(database, "report_release", release_key) as detail:
        standing = require_release(database, release_key)["release_key"]
        releases = database.fetch_all("list_releases")
        place = next(place for place, row in enumerate(releases) if row["release_key"] == standing)
        reference = _report(releases, place, storage, database)
        if place + 1 < len(releases):
            _report(releases, place + 1, storage, database)
        detail["report"] = reference.report_id
    return reference


def _report(releases: list[Row], place: int, storage: Storage, database: Database) -> ReportRef:
    report = _build(releases, place, database)
    folder = f"releases/{report.release_key}/reports/{report.report_id}"
    reference = ReportRef(report.report_id, storage.uri_of(folder))
    if not storage.exists(f"{folder}/report.json"):
        storage.write_bytes(f"{folder}/report.html", render_page(report).encode())
        storage.write_bytes(f"{folder}/report.json", report.render_json().encode())
    row = {"report_id": report.report_id, "release_key": report.release_key, "previous_release_key": report.previous}
    written = database.execute("record_release_report", row | {"uri": reference.uri, "counts": json.dumps(report.counts)})
    if written:
        logger.info("%s against %s: %s", report.release_key, report.previous or "nothing", report.counts)
    else:
        logger.info("%s is reported already: nothing changed", report.release_key)
    return reference


def _build(releases: list[Row], place: int, database: Database) -> ReleaseReport:
    release = _read_titles(releases[place], database)
    conversions: dict[str, set[str]] = defaultdict(set)
    for row in database.fetch_all("list_conversions_until", release_key=release.release_key):
        conversions[row["previous_code"]].add(row["code"])
    withdrawn = database.fetch_one("find_withdrawn_release", effective_from=release.effective_from)
    outdated = [OutdatedEncounter(**row) for row in database.fetch_all("list_outdated_encounters", release_key=release.release_key)]
    return build_report(
        release,
        _read_titles(releases[place - 1], database) if place else None,
        withdrawn=_read_titles(withdrawn, database) if withdrawn else None,
        conversions=conversions,
        chapter_of=chapter_of,
        usage=_read_usage(database),
        outdated=outdated,
        dead_corrections=_find_dead_corrections(release, conversions, database),
        pace=Pace(**(database.fetch_one("measure_pace") or {})),
    )


def _read_titles(row: Row, database: Database) -> ReleaseTitles:
    columns = database.fetch_all("fetch_billable_as_columns", release_key=row["release_key"])[0]
    return ReleaseTitles(row["release_key"], row["effective_from"], dict(zip(columns["codes"], columns["titles"], strict=True)))


def _read_usage(database: Database) -> Usage:
    newest = database.fetch_one("find_last_coded_day")
    if newest is None:
        return Usage(None, None, {})
    last = newest["discharge_date"]
    first = last - timedelta(days=USED_DAYS - 1)
    counted = database.fetch_all("count_used_codes", first=first, last=last)
    return Usage(first, last, {row["code"]: row["encounters"] for row in counted})


def _find_dead_corrections(release: ReleaseTitles, conversions: dict[str, set[str]], database: Database) -> list[DeadCorrection]:
    codes = tuple(Code(code, True, title, title) for code, title in release.titles.items())
    code_set = CodeSet(release.release_key, release.effective_from, codes, ())
    return [
        DeadCorrection(row["action_id"], row["code"], find_successor(row["code"], conversions, code_set))
        for row in database.fetch_all("list_correction_codes")
        if row["code"] not in release.titles
    ]
