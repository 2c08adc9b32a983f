"""`@llmcoder_task`: an Airflow task around one step, with the same manners in every DAG.

- A step's reference goes into XCom as a plain dictionary, an id and a URI.
- An LLMCoderError becomes its one line. One that a retry cannot cure fails the task at once.
- A task that a server may keep waiting says `waits=True`: it gives its slot away meanwhile, and is then called again.
- A task that reads notes says `reads_notes=True`: an error that nobody expected is then reported by type and place alone,
  because its message may quote a patient.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import asdict, is_dataclass
from datetime import timedelta
from typing import Any

from airflow.sdk import BaseOperatorLink, task
from airflow.sdk.bases.decorator import task_decorator_factory
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException
from llmcoder_server import WaitingOperator, defer

from llmcoder_tasks.errors import LLMCoderError, WorkPending, describe_place

TASK_DEFAULTS: dict[str, Any] = {
    "owner": "llmcoder",
    "retries": 2,
    "retry_delay": timedelta(seconds=30),
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(minutes=10),
    "execution_timeout": timedelta(hours=1),
}
"""`default_args` of every DAG; a task that needs longer says so."""

GPU: dict[str, Any] = {"pool": "gpu_pool", "queue": "gpu"}
"""Where a task runs that wants the accelerator for itself. LocalExecutor ignores the queue."""


def llmcoder_task(
    *,
    reads_notes: bool = False,
    chooses: bool = False,
    waits: bool = False,
    links: Sequence[BaseOperatorLink] = (),
    **options: Any,
) -> Callable[[Callable[..., Any]], Any]:
    """Decorate a function as a task; its docstring is shown in the UI.

    `options` are those of `airflow.sdk.task`. What `chooses` returns the id of the next task. `links` become buttons of the task.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        @functools.wraps(function)
        def run_step(*args: Any, **kwargs: Any) -> Any:
            try:
                return _to_xcom(function(*args, **kwargs))
            except WorkPending as pending:
                if waits:
                    raise defer(pending) from None
                raise to_airflow_error(pending) from None
            except LLMCoderError as error:
                raise to_airflow_error(error) from None
            except AirflowException:
                raise
            except Exception as error:
                if not reads_notes:
                    raise
                raise AirflowException(describe_place(error)) from None

        options.setdefault("doc_md", inspect.getdoc(function))
        if waits:
            decorated = task_decorator_factory(decorated_operator_class=WaitingOperator, **options)(run_step)
        else:
            decorated = (task.branch if chooses else task)(**options)(run_step)
        # Airflow takes links from the class of an operator, of mapped ones too.
        kind = decorated.operator_class
        decorated.operator_class = type(
            kind.__name__, (kind,), {"__module__": kind.__module__, "operator_extra_links": tuple(links)}
        )
        return decorated

    return decorate


def to_airflow_error(error: LLMCoderError) -> AirflowException:
    """The same message as an error that Airflow retries or not, as the error says."""
    message = f"{type(error).__name__}: {error}"
    return AirflowException(message) if error.retryable else AirflowFailException(message)


def require_key(dag_run: Any, params: Any, name: str) -> str:
    """The partition key of the run, or, for a run started by hand, the param `name`. Fails the task when there is neither."""
    key = dag_run.partition_key or params.get(name)
    if not key:
        raise AirflowFailException(f"this run has no partition key: trigger it again with the partition key or the param {name!r}")
    return str(key)


def take_result(*results: dict[str, Any] | None) -> dict[str, Any]:
    """What came of the one of several ways that was taken; skips the task where none was."""
    taken = next((result for result in results if result), None)
    if taken is None:
        raise AirflowSkipException("no way was taken that leads here: nothing to do")
    return taken


def _to_xcom(result: Any) -> Any:
    if is_dataclass(result) and not isinstance(result, type):
        return asdict(result)
    if isinstance(result, list | tuple):
        return [_to_xcom(item) for item in result]
    return result
