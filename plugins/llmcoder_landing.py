"""Watches the landing place, a folder or an S3 prefix, and tells Airflow of each new release that lies there whole.

    landing/FY2027/…          a folder: its name is the release key, or anything else, and then the files say which release it is
    landing/april-update.zip  a zip

An entry is whole when nothing in it has changed for the settling time and no file carries the name of an unfinished copy. What was
told is remembered in Airflow's asset state, so that a restart tells nothing twice; new content under an old name is told again.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow.sdk import Asset, AssetWatcher
from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from llmcoder_tasks.errors import ReleaseError, StorageError
from llmcoder_tasks.records import parse_release_key
from llmcoder_tasks.settings import Settings
from llmcoder_tasks.storage import open_storage

UNFINISHED_SUFFIXES = (".part", ".partial", ".filepart", ".tmp", ".crdownload", ".download", ".swp")
"""How copy programs name what they have not finished; hidden files are never listed."""

_TOLD = "told"


class ReleaseLandingTrigger(BaseEventTrigger):
    """Yields an event when releases have arrived whole: `{"arrivals": [{"source": URI, "release_key": key or None}, ...]}`.

    All that a look finds are told in one event, and events keep apart. Airflow queues an event for a DAG with the time of the first
    one that waits, and the run that comes of it takes no later ones: what is told between an event and its run would wait for the
    next release.

    Args:
        landing_uri: `file:///folder` or `s3://bucket/prefix`.
        endpoint_url: another S3 server than AWS.
        poll_seconds: time between two looks.
        settle_seconds: how long an entry must stay as it is before it counts as whole.
        apart_seconds: time between two events, enough for the scheduler to make a run of the first.
    """

    def __init__(
        self,
        landing_uri: str,
        endpoint_url: str | None = None,
        poll_seconds: float = 5,
        settle_seconds: float = 30,
        apart_seconds: float = 60,
    ) -> None:
        super().__init__()
        self.landing_uri = landing_uri
        self.endpoint_url = endpoint_url
        self.poll_seconds = poll_seconds
        self.settle_seconds = settle_seconds
        self.apart_seconds = apart_seconds

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return (
            "llmcoder_landing.ReleaseLandingTrigger",
            {
                "landing_uri": self.landing_uri,
                "endpoint_url": self.endpoint_url,
                "poll_seconds": self.poll_seconds,
                "settle_seconds": self.settle_seconds,
                "apart_seconds": self.apart_seconds,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look, tell, and only at the next look remember: what a crash swallowed is told again, and ingest is idempotent."""
        settling = Settling(self.settle_seconds)
        told: dict[str, str] = dict(await self.asset_state_store.aget(_TOLD, {}))  # type: ignore[union-attr, call-overload]
        remembered = dict(told)
        last_event = -math.inf
        while True:
            now = time.monotonic()
            whole = settling.find_whole(await self._look(), now=now)
            arrived = {entry: mark for entry, mark in whole.items() if told.get(entry) != mark}
            if arrived and now - last_event >= self.apart_seconds:
                told |= arrived
                last_event = now
                self.log.info("%s arrived in %s", ", ".join(arrived), self.landing_uri)
                yield TriggerEvent({"arrivals": [self._describe(entry) for entry in arrived]})
            await asyncio.sleep(self.poll_seconds)
            if told != remembered:
                await self.asset_state_store.aset(_TOLD, dict(told))  # type: ignore[union-attr, arg-type]
                remembered = dict(told)

    def _describe(self, entry: str) -> dict[str, str | None]:
        return {"source": f"{self.landing_uri}/{entry}", "release_key": release_key_of(entry)}

    async def _look(self) -> dict[str, str]:
        """Versions of all files by key; empty while the store does not answer, so that a bad minute does not end the watch."""
        try:
            return await asyncio.to_thread(self._list_versions)
        except (StorageError, OSError) as error:
            self.log.warning("cannot look for new releases, will try again: %s", error)
            return {}

    def _list_versions(self) -> dict[str, str]:
        return open_storage(self.landing_uri, endpoint_url=self.endpoint_url).list_versions("")


@dataclass
class Settling:
    """Remembers since when each entry looks as it does."""

    settle_seconds: float
    _since: dict[str, tuple[str, float]] = field(default_factory=dict)

    def find_whole(self, versions: Mapping[str, str], *, now: float) -> dict[str, str]:
        """Fingerprints of the entries that have not changed for the settling time, by name, in the order of their names.

        Args:
            versions: key of each file, relative to the landing place, to a token of its content.
            now: seconds on a monotonic clock.
        """
        seen = fingerprint_entries(versions)
        self._since = {
            entry: (mark, self._since[entry][1] if self._since.get(entry, ("", 0.0))[0] == mark else now)
            for entry, mark in seen.items()
        }
        return {entry: mark for entry, (mark, since) in sorted(self._since.items()) if now - since >= self.settle_seconds}


def fingerprint_entries(versions: Mapping[str, str]) -> dict[str, str]:
    """sha256 over names and versions of the files of each finished entry. A loose file that is no zip is no release."""
    entries: dict[str, list[str]] = {}
    for key, version in sorted(versions.items()):
        entry, slash, _ = key.partition("/")
        if slash or entry.lower().endswith(".zip") or _is_unfinished(entry):
            entries.setdefault(entry, []).append(f"{key}\0{version}\n")
    return {
        entry: hashlib.sha256("".join(lines).encode()).hexdigest()
        for entry, lines in entries.items()
        if not any(_is_unfinished(line.partition("\0")[0]) for line in lines)
    }


def _is_unfinished(key: str) -> bool:
    return key.lower().endswith(UNFINISHED_SUFFIXES)


def release_key_of(entry: str) -> str | None:
    """The release key that an entry's name states, or None when the files have to say."""
    name = entry[: -len(".zip")] if entry.lower().endswith(".zip") else entry
    try:
        parse_release_key(name)
    except ReleaseError:
        return None
    return name


def watch_landing(settings: Settings) -> Asset:
    """The asset that changes whenever a release arrives in the landing place of these settings."""
    trigger = ReleaseLandingTrigger(settings.landing_uri, settings.s3_endpoint_url, settle_seconds=settings.landing_seconds)
    return Asset("release_landing", group="llmcoder", watchers=[AssetWatcher("landing", trigger=trigger)])
