"""What the page of one encounter shows: read in one go, and the note only after its view is booked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import HTTPException

from llmcoder_pages.note_text import Segment, Span, cut_note
from llmcoder_pages.security import Person
from llmcoder_tasks.connections import Connections
from llmcoder_tasks.database import Row
from llmcoder_tasks.steps.review_encounters import Fate, foretell_correction, list_history, view_note


@dataclass(frozen=True, slots=True)
class ReviewView:
    """A review with all that stands around it. `note` is None where the text is not to be shown again.

    `fates`: what becomes of each code that a person chose. `may_decide`: this person holds a live claim and may write.
    """

    review: Row
    codes: Sequence[Row]
    findings: Sequence[Row]
    drgs: dict[str, Row]
    history: Sequence[Row]
    fates: dict[str, Fate]
    note: str | None = field(repr=False)
    is_mine: bool
    may_decide: bool

    @property
    def open_codes(self) -> int:
        """Codes that nobody has decided on."""
        return sum(code["state"] == "open" for code in self.codes)

    @property
    def next_open(self) -> str | None:
        """The first code to decide on, else the first one."""
        waiting = [code["code"] for code in self.codes if code["state"] == "open"]
        return next(iter([*waiting, *(code["code"] for code in self.codes)]), None)

    @property
    def money_at_stake(self) -> bool:
        """Whether payment depends on the codes under review."""
        return self.drgs.get("all", {}).get("drg") != self.drgs.get("auto", {}).get("drg")

    @property
    def segments(self) -> list[Segment]:
        """The note cut at the evidence of the codes that stand."""
        kept = (code for code in self.codes if code["state"] != "removed" and code["evidence_start"] is not None)
        spans = [Span(code["evidence_start"], code["evidence_end"], code["code"]) for code in kept]
        return cut_note(self.review["note_length"], spans)

    @property
    def marks(self) -> list[list[Any]]:
        """The same for the script that marks the note again after a decision: start, end and codes of each piece of evidence."""
        return [[piece.start, piece.end, piece.codes] for piece in self.segments if piece.codes]


def read_view(review_id: int, person: Person, stores: Connections, *, with_note: bool) -> ReviewView:
    """A review for one person. With the note, its view is booked first. Raises HTTPException 404 when there is no such review."""
    database = stores.database
    with database.transaction() as transaction:
        review = transaction.fetch_one("fetch_review_page", review_id=review_id)
        if review is None:
            raise HTTPException(404, f"There is no review {review_id}: go back to the queue.")
        codes = transaction.fetch_all("list_review_page_codes", review_id=review_id)
        findings = transaction.fetch_all("list_review_findings", review_id=review_id)
        drgs = {row["basis"]: row for row in transaction.fetch_all("list_review_drgs", review_id=review_id)}
    note = view_note(review_id, person=person.name, database=database) if with_note else None
    is_mine = review["status"] == "claimed" and review["claimed_by"] == person.name
    return ReviewView(
        review=review, codes=codes, findings=findings, drgs=drgs, history=list_history(review_id, database),
        fates=_foretell(review, codes, note, stores), note=note,
        is_mine=is_mine, may_decide=is_mine and review["is_live"] and person.may_review,
    )  # fmt: skip


def _foretell(review: Row, codes: Sequence[Row], note: str | None, stores: Connections) -> dict[str, Fate]:
    chosen = [code for code in codes if code["origin"] != "predicted" and code["state"] == "accepted"]
    if not chosen:
        return {}
    text = note or read_note_unseen(review["review_id"], stores)
    return {
        code["code"]: foretell_correction(
            review["encounter_id"],
            None if code["evidence_start"] is None else text[code["evidence_start"] : code["evidence_end"]],
            train_on_corrections=stores.settings.train_on_corrections,
        )
        for code in chosen
    }


def read_note_unseen(review_id: int, stores: Connections) -> str:
    """The text of a note for a computation, not for anybody's eyes. PATIENT TEXT."""
    found = stores.database.fetch_one("fetch_review_note", review_id=review_id)
    return str(found["note_text"]) if found else ""
