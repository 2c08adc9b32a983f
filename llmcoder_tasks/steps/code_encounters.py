"""The night: discharge summaries of a range of dates → `coded_notes` and `predictions`, each note once.

`plan_night` cuts the work into shards, `code_shard` codes one (a mapped task, on any machine), `finish_night` counts. A note is
done when its row stands in `coded_notes` for its text, the model and the release of its discharge date. Workers claim small batches
in the database, and write a batch with the end of its claims in one transaction: what a killed worker leaves undone, and nothing
else, is what another takes up when its claims expire. A database that is gone for a while is waited for. What is no note (too long,
HTML, ...) goes into quarantine with the reason.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from itertools import groupby
from pathlib import Path
from typing import Any, TypedDict

from llmcoder_tasks.coding.claims import DEFAULT_PACE, Claimed, Claims, Pace
from llmcoder_tasks.coding.coder import CoderOpener
from llmcoder_tasks.coding.encounters import MAX_QUARANTINED_SHARE, find_fault, too_many_quarantined, verify_quarantined
from llmcoder_tasks.coding.notes import PhraseCoder, code_notes
from llmcoder_tasks.database import Database, Row, Transaction, keep_trying
from llmcoder_tasks.errors import LLMCoderError, ModelError, NoteError
from llmcoder_tasks.icd10cm.code_set import CodeSet, read_code_set, require_release
from llmcoder_tasks.icd10cm.validity import explain_gap
from llmcoder_tasks.model.manifest import fetch_model
from llmcoder_tasks.progress import record_step, track
from llmcoder_tasks.records import CodedNote, ModelRef, Patient
from llmcoder_tasks.settings import CoderServer, LanguageModel
from llmcoder_tasks.storage import Storage

logger = logging.getLogger(__name__)

BATCH_NOTES = 16
"""Notes coded and committed together: what a kill can cost."""

MOST_OPEN_CODERS = 2

OpenCoder = Callable[[Path, CodeSet], PhraseCoder]


@dataclass(frozen=True, slots=True)
class _Fault:
    """Why a text is no note: a reason of `quarantined_notes`."""

    reason: str


_Outcome = CodedNote | str | _Fault
"""What became of a note: codes, the kind of error that it met, or quarantine."""


class Shard(TypedDict):
    """What a mapped task gets: numbers and ids, never data."""

    coding_run_id: str
    shard: int
    shards: int


@dataclass(frozen=True, slots=True)
class CodedShard:
    """What one shard did: notes coded, failed, put into quarantine, and lost to a worker that took over an expired claim."""

    coded: int = 0
    failed: int = 0
    quarantined: int = 0
    lost: int = 0


@dataclass(frozen=True, slots=True)
class CodedNight:
    """A finished run. `coded` and `failed` are its own notes; `uncoded` encounters have no summary or no release on their date.
    `quarantined` notes are none that could be coded; `quarantined_notes` has the reasons.

    `encounters` also counts those that an earlier run had coded with the same model and release.
    """

    coding_run_id: str
    encounters: int
    coded: int
    failed: int
    uncoded: int
    quarantined: int
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
    return _plan(from_date, to_date, None, model, shards, coding_run_id, database)


def plan_recode(release_key: str, *, model: ModelRef, shards: int, coding_run_id: str, database: Database) -> list[Shard]:
    """Open a coding run over the encounters that this release concerns and that an older or a withdrawn one coded; name its shards.

    Those are dated on or after its effective date; each is coded by the release valid on its discharge date, and keeps its older
    codings as history. What is coded so is left out by the next call. Of a corrected release the name is enough: see
    `require_release`. Raises ReleaseError when the release is not loaded, and what `plan_night` raises.
    """
    standing = keep_trying(lambda: require_release(database, release_key))["release_key"]
    dates = keep_trying(lambda: database.fetch_all("find_recode_dates", release_key=standing))[0]
    return _plan(dates["from_date"], dates["to_date"], standing, model, shards, coding_run_id, database)


def _plan(
    from_date: date, to_date: date, recode: str | None, model: ModelRef, shards: int, coding_run_id: str, database: Database
) -> list[Shard]:
    if shards < 1:
        raise NoteError(f"{shards} shards: expected at least 1")
    if keep_trying(lambda: database.fetch_one("find_registered_model", model_id=model.model_id)) is None:
        raise ModelError(f"model {model.model_id} is not in the table models: train or register it first")
    wanted: dict[str, object] = {
        "coding_run_id": coding_run_id,
        "from_date": from_date,
        "to_date": to_date,
        "model_id": model.model_id,
        "recode_release_key": recode,
    }
    with record_step(database, "plan_night", coding_run_id) as detail:
        pending = keep_trying(lambda: _open_run(wanted, shards, database))
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
    note_model: LanguageModel | Path | None = None,
    server: CoderServer | None = None,
    open_coder: OpenCoder | None = None,
    pace: Pace = DEFAULT_PACE,
) -> CodedShard:
    """Code the notes of one shard that are not coded yet, in small transactions, until none is left.

    Notes that another worker has claimed are waited for: they are coded by it, or expire and are taken over. A note that cannot be
    coded is recorded as failed, with the kind of error as reason, and stops no other. `note_model` is the language model that reads
    notes, for a model that has one attached; `server` where a model is that answers behind one.

    Raises NoteError when the run was not planned, ModelError or StorageError when the model cannot be had, DatabaseUnreachable when
    the database stays away longer than `pace.patience`, LanguageModelError when the language model cannot be asked.
    """
    open_coder = open_coder or CoderOpener(note_model, server)
    with record_step(database, "code_shard", coding_run_id) as detail:
        run = keep_trying(lambda: _fetch_run(database, coding_run_id), pace.patience)
        worker = _Worker(run, database, pace)
        with worker.claims.kept_alive():
            folder: Path | None = None
            while pending := worker.list_pending(shard, shards):
                folder = folder or fetch_model(storage, storage.uri_of(f"models/{run['model_id']}"), cache_folder)
                batches = list(_batches(pending))
                before = worker.done
                for release_key, batch in track(batches, f"{coding_run_id} shard {shard}", total=len(batches), unit="batches"):
                    worker.code_batch(batch, release_key, _coder_of(folder, release_key, database, open_coder, pace))
                if worker.done == before:  # all of them are claimed by others
                    time.sleep(pace.heartbeat)
        detail.update(asdict(worker.done))
    logger.info("%s: shard %d of %d: %s", coding_run_id, shard, shards, worker.done)
    return worker.done


def finish_night(coding_run_id: str, database: Database, *, max_quarantined_share: float = MAX_QUARANTINED_SHARE) -> CodedNight:
    """Count a run and close it.

    Raises NoteError, and marks the run failed, while notes are still to be coded, and when more than a share of its notes went into
    quarantine, with the counts of each reason.
    """
    with record_step(database, "finish_night", coding_run_id):
        pending, counts, reasons = keep_trying(lambda: _close_run(coding_run_id, max_quarantined_share, database))
    if pending:
        raise NoteError(f"{coding_run_id}: {pending} notes are still to be coded: run its shards again")
    night = CodedNight(coding_run_id=coding_run_id, **counts)
    logger.info("%s: %s", coding_run_id, night)
    verify_quarantined(coding_run_id, reasons, _total(night), max_quarantined_share)
    return night


def code_encounters(
    from_date: date,
    to_date: date,
    *,
    model: ModelRef,
    coding_run_id: str,
    database: Database,
    max_quarantined_share: float = MAX_QUARANTINED_SHARE,
    **coding: Any,
) -> CodedNight:
    """A whole night in this process: plan, one shard, finish. `coding` are the other arguments of `code_shard`."""
    planned = plan_night(from_date, to_date, model=model, shards=1, coding_run_id=coding_run_id, database=database)
    return _code_planned(planned, database, max_quarantined_share, coding)


def recode_encounters(
    release_key: str,
    *,
    model: ModelRef,
    coding_run_id: str | None = None,
    database: Database,
    max_quarantined_share: float = MAX_QUARANTINED_SHARE,
    **coding: Any,
) -> CodedNight:
    """The same for what a release has outdated: see `plan_recode`. `coding_run_id` None: that of this release and model."""
    release_key = keep_trying(lambda: require_release(database, release_key))["release_key"]
    coding_run_id = coding_run_id or f"recode_{release_key}_{model.model_id}"
    planned = plan_recode(release_key, model=model, shards=1, coding_run_id=coding_run_id, database=database)
    return _code_planned(planned, database, max_quarantined_share, coding)


def _code_planned(planned: Sequence[Shard], database: Database, max_quarantined_share: float, coding: Row) -> CodedNight:
    for shard in planned:
        code_shard(**shard, database=database, **coding)
    return finish_night(planned[0]["coding_run_id"], database, max_quarantined_share=max_quarantined_share)


class _Worker:
    """Claims, codes and writes batches for one run, and keeps count."""

    def __init__(self, run: Row, database: Database, pace: Pace) -> None:
        self.run = run
        self.database = database
        self.pace = pace
        self.claims = Claims(run["coding_run_id"], run["model_id"], database, pace)
        self.done = CodedShard()

    def list_pending(self, shard: int, shards: int) -> list[_Pending]:
        """The notes of a shard that nobody has coded yet, claimed or not."""
        rows = keep_trying(
            lambda: self.database.fetch_all(
                "list_pending_notes", coding_run_id=self.run["coding_run_id"], shards=shards, shard=shard
            ),
            self.pace.patience,
        )
        return [_Pending(row["encounter_id"], row["note_sha256"], row["release_key"]) for row in rows]

    def code_batch(self, batch: Sequence[_Pending], release_key: str, coder: PhraseCoder) -> None:
        """Claim notes of one release, code those that nobody else has, and write them in one transaction."""
        claimed = self.claims.take([(note.encounter_id, note.note_sha256) for note in batch], release_key)
        if not claimed:
            return
        outcomes = _code_claimed(claimed, coder)
        written = keep_trying(lambda: self._write_batch(claimed, outcomes), self.pace.patience)
        before = self.done
        self.done = CodedShard(
            before.coded + written.coded,
            before.failed + written.failed,
            before.quarantined + written.quarantined,
            before.lost + written.lost,
        )

    def _write_batch(self, claimed: Sequence[Claimed], outcomes: Sequence[_Outcome]) -> CodedShard:
        """Write what is still this worker's. A commit whose answer got lost leaves nothing to the second attempt: `lost`."""
        counts = Counter[str]()
        with self.database.transaction() as transaction:
            ours = self.claims.give_back(transaction)
            for note, outcome in zip(claimed, outcomes, strict=True):
                is_ours = (note.encounter_id, note.note_sha256) in ours
                counts[self._write(note, outcome, transaction) if is_ours else "lost"] += 1
        return CodedShard(**counts)

    def _write(self, note: Claimed, outcome: _Outcome, transaction: Transaction) -> str:
        """Write one outcome; the name of its count."""
        if isinstance(outcome, _Fault):
            transaction.execute(
                "insert_quarantined_note",
                {
                    "content_sha256": note.note_sha256,
                    "place": note.encounter_id,
                    "source": "discharge_summaries",
                    "encounter_id": note.encounter_id,
                    "reason": outcome.reason,
                    "coding_date": self.run["to_date"],
                    "coding_run_id": self.run["coding_run_id"],
                },
            )
            return "quarantined"
        key = {
            "encounter_id": note.encounter_id,
            "note_sha256": note.note_sha256,
            "release_key": note.release_key,
            "model_id": self.run["model_id"],
        }
        failure = outcome if isinstance(outcome, str) else None
        status = "failed" if failure else "coded"
        row = {**key, "coding_run_id": self.run["coding_run_id"], "status": status, "failure": failure}
        if transaction.fetch_one("insert_coded_note", **row) is None:
            return "lost"
        if not isinstance(outcome, str):
            for query, rows in _rows_of(outcome):
                transaction.execute(query, [{**key, **row} for row in rows])
        return status


