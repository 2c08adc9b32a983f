"""The review queue: coded notes that wait for a person, and what people do with them.

`open_reviews` fills the queue after a night. All others are what a page or a script calls for one person: each is one transaction
that checks the claim, changes the rows, raises the review's version and leaves an audit row. What a decision means stands in
`coding/review.py`; here is only how it is kept.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime
from typing import Any, Literal

from llmcoder_tasks.coding.review import (
    Change,
    Priority,
    ReviewCode,
    accept,
    add,
    from_json,
    rank_note,
    remove,
    replace_code,
    to_json,
    verify_decided,
)
from llmcoder_tasks.database import Database, Row, Transaction
from llmcoder_tasks.dataset.corrections import clean_phrase, is_private
from llmcoder_tasks.dataset.splits import is_judged_on
from llmcoder_tasks.errors import NoteError, ReviewError, ReviewTaken
from llmcoder_tasks.progress import record_step
from llmcoder_tasks.records import parse_code, render_code

logger = logging.getLogger(__name__)

LEASE_SECONDS = 15 * 60
"""How long a claim holds without a write, by the clock of the database: a coder reads a long note in less."""

PAGE_SIZE = 50

_BATCH_NOTES = 500
_DRG_AT_STAKE, _EDIT_AT_STAKE = 1.0, 0.5

Decide = Callable[[Sequence[ReviewCode]], Change]
Fate = Literal["unmarked", "judges", "off", "private", "trains"]


@dataclass(frozen=True, slots=True)
class OpenedReviews:
    """What a night added to the queue, and what it took out because a newer coding stands in its place."""

    opened: int
    superseded: int


@dataclass(frozen=True, slots=True)
class QueuedReview:
    """One row of the queue. `held_by` and `held_until` are those of a live claim, None when anybody may claim it."""

    review_id: int
    encounter_id: str
    discharge_date: date
    release_key: str
    model_id: str
    version: int
    priority: float
    uncertainty: float
    money: float
    rarity: float
    opened_at: datetime
    held_by: str | None
    held_until: datetime | None


@dataclass(frozen=True, slots=True)
class Review:
    """A review as it stands: whose it is, the version that the next write names, and the code set by rank."""

    review_id: int
    encounter_id: str
    note_sha256: str
    model_id: str
    release_key: str
    status: str
    version: int
    claimed_by: str | None
    claimed_until: datetime | None
    finished_by: str | None
    finished_at: datetime | None
    codes: tuple[ReviewCode, ...]


def open_reviews(coding_run_id: str, database: Database) -> OpenedReviews:
    """Queue the notes of a coding run that a person has to look at, each once, with its priority.

    A note waits when a code of it is to be reviewed, or when it has none. One that a person has finished under the same release
    is not asked about again. Reviews of an older text of the encounter are superseded, even while somebody holds them; those of
    the same text coded anew only when nobody does. Run twice, the second run does nothing. Raises NoteError on an unknown run.
    """
    if database.fetch_one("fetch_coding_run", coding_run_id=coding_run_id) is None:
        raise NoteError(f"coding run {coding_run_id!r} was not planned: run plan_night first")
    opened = 0
    with record_step(database, "open_reviews", coding_run_id) as detail:
        superseded = database.execute("supersede_reviews", {"coding_run_id": coding_run_id})
        waiting = database.fetch_all("list_notes_to_review", coding_run_id=coding_run_id)
        accepted = {row["code"]: row["times"] for row in database.fetch_all("count_accepted_codes")} if waiting else {}
        for start in range(0, len(waiting), _BATCH_NOTES):
            rows = [_review_of(note, accepted) for note in waiting[start : start + _BATCH_NOTES]]
            done = database.fetch_one("open_reviews", **{name: [row[name] for row in rows] for name in rows[0]}) or {}
            opened += done["opened"]
            if start == 0:
                database.execute("analyze_reviews")
        detail.update(opened=opened, superseded=superseded)
    logger.info("%s: %d reviews opened, %d superseded", coding_run_id, opened, superseded)
    return OpenedReviews(opened, superseded)


def list_queue(
    database: Database, *, after: QueuedReview | None = None, page_size: int = PAGE_SIZE, only_free: bool = False
) -> list[QueuedReview]:
    """A page of the queue, the most urgent first. `after` ends the page before; `only_free` leaves out what is held."""
    place = (after.priority, after.review_id) if after else (math.inf, 0)
    rows = database.fetch_all(
        "list_review_queue", after_priority=place[0], after_id=place[1], page_size=page_size, only_free=only_free
    )
    return [QueuedReview(**row) for row in rows]


def read_review(review_id: int, database: Database) -> Review:
    """A review as it stands. Raises ReviewError when there is none."""
    with database.transaction() as transaction:
        return _load(transaction, review_id)


def list_history(review_id: int, database: Database) -> list[Row]:
    """The audit of a review, oldest first: version, person, action, before, after, undoes, acted_at."""
    return database.fetch_all("list_review_actions", review_id=review_id)


def view_note(review_id: int, *, person: str, database: Database) -> str:
    """The text of a review's note, after the row in `note_views` that says who saw it is committed. PATIENT TEXT.

    Raises ReviewError when there is no such review, and what the database raises when the row cannot be written.
    """
    _require_person(person)
    with database.transaction() as transaction:
        viewed = transaction.fetch_one("view_note", review_id=review_id, person=person)
    if viewed is None:
        raise ReviewError(f"there is no review {review_id}: list the queue again")
    return str(viewed["note_text"])


def foretell_correction(encounter_id: str, phrase: str | None, *, train_on_corrections: bool) -> Fate:
    """What the next dataset does with a code that a person chose, once its review is finished; `phrase` is its evidence.

    `unmarked`: nothing, for want of evidence. `judges`: models are judged on the corrections of this encounter, which train none.
    `off`: nothing, as the operator has it. `private`: nothing, as the phrase may name or date somebody. `trains`: an example.
    """
    if phrase is None:
        return "unmarked"
    if is_judged_on(encounter_id):
        return "judges"
    if not train_on_corrections:
        return "off"
    return "private" if is_private(clean_phrase(phrase)) else "trains"


def claim_review(review_id: int, *, person: str, database: Database, lease_seconds: float = LEASE_SECONDS) -> Review:
    """Take a waiting review, or one whose claim has run out. By its holder, the claim is only made longer: no change, no audit row.

    Raises ReviewTaken while somebody else holds it, ReviewError when it is finished or superseded.
    """
    _require_person(person)
    with database.transaction() as transaction:
        row = _lock(transaction, review_id)
        _claim(transaction, row, person, lease_seconds)
        return _load(transaction, review_id)


def claim_next(*, person: str, database: Database, lease_seconds: float = LEASE_SECONDS) -> Review | None:
    """Take the most urgent review that nobody holds; None when there is none. Two who ask at once get two."""
    _require_person(person)
    with database.transaction() as transaction:
        found = transaction.fetch_one("fetch_next_review")
        if found is None:
            return None
        _claim(transaction, _lock(transaction, found["review_id"]), person, lease_seconds)
        return _load(transaction, found["review_id"])


def release_review(review_id: int, *, person: str, version: int, database: Database) -> Review:
    """Give a claimed review back to the queue; what was decided stays. Refusals as of `accept_code`."""
    return _set_status(review_id, "release", "waiting", person=person, version=version, database=database)


def finish_review(review_id: int, *, person: str, version: int, database: Database) -> Review:
    """Close a review: its accepted codes are the encounter's. Raises ReviewError while a proposed code is undecided."""
    return _set_status(review_id, "finish", "finished", person=person, version=version, database=database)


