"""Opens what the settings name: the pair of stores that every step needs."""

from __future__ import annotations

from dataclasses import dataclass

from llmcoder_tasks.database import Database
from llmcoder_tasks.settings import Settings
from llmcoder_tasks.storage import Storage, open_storage


@dataclass(frozen=True, slots=True)
class Connections:
    """Settings with the artifact store and the results database they name."""

    settings: Settings
    storage: Storage
    database: Database


def connect(settings: Settings | None = None) -> Connections:
    """Open both stores. Raises SettingsError, StorageError or StorageUnreachable; the database connects at first use."""
    chosen = settings or Settings.from_environment()
    storage = open_storage(chosen.artifacts_uri, endpoint_url=chosen.s3_endpoint_url)
    return Connections(chosen, storage, Database(chosen.require_database_url()))
