"""Run by the policy tests in a process of its own: parses every DAG file as Airflow does and prints what is there as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

PROJECT_FOLDER = Path(__file__).resolve().parents[2]


def main() -> None:
    """Facts about DAGs and tasks, import errors, and every module that parsing has loaded."""
    from airflow.dag_processing.dagbag import DagBag

    # What Airflow and its providers load for themselves is theirs: one round without our files shows it.
    DagBag(str(PROJECT_FOLDER / "sql"), bundle_name="nothing")
    before = set(sys.modules)
    bag = DagBag(str(PROJECT_FOLDER / "dags"), bundle_name="dags-folder")
    facts = {
        "import_errors": bag.import_errors,
        "dags": [_describe(dag) for dag in bag.dags.values()],
        "modules": sorted(set(sys.modules) - before),
        "seconds": sum(stat.duration.total_seconds() for stat in bag.dagbag_stats),
    }
    print(json.dumps(facts))


def _params(dag: Any) -> list[tuple[str, Any]]:
    return [(name, dag.params.get_param(name)) for name in dag.params]


def _describe(dag: Any) -> dict[str, Any]:
    return {
        "dag_id": dag.dag_id,
        "file": Path(dag.fileloc).name,
        "tags": sorted(dag.tags),
        "doc_md": dag.doc_md or "",
        "max_active_runs": dag.max_active_runs,
        "catchup": dag.catchup,
        "schedule": type(dag.timetable).__name__,
        "params": {name: {"description": param.description or "", **param.schema} for name, param in _params(dag)},
        "deadlines": [alert.name for alert in dag.deadline or ()],
        "tasks": [
            {
                "task_id": task.task_id,
                "display_name": task.task_display_name,
                "doc_md": task.doc_md or "",
                "is_mapped": task.is_mapped,
                "map_index_template": task.map_index_template,
                "links": [link.name for link in task.operator_extra_links],
                "upstream": sorted(task.upstream_task_ids),
                "trigger_rule": task.trigger_rule.value,
                "owner": task.owner,
                "retries": task.retries,
                "backoff": task.retry_exponential_backoff,
                "timeout_seconds": task.execution_timeout.total_seconds() if task.execution_timeout else None,
                "pool": task.pool,
                "queue": task.queue,
                "outlets": [outlet.name for outlet in task.outlets],
            }
            for task in dag.tasks
        ],
    }


if __name__ == "__main__":
    main()
