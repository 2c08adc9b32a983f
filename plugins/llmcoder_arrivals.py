"""Which releases one run of `ingest_release` has to load: what arrived, what takes effect today, or what a person asked for."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

from airflow.sdk.exceptions import AirflowSkipException
from llmcoder_calendar import release_in_effect
from llmcoder_landing import fingerprint_entries, release_key_of

from llmcoder_tasks.connections import Connections
from llmcoder_tasks.errors import ReleaseError
from llmcoder_tasks.records import parse_release_key
from llmcoder_tasks.storage import open_storage

Arrival = dict[str, Any]
"""Arguments of one ingest: `source` (URI, path or None for the embedded release) and `release_key` (or None: the files say)."""


def list_arrivals(dag_run: Any, params: Any, events: Sequence[Any], stores: Connections) -> list[Arrival]:
    """The releases of this run, oldest first: each is compared with the one before it.

    Args:
        dag_run: the run, as tasks see it.
        params: `source` and `release_key` of a run by hand.
        events: what the landing watcher told.
        stores: settings and connections.

    Raises ReleaseError when a release takes effect today and nobody has delivered it, AirflowSkipException when it is loaded.
    """
    if events:
        told = [arrival for event in events for arrival in event.extra["payload"]["arrivals"]]
        arrivals = {arrival["source"]: arrival for arrival in told}
        return sorted(arrivals.values(), key=_effective_date)
    if dag_run.run_type == "scheduled":
        return [find_due_release(release_in_effect(dag_run.run_after.date()), stores)]
    return [{"source": params["source"], "release_key": params["release_key"]}]


def find_due_release(release_key: str, stores: Connections) -> Arrival:
    """Where the release that takes effect today has landed."""
    landing = stores.settings.landing_uri
    versions = open_storage(landing, endpoint_url=stores.settings.s3_endpoint_url).list_versions("")
    for entry in fingerprint_entries(versions):
        if release_key_of(entry) == release_key:
            return {"source": f"{landing}/{entry}", "release_key": release_key}
    if stores.database.fetch_one("find_release_named", release_key=release_key):
        raise AirflowSkipException(f"{release_key} takes effect today and is loaded: nothing to do")
    raise ReleaseError(
        f"{release_key} takes effect today and has not arrived: put its files into {landing}/{release_key}, "
        "and the watcher starts the loop by itself"
    )


def _effective_date(arrival: Arrival) -> date:
    """A release whose name does not tell its date goes last."""
    return parse_release_key(arrival["release_key"]) if arrival["release_key"] else date.max
