"""Tells people when a night left its band, and when a release has no model: in the task log, and where the operator wants it.

`DriftNotifier` and `DeadlineNotifier` are Airflow notifiers, hung on tasks as `on_success_callback`. They look for the connection
`llmcoder_alerts`: of type `http`, they post JSON there (`text`, which Slack, Teams and Mattermost show, and the figures); of type
`smtp`, they send an e-mail by Airflow's own SmtpNotifier (`from_email` and `to_email` in the connection's extra). For PagerDuty,
Opsgenie and the like add their provider's notifier beside it. The message holds names of figures and numbers, nothing of a note.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import BaseHook, BaseNotifier, Connection
from airflow.sdk.exceptions import AirflowNotFoundException

CONNECTION_ID = "llmcoder_alerts"
TIMEOUT_SECONDS = 20


class DriftNotifier(BaseNotifier):
    """Sends what `measure_night` found out of band; is silent on a night within its bands."""

    def notify(self, context: Any) -> None:
        """Read the task's result and send it. Raises what the sending raises; Airflow logs it, and the night stays a success."""
        ti = context["ti"]
        measured = ti.xcom_pull(task_ids=ti.task_id)
        if not measured or not measured["out_of_band"]:
            return
        subject = "LLMCoder: a night left its band"
        text = f"LLMCoder: the night {measured['coding_run_id']} left its band: {measured['summary']}"
        _send(self, subject, {"text": text, **measured}, context)


class DeadlineNotifier(BaseNotifier):
    """Sends what `check_deadlines` found and nobody was told of today; is silent when that is nothing."""

    def notify(self, context: Any) -> None:
        """Read the task's result and send it. Raises what the sending raises; Airflow logs it, and the run stays a success."""
        ti = context["ti"]
        deadlines = ti.xcom_pull(task_ids=ti.task_id)
        if not deadlines:
            return
        text = "LLMCoder: " + "\n".join(deadline["message"] for deadline in deadlines)
        _send(self, "LLMCoder: a release has no model", {"text": text, "deadlines": deadlines}, context)


def _send(notifier: BaseNotifier, subject: str, message: dict[str, Any], context: Any) -> None:
    notifier.log.warning("%s", message["text"])
    try:
        connection = BaseHook.get_connection(CONNECTION_ID)
    except AirflowNotFoundException:
        notifier.log.info("no connection %s: nobody is told but this log", CONNECTION_ID)
        return
    if connection.conn_type == "smtp":
        _send_mail(connection, subject, message["text"], context)
    else:
        _post(connection, message)


def _post(connection: Connection, message: dict[str, Any]) -> None:
    import httpx

    login = (connection.login, connection.password or "") if connection.login else None
    headers = {"Authorization": f"Bearer {connection.password}"} if connection.password and not login else {}
    httpx.post(_url_of(connection), json=message, auth=login, headers=headers, timeout=TIMEOUT_SECONDS).raise_for_status()


def _url_of(connection: Connection) -> str:
    """`https` unless the connection's schema says otherwise; the path of a webhook stands in its extra as `path`."""
    host = connection.host or ""
    base = host if "://" in host else f"{connection.schema or 'https'}://{host}"
    port = f":{connection.port}" if connection.port else ""
    return f"{base}{port}{connection.extra_dejson.get('path', '')}"


def _send_mail(connection: Connection, subject: str, text: str, context: Any) -> None:
    from airflow.providers.smtp.notifications.smtp import SmtpNotifier

    extra = connection.extra_dejson
    SmtpNotifier(
        from_email=extra.get("from_email"),
        to=extra["to_email"],
        subject=subject,
        html_content=text,
        smtp_conn_id=CONNECTION_ID,
    ).notify(context)
