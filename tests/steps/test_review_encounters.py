"""The review queue against a real PostgreSQL: who holds what, what is kept of each decision, and what a newer coding does to it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from reviewed_hospital import NOTE, Hospital
from sqlalchemy import text

from llmcoder_tasks.database import Database
from llmcoder_tasks.errors import DatabaseError, NoteError, ReviewError, ReviewTaken
from llmcoder_tasks.steps.review_encounters import (
    OpenedReviews,
    Review,
    accept_code,
    add_code,
    claim_next,
    claim_review,
    finish_review,
    foretell_correction,
    list_history,
    list_queue,
    open_reviews,
    read_review,
    release_review,
    remove_code,
    reopen_review,
    replace_by,
    undo,
    view_note,
)

pytestmark = pytest.mark.integration

DOUBTFUL = [("E119", 0.4, "review"), ("I10", 0.99, "auto")]
ANN, BEN = "Ann Coder", "Ben Coder"


@pytest.fixture
def hospital(database: Database) -> Hospital:
    return Hospital(database)


@pytest.fixture
def claimed(hospital: Hospital) -> Review:
    """The review of one doubtful note, held by Ann."""
    hospital.code("E1", DOUBTFUL)
    open_reviews("night", hospital.database)
    review = claim_next(person=ANN, database=hospital.database)
    assert review is not None
    return review


def _states(review: Review) -> dict[str, str]:
    return {code.code: code.state for code in review.codes}


def test_notes_with_a_doubtful_code_or_none_at_all_wait_and_sure_ones_do_not(hospital: Hospital) -> None:
    hospital.code("sure", [("I10", 0.99, "auto")])
    hospital.code("doubtful", DOUBTFUL)
    hospital.code("empty", [])
    assert open_reviews("night", hospital.database) == OpenedReviews(2, 0)
    assert [(row.encounter_id, row.priority) for row in list_queue(hospital.database)] == [("empty", 0.6), ("doubtful", 0.44)]
    assert open_reviews("night", hospital.database) == OpenedReviews(0, 0)


def test_money_and_common_codes_move_a_note(hospital: Hospital) -> None:
    for number in range(4):
        hospital.code(f"sure{number}", [("J189", 0.99, "auto")])
    hospital.code("common", [("J189", 0.5, "review")])
    hospital.code("paid", [("J189", 0.5, "review")])
    for basis, drg in (("all", 193), ("auto", 195)):
        hospital.write(
            "INSERT INTO drgs (encounter_id, note_sha256, model_id, release_key, basis, grouper_version, drg, title) "
            "SELECT encounter_id, note_sha256, model_id, release_key, :basis, 431, :drg, 'Simple pneumonia' "
            "FROM coded_notes WHERE encounter_id = 'paid'",
            basis=basis, drg=drg,
        )  # fmt: skip
    open_reviews("night", hospital.database)
    queue = {row.encounter_id: (row.uncertainty, row.money, row.rarity) for row in list_queue(hospital.database)}
    assert queue == {"paid": (0.5, 1.0, 0.2), "common": (0.5, 0.0, 0.2)}


def test_an_unknown_run_is_refused(hospital: Hospital) -> None:
    with pytest.raises(NoteError, match="'dawn' was not planned"):
        open_reviews("dawn", hospital.database)


def test_pages_follow_each_other_without_gap_or_repetition(hospital: Hospital) -> None:
    for number in range(7):
        hospital.code(f"E{number}", [("E119", 0.3 if number < 4 else 0.5, "review")])
    open_reviews("night", hospital.database)
    seen: list[str] = []
    page = list_queue(hospital.database, page_size=3)
    while page:
        seen += [row.encounter_id for row in page]
        page = list_queue(hospital.database, after=page[-1], page_size=3)
    assert seen == ["E3", "E2", "E1", "E0", "E6", "E5", "E4"]


def test_two_people_who_ask_at_once_get_two_reviews_and_nobody_gets_one_twice(hospital: Hospital) -> None:
    for number in range(12):
        hospital.code(f"E{number}", DOUBTFUL)
    open_reviews("night", hospital.database)
    with ThreadPoolExecutor(6) as pool:
        got = list(pool.map(lambda n: claim_next(person=f"coder {n}", database=hospital.database), range(14)))
    taken = [review.review_id for review in got if review is not None]
    assert len(taken) == len(set(taken)) == 12
    assert list_queue(hospital.database, only_free=True) == []


def test_one_review_that_two_want_at_once_is_given_to_one(hospital: Hospital) -> None:
    hospital.code("E1", DOUBTFUL)
    open_reviews("night", hospital.database)
    (waiting,) = list_queue(hospital.database)

    def want(person: str) -> str:
        try:
            return claim_review(waiting.review_id, person=person, database=hospital.database).claimed_by or ""
        except ReviewTaken as error:
            return str(error)

    with ThreadPoolExecutor(2) as pool:
        first, second = sorted(pool.map(want, (ANN, BEN)), key=len)
    assert first in {ANN, BEN}
    assert f"review {waiting.review_id} is held by {first} until 20" in second


def test_a_write_without_a_live_claim_says_who_holds_it_until_when(hospital: Hospital, claimed: Review) -> None:
    with pytest.raises(ReviewTaken, match=f"is held by {ANN} until 20.*: take another one, or wait"):
        accept_code(claimed.review_id, "E11.9", person=BEN, version=claimed.version, database=hospital.database)
    released = release_review(claimed.review_id, person=ANN, version=claimed.version, database=hospital.database)
    assert released.status == "waiting"
    with pytest.raises(ReviewTaken, match="'Ann Coder' holds no live claim of review 1, and nobody else does: claim it first"):
        accept_code(claimed.review_id, "E11.9", person=ANN, version=released.version, database=hospital.database)


def test_a_claim_that_ran_out_can_be_taken_over_with_what_was_decided(hospital: Hospital, claimed: Review) -> None:
    accept_code(claimed.review_id, "E119", person=ANN, version=claimed.version, database=hospital.database)
    hospital.write("UPDATE reviews SET claimed_until = now() - interval '1 second'")
    taken = claim_review(claimed.review_id, person=BEN, database=hospital.database)
    assert (taken.claimed_by, _states(taken)) == (BEN, {"E119": "accepted", "I10": "accepted"})
    with pytest.raises(ReviewTaken, match=f"is held by {BEN}"):
        remove_code(claimed.review_id, "E119", person=ANN, version=taken.version, database=hospital.database)


def test_claiming_again_only_makes_the_claim_longer(hospital: Hospital, claimed: Review) -> None:
    again = claim_review(claimed.review_id, person=ANN, database=hospital.database, lease_seconds=9000)
    assert again.version == claimed.version
    assert again.claimed_until > claimed.claimed_until  # type: ignore[operator]
    assert len(list_history(claimed.review_id, hospital.database)) == 1


def test_a_write_that_saw_an_older_version_is_refused(hospital: Hospital, claimed: Review) -> None:
    accept_code(claimed.review_id, "E119", person=ANN, version=claimed.version, database=hospital.database)
    with pytest.raises(ReviewTaken, match="is at version 2, not 1: load it again, then decide"):
        remove_code(claimed.review_id, "I10", person=ANN, version=claimed.version, database=hospital.database)


def test_every_write_has_its_audit_row_with_the_rows_before_and_after(hospital: Hospital, claimed: Review) -> None:
    here: dict[str, Any] = {"person": ANN, "database": hospital.database}
    review = replace_by(claimed.review_id, "E11.9", "E11.22", version=claimed.version, **here)
    review = add_code(review.review_id, "J18.9", evidence=(53, 68), version=review.version, **here)
    review = remove_code(review.review_id, "I10", version=review.version, **here)
    review = finish_review(review.review_id, version=review.version, **here)
    assert (review.status, review.finished_by, review.version) == ("finished", ANN, 5)
    assert _states(review) == {"E119": "removed", "E1122": "accepted", "I10": "removed", "J189": "accepted"}
    history = list_history(review.review_id, hospital.database)
    assert [(row["version"], row["person"], row["action"]) for row in history] == [
        (1, ANN, "claim"), (2, ANN, "replace"), (3, ANN, "add"), (4, ANN, "remove"), (5, ANN, "finish"),
    ]  # fmt: skip
    assert [row["code"] for row in history[1]["before"]] == ["E119"]
    assert [(row["code"], row["origin"], row["state"]) for row in history[1]["after"]] == [
        ("E119", "predicted", "removed"), ("E1122", "replaced", "accepted"),
    ]  # fmt: skip
    written = str(hospital.query("SELECT before, after FROM review_actions"))
    assert not any(word in written for word in NOTE.split() if len(word) > 4)


def test_undo_goes_back_step_by_step_to_what_was_proposed(hospital: Hospital, claimed: Review) -> None:
    here: dict[str, Any] = {"person": ANN, "database": hospital.database}
    review = replace_by(claimed.review_id, "E119", "E1122", version=claimed.version, **here)
    review = remove_code(review.review_id, "I10", version=review.version, **here)
    review = undo(review.review_id, version=review.version, **here)
    assert _states(review) == {"E119": "removed", "E1122": "accepted", "I10": "accepted"}
    review = undo(review.review_id, version=review.version, **here)
    assert review.codes == claimed.codes
    with pytest.raises(ReviewError, match="has no decision to take back"):
        undo(review.review_id, version=review.version, **here)


def test_a_review_is_finished_only_when_every_proposal_is_decided(hospital: Hospital, claimed: Review) -> None:
    with pytest.raises(ReviewError, match="E11.9 still to be decided: accept, replace or remove each of them"):
        finish_review(claimed.review_id, person=ANN, version=claimed.version, database=hospital.database)


@pytest.mark.parametrize(("code", "reason"), [("E11", "E11 is a header in FY2026"), ("QA00.0", "QA0.00 is not in FY2026")])
def test_a_code_that_no_claim_may_carry_is_refused(hospital: Hospital, claimed: Review, code: str, reason: str) -> None:
    with pytest.raises(ReviewError, match=reason):
        add_code(claimed.review_id, code, person=ANN, version=claimed.version, database=hospital.database)
    assert read_review(claimed.review_id, hospital.database) == claimed
    assert len(list_history(claimed.review_id, hospital.database)) == 1


def test_the_database_itself_refuses_a_header(hospital: Hospital, claimed: Review) -> None:
    with pytest.raises(DatabaseError, match="review_codes"), hospital.database.transaction() as transaction:
        transaction.run_script(
            "INSERT INTO review_codes (review_id, code, release_key, rank, origin, state) "
            f"VALUES ({claimed.review_id}, 'E11', 'FY2026', 9, 'added', 'accepted')"
        )


def test_evidence_outside_the_note_is_refused(hospital: Hospital, claimed: Review) -> None:
    with pytest.raises(ReviewError, match=f"evidence 60 to 900 is outside the note, which has {len(NOTE)} characters"):
        add_code(claimed.review_id, "J189", evidence=(60, 900), person=ANN, version=claimed.version, database=hospital.database)


def test_codes_are_held_against_the_release_of_the_discharge_date_as_it_is_now(hospital: Hospital, claimed: Review) -> None:
    hospital.write(
        "INSERT INTO releases (release_key, effective_from, source, content_sha256, code_count, billable_count, uri) "
        "VALUES ('FY2026-January', '2026-01-01', 'test', 'x', 1, 1, 'file:///x')"
    )
    with pytest.raises(ReviewError, match="is under FY2026, and FY2026-January is valid .*: code the encounter again"):
        accept_code(claimed.review_id, "E119", person=ANN, version=claimed.version, database=hospital.database)


def test_an_amended_note_supersedes_the_review_of_the_old_text_even_while_it_is_held(hospital: Hospital, claimed: Review) -> None:
    hospital.code("E1", DOUBTFUL, note=f"{NOTE} Amended.", run_id="next")
    assert open_reviews("next", hospital.database) == OpenedReviews(1, 1)
    with pytest.raises(ReviewTaken, match="is superseded: load the queue again"):
        accept_code(claimed.review_id, "E119", person=ANN, version=claimed.version, database=hospital.database)
    (fresh,) = list_queue(hospital.database)
    assert fresh.review_id != claimed.review_id
    assert list_history(claimed.review_id, hospital.database)[-1]["action"] == "supersede"


def test_an_amended_note_without_doubt_also_takes_the_old_review_away(hospital: Hospital, claimed: Review) -> None:
    hospital.code(
        "E1", [("I10", 0.99, "auto")], note="High blood pressure, nothing else in this amended note at all.", run_id="next"
    )
    assert open_reviews("next", hospital.database) == OpenedReviews(0, 1)


def test_a_finished_review_stays_when_its_note_is_coded_again_or_amended(hospital: Hospital, claimed: Review) -> None:
    review = accept_code(claimed.review_id, "E119", person=ANN, version=claimed.version, database=hospital.database)
    review = finish_review(review.review_id, person=ANN, version=review.version, database=hospital.database)
    hospital.code("E1", DOUBTFUL, model_id="m2", run_id="again")
    assert open_reviews("again", hospital.database) == OpenedReviews(0, 0)
    hospital.code("E1", DOUBTFUL, note=f"{NOTE} Amended.", run_id="next")
    assert open_reviews("next", hospital.database) == OpenedReviews(1, 0)
    assert read_review(review.review_id, hospital.database) == review
    with pytest.raises(ReviewError, match="is of an older coding of its encounter: correct the newer one"):
        reopen_review(review.review_id, person=ANN, version=review.version, database=hospital.database)


def test_the_same_text_coded_anew_leaves_a_held_review_alone_and_takes_a_free_one(hospital: Hospital, claimed: Review) -> None:
    hospital.code("E1", DOUBTFUL, model_id="m2", run_id="again")
    assert open_reviews("again", hospital.database) == OpenedReviews(0, 0)
    release_review(claimed.review_id, person=ANN, version=claimed.version, database=hospital.database)
    assert open_reviews("again", hospital.database) == OpenedReviews(1, 1)
    assert [row.model_id for row in list_queue(hospital.database)] == ["m2"]


def test_a_finished_review_can_be_taken_up_again(hospital: Hospital, claimed: Review) -> None:
    here: dict[str, Any] = {"person": BEN, "database": hospital.database}
    review = accept_code(claimed.review_id, "E119", person=ANN, version=claimed.version, database=hospital.database)
    review = finish_review(review.review_id, person=ANN, version=review.version, database=hospital.database)
    with pytest.raises(ReviewError, match=f"is finished by {ANN}: reopen it"):
        claim_review(review.review_id, **here)
    review = reopen_review(review.review_id, version=review.version, **here)
    review = remove_code(review.review_id, "I10", version=review.version, **here)
    assert finish_review(review.review_id, version=review.version, **here).finished_by == BEN


def test_no_version_lacks_its_audit_row_after_many_hands(hospital: Hospital, claimed: Review) -> None:
    def act(number: int) -> None:
        try:
            review = read_review(claimed.review_id, hospital.database)
            action = add_code if number % 2 else remove_code
            action(claimed.review_id, "J189", person=ANN, version=review.version, database=hospital.database)
        except ReviewError:
            pass

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(act, range(40)))
    review = read_review(claimed.review_id, hospital.database)
    assert [row["version"] for row in list_history(review.review_id, hospital.database)] == list(range(1, review.version + 1))


def test_the_queue_page_reads_its_index(hospital: Hospital) -> None:
    hospital.code("E1", DOUBTFUL)
    open_reviews("night", hospital.database)
    with hospital.database.engine.begin() as connection:
        connection.execute(text("SET LOCAL enable_seqscan = off"))
        plan = connection.execute(
            text("EXPLAIN SELECT review_id FROM reviews WHERE status IN ('waiting', 'claimed') "
                 "AND (priority, review_id) < (0.5, 9) ORDER BY priority DESC, review_id DESC LIMIT 50")
        )  # fmt: skip
        assert "Scan Backward using reviews_queue" in "\n".join(row[0] for row in plan)


def test_a_note_is_handed_out_after_its_view_is_booked(claimed: Review, hospital: Hospital) -> None:
    assert view_note(claimed.review_id, person=BEN, database=hospital.database) == NOTE
    assert hospital.query("SELECT person, encounter_id, note_sha256 FROM note_views") == [(BEN, "E1", claimed.note_sha256)]
    for review_id, person in ((77, BEN), (claimed.review_id, " ")):
        with pytest.raises(ReviewError):
            view_note(review_id, person=person, database=hospital.database)
    assert hospital.query("SELECT count(*) FROM note_views") == [(1,)]


@pytest.mark.parametrize(
    ("encounter_id", "phrase", "is_on", "fate"),
    [
        ("E1", None, True, "unmarked"),
        ("E1", "high blood pressure;", True, "trains"),
        ("E1", "high blood pressure", False, "off"),
        ("E1", "seen by Dr. Smith", True, "private"),
        ("E11", "seen by Dr. Smith", False, "judges"),  # a fifth of the encounters, by their ids
    ],
)
def test_what_becomes_of_a_correction_is_known_before_it_is_learnt(
    encounter_id: str, phrase: str | None, is_on: bool, fate: str
) -> None:
    assert foretell_correction(encounter_id, phrase, train_on_corrections=is_on) == fate
