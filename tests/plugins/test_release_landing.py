"""The landing watcher: once for each release, never for half a one, on a folder and on S3."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from llmcoder_landing import ReleaseLandingTrigger, Settling, fingerprint_entries, release_key_of, watch_landing

from llmcoder_tasks.settings import Settings


class AssetState:
    """Airflow's asset state as a dictionary; it outlives the trigger, as the real one does."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    async def aget(self, key: str, default: Any = None) -> Any:
        return self.values.get(key, default)

    async def aset(self, key: str, value: Any) -> None:
        self.values[key] = value


def _watch(landing_uri: str, state: AssetState, **settings: Any) -> list[Any]:
    """What a watcher tells within some seconds, in whatever events."""
    return [arrival for event in _listen(landing_uri, state, **settings) for arrival in event]


def _listen(
    landing_uri: str,
    state: AssetState,
    *,
    seconds: float,
    endpoint_url: str | None = None,
    settle: float = 0.1,
    apart: float = 0,
    during: Callable[[], None] = lambda: None,
) -> list[list[Any]]:
    """The arrivals of each event within some seconds; `during` is done when the first one was told."""
    trigger = ReleaseLandingTrigger(landing_uri, endpoint_url, poll_seconds=0.05, settle_seconds=settle, apart_seconds=apart)
    trigger.asset_state_store = state  # type: ignore[assignment]
    payloads: list[list[Any]] = []

    async def collect() -> None:
        async for event in trigger.run():
            payloads.append(event.payload["arrivals"])
            if len(payloads) == 1:
                during()

    async def collect_for_a_while() -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(collect(), seconds)

    asyncio.run(collect_for_a_while())
    return payloads


def _land(landing: Path, entry: str, **files: str) -> None:
    (landing / entry).mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (landing / entry / f"{name}.txt").write_text(content, encoding="utf-8")


def test_a_release_is_told_once_with_its_key(tmp_path: Path) -> None:
    _land(tmp_path, "FY2027", order="00001 A00")

    told = _watch(tmp_path.as_uri(), AssetState(), seconds=0.8)

    assert told == [{"source": f"{tmp_path.as_uri()}/FY2027", "release_key": "FY2027"}]


def test_what_arrived_together_is_told_in_one_event(tmp_path: Path) -> None:
    _land(tmp_path, "FY2023", order="00001 A00")
    _land(tmp_path, "FY2027", order="00001 A00")

    (event,) = _listen(tmp_path.as_uri(), AssetState(), seconds=0.8)

    assert [arrival["release_key"] for arrival in event] == ["FY2023", "FY2027"]


@pytest.mark.parametrize(("apart", "expected"), [(0.8, [["FY2023"], ["FY2026", "FY2027"]]), (30, [["FY2023"]])])
def test_events_keep_apart_so_that_the_scheduler_takes_each(tmp_path: Path, apart: float, expected: list[list[str]]) -> None:
    _land(tmp_path, "FY2023", order="00001 A00")

    def arrive_later() -> None:
        _land(tmp_path, "FY2026", order="00001 A00")
        _land(tmp_path, "FY2027", order="00001 A00")

    events = _listen(tmp_path.as_uri(), AssetState(), seconds=1.8, apart=apart, during=arrive_later)

    assert [[arrival["release_key"] for arrival in event] for event in events] == expected


def test_a_restart_tells_nothing_twice(tmp_path: Path) -> None:
    state = AssetState()
    _land(tmp_path, "FY2027", order="00001 A00")
    assert len(_watch(tmp_path.as_uri(), state, seconds=0.8)) == 1

    assert _watch(tmp_path.as_uri(), state, seconds=0.8) == []


def test_corrected_content_under_the_same_name_is_told_again(tmp_path: Path) -> None:
    state = AssetState()
    _land(tmp_path, "FY2027", order="00001 A00")
    _watch(tmp_path.as_uri(), state, seconds=0.8)
    _land(tmp_path, "FY2027", order="00001 A00 corrected")

    assert [told["release_key"] for told in _watch(tmp_path.as_uri(), state, seconds=0.8)] == ["FY2027"]


