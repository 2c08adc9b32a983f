"""Files with encounters → `encounters`, `discharge_summaries` and `gold_codes`; what cannot be used → `quarantined_notes`."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from itertools import islice
from pathlib import Path
from typing import Any

from llmcoder_tasks.coding.encounters import (
    MAX_QUARANTINED_SHARE,
    Encounter,
    Rejected,
    SourceFile,
    SourceFormat,
    list_source_files,
    read_source_file,
    verify_quarantined,
)
from llmcoder_tasks.database import Database, Transaction, keep_trying
from llmcoder_tasks.errors import DatabaseError, DatabaseUnreachable
from llmcoder_tasks.progress import record_step

logger = logging.getLogger(__name__)

_BATCH = 500
_COLUMNS = (
    "encounter_id", "patient_id", "admission_date", "discharge_date", "sex", "age_years", "source", "note_sha256", "note_text",
    "codes",
)  # fmt: skip


@dataclass(slots=True)
class LoadedEncounters:
    """What a load did. `rejected` holds (place, reason) of every row that was left out, without anything of the row.

    `reasons` counts them by the reason in `quarantined_notes`; `files_known` are files of a folder that were loaded before.
    """

    encounters: int = 0
    notes_new: int = 0
    notes_unchanged: int = 0
    rejected: list[tuple[str, str]] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    files_known: int = 0


def load_encounters(
    source: Path,
    *,
    source_format: SourceFormat,
    on: date,
    database: Database,
    max_quarantined_share: float = MAX_QUARANTINED_SHARE,
) -> LoadedEncounters:
    """Load a file or folder. A changed text becomes the next version of its encounter's summary; the older ones stay.

    `on` is the day of the load: a discharge after it is an error. Loading the same source again changes nothing; a file of a folder
    whose content was loaded before, under whatever name, is not even read, so that an inbox may keep what it got. A bad row stops
    no other: it goes into quarantine and is counted. Each batch is one transaction, so that a load that was cut off is finished by
    the next. Raises NoteError when the source holds no encounters, and, after all of it is loaded, when more than a share of its
    rows is bad.
    """
    loaded = LoadedEncounters()
    with record_step(database, "load_encounters", source.name) as detail:
        changed = sum(
            _load_file(file, source, on, loaded, database)
            for file in list_source_files(source, source_format)
            if not _is_known(file, source, loaded, database)
        )
        detail |= {"encounters": loaded.encounters, "notes_new": loaded.notes_new, "rejected": len(loaded.rejected)}
    for place, reason in loaded.rejected[:20]:
        logger.warning("left out %s: %s", place, reason)
    if not changed:
        logger.info("%s: nothing new in %d encounters", source.name, loaded.encounters)
    logger.info(
        "%s: %d encounters, %d new or amended summaries, %d unchanged, %d rows left out",
        source.name,
        loaded.encounters,
        loaded.notes_new,
        loaded.notes_unchanged,
        len(loaded.rejected),
    )
    verify_quarantined(source.name, loaded.reasons, loaded.encounters + len(loaded.rejected), max_quarantined_share)
    return loaded


def _is_known(file: SourceFile, source: Path, loaded: LoadedEncounters, database: Database) -> bool:
    """Whether a folder's file was loaded before. A file that somebody names is read again, as are tables that others complete."""
    if not source.is_dir() or file.form == "mimic-iv":
        return False
    known = keep_trying(lambda: database.fetch_one("find_loaded_file", content_sha256=file.sha256)) is not None
    loaded.files_known += known
    return known


def _load_file(file: SourceFile, source: Path, on: date, loaded: LoadedEncounters, database: Database) -> int:
    """Load a file and remember that; the number of changed rows."""
    changed = 0
    bad: list[Rejected] = []
    before = loaded.encounters
    for batch in _batches(read_source_file(file, source, on), bad):
        changed += _store(batch, source.name, loaded, bad, database)
    quarantined = [
        {
            "content_sha256": file.sha256,
            "place": row.place,
            "source": file.path.name,
            "encounter_id": row.encounter_id,
            "reason": row.kind,
            "coding_date": on,
            "coding_run_id": None,
        }
        for row in bad
    ]
    record = {
        "content_sha256": file.sha256,
        "source": file.path.name,
        "coding_date": on,
        "encounter_count": loaded.encounters - before,
        "quarantined_count": len(bad),
    }
    keep_trying(lambda: _record_file(record, quarantined, database))
    loaded.rejected += [(row.place, row.reason) for row in bad]
    loaded.reasons.update(row.kind for row in bad)
    return changed


def _record_file(record: dict[str, Any], quarantined: Sequence[dict[str, Any]], database: Database) -> None:
    with database.transaction() as transaction:
        if quarantined:
            transaction.execute("insert_quarantined_note", quarantined)
        transaction.execute("record_loaded_file", record)


def _batches(rows: Iterable[Encounter | Rejected], bad: list[Rejected]) -> Iterator[list[Encounter]]:
    """Good rows in batches; the bad ones go into the list."""

    def accept() -> Iterator[Encounter]:
        for row in rows:
            if isinstance(row, Rejected):
                bad.append(row)
            else:
                yield row

    accepted = accept()
    while batch := list(islice(accepted, _BATCH)):
        yield batch


def _store(batch: Sequence[Encounter], source: str, loaded: LoadedEncounters, bad: list[Rejected], database: Database) -> int:
    """Store a batch; when PostgreSQL refuses it, each row by itself. Returns the number of changed rows."""
    try:
        new, changed = keep_trying(lambda: _write(batch, source, database))
    except DatabaseUnreachable:
        raise
    except DatabaseError as error:
        if len(batch) > 1:
            return sum(_store([row], source, loaded, bad, database) for row in batch)
        bad.append(Rejected(batch[0].place, str(error), "refused_by_database"))
        return 0
    loaded.encounters += len(batch)
    loaded.notes_new += new
    loaded.notes_unchanged += len(batch) - new
    return new + changed


def _write(batch: Sequence[Encounter], source: str, database: Database) -> tuple[int, int]:
    """(new or amended summaries, other rows changed), in one transaction."""
    with database.transaction() as transaction:
        return _write_rows(batch, source, transaction)


def _write_rows(batch: Sequence[Encounter], source: str, transaction: Transaction) -> tuple[int, int]:
    transaction.execute("create_incoming_encounters")
    transaction.copy_rows("incoming_encounters", _COLUMNS, (_columns_of(row, source) for row in batch))
    changed = transaction.execute("upsert_encounters")
    new = transaction.execute("upsert_discharge_summaries")
    changed += transaction.execute("delete_stale_gold_codes") + transaction.execute("upsert_gold_codes")
    return new, changed


def _columns_of(row: Encounter, source: str) -> tuple[Any, ...]:
    digest = hashlib.sha256(row.text.encode("utf-8")).hexdigest()
    return (
        row.encounter_id, row.patient_id, row.admission_date, row.discharge_date, row.sex, row.age_years, source, digest,
        row.text, row.codes,
    )  # fmt: skip
