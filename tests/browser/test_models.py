"""Models, releases and codes in a real browser, over models that were really trained, judged and promoted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pages_app
import pytest
from accessibility import assert_accessible, assert_fits
from trained_hospital import APPROVER, COMMENT, DEAD, NEW, REVISED, TrainedHospital, train_hospital

pytestmark = [pytest.mark.browser, pytest.mark.integration]


def test_every_page_of_a_real_model_and_its_release(pages: pages_app.Pages, visit: Any, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    hospital = train_hospital(pages.stores, folder)
    promoted, other = hospital.promoted.model_id, hospital.stage_one.model_id
    paths = [
        "models", f"models/{promoted}", f"models/{other}", f"models/{other}?with={promoted}", "releases", "releases/FY2026-April",
        "releases/FY2026-April/changes", f"codes?q={REVISED.code[:3]}&release=FY2026-April", f"codes/{DEAD.code}",
    ]  # fmt: skip
    for path in paths:
        for dark, width in ((False, 390), (True, 1280)):
            page = visit(path, role="op", dark=dark, width=width)
            page.evaluate("() => document.querySelectorAll('details').forEach((one) => (one.open = true))")
            assert_accessible(page)
            assert_fits(page)
    _find_the_model(visit, hospital)
    _open_the_report(visit, promoted)
    _follow_a_dead_code(visit)
    _code_again(visit, pages)


def _find_the_model(visit: Any, hospital: TrainedHospital) -> None:
    page = visit("models", role="viewer")
    page.get_by_role("link", name=hospital.promoted.model_id).click()
    assert page.get_by_text("in service", exact=True).first.is_visible()
    assert page.get_by_text(COMMENT).is_visible()  # its tags as text
    assert page.get_by_text(APPROVER).first.is_visible()
    page.get_by_label("Put beside").select_option(hospital.stage_one.model_id)
    page.get_by_role("button", name="Compare").click()
    assert page.get_by_role("heading", name="Two models side by side").is_visible()
    assert page.get_by_role("heading", name="Slice by slice").is_visible()


def _open_the_report(visit: Any, model_id: str) -> None:
    page = visit(f"models/{model_id}", role="viewer")
    page.get_by_role("link", name="The scorecard's own report").click()
    assert page.get_by_role("heading", name="Scorecard", exact=True).is_visible()
    assert page.evaluate("() => getComputedStyle(document.querySelector('.card')).borderRadius") == "10px"  # its styles are let in
    assert page.evaluate("() => self.origin") == "null"


def _follow_a_dead_code(visit: Any) -> None:
    page = visit(f"codes/{DEAD.code}", role="viewer")
    assert page.get_by_text("not in the newest release").first.is_visible()
    page.get_by_role("table").filter(has_text="They took over from it").get_by_role("link").click()
    assert page.url.endswith(f"/codes/{NEW.code}")


def _code_again(visit: Any, pages: pages_app.Pages) -> None:
    with pages.stores.database.transaction() as transaction:
        transaction.run_script("UPDATE release_reports SET counts = counts || '{\"to_recode\": 12}'")
    page = visit("releases/FY2026-April", role="op")
    asked: list[Any] = []

    def answer(route: Any) -> None:
        asked.append((route.request.method, json.loads(route.request.post_data)))
        route.fulfill(status=200, content_type="application/json", body=json.dumps({"dag_run_id": "manual__1"}))

    page.route("**/api/v2/dags/code_encounters/dagRuns", answer)
    page.get_by_text("Code them again").click()
    page.get_by_role("button", name="Start the run").click()
    page.get_by_role("link", name="manual__1").wait_for()
    assert asked == [("POST", {"logical_date": None, "conf": {"recode_release": "FY2026-April"}})]
