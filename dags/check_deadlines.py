"""
### Every morning: does a release take effect without a model that learnt it?

At 06:30 UTC: looks for loaded releases that are in effect, or will be within `LLMCODER_DEADLINE_DAYS`, while the model in service
learnt an older one, or the withdrawn content of a corrected one. Each is told of once a day, in the log and to the Airflow
connection `llmcoder_alerts` (http or smtp), with the state of its work and what to do. Silence means that all is fine.

### On failure

- **A warning, and the run is green**: that is the alert. Do what its last sentence says.
- **Nobody was told**: without the connection `llmcoder_alerts` the log alone says it. With it, the end of the log of `tell` has the
  error of the webhook or mail server; the next message comes tomorrow.
- **PromotionError**: the pointer of the model in service is damaged; its message says from where to restore it.
- **DatabaseUnreachable, StorageUnreachable**: retried by itself; `llmcoder status` says which service is down.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import CronTriggerTimetable, Param, dag
from llmcoder_notifier import DeadlineNotifier
from llmcoder_task import TASK_DEFAULTS, llmcoder_task

from llmcoder_tasks.connections import connect
from llmcoder_tasks.settings import Settings

SETTINGS = Settings.from_environment()


@dag(
    schedule=CronTriggerTimetable("30 6 * * *", timezone="UTC"),
    params={
        "days": Param(
            SETTINGS.deadline_days,
            title="Days",
            type="integer",
            minimum=0,
            maximum=366,
            description="From how many days before a release on.",
        ),
    },
    default_args=TASK_DEFAULTS,
    catchup=False,
    max_active_runs=1,
    tags=["llmcoder", "model"],
    doc_md=__doc__,
)
def check_deadlines() -> None:
    """Look, and tell what was not told today."""

    @llmcoder_task(task_id="check_deadlines", task_display_name="Look for missing models")
    def check(*, dag_run: Any = None, params: Any = None) -> Any:
        """Loaded releases that are in effect, or soon will be, and that the model in service did not learn."""
        from llmcoder_tasks.steps.check_deadlines import check_deadlines

        stores = connect()
        return check_deadlines(on=dag_run.run_after.date(), days=params["days"], storage=stores.storage, database=stores.database)

    @llmcoder_task(task_display_name="Tell what is not told yet", on_success_callback=[DeadlineNotifier()])
    def tell(deadlines: list[dict[str, Any]], *, dag_run: Any = None) -> Any:
        """Once a day for each release."""
        from llmcoder_tasks.steps.check_deadlines import Deadline, book_alerts

        found = [Deadline(**deadline) for deadline in deadlines]
        return book_alerts(found, on=dag_run.run_after.date(), database=connect().database)

    tell(check())


check_deadlines()
