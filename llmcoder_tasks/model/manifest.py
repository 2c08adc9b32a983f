"""The manifest of a model folder: what made it, and the sha256 of every file. Written last, so that it proves the rest.

A folder is flat and holds weights as safetensors, settings as JSON or YAML, plain text and curves as JSON lines. Nothing that could
run code when it is loaded (a pickle) is written or accepted.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmcoder_tasks.errors import ArtifactMissing, ModelError
from llmcoder_tasks.storage import Storage, hash_file

logger = logging.getLogger(__name__)

MANIFEST_NAME = "manifest.json"
SCHEMA_VERSION = 1
ACCEPTED_SUFFIXES = frozenset({".safetensors", ".json", ".jsonl", ".yaml", ".txt"})


def write_manifest(folder: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Write `manifest.json` over all files of a folder, and return it. `facts` must hold a `model_id`.

    Raises ModelError when the folder holds a file of a kind that no model folder may hold.
    """
    if not facts.get("model_id"):
        raise ModelError(f"{folder.name}: a manifest needs a model_id")
    paths = sorted(path for path in folder.iterdir() if path.name != MANIFEST_NAME)
    for path in paths:
        _verify_name(path.name, folder)
    files = {path.name: {"sha256": hash_file(path), "bytes": path.stat().st_size} for path in paths}
    manifest = {"schema_version": SCHEMA_VERSION, **facts, "files": files}
    temporary = folder / f".{MANIFEST_NAME}.incoming"
    temporary.write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    temporary.replace(folder / MANIFEST_NAME)
    return manifest


def parse_manifest(data: bytes, place: str) -> dict[str, Any]:
    """Check the form of a manifest. Raises ModelError with `place` in it."""
    try:
        manifest = json.loads(data)
        files = manifest["files"]
        version, model_id = manifest["schema_version"], str(manifest["model_id"])
        digests = [str(entry["sha256"]) for entry in files.values()]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(f"{place} is no model manifest ({type(error).__name__}): train or publish the model again") from None
    if version != SCHEMA_VERSION:
        raise ModelError(f"{place} has schema version {version}; this program reads {SCHEMA_VERSION}")
    if not model_id or "/" in model_id or model_id.startswith(".") or not digests:
        raise ModelError(f"{place} names no usable model id or no file: train or publish the model again")
    for name in files:
        _verify_name(name, place)
    return dict(manifest)


def verify_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a folder whose files are all there, unaltered, and no more. Raises ModelError with the first fault."""
    path = folder / MANIFEST_NAME
    if not path.is_file():
        raise ModelError(f"{folder} has no {MANIFEST_NAME}: it is no model, or its training did not end")
    manifest = parse_manifest(path.read_bytes(), str(path))
    expected = set(manifest["files"]) | {MANIFEST_NAME}
    found = {entry.name for entry in folder.iterdir()}
    if missing := sorted(expected - found):
        raise ModelError(f"{folder} lacks {', '.join(missing)}: fetch or publish the model again")
    if surplus := sorted(found - expected):
        raise ModelError(f"{folder} holds {', '.join(surplus)}, which its manifest does not name: fetch or publish the model again")
    for name, entry in manifest["files"].items():
        if hash_file(folder / name) != entry["sha256"]:
            raise ModelError(f"{folder / name} is not the file that its manifest names (sha256 differs): do not use it")
    return manifest


def read_stored_manifest(storage: Storage, uri: str) -> dict[str, Any]:
    """The manifest of a model in the artifact store, without its files. Raises ModelError, ArtifactMissing or StorageError."""
    return parse_manifest(storage.read_bytes(f"{storage.key_of(uri)}/{MANIFEST_NAME}"), uri)


def fetch_model(storage: Storage, uri: str, cache_folder: Path) -> Path:
    """A verified local copy of the model folder under `uri`; a second call, or another worker at the same time, shares it.

    The copy is named by model id and manifest, so a model published again under the same URI is fetched anew. Raises ModelError
    when a file is altered, missing or of a kind that is not accepted, ArtifactMissing when there is no model.
    """
    prefix = storage.key_of(uri)
    try:
        data = storage.read_bytes(f"{prefix}/{MANIFEST_NAME}")
    except ArtifactMissing:
        raise ArtifactMissing(f"no model under {uri}: its {MANIFEST_NAME} is missing, so its training did not end") from None
    manifest = parse_manifest(data, uri)
    target = cache_folder / f"{manifest['model_id']}-{hashlib.sha256(data).hexdigest()[:12]}"
    cache_folder.mkdir(parents=True, exist_ok=True)
    with (cache_folder / f".{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.is_dir():
            verify_manifest(target)
            return target
        incoming = Path(tempfile.mkdtemp(dir=cache_folder, prefix=".incoming-"))
        try:
            for name in manifest["files"]:
                storage.fetch_file(f"{prefix}/{name}", incoming / name)
            (incoming / MANIFEST_NAME).write_bytes(data)
            verify_manifest(incoming)
            incoming.replace(target)
        finally:
            shutil.rmtree(incoming, ignore_errors=True)
    logger.info("fetched model %s into %s", manifest["model_id"], target)
    return target


def _verify_name(name: str, place: Path | str) -> None:
    """Refuse names that lead elsewhere and kinds of file that may run code."""
    if name != os.path.basename(name) or name.startswith(".") or Path(name).suffix not in ACCEPTED_SUFFIXES:
        accepted = ", ".join(sorted(ACCEPTED_SUFFIXES))
        raise ModelError(f"{place}: {name!r} may not stand in a model folder: only {accepted} are accepted, and no subfolder")
