"""A trained model and a dataset → `coder.json`: how model and words are weighed, and what may pass without a person."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from llmcoder_tasks.coding.coder import Coder, CodeScorer
from llmcoder_tasks.coding.coder_fit import CODER_NAME, FIT_VERSION, CoderFit, ValidationItem, fit_weight_and_calibrations, scramble
from llmcoder_tasks.database import Database
from llmcoder_tasks.dataset.store import fetch_dataset, read_examples, read_manifest
from llmcoder_tasks.errors import ArtifactMissing, DatasetError
from llmcoder_tasks.icd10cm.code_set import read_code_set
from llmcoder_tasks.model.manifest import fetch_model
from llmcoder_tasks.progress import record_step, track
from llmcoder_tasks.records import DatasetRef, Example, ModelRef
from llmcoder_tasks.storage import Storage

logger = logging.getLogger(__name__)

FITTED_SCENARIOS = ("reordered", "abbreviations", "typos", "sentences")
"""Each text names one condition. `base` is not among them: a title word for word needs no weighing."""

ITEMS_OF_A_SCENARIO = 500
STRANGE_EVERY = 10
_BATCH = 100


def fit_coder(
    model: ModelRef,
    dataset: DatasetRef,
    *,
    storage: Storage,
    database: Database,
    cache_folder: Path,
    items_of_a_scenario: int = ITEMS_OF_A_SCENARIO,
    open_model: Callable[[Path], CodeScorer] | None = None,
) -> ModelRef:
    """Fit on the validation split and write `coders/<model_id>/coder.json`; the same model, dataset and limit change nothing.

    `open_model` opens a model folder (default: `LocalModel.load`). Raises DatasetError when the dataset has no validation items,
    ModelError when the model's files are altered.
    """
    fingerprint = _fingerprint(FIT_VERSION, model.model_id, dataset.dataset_id, items_of_a_scenario)
    key = f"coders/{model.model_id}/{CODER_NAME}"
    with record_step(database, "fit_coder", model.model_id) as detail:
        try:
            standing = CoderFit.parse(storage.read_bytes(key))
        except ArtifactMissing:
            standing = None
        if standing is not None and standing.fingerprint == fingerprint:
            logger.info("%s is already fitted on %s: nothing to do", model.model_id, dataset.dataset_id)
            return model
        folder = fetch_dataset(storage, dataset, cache_folder)
        examples = _read_validation(folder, items_of_a_scenario)
        release_key = read_manifest(storage, dataset.uri).release_key
        scorer = (open_model or _load_model)(fetch_model(storage, model.uri, cache_folder))
        items = _judge(examples, Coder(read_code_set(database, release_key), model=scorer))
        weight, lexical, together = fit_weight_and_calibrations(items)
        fit = CoderFit(fingerprint, model.model_id, dataset.dataset_id, release_key, weight, lexical, together)
        storage.write_bytes(key, fit.render())
        detail["weight"] = fit.weight
        detail["auto_threshold"] = fit.together.threshold.value
    _report(fit)
    return model


def _fingerprint(*inputs: str | int) -> str:
    return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:16]


def _load_model(folder: Path) -> CodeScorer:
    from llmcoder_tasks.model.local import LocalModel

    return LocalModel.load(folder)


def _judge(examples: Sequence[Example], coder: Coder) -> list[ValidationItem]:
    """Every example, and one strange text for every STRANGE_EVERY of them, judged by words and together with the model."""
    named = [(example.text, example.codes[0]) for example in examples]
    asked = named + [(scramble(text), "") for text, _ in named[::STRANGE_EVERY]]
    items: list[ValidationItem] = []
    starts = range(0, len(asked), _BATCH)
    for start in track(starts, "weighing validation items", total=len(starts), unit="batches"):
        texts, truths = zip(*asked[start : start + _BATCH], strict=True)
        judged = zip(truths, coder.judge(texts, None), coder.judge(texts, coder.model), strict=True)
        items += [ValidationItem(*item) for item in judged]
    return items


def _read_validation(folder: Path, limit: int) -> list[Example]:
    """Items of every scenario in turn, so that halves hold as many of each."""
    tables = [read_examples(folder, scenario, split="validation", limit=limit) for scenario in FITTED_SCENARIOS]
    examples = [example for rows in zip(*tables, strict=False) for example in rows]
    if not examples:
        raise DatasetError(f"{folder.name} has no validation items: build the dataset with a larger held_out_share")
    return examples


def _report(fit: CoderFit) -> None:
    threshold = fit.together.threshold
    logger.info(
        "%s: weight %.0f; accepts %.0f %% of %d items without a person, %d wrong among %d, at most %.2f %% wrong (95 %% certainty)",
        fit.model_id,
        fit.weight,
        100 * threshold.coverage,
        threshold.n,
        threshold.errors,
        threshold.accepted,
        100 * threshold.error_bound,
    )
