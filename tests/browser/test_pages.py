"""Pages without patient text in a real browser: accessible, in light and dark, wide and narrow; by keyboard, and in a frame."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from accessibility import assert_accessible, assert_fits
from night_history import write_month
from pages_app import Pages

pytestmark = pytest.mark.browser

SANDBOX = "allow-scripts allow-same-origin allow-forms allow-downloads"


@pytest.fixture
def newest(pages: Pages) -> str:
    """A month of nights; the id of the newest."""
    return write_month(pages.stores.database, datetime.now(UTC).date() - timedelta(days=1))


def test_pages_are_accessible_and_fit_in_light_and_dark_wide_and_narrow(visit: Any, newest: str) -> None:
    for path in ("", "nights", f"nights/{newest}", f"nights/gaps/{newest}"):
        for dark, width in ((False, 1280), (True, 390)):
            page = visit(path, role="op", dark=dark, width=width)
            assert_accessible(page)
            assert_fits(page)


def test_an_unknown_page_is_accessible_and_leads_back(visit: Any) -> None:
    page = visit("no/such/page")
    assert_accessible(page)
    page.get_by_role("link", name="To the first page").click()
    assert page.title() == "Home · LLMCoder"
    visit.complaints.clear()  # the browser complains of the 404 itself


def test_the_keyboard_skips_to_the_content_and_finds_the_newest_night(visit: Any, newest: str) -> None:
    page = visit("nights")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_url("**/nights/scheduled*")
    assert page.get_by_role("heading", level=1).inner_text().startswith("Night of")


def test_the_theme_of_airflow_wins_over_that_of_the_system(visit: Any) -> None:
    page = visit("")
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.evaluate("localStorage.setItem('theme', 'dark')")
    page.reload()
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert light != dark
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_a_link_to_airflow_leaves_the_frame(visit: Any, server: str, newest: str) -> None:
    """In a frame as Airflow's, whose sandbox does not let it navigate its parent."""
    frame = f'<iframe src="{server}nights/{newest}" sandbox="{SANDBOX}" width=900 height=700></iframe>'
    page = visit("")
    page.route("**/favicon.ico", lambda route: route.fulfill(status=204))
    page.route("**/outer", lambda route: route.fulfill(content_type="text/html", body=frame))
    page.route("**/dags/**", lambda route: route.fulfill(content_type="text/html", body="<title>the run</title>"))
    page.goto(server + "outer")
    page.frame_locator("iframe").get_by_role("link", name="The run in Airflow").click()
    page.wait_for_url("**/dags/code_encounters/runs/scheduled*")
    assert page.title() == "the run"