def _code_claimed(claimed: Sequence[Claimed], coder: PhraseCoder) -> list[_Outcome]:
    """The outcome of each note, in order. What is no note does not reach the coder."""
    faults = [find_fault(note.text) for note in claimed]
    good = [note for note, fault in zip(claimed, faults, strict=True) if fault is None]
    coded = iter(_code_each([note.text for note in good], [note.patient for note in good], coder))
    return [next(coded) if fault is None else _Fault(fault[0]) for fault in faults]


def _rows_of(note: CodedNote) -> Iterator[tuple[str, list[Row]]]:
    """What is written for a coded note: queries with their rows."""
    predictions = [
        {
            "code": code.code,
            "rank": rank,
            "confidence": code.confidence,
            "decision": code.decision,
            "evidence_start": code.start,
            "evidence_end": code.end,
        }
        for rank, code in enumerate(note.codes, start=1)
    ]
    findings = [
        {
            "rank": rank,
            "rule": finding.rule,
            "action": finding.action,
            "code": finding.code,
            "related_code": finding.related_code,
            "reason": finding.reason,
            "evidence_start": finding.start,
            "evidence_end": finding.end,
        }
        for rank, finding in enumerate(note.findings, start=1)
    ]
    grouping = note.grouping
    groups = {"all": grouping.with_all, "auto": grouping.with_auto} if grouping else {}
    drgs = [
        {"basis": basis, "grouper_version": grouping.version, "drg": drg.number, "category": drg.category, "title": drg.title}
        for basis, drg in groups.items()
        if grouping and drg
    ]
    written: dict[str, list[Row]] = {"insert_predictions": predictions, "insert_findings": findings, "insert_drgs": drgs}
    yield from ((query, rows) for query, rows in written.items() if rows)


