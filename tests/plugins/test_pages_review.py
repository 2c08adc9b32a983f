"""The pages of reviews as plain forms, without a script: who may what, what is written, and what is refused without a loss."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pages_app import Pages, make_pages
from reviewed_hospital import NOTE, Hospital
from sqlalchemy import event

from llmcoder_pages import review as module
from llmcoder_tasks.database import Database
from llmcoder_tasks.steps.review_encounters import claim_review, open_reviews, read_review

pytestmark = pytest.mark.integration

DOUBTFUL = [("E119", 0.4, "review"), ("I10", 0.99, "auto")]
ANN, BEN = "Ann Coder", "Ben Coder"


@pytest.fixture
def hospital(database: Database) -> Hospital:
    return Hospital(database)


@pytest.fixture
def review_id(hospital: Hospital) -> int:
    """One doubtful note in the queue."""
    hospital.code("E1", DOUBTFUL)
    open_reviews("night", hospital.database)
    return int(hospital.query("SELECT review_id FROM reviews")[0][0])


@pytest.fixture
def ann(pages: Pages, review_id: int) -> Coder:
    """Ann, who holds the one review."""
    coder = Coder(pages, ANN)
    assert coder.press("review/next").headers["location"] == f"/llmcoder/review/{review_id}"
    return coder


class Coder:
    """Somebody who presses the buttons of the last page that they saw: its token and its version go along."""

    def __init__(self, pages: Pages, name: str, role: str = "op") -> None:
        self.client = pages.client(role, name)
        self.page = self.client.get("review").text

    def open(self, review_id: int) -> str:
        self.page = self.client.get(f"review/{review_id}").text
        return self.page

    def press(self, path: str, headers: dict[str, str] | None = None, **fields: Any) -> Any:
        token = re.search(r'name="csrf_token" value="([^"]+)"', self.page)
        version = re.search(r'name="version" value="(\d+)"', self.page)
        fixed = {"csrf_token": token[1] if token else "", "version": version[1] if version else "0"}
        answer = self.client.post(path, data={**fixed, **fields}, headers=headers)
        if answer.status_code == 303 and re.search(r"/review/\d+$", answer.headers["location"]):
            self.open(int(answer.headers["location"].rpartition("/")[2]))
        return answer


@contextmanager
def counting(database: Database) -> Iterator[list[str]]:
    """The statements that run meanwhile."""
    seen: list[str] = []

    def note(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        seen.append(statement)

    event.listen(database.engine, "before_cursor_execute", note)
    yield seen
    event.remove(database.engine, "before_cursor_execute", note)


def states(hospital: Hospital) -> dict[str, str]:
    return dict(hospital.query("SELECT code, state FROM review_codes"))


# The queue ----------------------------------------------------------------------------------------------------------


def test_the_queue_is_in_order_of_priority_and_says_why_and_how_much(pages: Pages, hospital: Hospital) -> None:
    hospital.code("calm", [("J189", 0.8, "review"), ("I10", 0.99, "auto")])
    hospital.code("doubtful", DOUBTFUL)
    hospital.code("empty", [])
    open_reviews("night", hospital.database)
    text = pages.client("op").get("review").text
    assert re.findall(r">(empty|doubtful|calm)</a>", text) == ["empty", "doubtful", "calm"]
    assert "unsure 60\N{NO-BREAK SPACE}%" in text
    assert "no code proposed" in text
    assert "1 of 2" in text
    assert "05 Jan 2026" in text
    assert "Sugar" not in text


def test_the_pages_of_the_queue_follow_each_other_without_a_gap(
    pages: Pages, hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAGE_SIZE", 2)
    for number in range(5):
        hospital.code(f"E{number}", DOUBTFUL)
    open_reviews("night", hospital.database)
    client, path, seen = pages.client("op"), "review", []
    for _ in range(3):
        text = client.get(path).text
        seen.append(re.findall(r">(E\d)</a>", text))
        following = re.search(r'href="/llmcoder/(review\?show=waiting&amp;after=[^"]+)">Next page', text)
        path = following[1].replace("&amp;", "&") if following else ""
    assert seen == [["E4", "E3"], ["E2", "E1"], ["E0"]]
    assert path == ""


def test_who_holds_a_review_and_until_when_stands_in_the_queue_and_mine_lists_only_mine(pages: Pages, hospital: Hospital) -> None:
    for name in ("E1", "E2"):
        hospital.code(name, DOUBTFUL)
    open_reviews("night", hospital.database)
    ann, ben = Coder(pages, ANN), Coder(pages, BEN)
    ann.press("review/next")
    assert re.search(r"Ann Coder <small>until <time", ben.client.get("review").text)
    assert re.findall(r">(E\d)</a>", ann.client.get("review?show=mine").text) == ["E2"]
    assert "You hold no review" in ben.client.get("review?show=mine").text
    hospital.write("UPDATE reviews SET claimed_until = now() - interval '1 minute' WHERE claimed_by = 'Ann Coder'")
    assert "Ann Coder's claim ran out" in ben.client.get("review").text


def test_finished_reviews_are_listed_with_how_much_was_corrected(ann: Coder, review_id: int) -> None:
    ann.press(f"review/{review_id}/replace", code="E119", by="E1122")
    ann.press(f"review/{review_id}/remove", code="I10")
    ann.press(f"review/{review_id}/add", by="J189")
    ann.press(f"review/{review_id}/finish")
    text = ann.client.get("review?show=finished").text
    assert re.findall(r'data-label="(?:Codes|Corrected|Finished by)">([^<]*)<', text) == ["2", "3", ANN]
    assert "Nothing waits for a person" in ann.client.get("review").text


def test_next_gives_two_people_two_reviews_and_leads_back_to_the_queue_when_there_is_none(pages: Pages, hospital: Hospital) -> None:
    for name in ("E1", "E2"):
        hospital.code(name, DOUBTFUL)
    open_reviews("night", hospital.database)
    places = [Coder(pages, name).press("review/next").headers["location"] for name in (ANN, BEN, "Cleo Coder")]
    assert len(set(places[:2])) == 2
    assert places[2] == "/llmcoder/review"


@pytest.mark.parametrize("path", ["review?show=all", "review/77"])
def test_what_is_not_there_is_a_404(pages: Pages, hospital: Hospital, path: str) -> None:
    assert pages.client("op").get(path).status_code == 404


def test_a_damaged_cursor_is_refused(pages: Pages, hospital: Hospital) -> None:
    assert pages.client("op").get("review?after=xyz").status_code == 400


# Deciding -----------------------------------------------------------------------------------------------------------


def test_a_review_goes_from_queue_to_finish_by_forms_alone(ann: Coder, hospital: Hospital, review_id: int) -> None:
    path = f"review/{review_id}"
    assert ann.press(f"{path}/replace", code="e11.9", by="E11.22").status_code == 303
    assert states(hospital) == {"E119": "removed", "E1122": "accepted", "I10": "accepted"}
    ann.press(f"{path}/undo")
    assert states(hospital) == {"E119": "open", "I10": "accepted"}
    ann.press(f"{path}/accept", code="E119")
    ann.press(f"{path}/remove", code="I10")
    ann.press(f"{path}/add", by="N39.0")
    ann.press(f"{path}/finish")
    assert "<strong>Finished</strong> by Ann Coder" in ann.page
    assert "the next export, which runs every hour" in ann.page
    assert hospital.query("SELECT action, person FROM review_actions ORDER BY action_id") == [
        (action, ANN) for action in ("claim", "replace", "undo", "accept", "remove", "add", "finish")
    ]
    ann.press(f"{path}/reopen")
    assert "<strong>Yours</strong> until" in ann.page


def test_what_was_given_back_keeps_its_decisions(ann: Coder, pages: Pages, hospital: Hospital, review_id: int) -> None:
    ann.press(f"review/{review_id}/accept", code="E119")
    ann.press(f"review/{review_id}/release")
    assert "<strong>Free.</strong>" in ann.page
    ben = Coder(pages, BEN)
    ben.open(review_id)
    ben.press(f"review/{review_id}/claim")
    assert "<strong>Yours</strong> until" in ben.page
    assert states(hospital)["E119"] == "accepted"


def test_a_refused_decision_says_why_and_shows_the_review_as_it_stands(ann: Coder, review_id: int) -> None:
    answer = ann.press(f"review/{review_id}/finish")
    assert answer.status_code == 400
    assert "E11.9 still to be decided" in answer.text
    assert 'role="alert"' in answer.text
    assert "Sugar disease" in answer.text
    answer = ann.press(f"review/{review_id}/add", by="E11")
    assert answer.status_code == 400
    assert "E11 is a header in FY2026: choose a billable code" in answer.text


def test_a_field_that_is_missing_or_too_long_is_named_and_not_repeated(ann: Coder, review_id: int) -> None:
    answer = ann.press(f"review/{review_id}/accept", code="John Smith of Main Street")
    assert answer.status_code == 422
    assert "Smith" not in answer.text


def test_evidence_is_taken_as_offsets_or_found_by_its_words(ann: Coder, hospital: Hospital, review_id: int) -> None:
    ann.press(f"review/{review_id}/replace", code="E119", by="E1122", start="0", end="30")
    ann.press(f"review/{review_id}/add", by="J189", words="CHEST   infection")
    rows = hospital.query("SELECT code, evidence_start, evidence_end FROM review_codes WHERE origin <> 'predicted' ORDER BY code")
    assert [(code, NOTE[start:end]) for code, start, end in rows] == [
        ("E1122", "Sugar disease with bad kidneys"),
        ("J189", "chest infection"),
    ]
    answer = ann.press(f"review/{review_id}/add", by="N390", words="burning water of John Smith")
    assert answer.status_code == 400
    assert "the words given as evidence are not in the note" in answer.text.lower()
    assert "Smith" not in answer.text
    answer = ann.press(f"review/{review_id}/add", by="N390", start="0", end="99999")
    assert answer.status_code == 400
    assert "outside the note" in answer.text


# Two people, a lease, a version -------------------------------------------------------------------------------------


def test_who_comes_second_is_told_who_holds_it_until_when_and_changes_nothing(
    ann: Coder, pages: Pages, hospital: Hospital, review_id: int
) -> None:
    ben = Coder(pages, BEN)
    assert re.search(r"<strong>Ann Coder</strong> holds this review until <time", ben.open(review_id))
    assert f"review/{review_id}/accept" not in ben.page
    for answer in (
        ben.press(f"review/{review_id}/claim"),
        ben.press(f"review/{review_id}/accept", code="E119", version="1"),
    ):
        assert answer.status_code == 409
        assert re.search(r"is held by Ann Coder until \d{4}-\d\d-\d\d", answer.text)
    assert states(hospital) == {"E119": "open", "I10": "accepted"}


def test_a_claim_that_ran_out_is_said_so_and_nothing_decided_is_lost(ann: Coder, hospital: Hospital, review_id: int) -> None:
    ann.press(f"review/{review_id}/remove", code="I10")
    hospital.write("UPDATE reviews SET claimed_until = now() - interval '1 second'")
    answer = ann.press(f"review/{review_id}/accept", code="E119")
    assert answer.status_code == 409
    assert "claim it first" in answer.text
    assert "<strong>Your claim ran out</strong>" in answer.text
    ann.press(f"review/{review_id}/claim")
    ann.press(f"review/{review_id}/accept", code="E119")
    assert states(hospital) == {"E119": "accepted", "I10": "removed"}


def test_a_page_out_of_date_changes_nothing_and_shows_what_happened_meanwhile(
    ann: Coder, hospital: Hospital, review_id: int
) -> None:
    old = ann.page
    ann.press(f"review/{review_id}/accept", code="E119")
    ann.page = old
    answer = ann.press(f"review/{review_id}/remove", code="E119")
    assert answer.status_code == 409
    assert "is at version 2, not 1" in answer.text
    assert states(hospital)["E119"] == "accepted"


def test_a_heartbeat_makes_the_claim_longer_and_leaves_no_audit_row(ann: Coder, hospital: Hospital, review_id: int) -> None:
    hospital.write("UPDATE reviews SET claimed_until = now() + interval '1 minute'")
    answer = ann.press(f"review/{review_id}/hold")
    assert answer.status_code == 200
    (left,) = hospital.query("SELECT extract(epoch FROM claimed_until - now()) FROM reviews")[0]
    assert 14 * 60 < left <= 15 * 60
    assert hospital.query("SELECT count(*) FROM review_actions") == [(1,)]


def test_a_heartbeat_neither_takes_up_a_lost_claim_nor_hides_that_somebody_wrote(
    ann: Coder, hospital: Hospital, pages: Pages, review_id: int
) -> None:
    assert ann.press(f"review/{review_id}/hold", version="7").status_code == 409
    hospital.write("UPDATE reviews SET claimed_until = now() - interval '1 second'")
    assert ann.press(f"review/{review_id}/hold").status_code == 409
    claim_review(review_id, person=BEN, database=hospital.database)
    assert ann.press(f"review/{review_id}/hold").status_code == 409
    assert read_review(review_id, hospital.database).claimed_by == BEN
    assert ann.press("review/77/hold").status_code == 409


# Who sees what ------------------------------------------------------------------------------------------------------


def test_who_may_read_notes_and_not_review_sees_everything_and_no_button(
    airflow_login: None, hospital: Hospital, review_id: int, tmp_path: Path
) -> None:
    reader = Coder(make_pages(hospital.database, tmp_path, LLMCODER_REVIEWERS="admin"), "Rea Reader")
    text = reader.open(review_id)
    assert "Sugar disease" in text
    assert "<form" not in text + reader.client.get("review").text
    for action in ("claim", "accept", "codes", "finish", "hold"):
        assert reader.press(f"review/{review_id}/{action}", code="E119").status_code == 403
    assert reader.press("review/next").status_code == 403


def test_each_view_of_a_note_is_booked_and_the_queue_and_parts_show_none(
    ann: Coder, pages: Pages, hospital: Hospital, review_id: int
) -> None:
    views = "SELECT person, encounter_id, note_sha256 = (SELECT note_sha256 FROM reviews) FROM note_views ORDER BY view_id"
    assert hospital.query(views) == [(ANN, "E1", True)]
    Coder(pages, BEN).open(review_id)
    assert hospital.query(views) == [(ANN, "E1", True), (BEN, "E1", True)]
    part = ann.press(f"review/{review_id}/accept", {"X-Part": "1"}, code="E119")
    assert 'data-said="E11.9 accepted."' in part.text
    assert "Sugar" not in part.text + ann.client.get("review").text
    assert "Sugar" not in ann.client.get(f"review/{review_id}", headers={"X-Part": "1"}).text
    assert len(hospital.query(views)) == 2


def test_a_note_whose_view_cannot_be_booked_is_not_shown(
    pages: Pages, hospital: Hospital, review_id: int, caplog: pytest.LogCaptureFixture
) -> None:
    hospital.write("ALTER TABLE note_views ADD CONSTRAINT nobody CHECK (person <> 'Ann Coder')")
    answer = pages.client("op", ANN).get(f"review/{review_id}")
    assert answer.status_code == 500
    assert "Sugar" not in answer.text + caplog.text
    assert "Sugar" in pages.client("op", BEN).get(f"review/{review_id}").text


def test_a_hostile_note_is_text(pages: Pages, hospital: Hospital) -> None:
    note = '<script>alert("x")</script> {{ 7 * 7 }} <img src=x onerror=alert(1)> & "chest infection"' + " " * 20
    hospital.code("E9", [("E119", 0.4, "review")], note=note)
    open_reviews("night", hospital.database)
    text = Coder(pages, ANN).client.get("review/1").text
    assert "<script>alert" not in text
    assert "&lt;script&gt;" in text
    assert "{{ 7 * 7 }}" in text
    assert "<img" not in text


def test_carriage_returns_of_a_note_reach_the_browser_so_that_offsets_hold(pages: Pages, hospital: Hospital) -> None:
    hospital.code("E9", [("E119", 0.4, "review")], note="Sugar disease\r\nsince long." + " " * 40)
    open_reviews("night", hospital.database)
    assert "&#13;\nsince long" in Coder(pages, ANN).client.get("review/1").text


def test_nothing_of_a_note_or_of_what_is_typed_reaches_a_log_or_an_address(
    ann: Coder, review_id: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    ann.press(f"review/{review_id}/codes", q="kidneys of Smith", code="E119")
    ann.press(f"review/{review_id}/replace", code="E119", by="E1122", words="Sugar disease")
    ann.press(f"review/{review_id}/add", by="J189", words="not in there, Smith")
    addresses = re.findall(r'(?:href|action|formaction|src)="([^"]*)"', ann.page)
    assert len(addresses) > 10
    for word in ("Sugar", "Smith", "kidneys", "E119", "E1122"):
        assert word not in caplog.text
        assert not [address for address in addresses if word in address]


# Finding codes ------------------------------------------------------------------------------------------------------


def test_codes_are_found_by_code_and_by_words_and_only_billable_ones_of_the_release(ann: Coder, review_id: int) -> None:
    path = f"review/{review_id}/codes"

    def found(**fields: str) -> list[str]:
        return re.findall(r'name="by" value="(\w+)"', ann.press(path, {"X-Part": "1"}, **fields).text)

    assert found(q="e11") == ["E1122", "E119"]
    assert found(q="kidney diab") == ["E1122"]
    assert found(q="cholera") == []
    assert "No code valid on the discharge date" in ann.press(path, {"X-Part": "1"}, q="cholera").text
    assert re.search(r'value="I10" disabled', ann.press(path, {"X-Part": "1"}, q="hypertension").text)


def test_alternatives_of_a_code_are_near_by_its_evidence_and_its_category(ann: Coder, review_id: int) -> None:
    text = ann.press(f"review/{review_id}/codes", {"X-Part": "1"}, code="E119").text
    assert "Near E11.9" in text
    assert re.findall(r'name="by" value="(\w+)"', text)[0] == "E1122"
    assert 'value="E119"' not in text


def test_without_a_script_the_search_answers_by_the_page_with_what_it_found(ann: Coder, hospital: Hospital, review_id: int) -> None:
    page = ann.press(f"review/{review_id}/codes", code="E119", q="kidney").text
    assert "Replace E11.9" in page
    assert f'action="/llmcoder/review/{review_id}/replace"' in page
    assert 'name="by" value="E1122"' in page
    assert "Sugar disease" in page
    assert hospital.query("SELECT count(*) FROM note_views") == [(2,)]


# What becomes of it -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encounter", "setting", "evidence", "said"),
    [
        ("E1", "off", ("0", "30"), "Nothing is learnt from it"),
        ("E1", "on", ("0", "30"), "a training example of the next dataset"),
        ("E11", "on", ("0", "30"), "judge the next models and never train one"),
        ("E1", "on", ("", ""), "for want of evidence"),
    ],
)
def test_the_page_says_what_becomes_of_a_correction(
    airflow_login: None, hospital: Hospital, tmp_path: Path, encounter: str, setting: str, evidence: tuple[str, str], said: str
) -> None:
    hospital.code(encounter, DOUBTFUL)
    open_reviews("night", hospital.database)
    ann = Coder(make_pages(hospital.database, tmp_path, LLMCODER_TRAIN_ON_CORRECTIONS=setting), ANN)
    ann.press("review/next")
    ann.press("review/1/add", by="N390", start=evidence[0], end=evidence[1])
    assert said in ann.page


# What it costs ------------------------------------------------------------------------------------------------------


def test_a_page_takes_as_many_statements_for_many_rows_as_for_one(pages: Pages, hospital: Hospital) -> None:
    hospital.code("small", [("E119", 0.4, "review")])
    hospital.code("large", [("E119", 0.4, "review"), ("I10", 0.5, "review"), ("J189", 0.5, "review")])
    open_reviews("night", hospital.database)
    ids = dict(hospital.query("SELECT encounter_id, review_id FROM reviews"))
    client = pages.client("op", ANN)
    counts = {}
    for name, path in (("small", f"review/{ids['small']}"), ("large", f"review/{ids['large']}"), ("two rows", "review")):
        with counting(hospital.database) as statements:
            client.get(path)
        counts[name] = len(statements)
    for number in range(20):
        hospital.code(f"E{number}", DOUBTFUL)
    open_reviews("night", hospital.database)
    with counting(hospital.database) as statements:
        client.get("review")
    assert counts["small"] == counts["large"] <= 8
    assert counts["two rows"] == len(statements) <= 3
