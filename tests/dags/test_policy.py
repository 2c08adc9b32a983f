"""What every DAG has to have. Each message says how to mend it."""

from __future__ import annotations

import ast
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROJECT_FOLDER = Path(__file__).resolve().parents[2]
DAG_IDS = [
    "build_dataset",
    "check_deadlines",
    "code_encounters",
    "export_encounters",
    "ingest_release",
    "rollback_model",
    "train_model",
]
TOO_HEAVY = {
    "accelerate", "boto3", "datasets", "deepspeed", "great_expectations", "matplotlib", "numpy", "openai", "pandas", "pyarrow",
    "scipy", "sklearn", "torch", "transformers",
}  # fmt: skip
WAITS_FOR_PEOPLE = {"train_model.approve"}


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """All DAGs as a fresh Airflow parses them, without any service running."""
    home = tmp_path_factory.mktemp("airflow")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW__", "LLMCODER_"))},
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(PROJECT_FOLDER / "plugins"),
        "LLMCODER_HOME": str(home / "llmcoder"),
        "PYTHONPATH": str(PROJECT_FOLDER),
    }
    run = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("describe_dags.py"))],
        env=environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert run.returncode == 0, f"the DAG files cannot even be looked at:\n{run.stderr[-3000:]}"
    described: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return described


def _tasks(facts: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(f"{dag['dag_id']}.{task['task_id']}", task) for dag in facts["dags"] for task in dag["tasks"]]


def test_every_file_parses_without_error(facts: dict[str, Any]) -> None:
    assert facts["import_errors"] == {}, "a DAG file does not import: run `airflow dags list-import-errors` and mend it"


def test_the_loop_is_complete(facts: dict[str, Any]) -> None:
    found = sorted(dag["dag_id"] for dag in facts["dags"])
    assert found == DAG_IDS, f"found {found}: each DAG has its own file in dags/, and this list names it"


def test_a_dag_is_named_after_its_file(facts: dict[str, Any]) -> None:
    for dag in facts["dags"]:
        assert dag["file"] == f"{dag['dag_id']}.py", f"rename {dag['file']} to {dag['dag_id']}.py, or the function in it"


def test_every_dag_has_tags_to_find_it_by(facts: dict[str, Any]) -> None:
    for dag in facts["dags"]:
        assert "llmcoder" in dag["tags"], f"{dag['dag_id']}: add tags=['llmcoder', ...] to @dag"
        assert len(dag["tags"]) >= 2, f"{dag['dag_id']}: add a second tag that says what it is about"


def test_every_dag_says_what_to_do_on_failure(facts: dict[str, Any]) -> None:
    for dag in facts["dags"]:
        assert "### On failure" in dag["doc_md"], (
            f"{dag['dag_id']}: write '### On failure' into the module docstring, and doc_md=__doc__"
        )
        triage = dag["doc_md"].partition("### On failure")[2]
        assert triage.count("\n- **") >= 3, f"{dag['dag_id']}: name at least three failures and their cures under 'On failure'"


def test_runs_do_not_pile_up(facts: dict[str, Any]) -> None:
    for dag in facts["dags"]:
        assert dag["max_active_runs"] == 1, f"{dag['dag_id']}: set max_active_runs=1, the loop writes one pointer and one database"
        assert dag["catchup"] is False, f"{dag['dag_id']}: set catchup=False, a paused night is made up by its look back"


def test_every_task_has_an_owner(facts: dict[str, Any]) -> None:
    for name, task in _tasks(facts):
        assert task["owner"] == "llmcoder", f"{name}: give the DAG default_args=TASK_DEFAULTS"


def test_every_task_retries_with_growing_pauses(facts: dict[str, Any]) -> None:
    for name, task in _tasks(facts):
        assert task["retries"] >= 2, f"{name}: set retries of 2 or more, or give the DAG default_args=TASK_DEFAULTS"
        assert task["backoff"] > 1, f"{name}: set retry_exponential_backoff above 1, or give the DAG default_args=TASK_DEFAULTS"


def test_every_task_ends_one_day(facts: dict[str, Any]) -> None:
    for name, task in _tasks(facts):
        if name not in WAITS_FOR_PEOPLE:
            assert task["timeout_seconds"], f"{name}: set execution_timeout, a hanging task holds its slot for ever"


def test_what_wants_the_accelerator_takes_its_slot(facts: dict[str, Any]) -> None:
    wanting = {
        "train_stage_one",
        "train_stage_two",
        "train_on_notes",
        "update_model",
        "fit_coder",
        "fit_selection",
        "evaluate_model",
    }
    for name, task in _tasks(facts):
        if task["task_id"] in wanting:
            assert (task["pool"], task["queue"]) == ("gpu_pool", "gpu"), (
                f"{name}: pass **GPU, so that two trainings never share a GPU"
            )
    assert wanting <= {task["task_id"] for _, task in _tasks(facts)}, "a training task was renamed: rename it in this test too"


def test_a_model_is_updated_or_trained_in_two_stages_and_either_is_fitted(facts: dict[str, Any]) -> None:
    tasks = {task["task_id"]: task for name, task in _tasks(facts) if name.startswith("train_model.")}
    assert tasks["take_way"]["upstream"] == ["choose_training"]
    assert "take_way" in tasks["update_model"]["upstream"]
    assert "take_way" in tasks["train_stage_one"]["upstream"]
    assert {"train_on_notes", "update_model"} <= set(tasks["fit_coder"]["upstream"])
    assert tasks["fit_coder"]["trigger_rule"] == "none_failed_min_one_success", "one of its two ways is always skipped"