def _code_each(texts: Sequence[str], patients: Sequence[Patient], coder: PhraseCoder) -> list[CodedNote | str]:
    """The codes of each note, or the kind of error that it met. Notes are coded together, and one by one when that fails."""
    try:
        return list(code_notes(coder, texts, patients))
    except (LLMCoderError, MemoryError):
        raise
    except Exception as error:
        if len(texts) == 1:
            return [f"{type(error).__name__} while coding"]  # the message may quote the note
        return [_code_each([text], [patient], coder)[0] for text, patient in zip(texts, patients, strict=True)]


def _batches(pending: Sequence[_Pending]) -> Iterator[tuple[str, list[_Pending]]]:
    """(release, notes) in batches of one release; `pending` comes ordered by release."""
    for release_key, group in groupby(pending, key=lambda note: note.release_key):
        notes = list(group)
        for start in range(0, len(notes), BATCH_NOTES):
            yield release_key, notes[start : start + BATCH_NOTES]


_open_coders: dict[tuple[Path, str, OpenCoder], PhraseCoder] = {}


def _coder_of(folder: Path, release_key: str, database: Database, open_coder: OpenCoder, pace: Pace) -> PhraseCoder:
    """The coder of a model under a release, with its indices: opened once for each process, which takes seconds.

    Two are kept, the ones used last: around an effective date a night needs the release before it and the one after.
    """
    key = (folder, release_key, open_coder)
    coder = _open_coders.pop(key, None) or open_coder(
        folder, keep_trying(lambda: read_code_set(database, release_key), pace.patience)
    )
    _open_coders[key] = coder
    for oldest in list(_open_coders)[:-MOST_OPEN_CODERS]:
        del _open_coders[oldest]
    return coder


