"""A task that waits for a server: it gives its slot away, is called again when the work is over, and begins nothing twice."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowException, TaskDeferred
from llmcoder_server import ServerWorkTrigger, WaitingOperator
from llmcoder_task import llmcoder_task
from openai_server import FakeOpenAI, Fault, serve_openai

from llmcoder_tasks.errors import WorkPending
from llmcoder_tasks.prompt import render_training_line


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeOpenAI]:
    with serve_openai() as fake:
        fake.add_file("x.jsonl", "fine-tune", "\n".join([render_training_line("gout", ["M109"])] * 10).encode())
        method = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 1}}}
        fake.create_job({"model": "gpt-4o-mini-2024-07-18", "training_file": "file-1", "seed": 1, "method": method})
        monkeypatch.setenv("LLMCODER_CODER_LLM_URL", fake.url)
        monkeypatch.setenv("LLMCODER_CODER_LLM_KEY", "sk-secret")
        yield fake


def _fire(trigger: ServerWorkTrigger) -> list[Any]:
    async def collect() -> list[Any]:
        return [event.payload async for event in trigger.run()]

    return asyncio.run(collect())


def _task(steps: Iterator[Any], *, waits: bool) -> Any:
    @llmcoder_task(task_id="train", waits=waits)
    def train() -> Any:
        result = next(steps)
        if isinstance(result, Exception):
            raise result
        return result

    with DAG("some_dag", schedule=None):
        return train().operator


def test_a_task_gives_its_place_away_and_is_called_again_from_its_beginning() -> None:
    task = _task(iter([WorkPending("job", "ftjob-1", "under way"), {"model_id": "m"}]), waits=True)
    assert isinstance(task, WaitingOperator)
    with pytest.raises(TaskDeferred) as deferred:
        task.execute({})
    place, arguments = deferred.value.trigger.serialize()
    assert (place, arguments["kind"], arguments["work_id"]) == ("llmcoder_server.ServerWorkTrigger", "job", "ftjob-1")
    assert "sk-secret" not in str(arguments)
    assert task.resume_execution(deferred.value.method_name, {"event": {"work_id": "ftjob-1"}}, {}) == {"model_id": "m"}


def test_a_task_that_may_not_wait_is_retried() -> None:
    with pytest.raises(AirflowException, match="WorkPending: under way"):
        _task(iter([WorkPending("batch", "batch_1", "under way")]), waits=False).execute({})


def test_the_trigger_fires_when_the_job_is_over_and_sits_an_outage_out(fake: FakeOpenAI) -> None:
    fake.fail("GET /fine_tuning/jobs/ID", *[Fault(status=429, headers={"Retry-After": "0.01"})] * 5)
    assert _fire(ServerWorkTrigger("job", "ftjob-1", poll_seconds=0.01)) == [{"work_id": "ftjob-1"}]
    assert fake.jobs["ftjob-1"]["status"] == "succeeded"


def test_the_trigger_leaves_it_to_the_step_to_say_what_is_wrong(fake: FakeOpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _fire(ServerWorkTrigger("job", "ftjob-9", poll_seconds=0.01)) == [{"work_id": "ftjob-9"}]
    assert _fire(ServerWorkTrigger("batch", "batch_1", poll_seconds=0.01)) == [{"work_id": "batch_1"}]
    monkeypatch.delenv("LLMCODER_CODER_LLM_URL")
    assert _fire(ServerWorkTrigger("job", "ftjob-1", poll_seconds=0.01)) == [{"work_id": "ftjob-1"}]
