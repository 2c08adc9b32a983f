"""The night: discharge summaries of a range of dates → `coded_notes` and `predictions`, each note once.

`plan_night` cuts the work into shards, `code_shard` codes one (a mapped task, on any machine), `finish_night` counts. A note is
done when its row stands in `coded_notes` for its text, the model and the release of its discharge date; the row and its codes are
written in one transaction, so whatever a killed worker leaves undone, and nothing else, is what the next attempt takes up.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from itertools import groupby
from pathlib import Path
from typing import TypedDict

from llmcoder_tasks.coding.coder import Coder
from llmcoder_tasks.coding.notes import PhraseCoder, code_notes
from llmcoder_tasks.database import Database, Row, Transaction
from llmcoder_tasks.errors import LLMCoderError, ModelError, NoteError
from llmcoder_tasks.icd10cm.code_set import CodeSet, read_code_set
from llmcoder_tasks.model.manifest import fetch_model
from llmcoder_tasks.progress import record_step, track
from llmcoder_tasks.records import CodePrediction, ModelRef
from llmcoder_tasks.storage import Storage

logger = logging.getLogger(__name__)

BATCH_NOTES = 16
"""Notes coded and committed together: what a kill can cost."""

OpenCoder = Callable[[Path, CodeSet], PhraseCoder]


class Shard(TypedDict):
    """What a mapped task gets: numbers and ids, never data."""

    coding_run_id: str
    shard: int
    shards: int


@dataclass(frozen=True, slots=True)
class CodedShard:
    """What one shard did: notes coded, notes that failed, and notes that another worker had coded meanwhile."""

    coded: int
    failed: int
    lost: int


@dataclass(frozen=True, slots=True)
class CodedNight:
    """A finished run. `coded` and `failed` are its own notes; `uncoded` encounters have no summary or no release on their date.

    `encounters` also counts those that an earlier run had coded with the same model and release.
    """

    coding_run_id: str
    encounters: int
    coded: int
    failed: int
    uncoded: int
    predictions: int
    auto: int
    review: int


@dataclass(frozen=True, slots=True)
class _Pending:
    encounter_id: str
    note_sha256: str
    release_key: str


def plan_night(
    from_date: date, to_date: date, *, model: ModelRef, shards: int, coding_run_id: str, database: Database
) -> list[Shard]:
    """Open a coding run over discharge dates (both ends included), and name the shards that have notes to code, at least one.

    Planning the same run again takes up what is left of it. Raises NoteError when the run exists for other dates or another
    model, or the dates are the wrong way round; ModelError when the model is not registered.
    """
    if from_date > to_date:
        raise NoteError(f"the night from {from_date} to {to_date} ends before it begins: swap the dates")
    if shards < 1:
        raise NoteError(f"{shards} shards: expected at least 1")
    if database.fetch_one("find_registered_model", model_id=model.model_id) is None:
        raise ModelError(f"model {model.model_id} is not in the table models: train or register it first")
    wanted = {"coding_run_id": coding_run_id, "from_date": from_date, "to_date": to_date, "model_id": model.model_id}
    with record_step(database, "plan_night", coding_run_id) as detail, database.transaction() as transaction:
        created = transaction.execute("create_coding_run", wanted)
        _verify_same_run(transaction, wanted)
        pending = transaction.fetch_all("list_pending_notes", coding_run_id=coding_run_id, shards=shards, shard=None)
        if pending and not created:
            transaction.execute("reopen_coding_run", {"coding_run_id": coding_run_id})
        detail["pending"] = len(pending)
    if pending:
        logger.info("%s: %d notes to code in %d shards", coding_run_id, len(pending), shards)
    else:
        logger.info("%s: no note to code from %s to %s", coding_run_id, from_date, to_date)
    numbers = sorted({row["shard"] for row in pending}) or [0]
    return [Shard(coding_run_id=coding_run_id, shard=number, shards=shards) for number in numbers]


def code_shard(
    coding_run_id: str,
    shard: int,
    *,
    shards: int,
    storage: Storage,
    database: Database,
    cache_folder: Path,
    open_coder: OpenCoder = Coder.open,
) -> CodedShard:
    """Code the notes of one shard that are not coded yet, in small transactions.

    A note that cannot be coded is recorded as failed, with the kind of error as reason, and stops no other. Raises NoteError
    when the run was not planned, ModelError or StorageError when the model cannot be had.
    """
    with record_step(database, "code_shard", coding_run_id) as detail:
        run = _fetch_run(database, coding_run_id)
        rows = database.fetch_all("list_pending_notes", coding_run_id=coding_run_id, shards=shards, shard=shard)
        pending = [_Pending(row["encounter_id"], row["note_sha256"], row["release_key"]) for row in rows]
        if not pending:
            logger.info("%s: shard %d of %d has nothing to code", coding_run_id, shard, shards)
            return CodedShard(0, 0, 0)
        folder = fetch_model(storage, storage.uri_of(f"models/{run['model_id']}"), cache_folder)
        worker = _Worker(coding_run_id, run["model_id"], database)
        batches = list(_batches(pending))
        for release_key, batch in track(batches, f"{coding_run_id} shard {shard}", total=len(batches), unit="batches"):
            worker.code_batch(batch, _coder_of(folder, release_key, database, open_coder))
        detail.update(asdict(worker.done))
    logger.info("%s: shard %d of %d: %s", coding_run_id, shard, shards, worker.done)
    return worker.done


def finish_night(coding_run_id: str, database: Database) -> CodedNight:
    """Count a run and close it. Raises NoteError, and marks the run failed, while notes are still to be coded."""
    run = _fetch_run(database, coding_run_id)
    with record_step(database, "finish_night", coding_run_id), database.transaction() as transaction:
        pending = transaction.fetch_all("list_pending_notes", coding_run_id=coding_run_id, shards=1, shard=None)
        transaction.execute("forget_coded_encounters", {"coding_run_id": coding_run_id})
        transaction.execute("record_uncoded_encounters", {"coding_run_id": coding_run_id})
        status = "failed" if pending else "finished"
        closed = transaction.execute("close_coding_run", {"coding_run_id": coding_run_id, "status": status})
        counts = transaction.fetch_one("count_coding_run", coding_run_id=coding_run_id)
    if pending:
        raise NoteError(f"{coding_run_id}: {len(pending)} notes are still to be coded: run its shards again")
    night = CodedNight(coding_run_id=coding_run_id, **(counts or {}))
    logger.info("%s: %s%s", coding_run_id, night, "" if closed else f" (was {run['status']} already)")
    return night


def code_encounters(
    from_date: date,
    to_date: date,
    *,
    model: ModelRef,
    coding_run_id: str,
    storage: Storage,
    database: Database,
    cache_folder: Path,
    open_coder: OpenCoder = Coder.open,
) -> CodedNight:
    """A whole night in this process: plan, one shard, finish."""
    for planned in plan_night(from_date, to_date, model=model, shards=1, coding_run_id=coding_run_id, database=database):
        code_shard(**planned, storage=storage, database=database, cache_folder=cache_folder, open_coder=open_coder)
    return finish_night(coding_run_id, database)


class _Worker:
    """Codes batches for one run and keeps count."""

    def __init__(self, coding_run_id: str, model_id: str, database: Database) -> None:
        self.coding_run_id = coding_run_id
        self.model_id = model_id
        self.database = database
        self.done = CodedShard(0, 0, 0)

    def code_batch(self, batch: Sequence[_Pending], coder: PhraseCoder) -> None:
        """Code the notes of one release and write them in one transaction."""
        texts = self._fetch_texts(batch)
        outcomes = _code_each([texts[note.encounter_id, note.note_sha256] for note in batch], coder)
        coded = failed = lost = 0
        with self.database.transaction() as transaction:
            for note, outcome in zip(batch, outcomes, strict=True):
                if not self._write(note, outcome, transaction):
                    lost += 1
                elif isinstance(outcome, str):
                    failed += 1
                else:
                    coded += 1
        self.done = CodedShard(self.done.coded + coded, self.done.failed + failed, self.done.lost + lost)

    def _fetch_texts(self, batch: Sequence[_Pending]) -> dict[tuple[str, str], str]:
        rows = self.database.fetch_all(
            "fetch_note_texts",
            encounter_ids=[note.encounter_id for note in batch],
            note_sha256s=[note.note_sha256 for note in batch],
        )
        return {(row["encounter_id"], row["note_sha256"]): row["note_text"] for row in rows}

    def _write(self, note: _Pending, outcome: tuple[CodePrediction, ...] | str, transaction: Transaction) -> bool:
        """Claim the note and write its codes; False when another worker had it first."""
        key = {**asdict(note), "model_id": self.model_id}
        failure = outcome if isinstance(outcome, str) else None
        claim = {
            **key,
            "coding_run_id": self.coding_run_id,
            "status": "failed" if failure else "coded",
            "failure": failure,
        }
        if transaction.fetch_one("claim_coded_note", **claim) is None:
            return False
        if not isinstance(outcome, str) and outcome:
            transaction.execute(
                "insert_predictions",
                [
                    {
                        **key,
                        "code": prediction.code,
                        "rank": rank,
                        "confidence": prediction.confidence,
                        "decision": prediction.decision,
                        "evidence_start": prediction.start,
                        "evidence_end": prediction.end,
                    }
                    for rank, prediction in enumerate(outcome, start=1)
                ],
            )
        return True


def _code_each(texts: Sequence[str], coder: PhraseCoder) -> list[tuple[CodePrediction, ...] | str]:
    """The codes of each note, or the kind of error that it met. Notes are coded together, and one by one when that fails."""
    try:
        return list(code_notes(coder, texts))
    except (LLMCoderError, MemoryError):
        raise
    except Exception as error:
        if len(texts) == 1:
            return [f"{type(error).__name__} while coding"]  # the message may quote the note
        return [_code_each([text], coder)[0] for text in texts]


def _batches(pending: Sequence[_Pending]) -> Iterator[tuple[str, list[_Pending]]]:
    """(release, notes) in batches of one release; `pending` comes ordered by release."""
    for release_key, group in groupby(pending, key=lambda note: note.release_key):
        notes = list(group)
        for start in range(0, len(notes), BATCH_NOTES):
            yield release_key, notes[start : start + BATCH_NOTES]


_open_coders: dict[tuple[Path, str, OpenCoder], PhraseCoder] = {}


def _coder_of(folder: Path, release_key: str, database: Database, open_coder: OpenCoder) -> PhraseCoder:
    """The coder of a model under a release, opened once for each process: that takes seconds. Only the newest one is kept."""
    key = (folder, release_key, open_coder)
    if key not in _open_coders:
        coder = open_coder(folder, read_code_set(database, release_key))
        _open_coders.clear()
        _open_coders[key] = coder
    return _open_coders[key]


def _fetch_run(database: Database, coding_run_id: str) -> Row:
    run = database.fetch_one("fetch_coding_run", coding_run_id=coding_run_id)
    if run is None:
        raise NoteError(f"coding run {coding_run_id!r} was not planned: run plan_night first")
    return run


def _verify_same_run(transaction: Transaction, wanted: dict[str, object]) -> None:
    standing = transaction.fetch_one("fetch_coding_run", coding_run_id=wanted["coding_run_id"]) or {}
    for name in ("from_date", "to_date", "model_id"):
        if standing[name] != wanted[name]:
            raise NoteError(
                f"coding run {wanted['coding_run_id']!r} exists with {name} {standing[name]}, not {wanted[name]}: choose another id"
            )
