"""
### A dataset → an update or two stages of training (three, with notes of patients) → scorecard → verdict → the model in service

Starts by itself when `build_dataset` has stored a dataset; the partition key of the run is the dataset id. A run by hand needs
the partition key, or the param `dataset_id`. `choose_training` says in its log why the model in service is updated, another one
trained in full, or none at all, because the model in service has learnt this dataset or a later release; the param `training` asks
for one of the first two. Training holds the one slot of the pool `gpu_pool` and the queue
`gpu`. A model that the gate does not promote stays out of service, and `check_verdict` says why. With approval required, `approve`
waits for a person under *Required Actions*.

### On failure

- **A deferred task**: not a failure. A server is at work (fine-tuning, a batch of questions); the task holds no slot, and goes on
  by itself.
- **TrainingError**: the end of the training log stands above. Clear the task: training resumes from its last checkpoint. Of a
  recipe for a server: the message has the server's reason, or the ceiling of cost; nothing was spent unless it names a job. Of
  `choose_training`: the update that was asked for cannot be, and the message says why; run with `training` at `full`.
- **RecipeError**: the recipe names an unknown key or value; the message names the nearest known one.
- **ModelError**: a model folder is incomplete or altered. Clear the stage that wrote it.
- **EvaluationError**: the suites cannot be judged, mostly a dataset that another version wrote. Run `build_dataset` again.
- **approve asks again**: the comment was too long, or the answer came in the same seconds as the question. Answer again.
- **check_verdict is skipped**: not a failure. The log has the verdict and its reasons.
- **PromotionError**: another model went into service in the meantime; the message names it. Clear `evaluate_model`, which makes
  the comparison with the model in service; the gate, the approval and the promotion follow it.
- **DatabaseUnreachable, StorageUnreachable**: retried by itself; `llmcoder status` says which service is down.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import Any

from airflow.sdk import Param, PartitionedAssetTimetable, dag
from llmcoder_approval import Answer, PromotionApproval, describe_verdict, name_of, require_promote
from llmcoder_assets import DATASET, PROMOTED_MODEL
from llmcoder_links import ScorecardLink
from llmcoder_notifier import VerdictNotifier
from llmcoder_task import GPU, TASK_DEFAULTS, llmcoder_task, require_key, take_result

from llmcoder_tasks.connections import connect
from llmcoder_tasks.records import DatasetRef, ModelRef, ScorecardRef, VerdictRef
from llmcoder_tasks.settings import Settings

SETTINGS = Settings.from_environment()


def train_stage(stage: str, dataset: dict[str, str], base: dict[str, str] | None, recipe: str) -> ModelRef:
    """Train one stage of a recipe; stage two and an update start from `base`."""
    from llmcoder_tasks.model.recipe import read_recipe
    from llmcoder_tasks.steps.train_model import train_model

    return train_model(
        DatasetRef(**dataset),
        recipe=read_recipe(recipe),
        stage=stage,
        base=ModelRef(**base) if base else None,
        **find_place(),
    )


def find_place() -> dict[str, Any]:
    """Where a stage is trained, and by what."""
    stores = connect()
    return {
        "storage": stores.storage,
        "database": stores.database,
        "work_folder": stores.settings.home / "work",
        "processes": stores.settings.training_processes,
        "nodes": stores.settings.training_nodes,
        "server": stores.settings.coder_server_without_waiting,
    }


def describe(verdict: dict[str, str], run_url: str) -> str:
    """What the person who approves is shown."""
    return describe_verdict(connect().database, verdict["verdict_id"], run_url=run_url, hours=SETTINGS.approval_hours)


def record(verdict: dict[str, str], answer: Answer) -> None:
    """Keep a person's answer."""
    from llmcoder_tasks.steps.record_approval import record_approval

    record_approval(VerdictRef(**verdict), **answer, database=connect().database)


@llmcoder_task(task_id="choose_training", task_display_name="Choose how to train")
def choose(dataset: dict[str, str], *, params: Any = None) -> Any:
    """Whether the model in service is updated, and why."""
    from llmcoder_tasks.model.recipe import read_recipe
    from llmcoder_tasks.steps.choose_training import choose_training

    stores = connect()
    return choose_training(
        DatasetRef(**dataset),
        wanted=params["training"],
        recipe=read_recipe(params["recipe"]),
        storage=stores.storage,
        database=stores.database,
    )


