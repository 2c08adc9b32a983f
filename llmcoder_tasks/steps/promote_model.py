"""A PROMOTE verdict → the model published under a prefix of its own, then the pointer moved: the model is in service."""

from __future__ import annotations

import hashlib
import logging
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from llmcoder_tasks.database import Database
from llmcoder_tasks.errors import ArtifactMissing, PromotionError
from llmcoder_tasks.evaluation.registry import (
    Promotion,
    Standing,
    next_promotion_id,
    put_into_service,
    read_standing,
    record_standing,
)
from llmcoder_tasks.evaluation.scorecard import parse_scorecard
from llmcoder_tasks.evaluation.verdict import Verdict, parse_verdict, verdict_key
from llmcoder_tasks.model.manifest import MANIFEST_NAME, fetch_model, read_stored_manifest, write_manifest
from llmcoder_tasks.progress import record_step
from llmcoder_tasks.records import ModelRef, VerdictRef
from llmcoder_tasks.storage import Storage

logger = logging.getLogger(__name__)

CODER_NAME = "coder.json"
SELECTION_NAME = "selection.json"


def promote_model(verdict: VerdictRef, *, promoted_by: str, storage: Storage, database: Database) -> ModelRef:
    """Publish the model of a PROMOTE verdict and put it into service.

    The model's files, `coder.json`, `selection.json` where there is one, `scorecard.json` and `verdict.json` go to
    `models/<model_id>/`, the manifest last; then the pointer moves, then its row is written. A run that died in between is finished
    by the next one; a model that is in service already is left alone. Raises PromotionError when the verdict is not PROMOTE, a
    person refused, the coder was fitted anew since, another model is in service than the one judged against, or another promotion
    moved the pointer first.
    """
    with record_step(database, "promote_model", verdict.verdict_id):
        given = _read_verdict(verdict.verdict_id, storage, database)
        standing = read_standing(storage)
        record_standing(database, standing)
        if standing.promotion and standing.promotion.model_id == given.model_id:
            logger.info("%s is in service already: nothing to do", given.model_id)
            return standing.promotion.model
        _verify_permitted(given, standing, database)
        published = _publish(given, storage)
        promotion = Promotion(
            promotion_id=next_promotion_id(database, standing),
            kind="promote",
            model_id=given.model_id,
            uri=published.uri,
            release_key=_find_release(given.model_id, database),
            verdict_id=given.verdict_id,
            evaluation_id=given.evaluation_id,
            replaced_model_id=standing.promotion.model_id if standing.promotion else None,
            promoted_by=promoted_by,
        )
        put_into_service(storage, database, promotion, replaces=standing)
        logger.info("%s is in service, by %s", given.model_id, promoted_by)
        return published


def _read_verdict(verdict_id: str, storage: Storage, database: Database) -> Verdict:
    row = database.fetch_one("fetch_verdict", verdict_id=verdict_id)
    if row is None:
        raise PromotionError(f"there is no verdict {verdict_id}: no model is promoted without one, judge the scorecard first")
    return parse_verdict(storage.read_bytes(verdict_key(row["evaluation_id"], verdict_id)))


def _find_release(model_id: str, database: Database) -> str:
    row = database.fetch_one("fetch_judged_model", model_id=model_id)
    if row is None:
        raise PromotionError(f"the table models does not know {model_id}: train it against this database")
    return str(row["release_key"])


def _verify_permitted(verdict: Verdict, standing: Standing, database: Database) -> None:
    if verdict.decision != "PROMOTE":
        raise PromotionError(
            f"{verdict.model_id} stays out of service: the verdict is {verdict.decision}, because {verdict.reasons[0]}"
        )
    answer = database.fetch_one("fetch_newest_approval", verdict_id=verdict.verdict_id)
    if answer and not answer["approved"]:
        raise PromotionError(f"{verdict.model_id} stays out of service: {answer['answered_by']} refused it")
    in_service = standing.promotion.model_id if standing.promotion else None
    if in_service != verdict.against_model_id:
        raise PromotionError(
            f"{verdict.model_id} was judged against {verdict.against_model_id or 'no model'}, but {in_service or 'no model'} is in "
            "service now: evaluate and judge it again"
        )


def _publish(verdict: Verdict, storage: Storage) -> ModelRef:
    prefix = f"models/{verdict.model_id}"
    scorecard_json = storage.read_bytes(f"scorecards/{verdict.evaluation_id}/scorecard.json")
    coder_json = storage.read_bytes(f"coders/{verdict.model_id}/{CODER_NAME}")
    if hashlib.sha256(coder_json).hexdigest() != parse_scorecard(scorecard_json).coder_sha256:
        raise PromotionError(f"the coder of {verdict.model_id} was fitted anew after its evaluation: evaluate and judge it again")
    published = ModelRef(verdict.model_id, storage.uri_of(prefix))
    trained = read_stored_manifest(storage, storage.uri_of(f"training/{verdict.model_id}"))
    if _is_published(published, trained, coder_json, storage):
        logger.info("%s is published already", verdict.model_id)
        return published
    with tempfile.TemporaryDirectory() as folder:
        files = fetch_model(storage, storage.uri_of(f"training/{verdict.model_id}"), Path(folder))
        (files / CODER_NAME).write_bytes(coder_json)
        with suppress(ArtifactMissing):  # where coded notes taught it something
            (files / SELECTION_NAME).write_bytes(storage.read_bytes(f"coders/{verdict.model_id}/{SELECTION_NAME}"))
        (files / "scorecard.json").write_bytes(scorecard_json)
        (files / "verdict.json").write_text(verdict.to_json(), encoding="utf-8")
        facts = {name: value for name, value in trained.items() if name not in {"files", "schema_version"}}
        write_manifest(files, {**facts, "evaluation_id": verdict.evaluation_id, "verdict_id": verdict.verdict_id})
        storage.publish_folder(files, prefix, last=MANIFEST_NAME)
    return published


def _is_published(model: ModelRef, trained: dict[str, Any], coder_json: bytes, storage: Storage) -> bool:
    """Whether this very model is published. Raises PromotionError when other files are: what is published never changes."""
    try:
        standing: dict[str, Any] = read_stored_manifest(storage, model.uri)["files"]
    except ArtifactMissing:
        return False
    expected = {name: entry["sha256"] for name, entry in trained["files"].items()}
    expected[CODER_NAME] = hashlib.sha256(coder_json).hexdigest()
    changed = sorted(name for name, sha256 in expected.items() if standing.get(name, {}).get("sha256") != sha256)
    if changed:
        raise PromotionError(
            f"{model.uri} is published with other content of {', '.join(changed)}, and published models never change: "
            "train under a new recipe or dataset, which gives a new model id"
        )
    return True
