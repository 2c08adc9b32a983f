"""The model in service → one that was in service before."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from llmcoder_tasks.database import Database
from llmcoder_tasks.errors import PromotionError
from llmcoder_tasks.evaluation.registry import (
    Promotion,
    find_previous_model,
    next_promotion_id,
    put_into_service,
    read_standing,
    record_standing,
)
from llmcoder_tasks.model.manifest import read_stored_manifest
from llmcoder_tasks.progress import record_step
from llmcoder_tasks.records import MAX_COMMENT_CHARACTERS, ModelRef
from llmcoder_tasks.storage import Storage

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Rollback:
    """From which model back to which: named before anything moves, so that a repeated attempt never goes one further back."""

    from_model_id: str
    to_model_id: str


def plan_rollback(to_model_id: str | None, *, storage: Storage, database: Database) -> Rollback:
    """What a rollback to `to_model_id`, or to the model that the one in service followed, would replace by what. Moves nothing.

    Raises PromotionError when no model is in service, or when there is none before it.
    """
    standing = read_standing(storage)
    if standing.promotion is None:
        raise PromotionError("no model is in service: there is nothing to roll back from")
    record_standing(database, standing)
    target = to_model_id or find_previous_model(database.fetch_all("list_promotions"))
    if target is None:
        raise PromotionError(f"{standing.promotion.model_id} is the first model in service: there is none before it")
    return Rollback(standing.promotion.model_id, target)


def rollback_model(rollback: Rollback, *, promoted_by: str, reason: str, storage: Storage, database: Database) -> ModelRef:
    """Put an earlier model back into service, and keep who wanted it and why. A second run of the same plan changes nothing.

    Raises PromotionError when the target was never promoted, the reason is empty or longer than 1,000 characters, or another model
    went into service since the plan; ArtifactMissing when its published files are gone.
    """
    target = rollback.to_model_id
    if not 0 < len(reason.strip()) <= MAX_COMMENT_CHARACTERS:
        raise PromotionError(
            f"a rollback needs a reason of 1 to {MAX_COMMENT_CHARACTERS} characters: say why, for those who ask later"
        )
    with record_step(database, "rollback_model", target):
        standing = read_standing(storage)
        record_standing(database, standing)
        if standing.promotion and standing.promotion.model_id == target:
            logger.info("%s is in service already: nothing to do", target)
            return standing.promotion.model
        if standing.promotion is None or standing.promotion.model_id != rollback.from_model_id:
            in_service = standing.promotion.model_id if standing.promotion else "no model"
            raise PromotionError(
                f"{rollback.from_model_id} was to be rolled back, but {in_service} is in service now: look whether that has to go"
            )
        evidence = database.fetch_one("fetch_promoted_evidence", model_id=target)
        if evidence is None:
            raise PromotionError(f"{target} was never promoted: roll back to a model of the table promotions, or promote it")
        uri = storage.uri_of(f"models/{target}")
        read_stored_manifest(storage, uri)  # a pointer to nothing would stop the night
        promotion = Promotion(
            promotion_id=next_promotion_id(database, standing),
            kind="rollback",
            model_id=target,
            uri=uri,
            replaced_model_id=rollback.from_model_id,
            promoted_by=promoted_by,
            reason=reason.strip(),
            **evidence,
        )
        put_into_service(storage, database, promotion, replaces=standing)
        logger.info("%s is back in service instead of %s, by %s", target, rollback.from_model_id, promoted_by)
        return promotion.model
