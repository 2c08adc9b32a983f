"""A coder's decisions on the codes of one note: what each does to the code set, and how urgently a note waits.

Pure: a decision is the rows it changes, before and after, so that it can be written, audited and undone by the same means.
`steps/review_encounters.py` brings it into the database.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from llmcoder_tasks.errors import ReviewError
from llmcoder_tasks.records import render_code

Origin = Literal["predicted", "replaced", "added"]
State = Literal["open", "accepted", "removed"]

LEAST_SURE = 3
"""How many of a note's least sure codes make its uncertainty: one odd code should not outweigh a note doubtful throughout."""

UNCERTAINTY_WEIGHT, MONEY_WEIGHT, RARITY_WEIGHT = 0.4, 0.4, 0.2
"""What the terms of a priority count. Chosen, not fitted: a hospital's order of work is its own."""


@dataclass(frozen=True, slots=True)
class ReviewCode:
    """One row of the code set under review. Offsets are characters of the note, end exclusive, both None without evidence.

    `prediction_id` is the proposal behind it, also for a code that replaced a proposed one; None for one that a person added.
    """

    code: str
    rank: int
    origin: Origin
    state: State
    prediction_id: int | None
    evidence_start: int | None
    evidence_end: int | None


@dataclass(frozen=True, slots=True)
class Change:
    """The rows that a decision touches, as they were and as they shall be. A row that is only on one side comes or goes."""

    before: tuple[ReviewCode, ...]
    after: tuple[ReviewCode, ...]

    def reversed(self) -> Change:
        """What undoes it."""
        return Change(self.after, self.before)


@dataclass(frozen=True, slots=True)
class Priority:
    """How urgently a note waits, in [0, 1], and the terms behind it, each in [0, 1].

    `uncertainty` is how unsure its least sure codes are, `money` how much payment depends on the codes under review, `rarity` how
    seldom this hospital has accepted the rarest of them.
    """

    uncertainty: float
    money: float
    rarity: float

    @property
    def total(self) -> float:
        """The weighted sum that the queue is ordered by."""
        total = UNCERTAINTY_WEIGHT * self.uncertainty + MONEY_WEIGHT * self.money + RARITY_WEIGHT * self.rarity
        return min(1.0, round(total, 6))


def rank_note(confidences: Sequence[float], times_accepted: Sequence[int], *, money: float) -> Priority:
    """The priority of a note whose codes under review have these confidences, and were accepted so often before.

    uncertainty = 1 - mean of the three lowest confidences; rarity = 1 / (1 + times that the rarest was accepted). A note without
    any code is as uncertain and rare as can be: an encounter without a diagnosis cannot be billed. `money` is passed through.
    """
    if not confidences:
        return Priority(1.0, money, 1.0)
    lowest = sorted(confidences)[:LEAST_SURE]
    return Priority(1 - sum(lowest) / len(lowest), money, 1 / (1 + min(times_accepted)))


def accept(codes: Iterable[ReviewCode], code: str) -> Change:
    """Let a proposed code stand. Raises ReviewError when it is not in the set, or stands already."""
    row = _require(codes, code)
    if row.state == "accepted":
        raise ReviewError(f"{render_code(code)} is accepted already")
    return Change((row,), (replace(row, state="accepted"),))


def remove(codes: Iterable[ReviewCode], code: str) -> Change:
    """Take a code out: a proposed one is kept as removed, one that a person added goes. Raises ReviewError when it is not there."""
    row = _require(codes, code)
    if row.state == "removed":
        raise ReviewError(f"{render_code(code)} is removed already")
    return Change((row,), (replace(row, state="removed"),) if row.origin == "predicted" else ())


def add(codes: Iterable[ReviewCode], code: str, evidence: tuple[int, int] | None) -> Change:
    """Put in a code that was not proposed, after the others. Raises ReviewError when it stands in the set already."""
    rows = list(codes)
    _refuse_standing(rows, code)
    start, end = evidence or (None, None)
    return Change((), (ReviewCode(code, _next_rank(rows), "added", "accepted", None, start, end),))


def replace_code(codes: Iterable[ReviewCode], code: str, by: str, evidence: tuple[int, int] | None) -> Change:
    """Put another code in the place of one, with its rank, and its evidence unless other is given.

    Raises ReviewError when the one is not there or was removed, or the other stands in the set already.
    """
    rows = list(codes)
    row = _require(rows, code)
    if row.state == "removed":
        raise ReviewError(f"{render_code(code)} is removed: add {render_code(by)} instead")
    _refuse_standing(rows, by)
    start, end = evidence or (row.evidence_start, row.evidence_end)
    origin: Origin = "added" if row.prediction_id is None else "replaced"
    fresh = ReviewCode(by, row.rank, origin, "accepted", row.prediction_id, start, end)
    kept = (replace(row, state="removed"),) if row.origin == "predicted" else ()
    return Change((row,), (*kept, fresh))


def verify_decided(codes: Iterable[ReviewCode]) -> None:
    """Raise ReviewError while a proposed code is neither accepted nor removed."""
    undecided = [render_code(row.code) for row in codes if row.state == "open"]
    if undecided:
        raise ReviewError(f"{', '.join(undecided)} still to be decided: accept, replace or remove each of them")


def to_json(rows: Iterable[ReviewCode]) -> list[dict[str, Any]]:
    """Rows as an audit keeps them."""
    return [asdict(row) for row in rows]


def from_json(rows: Iterable[dict[str, Any]]) -> tuple[ReviewCode, ...]:
    """The inverse of `to_json`."""
    return tuple(ReviewCode(**row) for row in rows)


def _require(codes: Iterable[ReviewCode], code: str) -> ReviewCode:
    rows = {row.code: row for row in codes}
    if code not in rows:
        raise ReviewError(f"{render_code(code)} is not among the codes of this review: add it instead")
    return rows[code]


def _refuse_standing(rows: Iterable[ReviewCode], code: str) -> None:
    standing = next((row for row in rows if row.code == code), None)
    if standing is not None:
        cure = "accept it instead" if standing.state != "accepted" else "nothing to add"
        raise ReviewError(f"{render_code(code)} is among the codes of this review already, {standing.state}: {cure}")


def _next_rank(rows: Iterable[ReviewCode]) -> int:
    return max((row.rank for row in rows), default=0) + 1
