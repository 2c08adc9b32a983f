"""Which model is in service: the pointer `models/promoted.json`, and the only two ways to read and to move it.

The pointer is the truth; the table `promotions` is its history. It holds all that its row in the table needs, so that a process
that died between the two can be followed by any other.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from llmcoder_tasks.database import Database
from llmcoder_tasks.errors import PointerMoved, PromotionError
from llmcoder_tasks.records import ModelRef
from llmcoder_tasks.storage import Storage

POINTER_KEY = "models/promoted.json"


@dataclass(frozen=True, slots=True)
class Promotion:
    """One position of the pointer.

    `promotion_id` counts positions from 1. `uri` is the published model folder. `verdict_id` is the verdict that once let the model
    into service, also after a rollback to it; `evaluation_id` the scorecard under that verdict.
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

    Raises PromotionError when another promotion came between. A crash before the row is mended by `record_standing`.
    """
    data = json.dumps(asdict(promotion), indent=2).encode()
    try:
        storage.write_pointer(POINTER_KEY, data, replaces=replaces.version)
    except PointerMoved:
        raise PromotionError(
            f"{promotion.model_id} was not put into service: another promotion moved {storage.uri_of(POINTER_KEY)} first. "
            "Judge the model against the one in service now, and promote again"
        ) from None
    _record(database, promotion)


def record_standing(database: Database, standing: Standing) -> None:
    """Write the row of where the pointer stands, if a process died before it could; else change nothing."""
    if standing.promotion:
        _record(database, standing.promotion)


def next_promotion_id(database: Database, standing: Standing) -> int:
    """The number of the next move. Never one that the table has, even if the pointer was lost."""
    newest = database.fetch_one("fetch_newest_promotion_id")
    return 1 + max(newest["promotion_id"] if newest else 0, standing.promotion.promotion_id if standing.promotion else 0)


def _record(database: Database, promotion: Promotion) -> None:
    row = asdict(promotion)
    del row["uri"], row["release_key"], row["evaluation_id"]
    database.execute("record_promotion", row)


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
