"""
### A release's codes → examples to learn from and to be judged by

Starts by itself when `ingest_release` has loaded a release; the partition key of the run is the release key. A run by hand needs
the partition key, or the param `release_key`. The same release with the same seed gives the same dataset, byte for byte.

The param `variations` is the id of a set that `llmcoder generate-variations` left: what a language model wrote then joins the
training data. Such a set is made by hand, because it costs money.

### On failure

- **ExpectationsFailed**: the message names the expectation, the column, how many rows are bad and up to three of them. Data
  Docs hold the whole result. Generated rows are at fault, not the scheduler: mend the generator, then clear the task.
- **ReleaseError**: the release is not in the database. Run `ingest_release` for it first.
- **DatasetError**, **ArtifactMissing**: the param `variations` names a set of another release, or none. Give the id that
  `llmcoder generate-variations` printed for this release, or leave the param empty.
- **DatabaseUnreachable, StorageUnreachable**: retried by itself; `llmcoder status` says which service is down.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import Param, PartitionedAssetTimetable, dag
from llmcoder_assets import DATASET, ICD10CM_RELEASE
from llmcoder_links import DatasetDocsLink
from llmcoder_task import TASK_DEFAULTS, llmcoder_task, require_key

from llmcoder_tasks.connections import connect
from llmcoder_tasks.records import ReleaseRef, VariationsRef
from llmcoder_tasks.settings import Settings

SETTINGS = Settings.from_environment()


@dag(
    schedule=PartitionedAssetTimetable(assets=ICD10CM_RELEASE),
    params={
        "release_key": Param(
            None,
            title="Release",
            type=["null", "string"],
            pattern=r"^FY20\d\d(-(January|April|July))?$",
            description="Release of a run by hand, like FY2026-April.",
        ),
        "variations_per_code": Param(
            SETTINGS.variations_per_code,
            title="Variations of each code",
            type="integer",
            minimum=1,
            maximum=100,
            description="Texts of each code and scenario to train on.",
        ),
        "variations": Param(
            None,
            title="Variations from a language model",
            type=["null", "string"],
            maxLength=200,
            description="Id of variations from a language model, to train on too.",
        ),
    },
    default_args=TASK_DEFAULTS,
    max_active_runs=1,
    tags=["llmcoder", "dataset"],
    doc_md=__doc__,
)
def build_dataset() -> None:
    """One step: make, validate, store."""

    @llmcoder_task(
        task_id="build_dataset",
        task_display_name="Make and check the examples",
        links=[DatasetDocsLink()],
        outlets=[DATASET],
    )
    def build(*, dag_run: Any = None, params: Any = None, outlet_events: Any = None) -> Any:
        """Great Expectations checks every table; a broken row ends the run."""
        from llmcoder_tasks.dataset.config import DatasetConfig
        from llmcoder_tasks.steps.build_dataset import build_dataset

        stores = connect()
        key, chosen = require_key(dag_run, params, "release_key"), params["variations"]
        dataset = build_dataset(
            ReleaseRef(key, stores.storage.uri_of(f"releases/{key}")),
            config=DatasetConfig.of_size(params["variations_per_code"]),
            storage=stores.storage,
            database=stores.database,
            docs_folder=stores.settings.home / "data_docs",
            train_on_corrections=stores.settings.train_on_corrections,
            variations=VariationsRef(chosen, stores.storage.uri_of(f"variations/{chosen}")) if chosen else None,
        )
        outlet_events[DATASET].add_partitions(dataset.dataset_id)
        return dataset

    build()


build_dataset()