def test_each_dag_leaves_the_asset_that_starts_the_next(facts: dict[str, Any]) -> None:
    outlets = {name: task["outlets"] for name, task in _tasks(facts) if task["outlets"]}
    assert outlets == {
        "build_dataset.build_dataset": ["dataset"],
        "ingest_release.ingest_release": ["icd10cm_release"],
        "rollback_model.rollback_model": ["promoted_model"],
        "train_model.promote_model": ["promoted_model"],
    }
    schedules = {dag["dag_id"]: dag["schedule"] for dag in facts["dags"]}
    assert schedules == {
        "build_dataset": "PartitionedAssetTimetable",
        "check_deadlines": "CronTriggerTimetable",
        "code_encounters": "CronTriggerTimetable",
        "export_encounters": "CronTriggerTimetable",
        "ingest_release": "AssetOrTimeSchedule",
        "rollback_model": "NullTimetable",
        "train_model": "PartitionedAssetTimetable",
    }


def test_every_task_is_named_by_a_sentence_and_explained(facts: dict[str, Any]) -> None:
    for name, task in _tasks(facts):
        shown = task["display_name"]
        assert shown != task["task_id"], f"{name}: give it task_display_name, what it does in a few words"
        assert shown[0].isupper(), f"{name}: {shown!r} is no sentence"
        assert " " in shown, f"{name}: {shown!r} is no sentence"
        assert len(shown) <= 28, f"{name}: {shown!r} is too long, the Grid cuts it off"
        assert task["doc_md"].rstrip().endswith("."), f"{name}: write a docstring, Airflow shows it beside the task"


def test_every_mapped_task_says_which_part_it_is(facts: dict[str, Any]) -> None:
    mapped = {name: task["map_index_template"] for name, task in _tasks(facts) if task["is_mapped"]}
    assert mapped.keys() == {"code_encounters.code_shard", "ingest_release.ingest_release", "ingest_release.report_release"}
    for name, template in mapped.items():
        assert template, f"{name}: give it map_index_template, or the Grid numbers its parts"


def test_every_param_has_a_title_an_explanation_and_a_limit(facts: dict[str, Any]) -> None:
    for dag in facts["dags"]:
        for name, schema in dag["params"].items():
            place = f"{dag['dag_id']}, param {name}"
            assert schema.get("title"), f"{place}: add title="
            assert schema.get("description", "").endswith("."), f"{place}: add description=, a sentence"
            kinds = schema.get("type", [])
            if "integer" in kinds:
                assert {"minimum", "maximum"} <= schema.keys(), f"{place}: add minimum= and maximum="
            if "string" in kinds:
                assert {"maxLength", "pattern", "format"} & schema.keys(), f"{place}: add maxLength=, pattern= or format="


def test_tasks_lead_to_what_they_made(facts: dict[str, Any]) -> None:
    assert {name: task["links"] for name, task in _tasks(facts) if task["links"]} == {
        "build_dataset.build_dataset": ["Data Docs"],
        "code_encounters.code_shard": ["Night"],
        "code_encounters.finish_night": ["Night"],
        "code_encounters.measure_night": ["Night"],
        "code_encounters.open_reviews": ["Review queue"],
        "code_encounters.plan_night": ["Night"],
        "ingest_release.ingest_release": ["Data Docs"],
        "ingest_release.report_release": ["Release report"],
        "train_model.approve": ["Scorecard"],
        "train_model.check_verdict": ["Scorecard"],
        "train_model.evaluate_model": ["Scorecard"],
        "train_model.judge_model": ["Scorecard"],
        "train_model.promote_model": ["Scorecard"],
    }


def test_a_night_that_does_not_end_is_told(facts: dict[str, Any]) -> None:
    told = {dag["dag_id"]: dag["deadlines"] for dag in facts["dags"] if dag["deadlines"]}
    assert told == {"code_encounters": ["The night is late"]}


def test_parsing_loads_nothing_heavy(facts: dict[str, Any]) -> None:
    heavy = sorted({name.partition(".")[0] for name in facts["modules"]} & TOO_HEAVY)
    assert heavy == [], f"parsing the DAGs imports {', '.join(heavy)}: move that import into the function that needs it"


def test_parsing_loads_no_step(facts: dict[str, Any]) -> None:
    steps = [name for name in facts["modules"] if name.startswith("llmcoder_tasks.steps.")]
    assert steps == [], (
        f"parsing the DAGs imports {', '.join(steps)}: import steps inside the tasks, every task process parses its file"
    )


def test_parsing_is_quick(facts: dict[str, Any]) -> None:
    assert facts["seconds"] < 3, (
        f"the DAG files take {facts['seconds']:.1f} s to parse: look for heavy imports or work at their top"
    )


def test_whatever_a_task_imports_later_exists() -> None:
    """Imports inside tasks are seen by nobody until the task runs; this test sees them before."""
    for path in sorted((PROJECT_FOLDER / "dags").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("llmcoder_tasks"):
                module = importlib.import_module(str(node.module))
                for alias in node.names:
                    assert hasattr(module, alias.name), (
                        f"{path.name}:{node.lineno}: {node.module} has no {alias.name}, follow its new name"
                    )


def test_no_dag_file_holds_logic() -> None:
    for path in sorted((PROJECT_FOLDER / "dags").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.For | ast.While | ast.Try | ast.With):
                raise AssertionError(f"{path.name}:{node.lineno}: move this into a step or a plugin, a DAG only wires")