def reopen_review(review_id: int, *, person: str, version: int, database: Database, lease_seconds: float = LEASE_SECONDS) -> Review:
    """Take a finished review up again, to correct it. Raises ReviewError when it is not finished, or the encounter has another."""
    _require_person(person)
    with database.transaction() as transaction:
        row = _lock(transaction, review_id)
        if row["status"] != "finished":
            raise ReviewError(f"review {review_id} is {row['status']}, not finished: claim it instead")
        _verify_version(row, version)
        if transaction.fetch_one("find_newer_review", review_id=review_id) is not None:
            raise ReviewError(f"review {review_id} is of an older coding of its encounter: correct the newer one")
        _move(transaction, row, "reopen", "claimed", person, lease_seconds)
        return _load(transaction, review_id)


def accept_code(review_id: int, code: str, *, person: str, version: int, database: Database) -> Review:
    """Let a proposed code stand.

    Raises ReviewTaken without a live claim by `person`, or when the review is not at `version` any more; ReviewError when the
    decision makes no sense. Both say what to do.
    """
    wanted = parse_code(code)
    return _decide(review_id, "accept", lambda codes: accept(codes, wanted), person=person, version=version, database=database)


def remove_code(review_id: int, code: str, *, person: str, version: int, database: Database) -> Review:
    """Take a code out of the set. Refusals as of `accept_code`."""
    wanted = parse_code(code)
    return _decide(review_id, "remove", lambda codes: remove(codes, wanted), person=person, version=version, database=database)


