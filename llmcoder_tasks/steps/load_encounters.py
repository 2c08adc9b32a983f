"""Files with encounters → `encounters`, `discharge_summaries` and `gold_codes`."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from llmcoder_tasks.coding.encounters import Encounter, Rejected, SourceFormat, read_encounters
from llmcoder_tasks.database import Database, Transaction
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
    """What a load did. `rejected` holds (place, reason) of every row that was left out, without anything of the row."""

    encounters: int = 0
    notes_new: int = 0
    notes_unchanged: int = 0
    rejected: list[tuple[str, str]] = field(default_factory=list)


def load_encounters(source: Path, *, source_format: SourceFormat, database: Database) -> LoadedEncounters:
    """Load a file or folder. A changed text becomes the next version of its encounter's summary; the older ones stay.

    Loading the same source again changes nothing. A bad row stops no other: it is counted and named in the result. Each batch
    is one transaction, so that a load that was cut off is finished by the next. Raises NoteError when the source holds no
    encounters.
    """
    with record_step(database, "load_encounters", source.name) as detail:
        loaded = LoadedEncounters()
        changed = 0
        for batch in _batches(read_encounters(source, source_format), loaded):
            changed += _store(batch, source.name, loaded, database)
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
    return loaded


def _batches(rows: Iterable[Encounter | Rejected], loaded: LoadedEncounters) -> Iterator[list[Encounter]]:
    """Good rows in batches; the bad ones go into the result."""

    def accept() -> Iterator[Encounter]:
        for row in rows:
            if isinstance(row, Rejected):
                loaded.rejected.append((row.place, row.reason))
            else:
                yield row

    accepted = accept()
    while batch := list(islice(accepted, _BATCH)):
        yield batch


def _store(batch: Sequence[Encounter], source: str, loaded: LoadedEncounters, database: Database) -> int:
    """Store a batch; when PostgreSQL refuses it, each row by itself. Returns the number of changed rows."""
    try:
        with database.transaction() as transaction:
            new, changed = _write(batch, source, transaction)
    except DatabaseUnreachable:
        raise
    except DatabaseError as error:
        if len(batch) > 1:
            return sum(_store([row], source, loaded, database) for row in batch)
        loaded.rejected.append((batch[0].place, str(error)))
        return 0
    loaded.encounters += len(batch)
    loaded.notes_new += new
    loaded.notes_unchanged += len(batch) - new
    return new + changed


def _write(batch: Sequence[Encounter], source: str, transaction: Transaction) -> tuple[int, int]:
    """(new or amended summaries, other rows changed)."""
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
