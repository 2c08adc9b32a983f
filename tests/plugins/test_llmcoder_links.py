"""Buttons of tasks: where they lead, from what a task returned."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import llmcoder_links
import pytest
from llmcoder_links import (
    DatasetDocsLink,
    NightLink,
    ReleaseDocsLink,
    ReleaseReportLink,
    ReviewLink,
    ScorecardLink,
)
from llmcoder_task import llmcoder_task

PAGES = "https://hospital.example/airflow/plugin/llmcoder/llmcoder/"
RESULTS: dict[tuple[str, int], Any] = {
    ("evaluate_model", -1): {"evaluation_id": "e 1", "uri": "x"},
    ("report_release", 2): {"report_id": "FY2027-1", "uri": "x"},
    ("build_dataset", -1): {"dataset_id": "d1", "uri": "x"},
    ("ingest_release", 2): {"key": "FY2027", "uri": "x"},
}


@pytest.fixture(autouse=True)
def _results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://hospital.example/airflow/")
    monkeypatch.setattr(
        llmcoder_links.XCom, "get_one", lambda *, key, dag_id, run_id, task_id, map_index: RESULTS.get((task_id, map_index))
    )


def key_of(task_id: str, map_index: int = -1) -> Any:
    return SimpleNamespace(dag_id="a_dag", run_id="manual__2026-01-05T02:00:00+00:00", task_id=task_id, map_index=map_index)


@pytest.mark.parametrize(
    ("link", "key", "path"),
    [
        (NightLink(), key_of("code_shard", 3), "runs?dag_id=a_dag&run_id=manual__2026-01-05T02%3A00%3A00%2B00%3A00"),
        (ReviewLink(), key_of("open_reviews"), "review"),
        (ScorecardLink(), key_of("judge_model"), "reports/scorecard/e%201"),
        (ReleaseReportLink(), key_of("report_release", 2), "reports/release/FY2027-1"),
        (DatasetDocsLink(), key_of("build_dataset"), "reports/data-docs/d1"),
        (ReleaseDocsLink(), key_of("ingest_release", 2), "reports/data-docs/codes-FY2027"),
    ],
)
def test_a_link_leads_to_the_page_inside_the_airflow_ui(link: Any, key: Any, path: str) -> None:
    assert link.get_link(None, ti_key=key) == PAGES + path


def test_a_task_that_returned_nothing_leads_nowhere() -> None:
    assert ReleaseReportLink().get_link(None, ti_key=key_of("report_release", 7)) == ""


def test_a_task_keeps_its_links_and_the_name_of_its_operator() -> None:
    decorated = llmcoder_task(links=[ReviewLink()])(lambda: None)
    plain = llmcoder_task()(lambda: None)
    assert [link.name for link in decorated.operator_class.operator_extra_links] == ["Review queue"]
    assert plain.operator_class.operator_extra_links == ()
    assert decorated.operator_class.__name__ == plain.operator_class.__name__ == "_PythonDecoratedOperator"
