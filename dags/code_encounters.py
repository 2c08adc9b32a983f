"""
### Every night: discharge summaries → ICD-10-CM codes in the database

At 02:00 UTC: loads what lies in the inbox (`LLMCODER_INBOX`: JSON lines, CSV or MIMIC-IV tables), then codes the discharges of
the last seven days with the model in service, each note once. A run by hand takes `from_date` and `to_date`, both included; past
nights are made up by `airflow backfill create --dag-id code_encounters`, each as of its own date. With `recode_release` a run
codes again what was coded with an older release although it was discharged since that one took effect, or with its withdrawn
content (`FY2027` finds `FY2027-corrected-1`); older codings stay as history. It runs on the clock and not on an asset: it wants
whichever model is in service when the night begins.

### On failure

- **NoteError in load_inbox**: no file of a known form lies in the inbox, or more than `LLMCODER_MAX_QUARANTINED_SHARE` of its rows
  are bad: `quarantined_notes` says which and why. The good rows are loaded; clear the task to go on with them.
- **PromotionError in plan_night**: no model is in service. Run `train_model`, or `llmcoder rollback-model`.
- **code_shard**: clear the failed shard; notes that are coded stay coded, and those of a dead worker are free again after
  `LLMCODER_CLAIM_SECONDS`. *Its message withheld* means that it may have quoted a
  patient: the log has the place in the code. A single note that cannot be coded stands in `coded_notes` with the kind of its error.
- **finish_night**: says how many notes are still to be coded: clear the shards that failed. Or how many are in quarantine, and
  why: mend the source, or raise the share.
- **measure_night left its band** (a message, no failure): `night_statistics` has the figures and their bands. Look at the notes'
  source first, then at the model: `llmcoder rollback-model`. Who is told: the Airflow connection `llmcoder_alerts`, http or smtp.
- **late** (a message): the run has not ended within `LLMCODER_NIGHT_HOURS`. Look at its running task; what is coded is kept.
- **DatabaseUnreachable, StorageUnreachable**: retried by itself; `llmcoder status` says which service is down.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import AsyncCallback, CronTriggerTimetable, DeadlineAlert, DeadlineReference, Param, dag
from llmcoder_links import NightLink, ReviewLink
from llmcoder_night import find_coding_date, find_night
from llmcoder_notifier import DriftNotifier, FailureNotifier, tell_late
from llmcoder_task import TASK_DEFAULTS, llmcoder_task

from llmcoder_tasks.connections import connect
from llmcoder_tasks.settings import Settings

SETTINGS = Settings.from_environment()
DAY = {"type": ["null", "string"], "format": "date"}


@dag(
    schedule=CronTriggerTimetable("0 2 * * *", timezone="UTC"),
    params={
        "from_date": Param(None, title="From", description="First discharge date of a run by hand.", **DAY),
        "to_date": Param(None, title="To", description="Last discharge date of a run by hand.", **DAY),
        "recode_release": Param(
            None,
            title="Code again under",
            type=["null", "string"],
            pattern=r"^FY20\d\d(-(January|April|July))?(-corrected-\d+)?$",
            description="A release: codes again what an older or its withdrawn one coded since it took effect, whatever the dates.",
        ),
        "shards": Param(
            2,
            title="Shards",
            type="integer",
            minimum=1,
            maximum=256,
            description="Parts of the night that workers may code at the same time.",
        ),
    },
    default_args=TASK_DEFAULTS,
    catchup=False,
    max_active_runs=1,
    on_failure_callback=[FailureNotifier()],
    deadline=DeadlineAlert(
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=timedelta(hours=SETTINGS.night_hours),
        callback=AsyncCallback(tell_late),
        name="The night is late",
    ),
    tags=["llmcoder", "night"],
    doc_md=__doc__,
)
def code_encounters() -> None:
    """Load, plan, code in shards, count."""

    @llmcoder_task(reads_notes=True, task_display_name="Load what is in the inbox")
    def load_inbox(*, dag_run: Any = None, params: Any = None) -> Any:
        """Encounters and notes from files into the database; what is no note goes into quarantine."""
        from llmcoder_tasks.steps.load_encounters import load_encounters

        stores = connect()
        if not any(stores.settings.inbox_folder.glob("[!.]*")):
            return None
        loaded = load_encounters(
            stores.settings.inbox_folder,
            source_format="auto",
            on=find_coding_date(dag_run, params),
            database=stores.database,
            max_quarantined_share=stores.settings.max_quarantined_share,
        )
        return {"encounters": loaded.encounters, "notes_new": loaded.notes_new, "rejected": len(loaded.rejected)}

    @llmcoder_task(task_id="plan_night", task_display_name="Plan the night in shards", links=[NightLink()])
    def plan(*, dag_run: Any = None, params: Any = None) -> Any:
        """Which notes are to be coded, by the model that is in service now, in parts that workers share."""
        from llmcoder_tasks.evaluation.registry import require_promoted
        from llmcoder_tasks.steps.code_encounters import plan_night, plan_recode

        stores = connect()
        from_date, to_date = find_night(dag_run, params)
        model = require_promoted(stores.storage)
        run_id = f"{dag_run.run_id} {model.model_id}"  # cleared after a promotion, the night is coded anew by the new model
        if release := params["recode_release"]:
            return plan_recode(release, model=model, shards=params["shards"], coding_run_id=run_id, database=stores.database)
        return plan_night(from_date, to_date, model=model, shards=params["shards"], coding_run_id=run_id, database=stores.database)

    @llmcoder_task(
        task_id="code_shard",
        task_display_name="Code the notes of a shard",
        map_index_template="shard {{ task.op_kwargs.shard + 1 }} of {{ task.op_kwargs.shards }}",
        links=[NightLink()],
        reads_notes=True,
        execution_timeout=timedelta(hours=6),
    )
    def code(coding_run_id: str, shard: int, shards: int) -> Any:
        """Notes to codes with evidence, confidence and a decision; each note once."""
        from llmcoder_tasks.coding.claims import Pace
        from llmcoder_tasks.steps.code_encounters import code_shard

        stores = connect()
        return code_shard(
            coding_run_id,
            shard,
            shards=shards,
            storage=stores.storage,
            database=stores.database,
            cache_folder=stores.settings.home / "cache",
            note_model=stores.settings.note_model,
            server=stores.settings.coder_server,
            pace=Pace.of_lease(stores.settings.claim_seconds),
        )

    # Also after a shard that failed: the coding run is then marked as failed, with what is left to do.
    @llmcoder_task(
        task_id="finish_night",
        task_display_name="Count and close the night",
        links=[NightLink()],
        trigger_rule="all_done_min_one_success",
    )
    def finish(planned: list[dict[str, Any]]) -> Any:
        """Finished when every note is coded; failed with what is left to do."""
        from llmcoder_tasks.steps.code_encounters import finish_night

        stores = connect()
        return finish_night(
            planned[0]["coding_run_id"], stores.database, max_quarantined_share=stores.settings.max_quarantined_share
        )

    # Beside it: what is coded can be reviewed, whatever else failed.
    @llmcoder_task(
        task_id="open_reviews",
        task_display_name="Queue what needs a person",
        links=[ReviewLink()],
        reads_notes=True,
        trigger_rule="all_done_min_one_success",
    )
    def queue(planned: list[dict[str, Any]]) -> Any:
        """Notes with a code to review, or with none, the least sure and most consequential first."""
        from llmcoder_tasks.steps.review_encounters import open_reviews

        return open_reviews(planned[0]["coding_run_id"], connect().database)

    # Whether this night looks like those before it. Out of its band it tells people, and stays a success.
    @llmcoder_task(
        task_id="measure_night",
        task_display_name="Compare with nights before",
        links=[NightLink()],
        reads_notes=True,
        on_success_callback=[DriftNotifier()],
    )
    def measure(planned: list[dict[str, Any]]) -> Any:
        """Confidence, shares and mix of codes against the last thirty nights."""
        from llmcoder_tasks.steps.measure_night import measure_night

        return measure_night(planned[0]["coding_run_id"], connect().database)

    planned = plan()
    load_inbox() >> planned
    finished = finish(planned)
    code.expand_kwargs(planned) >> [finished, queue(planned)]
    finished >> measure(planned)


code_encounters()
