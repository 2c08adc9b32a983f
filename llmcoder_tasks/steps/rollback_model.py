"""The model in service → one that was in service before."""

from __future__ import annotations

import logging

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
from llmcoder_tasks.records import ModelRef
from llmcoder_tasks.storage import Storage

logger = logging.getLogger(__name__)


def rollback_model(*, to_model_id: str | None, promoted_by: str, storage: Storage, database: Database) -> ModelRef:
    """Put `to_model_id`, or the model that the one in service followed, back into service.

    With a name, a second run changes nothing; without one, each run goes one model further back. Raises PromotionError when that
    model was never promoted, when there is none before, or when another promotion moved the pointer first; ArtifactMissing when
    its published files are gone.
    """
    with record_step(database, "rollback_model", to_model_id or "the model before"):
        standing = read_standing(storage)
        if standing.promotion is None:
            raise PromotionError("no model is in service: there is nothing to roll back from")
        record_standing(database, standing)
        target = to_model_id or find_previous_model(database.fetch_all("list_promotions"))
        if target is None:
            raise PromotionError(f"{standing.promotion.model_id} is the first model in service: there is none before it")
        if target == standing.promotion.model_id:
            logger.info("%s is in service already: nothing to do", target)
            return standing.promotion.model
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
            replaced_model_id=standing.promotion.model_id,
            promoted_by=promoted_by,
            **evidence,
        )
        put_into_service(storage, database, promotion, replaces=standing)
        logger.info("%s is back in service instead of %s, by %s", target, standing.promotion.model_id, promoted_by)
        return promotion.model