def test_a_folder_with_an_unfinished_copy_is_not_told(tmp_path: Path) -> None:
    _land(tmp_path, "FY2027", order="00001 A00")
    (tmp_path / "FY2027" / "tabular.xml.part").write_text("<xml", encoding="utf-8")

    assert _watch(tmp_path.as_uri(), AssetState(), seconds=0.6) == []


def test_a_folder_that_still_grows_is_told_only_when_it_has_settled() -> None:
    settling = Settling(settle_seconds=30)

    assert settling.find_whole({"FY2027/order.txt": "100"}, now=0) == {}
    assert settling.find_whole({"FY2027/order.txt": "250"}, now=25) == {}
    assert settling.find_whole({"FY2027/order.txt": "250", "FY2027/codes.txt": "9"}, now=50) == {}
    assert settling.find_whole({"FY2027/order.txt": "250", "FY2027/codes.txt": "9"}, now=79) == {}
    assert list(settling.find_whole({"FY2027/order.txt": "250", "FY2027/codes.txt": "9"}, now=80)) == ["FY2027"]


def test_an_entry_that_was_away_settles_anew() -> None:
    settling = Settling(settle_seconds=30)
    versions = {"FY2027/order.txt": "100"}

    settling.find_whole(versions, now=0)
    settling.find_whole({}, now=20)

    assert settling.find_whole(versions, now=40) == {}
    assert list(settling.find_whole(versions, now=70)) == ["FY2027"]


def test_a_loose_file_is_no_release_and_a_zip_is_one() -> None:
    versions = {"README.txt": "1", "FY2027-April.zip": "2", "other.zip.part": "3"}

    assert list(fingerprint_entries(versions)) == ["FY2027-April.zip"]


@pytest.mark.parametrize(
    ("entry", "key"), [("FY2027", "FY2027"), ("FY2027-April.zip", "FY2027-April"), ("icd10cm-2027", None), ("FY2027-March", None)]
)
def test_the_name_of_an_entry_may_state_its_release(entry: str, key: str | None) -> None:
    assert release_key_of(entry) == key


@pytest.mark.integration
def test_a_release_on_s3_is_told_once_and_not_again(s3_endpoint: str) -> None:
    import boto3

    client = boto3.client("s3", endpoint_url=s3_endpoint)
    client.put_object(Bucket="artifacts", Key="landing-test/FY2027/icd10cm_order_2027.txt", Body=b"00001 A00")
    state = AssetState()

    told = _watch("s3://artifacts/landing-test", state, seconds=3, endpoint_url=s3_endpoint)

    assert told == [{"source": "s3://artifacts/landing-test/FY2027", "release_key": "FY2027"}]
    assert _watch("s3://artifacts/landing-test", state, seconds=2, endpoint_url=s3_endpoint) == []


@pytest.mark.integration
def test_a_store_that_does_not_answer_does_not_end_the_watch(tmp_path: Path) -> None:
    landing = tmp_path / "landing"
    landing.write_text("a file where the folder should be", encoding="utf-8")

    assert _watch(landing.as_uri(), AssetState(), seconds=0.4) == []


def test_the_trigger_survives_its_way_through_the_database() -> None:
    trigger = ReleaseLandingTrigger("s3://bucket/landing", "http://127.0.0.1:9000", poll_seconds=1, settle_seconds=2)

    path, arguments = trigger.serialize()

    assert path == "llmcoder_landing.ReleaseLandingTrigger"
    assert ReleaseLandingTrigger(**arguments).serialize() == (path, arguments)


def test_the_asset_watches_the_landing_place_of_the_settings(tmp_path: Path) -> None:
    given = {"LLMCODER_LANDING": "s3://bucket/landing", "LLMCODER_LANDING_SECONDS": "600"}
    asset = watch_landing(Settings.from_environment(given))

    (watcher,) = asset.watchers
    assert watcher.trigger.landing_uri == "s3://bucket/landing"  # type: ignore[attr-defined]
    assert watcher.trigger.settle_seconds == 600  # type: ignore[attr-defined]
