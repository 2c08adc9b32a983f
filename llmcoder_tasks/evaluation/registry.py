"""Which model is in service: the pointer `models/promoted.json`, and the only two ways to read and to move it.

The pointer is the truth; the table `promotions` is its history. It holds all that its row in the table needs, so that a process
that died between the two can be followed by any other.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from llmcoder_tasks.database import Database
from llmcoder_tasks.errors import DatabaseError, PointerMoved, PromotionError
from llmcoder_tasks.records import ModelRef
from llmcoder_tasks.storage import Storage

logger = logging.getLogger(__name__)

POINTER_KEY = "models/promoted.json"

_MOVES = 3
"""How often a move is tried that the store refused though the pointer still stands where it stood: S3 may refuse both of two."""


@dataclass(frozen=True, slots=True)
class Promotion:
    """One position of the pointer.

    `promotion_id` counts positions from 1. `uri` is the published model folder. `verdict_id` is the verdict that once let the model
    into service, also after a rollback to it; `evaluation_id` the scorecard under that verdict. `reason`: why a person rolled back.
    """

    promotion_id: int
    kind: Literal["promote", "rollback"]
    model_id: str
    uri: str
    release_key: str
    verdict_id: str
    evaluation_id: str
    replaced_model_id: str | None
    promoted_by: str
    reason: str = ""

    @property
    def model(self) -> ModelRef:
        """The model in service at this position."""
        return ModelRef(self.model_id, self.uri)


@dataclass(frozen=True, slots=True)
class Standing:
    """Where the pointer stands, and the version that a conditional move replaces; both None before the first promotion."""

    promotion: Promotion | None
    version: str | None


def read_promoted(storage: Storage) -> ModelRef | None:
    """The model in service, or None before the first promotion. Raises PromotionError on a damaged pointer."""
    promotion = read_standing(storage).promotion
    return promotion.model if promotion else None


def require_promoted(storage: Storage) -> ModelRef:
    """The model in service. Raises PromotionError when there is none, or on a damaged pointer."""
    model = read_promoted(storage)
    if model is None:
        raise PromotionError("no model is in service yet: run the DAG train_model, or `llmcoder promote-model`")
    return model


def read_standing(storage: Storage) -> Standing:
    """Where the pointer stands. Raises PromotionError on a damaged pointer."""
    found = storage.read_pointer(POINTER_KEY)
    if found is None:
        return Standing(None, None)
    data, version = found
    try:
        return Standing(Promotion(**json.loads(data)), version)
    except (ValueError, TypeError) as error:
        raise PromotionError(
            f"{storage.uri_of(POINTER_KEY)} is no pointer of this version ({error}): restore it from the table promotions"
        ) from error


def put_into_service(storage: Storage, database: Database, promotion: Promotion, *, replaces: Standing) -> None:
    """Move the pointer from `replaces` to `promotion`, then write the row of `promotions`.

    Raises PromotionError when another promotion came between, with what is in service now; DatabaseError when the pointer moved and
    its row could not be written. A lost row is written by `record_standing`, with which every promotion and rollback begins.
    """
    try:
        _move(storage, promotion, replaces)
    except PointerMoved:
        standing = read_standing(storage)
        if standing.promotion != promotion:  # else the store took the write, and only its answer was lost
            record_standing(database, standing)  # whoever moved it may have died before it could
            raise PromotionError(_explain_lost(promotion, standing, storage)) from None
    try:
        _record(database, promotion)
    except DatabaseError as error:
        raise type(error)(
            f"{promotion.model_id} is in service now, but the table promotions has no row of it: {error}. Do not repeat the "
            "command: the next promotion or rollback writes the row first"
        ) from error


def _move(storage: Storage, promotion: Promotion, replaces: Standing) -> None:
    """Raises PointerMoved when the pointer stands elsewhere than at `replaces`."""
    data = json.dumps(asdict(promotion), indent=2).encode()
    for moves_left in reversed(range(_MOVES)):
        try:
            return storage.write_pointer(POINTER_KEY, data, replaces=replaces.version)
        except PointerMoved:
            if not moves_left or read_standing(storage).version != replaces.version:
                raise


def _explain_lost(promotion: Promotion, standing: Standing, storage: Storage) -> str:
    winner = standing.promotion
    return (
        f"{promotion.model_id} was not put into service: another promotion moved {storage.uri_of(POINTER_KEY)} first, and "
        + (f"{winner.model_id} is in service now, by {winner.promoted_by}" if winner else "no model is in service now")
        + ". Evaluate the model against that one, judge it and promote again; or roll back again, if that was wanted"
    )


def record_standing(database: Database, standing: Standing) -> None:
    """Write the row of where the pointer stands, if a process died before it could; else change nothing."""
    if standing.promotion:
        _record(database, standing.promotion)


def next_promotion_id(database: Database, standing: Standing) -> int:
    """The number of the next move. Never one that the table has, even if the pointer was lost."""
    newest = database.fetch_one("fetch_newest_promotion_id")
    return 1 + max(newest["promotion_id"] if newest else 0, standing.promotion.promotion_id if standing.promotion else 0)


def _record(database: Database, promotion: Promotion) -> None:
    """Write the row of a position, unless it stands there. Raises PromotionError when the row of that number says otherwise."""
    row = asdict(promotion)
    del row["uri"], row["release_key"], row["evaluation_id"]
    database.execute("record_promotion", row)
    kept = database.fetch_one("fetch_promotion", promotion_id=promotion.promotion_id)
    if kept is None:
        logger.warning(
            "move %d is not in promotions: this database has no verdict %s", promotion.promotion_id, promotion.verdict_id
        )
    elif kept != {"kind": promotion.kind, "model_id": promotion.model_id}:
        raise PromotionError(
            f"move {promotion.promotion_id} is a {promotion.kind} of {promotion.model_id} in the pointer {POINTER_KEY}, but a "
            f"{kept['kind']} of {kept['model_id']} in the table promotions: pointer and database belong to different "
            "installations, check LLMCODER_ARTIFACTS and LLMCODER_DATABASE_URL"
        )


def find_previous_model(history: Sequence[dict[str, Any]]) -> str | None:
    """The model that the one in service followed, by rows of `promotions` (`kind`, `model_id`) in order.

    A rollback takes back the promotions after its target: after A, B, back to A, the model before A is asked for, never B again.
    """
    stack: list[str] = []
    for row in history:
        if row["kind"] == "rollback" and row["model_id"] in stack:
            del stack[stack.index(row["model_id"]) :]
        stack.append(row["model_id"])
    return stack[-2] if len(stack) > 1 else None
