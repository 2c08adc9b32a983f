"""Nights: the list page by page, one night with its figures, what it did not code, and the way from a DAG run to its night."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
from night_history import run_id_of, write_month, write_night
from pages_app import Pages
from reviewed_hospital import Hospital

YESTERDAY = date(2026, 3, 14)


@pytest.fixture
def newest(pages: Pages) -> str:
    """A month of nights; the id of the newest, which left its band."""
    return write_month(pages.stores.database, YESTERDAY)


def words_of(answer: Any) -> str:
    """What a page says, without its markup."""
    assert answer.status_code == 200
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", answer.text))


def test_no_night_yet_says_when_there_will_be_one(pages: Pages) -> None:
    assert "No night was coded yet" in words_of(pages.client("viewer").get("nights"))


def test_the_list_goes_through_all_nights_once(pages: Pages, newest: str) -> None:
    client, seen, path = pages.client("viewer"), [], "nights"
    while path:
        answer = client.get(path)
        assert answer.status_code == 200
        seen += re.findall(r'href="/llmcoder/nights/(scheduled[^"]+)"', answer.text)
        following = re.search(r'href="/llmcoder/(nights\?after=[^"]+)"', answer.text)
        path = following[1] if following else ""
    expected = sorted((run_id_of(YESTERDAY - timedelta(days=number)) for number in range(35)), reverse=True)
    assert seen == [quote(run_id, safe=":@,+!/") for run_id in expected]


def test_one_night_shows_its_figures_and_what_left_its_band(pages: Pages, newest: str) -> None:
    words = words_of(pages.client("viewer").get(f"nights/{newest}"))
    assert "This night left its band" in words
    assert "Mean confidence of a code: 74.3 % , expected 83.6 % to 88.4 %" in words
    assert "Share of chapter 9, Circulatory: 40.2 % , expected 21.1 % to 29.8 %" in words
    assert "58.0 %" in words, "accepted automatically"
    assert "52.0 %" in words, "to review"
    assert "6 min 00 s" in words
    assert "2.8 notes a second" in words  # 1,000 notes in 360 seconds
    assert "Beside the median of 30 nights" in words


def test_a_night_within_its_bands_has_no_banner(pages: Pages, newest: str) -> None:
    words = words_of(pages.client("viewer").get(f"nights/{run_id_of(YESTERDAY - timedelta(days=1))}"))
    assert "left its band" not in words
    assert "every encounter of these dates is coded" in words


def test_a_night_among_the_first_says_that_nothing_was_compared(pages: Pages, newest: str) -> None:
    words = words_of(pages.client("viewer").get(f"nights/{run_id_of(YESTERDAY - timedelta(days=31))}"))
    assert "3 earlier nights are known" in words
    assert "not compared" in words


def test_what_was_not_coded_is_counted_by_reason_and_listed_page_by_page(pages: Pages, newest: str) -> None:
    client = pages.client("viewer")
    words = words_of(client.get(f"nights/{newest}"))
    assert re.search(r"uncoded no discharge summary has arrived 40 U000", words)
    assert re.search(r"quarantined the note is RTF 1 night.csv:17", words)
    assert re.search(r"failed ValueError 3 F0", words)
    first = client.get(f"nights/gaps/{newest}")
    following = re.search(r'href="/llmcoder/(nights/gaps/[^"]+after=[^"]+)"', first.text)
    assert following
    places = re.findall(r'<th scope="row" class="code">([^<]+)<', first.text + client.get(following[1]).text)
    assert places == ["F0", "F1", "F2", "night.csv:17", *(f"U{number:03d}" for number in range(40))]


def test_a_night_that_runs_or_was_not_measured_is_shown_as_far_as_it_is(pages: Pages) -> None:
    Hospital(pages.stores.database)
    run_id = write_night(pages.stores.database, YESTERDAY, status="running", started_at=datetime.now(UTC))
    words = words_of(pages.client("viewer").get(f"nights/{run_id}"))
    assert "running" in words
    assert "Nothing yet" in words


def test_a_night_leads_to_its_run_and_the_run_to_its_night(pages: Pages, newest: str) -> None:
    client = pages.client("viewer")
    run_id = newest.partition(" ")[0]
    assert f'href="/dags/code_encounters/runs/{quote(run_id, safe="")}" data-airflow' in client.get(f"nights/{newest}").text
    answer = client.get("runs", params={"dag_id": "code_encounters", "run_id": run_id})
    assert answer.status_code == 303
    assert words_of(client.get(answer.headers["location"].removeprefix("/llmcoder/"))).count("Night of 14 Mar 2026")


@pytest.mark.parametrize(
    ("dag_id", "section"),
    [("code_encounters", "/llmcoder/nights"), ("train_model", "models"), ("ingest_release", "releases"), ("another", "/llmcoder/")],
)
def test_a_run_without_a_night_leads_to_the_pages_of_its_dag(pages: Pages, dag_id: str, section: str) -> None:
    location = pages.client("viewer").get("runs", params={"dag_id": dag_id, "run_id": "manual__x"}).headers["location"]
    assert location in {section, f"/llmcoder/{section}", "/llmcoder/"}


def test_a_damaged_link_to_a_page_of_the_list_is_a_readable_400(pages: Pages) -> None:
    answer = pages.client("viewer").get("nights?after=nonsense")
    assert answer.status_code == 400
    assert "go back to its beginning" in answer.text


def test_ids_and_reasons_are_shown_as_text(pages: Pages, newest: str) -> None:
    hospital = Hospital.__new__(Hospital)
    hospital.database = pages.stores.database
    hospital.write("UPDATE quarantined_notes SET place = '<script>alert(1)</script>{{ 7 * 7 }}'")
    text = pages.client("viewer").get(f"nights/{newest}").text
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;{{ 7 * 7 }}" in text