def add_code(
    review_id: int, code: str, *, evidence: tuple[int, int] | None = None, person: str, version: int, database: Database
) -> Review:
    """Put in a code that was not proposed, where the note says so (character offsets, end exclusive), if it does.

    It must be billable in the review's release. Refusals as of `accept_code`.
    """
    wanted = parse_code(code)
    return _decide(review_id, "add", lambda codes: add(codes, wanted, evidence), person=person, version=version, database=database)


def replace_by(
    review_id: int,
    code: str,
    by: str,
    *,
    evidence: tuple[int, int] | None = None,
    person: str,
    version: int,
    database: Database,
) -> Review:
    """Put another billable code in the place of one, with its evidence unless other is given. Refusals as of `accept_code`."""
    wanted, other = parse_code(code), parse_code(by)
    return _decide(
        review_id,
        "replace",
        lambda codes: replace_code(codes, wanted, other, evidence),
        person=person,
        version=version,
        database=database,
    )


def undo(review_id: int, *, person: str, version: int, database: Database) -> Review:
    """Take back the newest decision on a code that stands; again, the one before it. Refusals as of `accept_code`."""
    with database.transaction() as transaction:
        row = _lock(transaction, review_id)
        _verify_holds(row, person, version)
        last = transaction.fetch_one("fetch_undoable_action", review_id=review_id)
        if last is None:
            raise ReviewError(f"review {review_id} has no decision to take back")
        change = Change(from_json(last["before"]), from_json(last["after"])).reversed()
        _write_change(transaction, row, "undo", change, person, undoes=last["action_id"])
        return _load(transaction, review_id)


def _decide(review_id: int, action: str, decide: Decide, *, person: str, version: int, database: Database) -> Review:
    with database.transaction() as transaction:
        row = _lock(transaction, review_id)
        _verify_holds(row, person, version)
        _verify_release(row)
        change = decide(_codes(transaction, review_id))
        for fresh in change.after:
            _verify_row(transaction, row, fresh)
        _write_change(transaction, row, action, change, person)
        return _load(transaction, review_id)


def _write_change(
    transaction: Transaction, row: Row, action: str, change: Change, person: str, *, undoes: int | None = None
) -> None:
    """The rows of a change and its audit row; the claim is as long again as after claiming."""
    review_id = row["review_id"]
    update = {"review_id": review_id, "status": "claimed", "person": person, "lease_seconds": LEASE_SECONDS}
    transaction.execute("update_review", update)
    action_id = _record(transaction, review_id, person, action, to_json(change.before), to_json(change.after), undoes)
    touched = sorted({code.code for code in (*change.before, *change.after)})
    transaction.execute("delete_review_codes", {"review_id": review_id, "codes": touched})
    for code in change.after:
        fresh = {"review_id": review_id, "release_key": row["release_key"], "action_id": action_id, **asdict(code)}
        transaction.execute("insert_review_code", fresh)


def _set_status(review_id: int, action: str, status: str, *, person: str, version: int, database: Database) -> Review:
    with database.transaction() as transaction:
        row = _lock(transaction, review_id)
        _verify_holds(row, person, version)
        if status == "finished":
            _verify_release(row)
            verify_decided(_codes(transaction, review_id))
        _move(transaction, row, action, status, person, LEASE_SECONDS)
        return _load(transaction, review_id)


def _claim(transaction: Transaction, row: Row, person: str, lease_seconds: float) -> None:
    if row["status"] not in {"waiting", "claimed"}:
        who = f" by {row['finished_by']}" if row["finished_by"] else ""
        cure = "reopen it to correct it" if row["status"] == "finished" else "a newer coding of the encounter stands in its place"
        raise ReviewError(f"review {row['review_id']} is {row['status']}{who}: {cure}")
    if row["is_live"] and row["claimed_by"] == person:
        transaction.execute("extend_claim", {"review_id": row["review_id"], "lease_seconds": lease_seconds})
        return
    if row["is_live"]:
        raise ReviewTaken(_held(row))
    _move(transaction, row, "claim", "claimed", person, lease_seconds)


