"""
### The model in service → one that was in service before

By hand only: give a reason and set `confirm`; without `to_model_id` the model before comes back. Who triggered the run, when and
why stand in the table `promotions`. A night that runs goes on with the model it began with; the next one takes what came back.

### On failure

- **The run is refused with status 400**: `confirm` is off or the reason is empty.
- **PromotionError, was never promoted**: `to_model_id` is none of the table `promotions`. Trigger again with one of them.
- **PromotionError, is in service now**: another model went into service in the meantime. Look whether that one has to go, and
  trigger again.
- **ArtifactMissing**: the published files of that model are gone. Choose another one by `to_model_id`.
- **DatabaseUnreachable, StorageUnreachable**: retried by itself, and never goes further back than `find_models` said.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import Param, dag
from llmcoder_assets import PROMOTED_MODEL
from llmcoder_task import TASK_DEFAULTS, llmcoder_task

from llmcoder_tasks.connections import connect
from llmcoder_tasks.records import MAX_COMMENT_CHARACTERS


@dag(
    schedule=None,
    params={
        "reason": Param(
            title="Reason",
            type="string",
            minLength=1,
            maxLength=MAX_COMMENT_CHARACTERS,
            description="Why; never anything of a patient.",
        ),
        "to_model_id": Param(
            None,
            title="To model",
            type=["null", "string"],
            maxLength=200,
            description="A model that was in service; empty: the one before.",
        ),
        "confirm": Param(
            False, title="Confirm", type="boolean", const=True, description="Yes, another model shall code from now on."
        ),
    },
    default_args=TASK_DEFAULTS,
    catchup=False,
    max_active_runs=1,
    tags=["llmcoder", "model"],
    doc_md=__doc__,
)
def rollback_model() -> None:
    """Name both models, then move."""

    @llmcoder_task(task_display_name="Name both models")
    def find_models(*, params: Any = None) -> Any:
        """Before anything moves, so that a retry never goes one further back."""
        from llmcoder_tasks.steps.rollback_model import plan_rollback

        stores = connect()
        return plan_rollback(params["to_model_id"], storage=stores.storage, database=stores.database)

    @llmcoder_task(task_id="rollback_model", task_display_name="Bring the older one back", outlets=[PROMOTED_MODEL])
    def roll_back(models: dict[str, str], *, dag_run: Any = None, params: Any = None, outlet_events: Any = None) -> Any:
        """The next night codes with it."""
        from llmcoder_tasks.steps.rollback_model import Rollback, rollback_model

        stores = connect()
        model = rollback_model(
            Rollback(**models),
            promoted_by=dag_run.triggering_user_name or "somebody, by the DAG rollback_model",
            reason=params["reason"],
            storage=stores.storage,
            database=stores.database,
        )
        outlet_events[PROMOTED_MODEL].add_partitions(model.model_id)
        return model

    roll_back(find_models())


rollback_model()
