"""A trained model and a language model that reads whole notes → a model of its own, to be judged and promoted like any other."""

from __future__ import annotations

import json
import logging
import tempfile
from pathlib import Path

from llmcoder_tasks.coding.coder_fit import CODER_NAME
from llmcoder_tasks.coding.note_reader import NOTE_MODEL_NAME, NoteModel
from llmcoder_tasks.database import Database
from llmcoder_tasks.errors import ArtifactMissing, ModelError
from llmcoder_tasks.model.manifest import MANIFEST_NAME, fetch_model, read_stored_manifest, write_manifest
from llmcoder_tasks.progress import record_step
from llmcoder_tasks.records import ModelRef
from llmcoder_tasks.settings import LanguageModel
from llmcoder_tasks.storage import Storage

logger = logging.getLogger(__name__)


def attach_note_model(base: ModelRef, source: LanguageModel | Path, *, storage: Storage, database: Database) -> ModelRef:
    """Store the files of `base` with a `note_model.json` under an id that names both, and its coder with it.

    Phrases are coded as by `base`; whole notes are read by the language model, and its codes are held against the note, the phrase
    coder and the rules. Neither a note nor a key is stored. A second run changes nothing. Raises ModelError when `base` is unknown,
    was not fitted, or has a language model already, or the folder of weights holds none.
    """
    attached = NoteModel.of(source)
    model_id = f"{base.model_id}-notes-{attached.fingerprint}"
    model = ModelRef(model_id, storage.uri_of(f"training/{model_id}"))
    with record_step(database, "attach_note_model", model_id):
        row = database.fetch_one("fetch_model", model_id=base.model_id)
        if row is None:
            raise ModelError(f"the table models does not know {base.model_id}: train it against this database")
        coder_json = _read_coder(base, storage)
        if storage.exists(f"training/{model_id}/{MANIFEST_NAME}"):
            logger.info("%s is there already: nothing to do", model_id)
            manifest = read_stored_manifest(storage, model.uri)
        else:
            manifest = _publish(base, model_id, attached, storage)
        storage.write_bytes(f"coders/{model_id}/{CODER_NAME}", coder_json)
        facts = {name: row[name] for name in ("release_key", "dataset_id", "recipe", "stage", "parent_model_id")}
        with database.transaction() as transaction:
            transaction.execute("record_model", {"model_id": model_id, "uri": model.uri, "manifest": json.dumps(manifest), **facts})
    logger.info("%s reads notes by %s", model_id, attached.name)
    return model


def _read_coder(base: ModelRef, storage: Storage) -> bytes:
    try:
        return storage.read_bytes(f"coders/{base.model_id}/{CODER_NAME}")
    except ArtifactMissing:
        raise ModelError(f"{base.model_id} has no {CODER_NAME}: run `llmcoder fit-coder` first") from None


def _publish(base: ModelRef, model_id: str, attached: NoteModel, storage: Storage) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as name:
        folder = fetch_model(storage, base.uri, Path(name))
        if (folder / NOTE_MODEL_NAME).exists():
            raise ModelError(f"{base.model_id} has a language model for notes already: attach to the model that it was made from")
        (folder / NOTE_MODEL_NAME).write_bytes(attached.render())
        trained = read_stored_manifest(storage, base.uri)
        facts = {name: value for name, value in trained.items() if name not in {"files", "schema_version"}}
        manifest = write_manifest(folder, {**facts, "model_id": model_id, "note_model": attached.name})
        storage.publish_folder(folder, f"training/{model_id}", last=MANIFEST_NAME)
    return manifest
