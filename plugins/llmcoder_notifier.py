"""Tells people when a night left its band: one line in the task log, and a message where the operator wants one.

`DriftNotifier` is an Airflow notifier, hung on `measure_night` as `on_success_callback`. It looks for the Airflow connection
`llmcoder_alerts`: of type `http`, it posts JSON there (`text`, which Slack, Teams and Mattermost show, and the figures); of type
`smtp`, it sends an e-mail by Airflow's own SmtpNotifier (`from_email` and `to_email` in the connection's extra). For PagerDuty,
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
        text = f"LLMCoder: the night {measured['coding_run_id']} left its band: {measured['summary']}"
        self.log.warning("%s", text)
        try:
            connection = BaseHook.get_connection(CONNECTION_ID)
        except AirflowNotFoundException:
            self.log.info("no connection %s: nobody is told but this log", CONNECTION_ID)
            return
        if connection.conn_type == "smtp":
            _send_mail(connection, text, context)
        else:
            _post(connection, {"text": text, **measured})


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


def _send_mail(connection: Connection, text: str, context: Any) -> None:
    from airflow.providers.smtp.notifications.smtp import SmtpNotifier

    extra = connection.extra_dejson
    SmtpNotifier(
        from_email=extra.get("from_email"),
        to=extra["to_email"],
        subject="LLMCoder: a night left its band",
        html_content=text,
        smtp_conn_id=CONNECTION_ID,
    ).notify(context)