@llmcoder_task(chooses=True, task_display_name="Go the chosen way")
def take_way(way: dict[str, Any]) -> Any:
    """The task that trains first; none where there is nothing to learn, and the run ends with it."""
    return {"update": "update_model", "full": "train_stage_one", "none": []}[way["kind"]]


@llmcoder_task(task_display_name="Update the model in service", execution_timeout=timedelta(days=2), **GPU)
def update_model(dataset: dict[str, str], way: dict[str, Any], *, params: Any = None) -> Any:
    """Bring the model that was in service when the way was chosen up to date."""
    base = ModelRef(way["base_model_id"], connect().storage.uri_of(f"models/{way['base_model_id']}"))
    return train_stage("update", dataset, asdict(base), params["recipe"])


@llmcoder_task(
    task_id="train_on_notes",
    task_display_name="Learn notes of patients",
    reads_notes=True,
    execution_timeout=timedelta(days=2),
    **GPU,
)
def train_notes(dataset: dict[str, str], base: dict[str, str], *, params: Any = None) -> Any:
    """Let the model of stage two learn the notes of patients that a setting names, where the recipe has a stage for them."""
    from llmcoder_tasks.model.recipe import read_recipe
    from llmcoder_tasks.steps.train_model import train_on_notes

    return train_on_notes(
        DatasetRef(**dataset),
        recipe=read_recipe(params["recipe"]),
        base=ModelRef(**base),
        notes=SETTINGS.training_notes,
        **find_place(),
    )


