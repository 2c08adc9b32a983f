"""Codes of a release -> generated, validated, split examples in the artifact store."""

from __future__ import annotations

import hashlib
import logging
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

from llmcoder_tasks.database import Database
from llmcoder_tasks.dataset.config import DatasetConfig
from llmcoder_tasks.dataset.corrections import Corrections, merge_corrections, read_corrections
from llmcoder_tasks.dataset.examples import GENERATOR_VERSION, make_examples
from llmcoder_tasks.dataset.expectations import verify_examples
from llmcoder_tasks.dataset.lexicon import LEXICON_FOLDER
from llmcoder_tasks.dataset.llm_store import merge_variations, read_variations, read_variations_manifest
from llmcoder_tasks.dataset.store import MANIFEST, DatasetManifest, hash_folder, read_manifest, write_tables
from llmcoder_tasks.errors import DatasetError
from llmcoder_tasks.icd10cm.code_set import read_code_set, require_release
from llmcoder_tasks.progress import record_step
from llmcoder_tasks.records import DatasetRef, ReleaseRef, VariationsRef
from llmcoder_tasks.storage import Storage

logger = logging.getLogger(__name__)


def build_dataset(
    release: ReleaseRef,
    *,
    config: DatasetConfig,
    storage: Storage,
    database: Database,
    docs_folder: Path,
    variations: VariationsRef | None = None,
    train_on_corrections: bool = False,
) -> DatasetRef:
    """Make, validate and store the examples of a loaded release; Data Docs go to `docs_folder`. Of a withdrawn one: of what stands.

    `variations` is a set of `generate_variations` for the same release: its rows join the train split. With
    `train_on_corrections`, what coders corrected becomes a table of its own: phrases of patients. The id is a fingerprint of
    release content, config, generator, that set and those corrections: a dataset that is already whole in the store is returned at
    once. Raises ReleaseError when the release is not loaded, DatasetError when the set is of another release, ExpectationsFailed
    when a row is broken; then nothing is stored.
    """
    row = require_release(database, release.key)
    release = ReleaseRef(row["release_key"], row["uri"])
    corrections = read_corrections(database, read_code_set(database, release.key)) if train_on_corrections else Corrections()
    facts = DatasetManifest(
        dataset_id="",
        release_key=release.key,
        release_sha256=row["content_sha256"],
        seed=config.seed,
        generator_version=GENERATOR_VERSION,
        lexicon_sha256=hash_folder(LEXICON_FOLDER),
        config=asdict(config)
        | _describe_variations(variations, release, row["content_sha256"], storage)
        | _describe_corrections(corrections),
        tables={},
    )
    dataset_id = f"{release.key}-{hashlib.sha256(facts.to_json().encode()).hexdigest()[:8]}"
    dataset = DatasetRef(dataset_id, storage.uri_of(f"datasets/{dataset_id}"))
    if storage.exists(f"datasets/{dataset_id}/{MANIFEST}"):
        logger.info("dataset %s is already there, nothing to do", dataset_id)
        _record(read_manifest(storage, dataset.uri), dataset, database)
        return dataset
    with record_step(database, "build_dataset", dataset_id) as detail:
        code_set = read_code_set(database, release.key)
        tables = make_examples(code_set, config)
        if variations is not None:
            merged = merge_variations(tables, read_variations(storage, variations), config)
            logger.info("dataset %s: %s rows of variations %s", dataset_id, f"{merged:,}", variations.variations_id)
            detail["variations"] = merged
        if train_on_corrections:
            taken = merge_corrections(tables, corrections.rows, code_set, config)
            detail["corrections_read"] = {"taken": taken, "left_out": len(corrections.rows) - taken, **_count(corrections)}
            logger.info("dataset %s: corrections: %s", dataset_id, detail["corrections_read"])
        verify_examples(tables, code_set=code_set, docs_folder=docs_folder, subject=dataset_id)
        with tempfile.TemporaryDirectory(prefix="dataset-") as name:
            folder = Path(name)
            manifest = replace(facts, dataset_id=dataset_id, tables=write_tables(tables, folder))
            (folder / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
            storage.publish_folder(folder, f"datasets/{dataset_id}", last=MANIFEST)
        _record(manifest, dataset, database)
        detail.update({scenario: table.rows for scenario, table in manifest.tables.items()})
    logger.info("dataset %s: %s", dataset_id, ", ".join(f"{name} {table.rows:,}" for name, table in manifest.tables.items()))
    return dataset


def _describe_variations(
    variations: VariationsRef | None, release: ReleaseRef, release_sha256: str, storage: Storage
) -> dict[str, str]:
    """What a dataset's id says of the set it takes up: two answers of a language model differ, and so do their datasets."""
    if variations is None:
        return {}
    manifest = read_variations_manifest(storage, variations)
    if (manifest.release_key, manifest.release_sha256) != (release.key, release_sha256):
        raise DatasetError(
            f"variations {variations.variations_id} were written for {manifest.release_key}, and not for {release.key} as it is "
            "loaded now: run `llmcoder generate-variations` for it"
        )
    digest = hashlib.sha256(manifest.to_json().encode()).hexdigest()
    return {"variations": variations.variations_id, "variations_sha256": digest}


def _describe_corrections(corrections: Corrections) -> dict[str, str]:
    """What a dataset's id says of the corrections in it; nothing when there are none, so that ids stay what they were."""
    return {"corrections_sha256": corrections.sha256} if corrections.rows else {}


def _count(corrections: Corrections) -> dict[str, int]:
    return {name: getattr(corrections, name) for name in ("mapped", "withdrawn", "private")}


def _record(manifest: DatasetManifest, dataset: DatasetRef, database: Database) -> None:
    database.execute(
        "record_dataset",
        {
            "dataset_id": dataset.dataset_id,
            "release_key": manifest.release_key,
            "uri": dataset.uri,
            "manifest": manifest.to_json(),
        },
    )
