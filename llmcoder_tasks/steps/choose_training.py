"""A dataset and the model in service → whether that model is updated, another one is trained in full, or none is needed."""

from __future__ import annotations

import logging

from llmcoder_tasks.database import Database
from llmcoder_tasks.dataset.store import read_manifest
from llmcoder_tasks.evaluation.registry import read_promoted
from llmcoder_tasks.icd10cm.code_set import read_code_set
from llmcoder_tasks.model.manifest import read_stored_manifest
from llmcoder_tasks.model.recipe import AnyRecipe
from llmcoder_tasks.model.update import Base, Wanted, Way, choose_way, find_codes_to_learn
from llmcoder_tasks.records import DatasetRef, ModelRef
from llmcoder_tasks.storage import Storage

logger = logging.getLogger(__name__)

_NAMES = {"update": "update", "full": "full training", "none": "no training"}


def choose_training(dataset: DatasetRef, *, wanted: Wanted, recipe: AnyRecipe, storage: Storage, database: Database) -> Way:
    """Choose by `model/update.py`, and log the reason.

    Raises TrainingError when an update is wanted that cannot be, ReleaseError when the release of a model is not loaded.
    """
    release_key = read_manifest(storage, dataset.uri).release_key
    in_service = read_promoted(storage)
    base = _read_base(in_service, release_key, storage, database) if in_service and wanted != "full" else None
    way = choose_way(wanted, recipe=recipe, release_key=release_key, dataset_id=dataset.dataset_id, base=base)
    logger.info("%s: %s", _NAMES[way.kind], way.reason)
    return way


def _read_base(model: ModelRef, release_key: str, storage: Storage, database: Database) -> Base:
    manifest = read_stored_manifest(storage, model.uri)
    before, after = (read_code_set(database, key).titles for key in (str(manifest["release_key"]), release_key))
    return Base(manifest, len(find_codes_to_learn(before, after)), len(after))