@dag(
    schedule=PartitionedAssetTimetable(assets=DATASET),
    params={
        "dataset_id": Param(
            None, title="Dataset", type=["null", "string"], minLength=1, maxLength=200, description="Dataset of a run by hand."
        ),
        "recipe": Param(
            SETTINGS.recipe,
            title="Recipe",
            type="string",
            minLength=1,
            maxLength=500,
            description="A recipe of llmcoder_tasks/recipes, or a YAML file.",
        ),
        "training": Param(
            "auto",
            title="Training",
            enum=["auto", "full", "update"],
            description="Update the model in service or train in full. auto: update where the recipe can and little has changed; "
            "nothing where the model in service has learnt the dataset or a later release.",
        ),
        "evaluation_limit": Param(
            1000, title="Test items", type="integer", minimum=1, maximum=100_000, description="Test items for each scenario."
        ),
        "approval": Param(
            "required" if SETTINGS.approval_required else "off",
            title="Approval",
            enum=["required", "off"],
            description="Whether a person has to approve before the model goes into service.",
        ),
    },
    default_args=TASK_DEFAULTS,
    max_active_runs=1,
    tags=["llmcoder", "model"],
    doc_md=__doc__,
)
def train_model() -> None:
    """Update or train twice, fit, measure, judge, ask, promote."""

    @llmcoder_task(task_display_name="Find the dataset")
    def find_dataset(*, dag_run: Any = None, params: Any = None) -> Any:
        """By the partition key, or the param of a run by hand."""
        key = require_key(dag_run, params, "dataset_id")
        return DatasetRef(key, connect().storage.uri_of(f"datasets/{key}"))

    @llmcoder_task(task_display_name="Train stage one: all titles", waits=True, execution_timeout=timedelta(days=2), **GPU)
    def train_stage_one(dataset: dict[str, str], *, params: Any = None) -> Any:
        """Every billable code by its title."""
        return train_stage("stage_one", dataset, None, params["recipe"])

    @llmcoder_task(task_display_name="Train stage two: variations", waits=True, execution_timeout=timedelta(days=2), **GPU)
    def train_stage_two(dataset: dict[str, str], base: dict[str, str], *, params: Any = None) -> Any:
        """Variations of every title, from where stage one ended."""
        return train_stage("stage_two", dataset, base, params["recipe"])

    @llmcoder_task(
        task_id="fit_coder",
        waits=True,
        task_display_name="Fit weights and threshold",
        trigger_rule="none_failed_min_one_success",
        execution_timeout=timedelta(hours=6),
        **GPU,
    )
    def fit(dataset: dict[str, str], trained: dict[str, str] | None, updated: dict[str, str] | None) -> Any:
        """On the validation split: how sure a code has to be to pass by itself."""
        from llmcoder_tasks.steps.fit_coder import fit_coder

        stores = connect()
        cache_folder = stores.settings.home / "cache"
        return fit_coder(
            ModelRef(**take_result(updated, trained)),
            DatasetRef(**dataset),
            storage=stores.storage,
            database=stores.database,
            cache_folder=cache_folder,
            server=stores.settings.coder_server_without_waiting,
        )

    @llmcoder_task(
        task_id="fit_selection",
        task_display_name="Learn which codes count",
        reads_notes=True,
        execution_timeout=timedelta(hours=6),
        **GPU,
    )
    def select(model: dict[str, str]) -> Any:
        """From coded notes, where there are enough of them."""
        from llmcoder_tasks.steps.fit_selection import fit_selection

        stores = connect()
        cache_folder = stores.settings.home / "cache"
        return fit_selection(
            ModelRef(**model),
            storage=stores.storage,
            database=stores.database,
            cache_folder=cache_folder,
            server=stores.settings.coder_server,
        )

    @llmcoder_task(
        task_id="evaluate_model",
        waits=True,
        task_display_name="Write the scorecard",
        links=[ScorecardLink()],
        execution_timeout=timedelta(hours=6),
        **GPU,
    )
    def evaluate(model: dict[str, str], dataset: dict[str, str], *, params: Any = None) -> Any:
        """Five coders by seven scenarios, beside the model in service."""
        from llmcoder_tasks.steps.evaluate_model import evaluate_model

        stores = connect()
        return evaluate_model(
            ModelRef(**model),
            DatasetRef(**dataset),
            storage=stores.storage,
            database=stores.database,
            cache_folder=stores.settings.home / "cache",
            limit=params["evaluation_limit"],
            server=stores.settings.coder_server_without_waiting,
        )

    @llmcoder_task(task_id="judge_model", task_display_name="Judge it by the gate", links=[ScorecardLink()])
    def judge(scorecard: dict[str, str]) -> Any:
        """PROMOTE, HOLD or REJECT, with reasons."""
        from llmcoder_tasks.evaluation.gate import load_gate
        from llmcoder_tasks.steps.judge_model import judge_model

        stores = connect()
        return judge_model(ScorecardRef(**scorecard), gate=load_gate(), storage=stores.storage, database=stores.database)

    @llmcoder_task(task_display_name="Stop unless it is PROMOTE", links=[ScorecardLink()])
    def check_verdict(verdict: dict[str, str]) -> Any:
        """The log has the verdict and its reasons."""
        require_promote(connect().database, verdict["verdict_id"])
        return verdict

    @llmcoder_task(
        task_id="promote_model",
        task_display_name="Put the model into service",
        links=[ScorecardLink()],
        outlets=[PROMOTED_MODEL],
        trigger_rule="none_failed_min_one_success",
    )
    def promote(verdict: dict[str, str], approval: dict[str, Any] | None, *, outlet_events: Any = None) -> Any:
        """The next night codes with it."""
        from llmcoder_tasks.steps.promote_model import promote_model

        stores = connect()
        promoted_by = name_of(approval["responded_by_user"]) if approval else "the gate, approval off"
        model = promote_model(VerdictRef(**verdict), promoted_by=promoted_by, storage=stores.storage, database=stores.database)
        outlet_events[PROMOTED_MODEL].add_partitions(model.model_id)
        return model

    dataset = find_dataset()
    way = choose(dataset)
    first, updated = train_stage_one(dataset), update_model(dataset, way)
    take_way(way) >> [first, updated]
    model = select(fit(dataset, train_notes(dataset, train_stage_two(dataset, first)), updated))
    verdict = check_verdict(judge(evaluate(model, dataset)))
    approve = PromotionApproval(
        task_id="approve",
        task_display_name="Ask a person",
        doc_md="Waits under Required Actions. Whatever the answer, who gave it, when and why are kept.",
        notifiers=[VerdictNotifier()],
        verdict=verdict,
        required="{{ params.approval }}",
        describe=describe,
        record=record,
        approvers=SETTINGS.approvers,
        response_timeout=timedelta(hours=SETTINGS.approval_hours),
        execution_timeout=None,
        # An answer that comes too early for the scheduler is asked for again: soon, and more than twice.
        retries=5,
        retry_delay=timedelta(seconds=5),
    )
    promote(verdict, approve.output)


train_model()
