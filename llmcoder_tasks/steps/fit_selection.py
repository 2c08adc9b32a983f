"""Coded notes and a model → `selection.json`: which of the codes that a note suggests coders of this hospital code."""

from __future__ import annotations

import gzip
import json
import logging
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from llmcoder_tasks.coding.coder import Coder
from llmcoder_tasks.coding.coder_fit import CODER_NAME, CoderFit
from llmcoder_tasks.coding.notes import PhraseCoder
from llmcoder_tasks.coding.selection import SELECTION_NAME, Selection
from llmcoder_tasks.coding.selection_fit import LEAST_NOTES, CodedText, fingerprint_notes, learn_selection
from llmcoder_tasks.database import Database
from llmcoder_tasks.dataset.splits import is_judged_on
from llmcoder_tasks.errors import ArtifactMissing, ModelError, NoteError
from llmcoder_tasks.icd10cm.code_set import CodeSet, read_code_set
from llmcoder_tasks.model.manifest import fetch_model, read_stored_manifest
from llmcoder_tasks.progress import record_step
from llmcoder_tasks.records import ModelRef
from llmcoder_tasks.settings import CoderServer
from llmcoder_tasks.storage import Storage

logger = logging.getLogger(__name__)

MOST_NOTES = 5000
"""Of more coded notes the newest are learnt from: they say how the hospital codes now, and fit into memory."""

OpenCoder = Callable[[Path, CodeSet, bytes], PhraseCoder]
"""Opens a model folder under a release with the bytes of its `coder.json`."""


def _open_coder(folder: Path, code_set: CodeSet, coder_json: bytes, *, server: CoderServer | None) -> PhraseCoder:
    return Coder.open(folder, code_set, fit=CoderFit.parse(coder_json), server=server)


def fit_selection(
    model: ModelRef,
    *,
    storage: Storage,
    database: Database,
    cache_folder: Path,
    notes_file: Path | None = None,
    open_coder: OpenCoder | None = None,
    server: CoderServer | None = None,
) -> ModelRef:
    """Learn from coded notes and write `coders/<model_id>/selection.json`, where held-out notes show that it beats the constants.

    The notes are those of the database (codes of finished reviews, else codes that came with the encounter), or the rows
    {"id", "text", "codes"} of a JSON lines file. With fewer than 200 the constants stay, and so does what an earlier fit wrote. The
    same notes change nothing. Raises NoteError for a file that cannot be read, ModelError where the coder is not fitted yet.
    """
    key = f"coders/{model.model_id}/{SELECTION_NAME}"
    with record_step(database, "fit_selection", model.model_id) as detail:
        coder_json = _read_coder(model, storage)
        release_key = str(read_stored_manifest(storage, model.uri)["release_key"])
        notes = list(_read_file(notes_file) if notes_file else _read_database(database))
        detail["notes"] = len(notes)
        if len(notes) < LEAST_NOTES:
            logger.info(
                "%d coded notes, and at least %d are needed: which codes count is decided by constants", len(notes), LEAST_NOTES
            )
            return model
        if _read_fingerprint(storage, key) == fingerprint_notes(notes, release_key):
            logger.info("%s has learnt from these %d coded notes already: nothing to do", model.model_id, len(notes))
            return model
        folder = fetch_model(storage, model.uri, cache_folder)
        open_coder = open_coder or partial(_open_coder, server=server)
        selection = learn_selection(notes, open_coder(folder, read_code_set(database, release_key), coder_json))
        detail.update(selection.evidence)
        if selection.evidence["f1"] > selection.evidence["constants_f1"]:
            storage.write_bytes(key, selection.render())
    logger.info("%s: %s", model.model_id, render_evidence(selection))
    return model


def render_evidence(selection: Selection) -> str:
    """What a fit gained, in one line."""
    seen = selection.evidence
    outcome = "learnt" if seen["f1"] > seen["constants_f1"] else "not better, the constants stay"
    return (
        f"{outcome}: on {seen['notes']:.0f} coded notes, held out in turn, precision {seen['constants_precision']:.3f} -> "
        f"{seen['precision']:.3f}, recall {seen['constants_recall']:.3f} -> {seen['recall']:.3f}, F1 {seen['constants_f1']:.3f} -> "
        f"{seen['f1']:.3f}; calibration error {seen['calibration_error']:.3f}, threshold {selection.threshold}, "
        f"policy {selection.policy_name}"
    )


def _read_coder(model: ModelRef, storage: Storage) -> bytes:
    try:
        return storage.read_bytes(f"coders/{model.model_id}/{CODER_NAME}")
    except ArtifactMissing:
        raise ModelError(f"{model.model_id} has no {CODER_NAME}: run `llmcoder fit-coder` first") from None


def _read_fingerprint(storage: Storage, key: str) -> str:
    """That of the fit which stands there; "" where none does, or one of an older version."""
    try:
        return Selection.parse(storage.read_bytes(key)).fingerprint
    except (ArtifactMissing, ModelError):
        return ""


def _read_database(database: Database) -> Iterator[CodedText]:
    """Without the encounters on which models are compared."""
    for row in database.fetch_all("list_coded_notes", most_notes=MOST_NOTES):
        if not is_judged_on(row["encounter_id"]):
            yield CodedText(row["note_text"], tuple(row["codes"]), row["patient"])


def _read_file(path: Path) -> Iterator[CodedText]:
    """Rows whose ids differ only behind the last `-` are taken for one patient's. Errors name the line and quote nothing."""
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8") as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    yield _parse_row(line, f"{path.name}:{number}")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise NoteError(f"{path} cannot be read ({type(error).__name__}): name a JSON lines file, plain or gzipped") from None


def _parse_row(line: str, place: str) -> CodedText:
    try:
        row = json.loads(line)
        text, codes, note_id = row["text"], row["codes"], str(row.get("id", place))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise NoteError(f'{place} is no row {{"id", "text", "codes"}}: mend or remove the line') from None
    if not isinstance(text, str) or not text or not isinstance(codes, list) or not all(isinstance(code, str) for code in codes):
        raise NoteError(f"{place}: text must be a text and codes a list of codes: mend or remove the line")
    return CodedText(text, tuple(codes), note_id.rpartition("-")[0] or note_id)
