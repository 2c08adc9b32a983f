"""
### A release's codes → examples to learn from and to be judged by

Starts by itself when `ingest_release` has loaded a release; the partition key of the run is the release key. A run by hand needs
the partition key, or the param `release_key`. The same release with the same seed gives the same dataset, byte for byte.

### On failure

- **ExpectationsFailed**: the message names the expectation, the column, how many rows are bad and up to three of them. Data
  Docs hold the whole result. Generated rows are at fault, not the scheduler: mend the generator, then clear the task.
- **ReleaseError**: the release is not in the database. Run `ingest_release` for it first.
- **DatabaseUnreachable, StorageUnreachable**: retried by itself; `llmcoder status` says which service is down.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import Param, PartitionedAssetTimetable, dag
from llmcoder_assets import DATASET, ICD10CM_RELEASE
from llmcoder_task import TASK_DEFAULTS, llmcoder_task, require_key

from llmcoder_tasks.connections import connect
from llmcoder_tasks.records import ReleaseRef


@dag(
    schedule=PartitionedAssetTimetable(assets=ICD10CM_RELEASE),
    params={"release_key": Param(None, type=["null", "string"], description="Release of a run by hand, like FY2026-April.")},
    default_args=TASK_DEFAULTS,
    max_active_runs=1,
    tags=["llmcoder", "dataset"],
    doc_md=__doc__,
)
def build_dataset() -> None:
    """One step: make, validate, store."""

    @llmcoder_task(task_id="build_dataset", outlets=[DATASET])
    def build(*, dag_run: Any = None, params: Any = None, outlet_events: Any = None) -> Any:
        from llmcoder_tasks.dataset.config import DatasetConfig
        from llmcoder_tasks.steps.build_dataset import build_dataset

        stores = connect()
        key = require_key(dag_run, params, "release_key")
        dataset = build_dataset(
            ReleaseRef(key, stores.storage.uri_of(f"releases/{key}")),
            config=DatasetConfig(),
            storage=stores.storage,
            database=stores.database,
            docs_folder=stores.settings.home / "data_docs",
        )
        outlet_events[DATASET].add_partitions(dataset.dataset_id)
        return dataset

    build()


build_dataset()
