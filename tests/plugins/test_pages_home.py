"""Home: each answer in each of its states."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from night_history import judge, promote, write_night
from pages_app import Pages
from reviewed_hospital import Hospital

from llmcoder_pages.home import find_release_days, judge_tonight
from llmcoder_tasks.steps.review_encounters import claim_next, open_reviews

FINE: dict[str, Any] = {
    "status": "finished", "age": timedelta(hours=7), "out_of_band_count": 0, "failed_share": 0.0, "notes": 1000,
    "nights_compared": 30, "coded": None, "encounter_count": 1000,
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "kind", "answer", "why"),
    [
        ({}, "good", "Yes", "every figure as in the nights before"),
        ({"nights_compared": 3}, "good", "Yes", "too few nights"),
        ({"nights_compared": None}, "warn", "Not measured", "not compared"),
        ({"failed_share": 0.002}, "warn", "Nearly", "2 notes that failed"),
        ({"out_of_band_count": 1}, "warn", "Look at it", "1 figure left the band"),
        ({"age": timedelta(hours=50)}, "bad", "Late", "No night began for 50 hours"),
        ({"status": "failed"}, "bad", "No", "failed"),
        ({"status": "running", "coded": 1200, "encounter_count": 2740}, "good", "Running", "1,200 of 2,740 encounters"),
        ({"status": "running", "coded": 3, "age": timedelta(hours=27)}, "bad", "Late", "3 of 1,000 encounters"),
    ],
)
def test_tonight_is_judged_by_what_is_worst(change: dict[str, Any], kind: str, answer: str, why: str) -> None:
    tonight = judge_tonight({**FINE, **change})
    assert (tonight.kind, tonight.answer) == (kind, answer)
    assert why in tonight.why


@pytest.mark.parametrize(
    ("today", "last", "coming"),
    [
        (date(2026, 3, 31), date(2025, 10, 1), date(2026, 4, 1)),
        (date(2026, 4, 1), date(2026, 4, 1), date(2026, 10, 1)),
        (date(2026, 12, 31), date(2026, 10, 1), date(2027, 4, 1)),
    ],
)
def test_releases_take_effect_in_april_and_october(today: date, last: date, coming: date) -> None:
    assert find_release_days(today) == (last, coming)


def words_of(pages: Pages, role: str = "viewer", name: str | None = None) -> str:
    answer = pages.client(role, name).get("")
    assert answer.status_code == 200
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", answer.text))


def test_an_empty_system_says_what_to_do_first(pages: Pages) -> None:
    words = words_of(pages)
    assert "Is tonight fine? No night yet" in words
    assert "No model was promoted yet" in words
    assert "not loaded" in words
    assert "Put it into the landing place" in words
    assert "No model waits for an answer" in words


def test_the_newest_night_and_the_model_in_service_are_there(pages: Pages) -> None:
    hospital = Hospital(pages.stores.database)
    write_night(pages.stores.database, date(2026, 1, 5), started_at=datetime.now(UTC) - timedelta(hours=2))
    judge(hospital)
    assert "PROMOTE m1" in words_of(pages), "judged and not answered"
    promote(hospital)
    words = words_of(pages)
    assert "Is tonight fine? Yes" in words
    assert "Night of 05 Jan 2026" in words
    assert "by Ann Approver" in words
    assert "No model waits for an answer" in words


def test_a_release_that_no_model_has_learnt_is_told_with_what_to_do(pages: Pages) -> None:
    hospital = Hospital(pages.stores.database)
    judge(hospital)
    promote(hospital)
    _, coming = find_release_days(datetime.now(UTC).date())
    hospital.write(
        "INSERT INTO releases (release_key, effective_from, source, content_sha256, code_count, billable_count, uri) "
        "VALUES ('FY2030', :day, 'test', 'y', 6, 5, 'file:///x')", day=coming,
    )  # fmt: skip
    words = words_of(pages)
    assert re.search(r"in \d+ days FY2030 takes effect", words)
    assert "No dataset is built: run the DAG build_dataset with the key FY2030" in words


def test_reviews_are_counted_and_ones_own_named_to_who_may_read_notes(pages: Pages) -> None:
    hospital = Hospital(pages.stores.database)
    for number in range(3):
        hospital.code(
            f"E{number}", [("I10", 0.5, "review")], note=f"high blood pressure {number}; and a long note to mark evidence in"
        )
    open_reviews("night", pages.stores.database)
    claimed = claim_next(person="Ann Coder", database=pages.stores.database)
    assert claimed is not None
    words = words_of(pages, "op", "Ann Coder")
    assert "3 reviews in the queue" in words
    assert f"1 held by you: {claimed.encounter_id}" in words
    assert "1 of them held by others" in words_of(pages, "op", "Ben Coder")
    viewer = words_of(pages, "viewer", "Ann Coder")
    assert "3 reviews in the queue" in viewer
    assert claimed.encounter_id not in viewer
