"""`llmcoder demo`: the whole loop on a real release, through a real Airflow, in front of your eyes."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date

from rich.console import Console

from llmcoder_tasks import services
from llmcoder_tasks.connections import connect
from llmcoder_tasks.demo.display import open_display
from llmcoder_tasks.demo.follow import Follower, MemoryMeter
from llmcoder_tasks.demo.report import print_report, print_scorecard
from llmcoder_tasks.errors import PromotionError, ServiceError
from llmcoder_tasks.evaluation.registry import read_promoted
from llmcoder_tasks.services.airflow_api import AirflowApi
from llmcoder_tasks.settings import SAMPLES_FOLDER, Settings

SIZE = {"LLMCODER_RECIPE": "compact-short", "LLMCODER_VARIATIONS_PER_CODE": "1"}
"""How much the demo trains where the environment does not say: a quarter of an hour in all."""

CHAIN = ("ingest_release", "build_dataset", "train_model")
"""DAGs that start one another; the night runs on its own clock."""

NIGHT = "code_encounters"
PARSE_SECONDS = 180.0
PAGE_WIDTH = 120  # of a log file, which has no width of its own


@dataclass(frozen=True, slots=True)
class Samples:
    """The sample encounters: their ids, and the first and last day of discharge."""

    encounter_ids: tuple[str, ...]
    from_date: date
    to_date: date


def run_demo(settings: Settings, *, exit_after: bool) -> None:
    """Start the services, run release → dataset → model → promotion → codes, and print what came of it.

    Promotes without a person. With `exit_after` everything is stopped at the end, also when a step failed; without it, or after
    Ctrl-C, the services stay up. Raises ServiceError with the place of the log when a step fails, PromotionError when no model
    is good enough to code with.
    """
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=PAGE_WIDTH)
    settings = replace(settings, approval_required=False)
    stop = exit_after
    try:
        _run_loop(settings, console)
    except KeyboardInterrupt:
        stop = False
        console.print("\nInterrupted. The services and what they run go on; [bold]llmcoder down[/] stops them.")
        raise SystemExit(130) from None
    finally:
        if stop:
            services.down(settings, report=console.print)
    if not stop:
        console.print("\nAll of it is still up; [bold]llmcoder down[/] stops it.")


def _run_loop(settings: Settings, console: Console) -> None:
    began = time.monotonic()
    console.print("[bold]Services[/]")
    running = services.up(settings, report=console.print)
    console.print(f"Airflow: {running.ui_url}  user [bold]{running.username}[/]  password [bold]{running.password}[/]\n")
    stores = connect(settings)
    database = stores.database
    newest = database.fetch_one("fetch_newest_step_run_id")
    meter = MemoryMeter(settings)
    with running.open_api() as api, open_display(console) as display:
        samples = fill_inbox(settings)
        _await_dags(api, (*CHAIN, NIGHT))
        follower = Follower(api, settings.home / "logs" / "airflow", display, meter)
        for dag_id in (*CHAIN, NIGHT):
            api.set_paused(dag_id, paused=False)
        _follow_chain(api, follower, CHAIN)
        if read_promoted(stores.storage) is None:
            print_scorecard(console, database)
            raise PromotionError("the gate kept the model out of service, so that nothing was coded: its true scores stand above")
        night = {"from_date": samples.from_date.isoformat(), "to_date": samples.to_date.isoformat()}
        follower.follow(api.trigger_dag(NIGHT, conf=night))
    print_report(
        console,
        database,
        encounter_id=samples.encounter_ids[0],
        after_step_run_id=newest["step_run_id"] if newest else 0,
        peak_memory_mib=meter.peak_mib,
        seconds=time.monotonic() - began,
    )
    console.print(f"\nAirflow UI: {running.ui_url}  user [bold]{running.username}[/]  password [bold]{running.password}[/]")


def fill_inbox(settings: Settings) -> Samples:
    """Put the sample discharge summaries where the night looks for new encounters; written whole or not at all."""
    content = (SAMPLES_FOLDER / "encounters.jsonl").read_text(encoding="utf-8")
    settings.inbox_folder.mkdir(parents=True, exist_ok=True)
    target = settings.inbox_folder / "sample_encounters.jsonl"
    incoming = target.with_name(f".{target.name}")
    incoming.write_text(content, encoding="utf-8")
    os.replace(incoming, target)
    rows = [json.loads(line) for line in content.splitlines()]
    days = [date.fromisoformat(row["discharge_date"]) for row in rows]
    return Samples(tuple(row["encounter_id"] for row in rows), min(days), max(days))


def _await_dags(api: AirflowApi, dag_ids: Sequence[str]) -> None:
    """Wait until Airflow has parsed every DAG of the loop. Raises ServiceError with the first import error."""
    deadline = time.monotonic() + PARSE_SECONDS
    while missing := sorted(set(dag_ids) - api.list_dags().keys()):
        for file, trace in api.list_import_errors().items():
            raise ServiceError(f"{file} cannot be parsed: {trace.strip().splitlines()[-1]}")
        if time.monotonic() > deadline:
            raise ServiceError(f"Airflow has not parsed {', '.join(missing)} after {PARSE_SECONDS:.0f} s: see dag-processor.log")
        time.sleep(1)


def _follow_chain(api: AirflowApi, follower: Follower, dag_ids: Sequence[str]) -> None:
    """Start the first DAG by hand and watch each one start the next through its asset."""
    known = {dag_id: {run.run_id for run in api.list_runs(dag_id)} for dag_id in dag_ids}
    follower.follow(api.trigger_dag(dag_ids[0]))
    for dag_id in dag_ids[1:]:
        follower.follow(follower.await_new_run(dag_id, known[dag_id]))
