"""Buttons on tasks in the Airflow UI that lead to what the task made: its night, scorecard, release report, Data Docs, queue.

A worker computes a link when its task ends; until then Airflow shows none.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlencode

from airflow.sdk import BaseOperatorLink
from airflow.sdk.configuration import conf
from airflow.sdk.execution_time.xcom import XCom

PAGES = "/plugin/llmcoder/llmcoder/"
"""Below Airflow's own address: the frame of the pages, and in it the page."""


def page_url(path: str) -> str:
    """Where a browser finds a page of LLMCoder, inside the Airflow UI."""
    return conf.get("api", "base_url", fallback="").rstrip("/") + PAGES + path


class NightLink(BaseOperatorLink):
    """To the night that the run of this task coded."""

    name = "Night"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        return page_url("runs?" + urlencode({"dag_id": ti_key.dag_id, "run_id": ti_key.run_id}))


class ReviewLink(BaseOperatorLink):
    """To the review queue."""

    name = "Review queue"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        return page_url("review")


class ScorecardLink(BaseOperatorLink):
    """To the scorecard that `evaluate_model` of the same run wrote."""

    name = "Scorecard"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        return _result_url("reports/scorecard/", "evaluation_id", ti_key, task_id="evaluate_model")


class ReleaseReportLink(BaseOperatorLink):
    """To the report that this task wrote."""

    name = "Release report"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        return _result_url("reports/release/", "report_id", ti_key)


class DatasetDocsLink(BaseOperatorLink):
    """To Great Expectations' Data Docs of the dataset that this task made."""

    name = "Data Docs"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        return _result_url("reports/data-docs/", "dataset_id", ti_key)


class ReleaseDocsLink(BaseOperatorLink):
    """To Great Expectations' Data Docs of the release that this task loaded."""

    name = "Data Docs"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        return _result_url("reports/data-docs/codes-", "key", ti_key)


def _result_url(path: str, field: str, ti_key: Any, *, task_id: str | None = None) -> str:
    """The page of what a task returned; "" where it returned nothing. Without `task_id`, of the task of the link itself."""
    map_index = ti_key.map_index if task_id is None else -1
    result = XCom.get_one(
        key="return_value", dag_id=ti_key.dag_id, run_id=ti_key.run_id, task_id=task_id or ti_key.task_id, map_index=map_index
    )
    return page_url(path + quote(result[field], safe="")) if result else ""