def _move(transaction: Transaction, row: Row, action: str, status: str, person: str, lease_seconds: float) -> None:
    review_id = row["review_id"]
    before = {"status": row["status"], "person": row["claimed_by"] or row["finished_by"]}
    update = {"review_id": review_id, "status": status, "person": person, "lease_seconds": lease_seconds}
    transaction.execute("update_review", update)
    after = {"status": status, "person": None if status == "waiting" else person}
    _record(transaction, review_id, person, action, before, after)


def _record(
    transaction: Transaction, review_id: int, person: str, action: str, before: Any, after: Any, undoes: int | None = None
) -> int:
    row = {
        "review_id": review_id,
        "person": person,
        "action": action,
        "before": json.dumps(before),
        "after": json.dumps(after),
        "undoes": undoes,
    }
    recorded = transaction.fetch_one("record_review_action", **row) or {}
    return int(recorded["action_id"])


def _lock(transaction: Transaction, review_id: int) -> Row:
    """The review, locked until the transaction ends; read after the lock, so that it is what the last writer left."""
    transaction.fetch_one("lock_review", review_id=review_id)
    row = transaction.fetch_one("fetch_review", review_id=review_id)
    if row is None:
        raise ReviewError(f"there is no review {review_id}: list the queue again")
    return row


def _load(transaction: Transaction, review_id: int) -> Review:
    row = transaction.fetch_one("fetch_review", review_id=review_id)
    if row is None:
        raise ReviewError(f"there is no review {review_id}: list the queue again")
    facts = {name: row[name] for name in Review.__dataclass_fields__ if name != "codes"}
    return Review(codes=_codes(transaction, review_id), **facts)


def _codes(transaction: Transaction, review_id: int) -> tuple[ReviewCode, ...]:
    return tuple(ReviewCode(**row) for row in transaction.fetch_all("list_review_codes", review_id=review_id))


def _verify_holds(row: Row, person: str, version: int) -> None:
    if row["status"] in {"finished", "superseded"}:
        raise ReviewTaken(f"review {row['review_id']} is {row['status']}: load the queue again")
    if not row["is_live"]:
        raise ReviewTaken(f"{person!r} holds no live claim of review {row['review_id']}, and nobody else does: claim it first")
    if row["claimed_by"] != person:
        raise ReviewTaken(_held(row))
    _verify_version(row, version)


def _verify_version(row: Row, version: int) -> None:
    if row["version"] != version:
        raise ReviewTaken(f"review {row['review_id']} is at version {row['version']}, not {version}: load it again, then decide")


def _verify_release(row: Row) -> None:
    if row["valid_release_key"] not in {row["release_key"], None}:
        raise ReviewError(
            f"review {row['review_id']} is under {row['release_key']}, and {row['valid_release_key']} is valid on the discharge "
            "date now: code the encounter again"
        )


def _verify_row(transaction: Transaction, row: Row, code: ReviewCode) -> None:
    """A code that a claim may carry, and evidence that lies in the note. The database refuses the first as well."""
    found = transaction.fetch_one("find_billable_code", release_key=row["release_key"], code=code.code)
    if found is None or not found["is_billable"]:
        what = "not in" if found is None else "a header in"
        raise ReviewError(f"{render_code(code.code)} is {what} {row['release_key']}: choose a billable code")
    start, end = code.evidence_start, code.evidence_end
    if start is not None and end is not None and not 0 <= start < end <= row["note_length"]:
        raise ReviewError(f"evidence {start} to {end} is outside the note, which has {row['note_length']} characters")


def _held(row: Row) -> str:
    return (
        f"review {row['review_id']} is held by {row['claimed_by']} until {row['claimed_until']:%Y-%m-%d %H:%M:%S %Z}: "
        "take another one, or wait"
    )


def _require_person(person: str) -> None:
    if not person.strip():
        raise ReviewError("a review is claimed by a person: give a name")


def _review_of(note: Row, accepted: Mapping[str, int]) -> dict[str, Any]:
    money = _DRG_AT_STAKE if note["is_drg_at_stake"] else _EDIT_AT_STAKE if note["is_flagged"] else 0.0
    priority: Priority = rank_note(note["confidences"], [accepted.get(code, 0) for code in note["codes"]], money=money)
    key = {name: note[name] for name in ("encounter_id", "note_sha256", "model_id", "release_key")}
    return {**key, **asdict(priority), "priority": priority.total}
