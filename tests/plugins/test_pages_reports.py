"""Reports that steps wrote: shown whole, without scripts, and nothing beside them."""

from __future__ import annotations

import pytest
from night_history import judge
from pages_app import Pages
from reviewed_hospital import Hospital

REPORT = b"<style>p{color:red}</style><p>What the scorecard says</p><script>alert(1)</script>"


@pytest.fixture
def hospital(pages: Pages) -> Hospital:
    return Hospital(pages.stores.database)


def test_a_scorecard_is_shown_and_none_of_its_scripts_may_run(pages: Pages, hospital: Hospital) -> None:
    judge(hospital)
    hospital.write("UPDATE scorecards SET uri = :uri", uri=pages.stores.storage.uri_of("scorecards/e-m1"))
    pages.stores.storage.write_bytes("scorecards/e-m1/report.html", REPORT)
    answer = pages.client("viewer").get("reports/scorecard/e-m1")
    assert answer.content == REPORT
    policy = answer.headers["content-security-policy"]
    assert "script" not in policy
    assert "default-src 'none'" in policy
    assert policy.endswith("; sandbox")
    assert "frame-ancestors 'self'" in policy


def test_a_release_report_is_shown(pages: Pages, hospital: Hospital) -> None:
    uri = pages.stores.storage.uri_of("releases/FY2026/reports/r1")
    hospital.write("INSERT INTO release_reports (report_id, release_key, uri, counts) VALUES ('r1', 'FY2026', :uri, '{}')", uri=uri)
    pages.stores.storage.write_bytes("releases/FY2026/reports/r1/report.html", REPORT)
    assert pages.client("viewer").get("reports/release/r1").content == REPORT


def test_a_report_that_is_gone_is_a_404_that_says_so(pages: Pages, hospital: Hospital) -> None:
    judge(hospital)
    hospital.write("UPDATE scorecards SET uri = :uri", uri=pages.stores.storage.uri_of("scorecards/e-m1"))
    answer = pages.client("viewer").get("reports/scorecard/e-m1")
    assert answer.status_code == 404
    assert "no longer in the artifact store" in answer.text
    assert pages.client("viewer").get("reports/scorecard/unknown").status_code == 404


def test_data_docs_are_listed_and_shown_and_nothing_outside_them(pages: Pages) -> None:
    docs = pages.stores.settings.home / "data_docs" / "d1" / "validations" / "train" / "x"
    docs.mkdir(parents=True)
    (docs / "y.html").write_text("<html><head></head><p>8 of 8</p></html>")
    (pages.stores.settings.home / "secret").write_text("not for pages")
    client = pages.client("viewer")
    listed = client.get("reports/data-docs/d1").text
    assert 'href="/llmcoder/reports/data-docs/d1/validations/train/x/y.html">train</a>' in listed
    answer = client.get("reports/data-docs/d1/validations/train/x/y.html")
    assert "<p>8 of 8</p>" in answer.text
    assert "data_docs.css" in answer.text
    assert "sandbox" in answer.headers["content-security-policy"]
    for path in ("none", "d1/none.html", "..%2Fsecret", "d1/..%2F..%2Fsecret", "%2Fetc%2Fpasswd", "d1/%2Fetc%2Fpasswd", "."):
        assert client.get(f"reports/data-docs/{path}").status_code == 404, path