def _open_run(wanted: dict[str, object], shards: int, database: Database) -> list[Row]:
    """Create or reopen a run; its notes that are still to be coded."""
    with database.transaction() as transaction:
        created = transaction.execute("create_coding_run", wanted)
        transaction.execute("extend_recode_run", wanted)
        _verify_same_run(transaction, wanted)
        key = {"coding_run_id": wanted["coding_run_id"]}
        pending = transaction.fetch_all("list_pending_notes", **key, shards=shards, shard=None)
        if pending and not created:
            transaction.execute("reopen_coding_run", key)
    return pending


def _close_run(coding_run_id: str, max_quarantined_share: float, database: Database) -> tuple[int, Row, dict[str, int]]:
    """(notes still to be coded, counts, quarantined notes by reason) of a run, which is closed as finished or failed."""
    key = {"coding_run_id": coding_run_id}
    _fetch_run(database, coding_run_id)
    with database.transaction() as transaction:
        pending = len(transaction.fetch_all("list_pending_notes", **key, shards=1, shard=None))
        transaction.execute("forget_dead_claims")
        transaction.execute("forget_coded_encounters", key)
        transaction.execute("record_uncoded_encounters", {**key, **_explain_gaps(transaction, coding_run_id)})
        counts = transaction.fetch_one("count_coding_run", **key) or {}
        reasons = {row["reason"]: row["notes"] for row in transaction.fetch_all("count_quarantined_by_run", **key)}
        is_bad = pending or too_many_quarantined(
            sum(reasons.values()), _total(CodedNight(coding_run_id, **counts)), max_quarantined_share
        )
        transaction.execute("close_coding_run", {**key, "status": "failed" if is_bad else "finished"})
    return pending, counts, reasons


def _explain_gaps(transaction: Transaction, coding_run_id: str) -> dict[str, list[Any]]:
    """The discharge dates of a run on which no loaded release is valid, and what is said of each."""
    dates = [row["discharge_date"] for row in transaction.fetch_all("list_dates_without_release", coding_run_id=coding_run_id)]
    loaded = [(row["release_key"], row["effective_from"]) for row in transaction.fetch_all("list_releases")] if dates else []
    return {"dates": dates, "messages": [explain_gap(day, loaded) for day in dates]}


def _total(night: CodedNight) -> int:
    """Notes that a night had to do with."""
    return night.coded + night.failed + night.quarantined


def _fetch_run(database: Database, coding_run_id: str) -> Row:
    run = database.fetch_one("fetch_coding_run", coding_run_id=coding_run_id)
    if run is None:
        raise NoteError(f"coding run {coding_run_id!r} was not planned: run plan_night first")
    return run


def _verify_same_run(transaction: Transaction, wanted: dict[str, object]) -> None:
    standing = transaction.fetch_one("fetch_coding_run", coding_run_id=wanted["coding_run_id"]) or {}
    fixed = ("from_date", "model_id", "recode_release_key", *(() if wanted["recode_release_key"] else ("to_date",)))
    for name in fixed:
        if standing[name] != wanted[name]:
            raise NoteError(
                f"coding run {wanted['coding_run_id']!r} exists with {name} {standing[name]}, not {wanted[name]}: choose another id"
            )
