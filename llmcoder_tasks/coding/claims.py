"""Which notes a worker may code now: leases in the database, renewed by a heartbeat while the worker lives.

A worker claims a batch, codes it, and writes what is then still its own, in the transaction that gives the claims back. Whoever
dies renews nothing: from `expires_at` on, by the database's clock, its notes are anybody's.
"""

from __future__ import annotations

import logging
import os
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from llmcoder_tasks.database import PATIENCE_SECONDS, Database, Transaction, keep_trying
from llmcoder_tasks.errors import DatabaseError
from llmcoder_tasks.records import Patient

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pace:
    """How patient workers are, in seconds.

    `lease` is how long a dead worker keeps its notes, `heartbeat` how often a living one renews them and how often one that
    waits for others looks again, `patience` how long a database may be gone.
    """

    lease: float = 120.0
    heartbeat: float = 20.0
    patience: float = PATIENCE_SECONDS

    @classmethod
    def of_lease(cls, seconds: float) -> Pace:
        """A heartbeat six times a lease: five may get lost."""
        return cls(lease=seconds, heartbeat=seconds / 6)


DEFAULT_PACE = Pace()


@dataclass(frozen=True, slots=True)
class Claimed:
    """A note that this worker may code: its key, its text and what is known of the patient."""

    encounter_id: str
    note_sha256: str
    release_key: str
    text: str
    patient: Patient


class Claims:
    """The claims of one worker of one coding run. It holds one batch at a time."""

    def __init__(self, coding_run_id: str, model_id: str, database: Database, pace: Pace) -> None:
        self.coding_run_id = coding_run_id
        self.model_id = model_id
        self.database = database
        self.pace = pace
        self.worker = f"{os.uname().nodename}-{os.getpid()}-{uuid.uuid4().hex[:12]}"

    def take(self, keys: Sequence[tuple[str, str]], release_key: str) -> list[Claimed]:
        """Claim notes, given as (encounter, hash); those that are now this worker's and still to be coded come back."""
        wanted = {
            "model_id": self.model_id,
            "release_key": release_key,
            "worker": self.worker,
            "lease_seconds": self.pace.lease,
            "encounter_ids": [encounter_id for encounter_id, _ in keys],
            "note_sha256s": [note_sha256 for _, note_sha256 in keys],
        }

        def claim() -> list[Claimed]:
            self.database.execute("claim_notes", wanted)
            rows = self.database.fetch_all("fetch_claimed_notes", worker=self.worker, coding_run_id=self.coding_run_id)
            return [
                Claimed(
                    row["encounter_id"],
                    row["note_sha256"],
                    row["release_key"],
                    row["note_text"],
                    Patient(row["sex"], row["age_years"], row["admission_date"], row["discharge_date"]),
                )
                for row in rows
            ]

        return keep_trying(claim, self.pace.patience)

    def give_back(self, transaction: Transaction) -> set[tuple[str, str]]:
        """End all claims of this worker; the (encounter, hash) of those that nobody has taken over."""
        rows = transaction.fetch_all("release_claims", worker=self.worker)
        return {(row["encounter_id"], row["note_sha256"]) for row in rows}

    @contextmanager
    def kept_alive(self) -> Iterator[None]:
        """Renew the claims while the block runs, in a thread; end them with it, so that nobody waits for a worker that failed."""
        stopped = threading.Event()
        thread = threading.Thread(target=self._beat, args=(stopped,), name="claims", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stopped.set()
            thread.join()
            with suppress(DatabaseError), self.database.transaction() as transaction:
                self.give_back(transaction)

    def _beat(self, stopped: threading.Event) -> None:
        while not stopped.wait(self.pace.heartbeat):
            try:
                self.database.execute("renew_claims", {"worker": self.worker, "lease_seconds": self.pace.lease})
            except DatabaseError as error:
                logger.warning("claims not renewed: %s", error)
