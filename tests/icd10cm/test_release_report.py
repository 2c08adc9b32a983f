"""The report of a release, from values that were worked by hand."""

from __future__ import annotations

import json
from datetime import date

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


def _build(pace: Pace = Pace(), **titles: str) -> ReleaseReport:  # noqa: B008 - frozen
    before = ReleaseTitles("FY2026", date(2025, 10, 1), {"A000": "Classical cholera", "I10": "Hypertension"})
    after = ReleaseTitles("FY2027", date(2026, 10, 1), {"I10": "Primary hypertension", "A001": "<b>Eltor</b>"} | titles)
    outdated = [OutdatedEncounter("E1", date(2026, 10, 2), True), OutdatedEncounter("E2", date(2026, 11, 2), False)]
    return build_report(
        after,
        before,
        conversions={"A000": {"A001", "Z999"}},
        chapter_of=lambda code: "1" if code < "I" else "9",
        usage=Usage(date(2025, 11, 3), date(2026, 11, 2), {"A000": 3, "I10": 40}),
        outdated=outdated,
        dead_corrections=[DeadCorrection(7, "A000", "A001")],
        pace=pace,
    )


def test_changes_usage_and_work_are_counted() -> None:
    report = _build(Pace(seconds_a_note=3.0, minutes_a_review=4.5))
    assert [(row.code, row.kind, row.followers, row.used) for row in report.changes] == [
        ("A000", "deleted", ("A001",), 3),
        ("A001", "added", (), 0),
        ("I10", "revised", (), 40),
    ]
    assert [row.code for row in report.used] == ["I10", "A000"]
    assert report.by_chapter["9"] == {"added": 0, "deleted": 0, "became_header": 0, "revised": 1}
    assert report.by_month == {"2026-10": 1, "2026-11": 1}
    assert report.minutes == {"recode": 0.1, "review": 4.5, "full_training": None}  # 2 notes at 3 s; 1 review at 4.5 min


def test_the_id_is_a_fingerprint_of_the_content() -> None:
    assert _build().report_id == _build().report_id
    assert _build().report_id.startswith("FY2027-")
    assert _build().report_id != _build(I11="Heart disease").report_id
    assert json.loads(_build().render_json())["counts"]["dead_corrections"] == 1


def test_the_page_escapes_titles_says_unknown_and_names_no_encounter() -> None:
    page = render_page(_build())
    assert "&lt;b&gt;Eltor&lt;/b&gt;" in page
    assert page.count("unknown") == 3
    assert "E1<" not in page
    assert "http" not in page
