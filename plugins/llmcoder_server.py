"""Tasks that wait for a server (a fine-tuning job, a batch) without a slot: they give their place away and come again.

A step raises WorkPending while a server is at work. The task then defers itself to a trigger that asks the server now and then, and
runs the same step once more when the work is over; a step that finds its work begun begins nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, Literal

from airflow.providers.standard.decorators.python import _PythonDecoratedOperator
from airflow.sdk.exceptions import TaskDeferred
from airflow.triggers.base import BaseTrigger, TriggerEvent

from llmcoder_tasks.errors import LanguageModelError, LanguageModelUnreachable, SettingsError, WorkPending
from llmcoder_tasks.language_model import ModelServer
from llmcoder_tasks.settings import Settings

POLL_SECONDS = 60.0
LONGEST_WAIT = timedelta(days=3)


class WaitingOperator(_PythonDecoratedOperator):
    """A task function that is called again, from its beginning, when what it waited for is over."""

    custom_operator_name = "@llmcoder_task"

    def execute(self, context: Any, event: dict[str, Any] | None = None) -> Any:
        return super().execute(context)


class ServerWorkTrigger(BaseTrigger):
    """Fires once when a job or a batch is over, well or badly. The server and its key come from the settings of the triggerer.

    Args:
        kind: `job` (fine-tuning) or `batch`.
        work_id: its id at the server.
        poll_seconds: time between two looks.
    """

    def __init__(self, kind: Literal["job", "batch"], work_id: str, poll_seconds: float = POLL_SECONDS) -> None:
        super().__init__()
        self.kind = kind
        self.work_id = work_id
        self.poll_seconds = poll_seconds

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return (
            "llmcoder_server.ServerWorkTrigger",
            {"kind": self.kind, "work_id": self.work_id, "poll_seconds": self.poll_seconds},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look, and while it goes on wait. What the server will not tell is for the step to report: that ends the waiting too."""
        while not await asyncio.to_thread(self._is_over):
            await asyncio.sleep(self.poll_seconds)
        yield TriggerEvent({"work_id": self.work_id})

    def _is_over(self) -> bool:
        try:
            server = Settings.from_environment().coder_server
            if server is None:
                return True
            service = ModelServer(server.model(self.work_id))
            try:
                work = service.read_job(self.work_id) if self.kind == "job" else service.read_batch(self.work_id)
            finally:
                service.close()
        except LanguageModelUnreachable as error:
            self.log.warning("%s; asking again", error)
            return False
        except (LanguageModelError, SettingsError) as error:
            self.log.warning("%s", error)
            return True
        self.log.info("%s %s: %s", self.kind, self.work_id, work.status)
        return work.is_over


def defer(pending: WorkPending) -> TaskDeferred:
    """What a task raises to give its place away until the work is over."""
    return TaskDeferred(trigger=ServerWorkTrigger(pending.kind, pending.work_id), method_name="execute", timeout=LONGEST_WAIT)
