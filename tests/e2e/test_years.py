"""Four years of releases through a real Airflow: FY2024 to FY2027 as they arrive, one twice and corrected, and an older one late.

Chapters of the official releases land one after another. Each is reported, learnt (the first in full, the others as updates of the
model in service), judged, approved by a person and promoted; nights around each 1 October code the same text by the release of its
day.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from airflow_loop import Loop, await_run, await_until, explain, follow, follow_and_approve, land, open_loop, unpause
from hospital import query
from release_files import Row, order_file, write_folder

from llmcoder_tasks.services.airflow_api import DagRun
from llmcoder_tasks.services.credentials import USERNAME
from llmcoder_tasks.steps.find_code import find_code_on_date

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(3600)]

CHAPTERS = "DEGIJKLMNR"
"""First letters of the codes that land: some fifteen thousand, so that the gate has items enough to compare two models."""

afterwards = pytest.mark.skipif(os.environ.get("YEARS") != "all", reason="what comes after the four years: YEARS=all runs it too")
"""Six minutes more: a release that lands twice, one that comes late, a rollback, a correction."""

YEARS = ("FY2024", "FY2025", "FY2026", "FY2027")
LATE = "FY2023"
BOUNDARIES = {
    2023: ("Parkinson's disease", "G20", ""),  # no night is coded after it
    2024: ("Carcinoid syndrome", "E340", "E3400"),
    2025: ("Multiple sclerosis", "G35", "G35D"),
    2026: ("Dilated cardiomyopathy", "I420", "I4200"),
}
"""By the year of a 1 October: what notes name, its code until the day before, and its code from then on."""

DAG_IDS = ("ingest_release", "build_dataset", "train_model", "code_encounters", "rollback_model")


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory, official_releases: Path) -> Iterator[Loop]:
    settings = {"LLMCODER_VARIATIONS_PER_CODE": "1", "LLMCODER_APPROVERS": USERNAME}
    with open_loop(tmp_path_factory.mktemp("years"), settings) as opened:
        _admit(opened)
        unpause(opened, *DAG_IDS)
        yield opened


def _admit(loop: Loop) -> None:
    """An encounter on each side of every boundary, both with the same text."""
    rows = [
        {"encounter_id": f"E-{day}", "discharge_date": day, "text": f"DISCHARGE DIAGNOSES:\n1. {title}\n"}
        for year, (title, _, _) in BOUNDARIES.items()
        for day in (f"{year}-09-30", f"{year}-10-01")
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (loop.settings.inbox_folder / "encounters.jsonl").write_text(text, encoding="utf-8")


def _read(releases: Path, key: str) -> list[Row]:
    (path,) = (path for path in (releases / key).glob("icd10cm*order*") if "addenda" not in path.name)
    lines = gzip.decompress(path.read_bytes()).decode("latin-1").splitlines()
    return [(line[6:13].strip(), line[14], line[77:].strip()) for line in lines if line[6] in CHAPTERS]


def _land(loop: Loop, releases: Path, key: str, *, name: str | None = None) -> None:
    land(loop, name or key, {f"icd10cm-order-{key[2:]}.txt": order_file(_read(releases, key))})


def _learn(loop: Loop, releases: Path, key: str) -> DagRun:
    """A release lands, and its model goes into service."""
    _land(loop, releases, key)
    dataset = follow(loop.api, await_run(loop.api, "build_dataset", partition_key=key, seconds=240), 400)
    assert dataset.state == "success"
    (row,) = query(loop.stores.database, f"SELECT dataset_id FROM datasets WHERE release_key = '{key}'")
    return follow_and_approve(loop, await_run(loop.api, "train_model", partition_key=row[0]), f"ready for {key}")


def _code(loop: Loop, **conf: Any) -> DagRun:
    return follow(loop.api, loop.api.trigger_dag("code_encounters", conf=conf), 240)


def _code_boundary(loop: Loop, year: int) -> None:
    """One night for both sides of 1 October."""
    _code(loop, from_date=f"{year}-09-30", to_date=f"{year}-10-01")


def _codes_of(loop: Loop, day: str) -> list[tuple[str, str]]:
    """Release and code of what counts for the encounter of a day."""
    statement = f"""SELECT release_key, code FROM current_codings JOIN predictions
        USING (encounter_id, note_sha256, model_id, release_key) WHERE encounter_id = 'E-{day}' ORDER BY rank"""
    return [(release, code) for release, code in query(loop.stores.database, statement)]


def _promotions(loop: Loop) -> list[tuple[str, str, str]]:
    """Kind, release and stage of every promotion, in order."""
    statement = "SELECT kind, release_key, stage FROM promotions JOIN models USING (model_id) ORDER BY promotion_id"
    return [(kind, release, stage) for kind, release, stage in query(loop.stores.database, statement)]


@pytest.fixture(scope="module")
def first(loop: Loop, official_releases: Path) -> DagRun:
    """FY2024 is learnt, and the night around 1 October 2024 comes before FY2025 does."""
    run = _learn(loop, official_releases, "FY2024")
    _code_boundary(loop, 2024)
    return run


@pytest.fixture(scope="module")
def years(loop: Loop, first: DagRun, official_releases: Path) -> list[DagRun]:
    """The later releases are learnt, each before the night around its 1 October."""
    runs = []
    for key in YEARS[1:]:
        runs.append(_learn(loop, official_releases, key))
        if key == "FY2025":
            _code(loop, recode_release=key)
        else:
            _code_boundary(loop, int(key[2:]) - 1)
    return runs


def test_the_first_release_is_learnt_in_full_and_goes_on_until_its_follower_is_loaded(loop: Loop, first: DagRun) -> None:
    assert _promotions(loop)[0] == ("promote", "FY2024", "stage_two")
    assert query(loop.stores.database, "SELECT DISTINCT release_key FROM coded_notes WHERE encounter_id = 'E-2024-09-30'") == [
        ("FY2024",)
    ]


def test_each_later_release_updates_the_model_in_service_and_is_approved(loop: Loop, years: list[DagRun]) -> None:
    assert _promotions(loop) == [("promote", "FY2024", "stage_two"), *(("promote", key, "update") for key in YEARS[1:])]
    approvals = query(loop.stores.database, "SELECT answered_by, approved, comment FROM approvals ORDER BY approval_id")
    assert approvals == [(USERNAME, True, f"ready for {key}") for key in YEARS]


def test_the_verdicts_compare_with_the_model_in_service_slice_by_slice(loop: Loop, years: list[DagRun]) -> None:
    rows = query(loop.stores.database, "SELECT against_model_id, reasons FROM verdicts ORDER BY created_at")
    assert rows[0][0] is None
    for against, reasons in rows[1:]:
        assert against
        assert any(reason.startswith("new codes: ") for reason in reasons)
        assert any(reason.startswith("unchanged codes: ") for reason in reasons)


@pytest.mark.parametrize("year", [2024, 2025, 2026])
def test_the_same_text_is_coded_by_the_release_of_its_day(loop: Loop, years: list[DagRun], year: int) -> None:
    _, old, new = BOUNDARIES[year]
    before, after = _codes_of(loop, f"{year}-09-30"), _codes_of(loop, f"{year}-10-01")
    assert (f"FY{year}", old) in before
    assert (f"FY{year + 1}", new) in after
    assert old not in {code for _, code in after}


def test_what_a_late_release_outdated_was_reported_and_coded_again(loop: Loop, years: list[DagRun]) -> None:
    reports = query(loop.stores.database, "SELECT counts FROM release_reports WHERE release_key = 'FY2025' ORDER BY created_at")
    assert reports[0][0]["to_recode"] == 1
    releases = query(
        loop.stores.database, "SELECT release_key FROM coded_notes WHERE encounter_id = 'E-2024-10-01' ORDER BY release_key"
    )
    assert releases == [("FY2024",), ("FY2025",)], "the older coding stays as history"


def test_every_release_is_reported(loop: Loop, years: list[DagRun]) -> None:
    rows = query(loop.stores.database, "SELECT release_key, uri FROM release_reports ORDER BY release_key")
    assert {key for key, _ in rows} == set(YEARS)
    for _, uri in rows:
        assert b"<html" in loop.stores.storage.read_bytes(f"{loop.stores.storage.key_of(uri)}/report.html")[:500]


@pytest.fixture(scope="module")
def again(loop: Loop, years: list[DagRun], official_releases: Path) -> list[DagRun]:
    """FY2027 lands a second time, then FY2023 for the first: the runs of train_model that this woke."""
    before = {run.run_id for run in loop.api.list_runs("train_model")}
    _code_boundary(loop, 2023)
    _land(loop, official_releases, "FY2027", name="FY2027-as-sent-again")
    _land(loop, official_releases, LATE)

    def woken() -> list[DagRun]:
        return [run for run in loop.api.list_runs("train_model") if run.run_id not in before]

    await_until(lambda: len(woken()) >= 2, "both datasets wake train_model", 400)
    return [follow(loop.api, run, 120) for run in woken()]


@afterwards
def test_a_release_that_lands_twice_or_late_trains_nothing(loop: Loop, again: list[DagRun]) -> None:
    for run in again:
        states = {task.task_id: task.state for task in loop.api.list_tasks(run.dag_id, run.run_id)}
        trained = (states["train_stage_one"], states["update_model"], states["promote_model"])
        assert trained == ("skipped", "skipped", "skipped"), explain(loop.api, run)
    assert len(_promotions(loop)) == len(YEARS)


@afterwards
def test_an_older_release_that_comes_late_takes_its_place(loop: Loop, again: list[DagRun]) -> None:
    (previous,) = query(loop.stores.database, "SELECT previous_release_key FROM releases WHERE release_key = 'FY2024'")
    assert previous == (LATE,)
    assert find_code_on_date("G20", date(2023, 9, 30), loop.stores.database).is_billable
    assert not find_code_on_date("G20", date(2023, 10, 1), loop.stores.database).is_billable


@afterwards
def test_a_note_of_years_ago_is_refused_until_its_release_is_loaded(loop: Loop, again: list[DagRun]) -> None:
    (refused,) = query(loop.stores.database, "SELECT reason, message FROM uncoded_encounters WHERE encounter_id = 'E-2023-09-30'")
    assert refused[0] == "no_release_on_discharge_date"
    assert "2023-09-30" in refused[1]

    _code(loop, from_date="2023-09-30", to_date="2023-09-30")

    assert _codes_of(loop, "2023-09-30")[0] == (LATE, "G20")


@afterwards
def test_a_rollback_is_one_run_and_the_next_night_takes_the_model_before(loop: Loop, again: list[DagRun]) -> None:
    conf = {"reason": "codes nothing on ward 3", "confirm": True}
    follow(loop.api, loop.api.trigger_dag("rollback_model", conf=conf), 120)

    assert _promotions(loop)[-1] == ("rollback", "FY2026", "update")
    _code_boundary(loop, 2026)
    (_, code), *_ = _codes_of(loop, "2026-10-01")
    assert code == BOUNDARIES[2026][2], "a model that never learnt a code codes by the release all the same"


@afterwards
def test_a_release_that_was_withdrawn_and_corrected_is_valid_in_its_stead_and_nothing_is_lost(
    loop: Loop, again: list[DagRun], official_releases: Path, tmp_path: Path
) -> None:
    loop.api.set_paused("train_model", paused=True)  # what it would do is what it did in every year
    rows = [
        (code, flag, f"{title}, corrected" if code == "I4201" else title)
        for code, flag, title in _read(official_releases, "FY2027")
    ]
    source = write_folder(tmp_path / "corrected", {"icd10cm-order-2027.txt": order_file(rows)})
    before = _codings_of(loop, "2026-10-01")
    conf = {"source": str(source), "release_key": "FY2027", "replace": True}
    follow(loop.api, loop.api.trigger_dag("ingest_release", conf=conf), 240)
    await_run(loop.api, "build_dataset", partition_key="FY2027-corrected-1")

    _code(loop, recode_release="FY2027")

    assert _codes_of(loop, "2026-10-01")[0] == ("FY2027-corrected-1", BOUNDARIES[2026][2])
    assert before < _codings_of(loop, "2026-10-01"), "what the withdrawn content coded stays as history"


def _codings_of(loop: Loop, day: str) -> set[tuple[str, str]]:
    """Release and model of every coding of the encounter of a day, whether it counts or not."""
    statement = f"SELECT release_key, model_id FROM coded_notes WHERE encounter_id = 'E-{day}'"
    return {(release, model) for release, model in query(loop.stores.database, statement)}
