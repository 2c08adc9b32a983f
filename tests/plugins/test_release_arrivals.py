"""Which releases a run loads: what arrived, what takes effect today, or what a person asked for."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowSkipException
from llmcoder_arrivals import list_arrivals

from llmcoder_tasks.connections import Connections
from llmcoder_tasks.database import Database
from llmcoder_tasks.errors import ReleaseError
from llmcoder_tasks.settings import Settings
from llmcoder_tasks.storage import FolderStorage

BY_HAND = SimpleNamespace(run_type="manual", run_after=datetime(2026, 5, 5, tzinfo=UTC))
OCTOBER = SimpleNamespace(run_type="scheduled", run_after=datetime(2026, 10, 1, 6, tzinfo=UTC))
NO_PARAMS = {"source": None, "release_key": None}


@pytest.fixture
def stores(tmp_path: Path, database: Database) -> Connections:
    settings = Settings.from_environment({"LLMCODER_HOME": str(tmp_path)})
    (tmp_path / "landing").mkdir()
    return Connections(settings, FolderStorage(tmp_path / "artifacts"), database)


def _event(*arrivals: tuple[str, str | None]) -> Any:
    told = [{"source": source, "release_key": release_key} for source, release_key in arrivals]
    return SimpleNamespace(extra={"from_trigger": True, "payload": {"arrivals": told}})


def test_a_run_by_hand_loads_what_its_params_say(stores: Connections) -> None:
    params = {"source": "/data/FY2027.zip", "release_key": "FY2027", "replace": False}

    assert list_arrivals(BY_HAND, params, [], stores) == [{"source": "/data/FY2027.zip", "release_key": "FY2027"}]


def test_a_run_by_hand_without_a_source_loads_the_installed_release(stores: Connections) -> None:
    assert list_arrivals(BY_HAND, NO_PARAMS, [], stores) == [{"source": None, "release_key": None}]


def test_several_arrivals_are_loaded_oldest_first_and_once(stores: Connections) -> None:
    events = [
        _event(("s3://b/l/unnamed", None), ("s3://b/l/FY2027", "FY2027")),
        _event(("s3://b/l/FY2026-April", "FY2026-April")),
        _event(("s3://b/l/FY2027", "FY2027")),
    ]

    keys = [arrival["release_key"] for arrival in list_arrivals(BY_HAND, NO_PARAMS, events, stores)]

    assert keys == ["FY2026-April", "FY2027", None]


def test_the_day_of_effect_loads_a_release_that_has_landed(stores: Connections, tmp_path: Path) -> None:
    (tmp_path / "landing" / "FY2027").mkdir()
    (tmp_path / "landing" / "FY2027" / "order.txt").write_text("00001 A00", encoding="utf-8")

    landed = f"{(tmp_path / 'landing').as_uri()}/FY2027"
    assert list_arrivals(OCTOBER, NO_PARAMS, [], stores) == [{"source": landed, "release_key": "FY2027"}]


def test_the_day_of_effect_is_quiet_when_the_release_is_loaded(stores: Connections) -> None:
    with stores.database.transaction() as transaction:
        transaction.run_script(
            "INSERT INTO releases (release_key, effective_from, source, content_sha256, code_count, billable_count, uri)"
            " VALUES ('FY2027', '2026-10-01', 'test', 'x', 1, 1, 'file:///x')"
        )

    with pytest.raises(AirflowSkipException, match="FY2027 takes effect today and is loaded"):
        list_arrivals(OCTOBER, NO_PARAMS, [], stores)
    with stores.database.transaction() as transaction:  # corrected before its day
        transaction.run_script(
            "UPDATE releases SET withdrawn_at = now();"
            "INSERT INTO releases (release_key, effective_from, source, content_sha256, code_count, billable_count, uri)"
            " VALUES ('FY2027-corrected-1', '2026-10-01', 'test', 'y', 1, 1, 'file:///x')"
        )
    with pytest.raises(AirflowSkipException, match="FY2027 takes effect today and is loaded"):
        list_arrivals(OCTOBER, NO_PARAMS, [], stores)


def test_the_day_of_effect_raises_the_alarm_when_nobody_delivered(stores: Connections) -> None:
    with pytest.raises(ReleaseError, match="FY2027 takes effect today and has not arrived: put its files into file://"):
        list_arrivals(OCTOBER, NO_PARAMS, [], stores)
