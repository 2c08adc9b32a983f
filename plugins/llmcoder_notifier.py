"""Tells people what they have to know: in the task log, and where the operator wants it.

| what | by | when |
|---|---|---|
| a release has arrived | `ReleaseNotifier` | `ingest_release` has loaded it |
| a verdict waits for a person | `VerdictNotifier` | `approve` begins to wait |
| a night failed | `FailureNotifier` | a run of `code_encounters` ended as failed |
| a night is late | `tell_late` | it has not ended in `LLMCODER_NIGHT_HOURS` (Airflow's deadline) |
| a night left its band | `DriftNotifier` | `measure_night` found figures out of band |
| a release has no model | `DeadlineNotifier` | `check_deadlines` found one that nobody was told of today |

All of them say it through the connection `llmcoder_alerts`: of type `http`, JSON is posted there (`text`, which Slack, Teams and
Mattermost show, and the figures); of type `smtp`, an e-mail goes out by Airflow's own SmtpNotifier (`from_email` and `to_email` in
the connection's extra). For PagerDuty, Opsgenie and the like add their provider's notifier beside it. A new kind of message is a
class with `describe`. Messages hold names, numbers and addresses, nothing of a note.
"""

from __future__ import annotations

import asyncio
import logging
from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from airflow.sdk import BaseHook, BaseNotifier, Connection
from airflow.sdk.exceptions import AirflowNotFoundException
from llmcoder_links import page_url

logger = logging.getLogger(__name__)

CONNECTION_ID = "llmcoder_alerts"
TIMEOUT_SECONDS = 20


@dataclass(frozen=True, slots=True)
class Message:
    """What people are told: `text` in words, `details` as figures for programs."""

    subject: str
    text: str
    details: dict[str, Any] = field(default_factory=dict)


class LLMCoderNotifier(BaseNotifier):
    """An Airflow notifier that sends what `describe` makes of the context, and is silent where that is None."""

    @abstractmethod
    def describe(self, context: Any) -> Message | None:
        """What there is to tell, or None."""

    def notify(self, context: Any) -> None:
        """Describe and send. Raises what the sending raises; Airflow logs it, and the task stays as it is."""
        message = self.describe(context)
        if message is not None:
            _send(message, context)


class ReleaseNotifier(LLMCoderNotifier):
    """A release was loaded; on `ingest_release`, mapped or not."""

    def describe(self, context: Any) -> Message | None:
        ti = context["ti"]
        release = ti.xcom_pull(task_ids=ti.task_id, map_indexes=ti.map_index)
        if not release:
            return None
        key = release["key"]
        text = f"LLMCoder: the release {key} has arrived and is loaded; training data and a model follow by themselves: "
        return Message(f"LLMCoder: release {key} has arrived", text + page_url("releases"), {"release_key": key})


class VerdictNotifier(LLMCoderNotifier):
    """A verdict waits for a person's answer; a notifier of the task that asks."""

    def describe(self, context: Any) -> Message | None:
        verdict_id = context["ti"].task.verdict["verdict_id"]
        place = page_url("").removesuffix("/plugin/llmcoder/llmcoder/") + "/required_actions"
        text = f"LLMCoder: the gate would promote a model, and it waits for a person's answer (verdict {verdict_id}): {place}"
        return Message("LLMCoder: a model waits for your answer", text, {"verdict_id": verdict_id})


class FailureNotifier(LLMCoderNotifier):
    """A night failed; `on_failure_callback` of the DAG, so that a run is told once however many of its tasks failed."""

    def describe(self, context: Any) -> Message | None:
        run_id = context.get("run_id") or context["dag_run"].run_id
        return Message("LLMCoder: a night failed", _say_of_run("failed", run_id), {"run_id": run_id})


class DriftNotifier(LLMCoderNotifier):
    """What `measure_night` found out of band; is silent on a night within its bands."""

    def describe(self, context: Any) -> Message | None:
        ti = context["ti"]
        measured = ti.xcom_pull(task_ids=ti.task_id)
        if not measured or not measured["out_of_band"]:
            return None
        text = f"LLMCoder: the night {measured['coding_run_id']} left its band: {measured['summary']}"
        return Message("LLMCoder: a night left its band", text, measured)


class DeadlineNotifier(LLMCoderNotifier):
    """What `check_deadlines` found and nobody was told of today; is silent when that is nothing."""

    def describe(self, context: Any) -> Message | None:
        ti = context["ti"]
        deadlines = ti.xcom_pull(task_ids=ti.task_id)
        if not deadlines:
            return None
        text = "LLMCoder: " + "\n".join(deadline["message"] for deadline in deadlines)
        return Message("LLMCoder: a release has no model", text, {"deadlines": deadlines})


async def tell_late(context: dict[str, Any]) -> None:
    """The callback of a night's deadline, silent of a run that has ended: whoever had to be told of that has been.

    It runs in Airflow's triggerer, because not every executor runs such callbacks.
    """
    if context["dag_run"]["state"] not in {"queued", "running"}:
        return
    run_id = context["dag_run"]["dag_run_id"]
    message = Message("LLMCoder: a night is late", _say_of_run("is late: it should have ended by now", run_id), {"run_id": run_id})
    logger.warning("%s", message.text)
    try:
        connection = await BaseHook.aget_connection(CONNECTION_ID)
    except AirflowNotFoundException:
        logger.info("no connection %s: nobody is told but this log", CONNECTION_ID)
        return
    if connection.conn_type == "smtp":
        await _mail(connection, message).async_notify(context)
    else:
        await asyncio.to_thread(_post, connection, message)


def _say_of_run(what: str, run_id: str) -> str:
    place = page_url("runs?" + urlencode({"dag_id": "code_encounters", "run_id": run_id}))
    return f"LLMCoder: the night {run_id} {what}. What is coded is kept: {place}"


def _send(message: Message, context: Any) -> None:
    logger.warning("%s", message.text)
    try:
        connection = BaseHook.get_connection(CONNECTION_ID)
    except AirflowNotFoundException:
        logger.info("no connection %s: nobody is told but this log", CONNECTION_ID)
        return
    if connection.conn_type == "smtp":
        _mail(connection, message).notify(context)
    else:
        _post(connection, message)


def _post(connection: Connection, message: Message) -> None:
    import httpx

    login = (connection.login, connection.password or "") if connection.login else None
    headers = {"Authorization": f"Bearer {connection.password}"} if connection.password and not login else {}
    body = {"text": message.text, **message.details}
    httpx.post(_url_of(connection), json=body, auth=login, headers=headers, timeout=TIMEOUT_SECONDS).raise_for_status()


def _url_of(connection: Connection) -> str:
    """`https` unless the connection's schema says otherwise; the path of a webhook stands in its extra as `path`."""
    host = connection.host or ""
    base = host if "://" in host else f"{connection.schema or 'https'}://{host}"
    port = f":{connection.port}" if connection.port else ""
    return f"{base}{port}{connection.extra_dejson.get('path', '')}"


def _mail(connection: Connection, message: Message) -> Any:
    from airflow.providers.smtp.notifications.smtp import SmtpNotifier

    extra = connection.extra_dejson
    return SmtpNotifier(
        from_email=extra.get("from_email"),
        to=extra["to_email"],
        subject=message.subject,
        html_content=message.text,
        smtp_conn_id=CONNECTION_ID,
    )
