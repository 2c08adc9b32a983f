"""A person's word on a promotion: what they are shown, and that their answer is kept whichever it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, TypedDict
from urllib.parse import quote

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import Param
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowException, AirflowSkipException, ParamValidationError
from llmcoder_links import ScorecardLink, page_url
from llmcoder_task import to_airflow_error

from llmcoder_tasks.database import Database, Row
from llmcoder_tasks.errors import LLMCoderError, PromotionError
from llmcoder_tasks.records import MAX_COMMENT_CHARACTERS

TIME_LIMIT = "the time limit, nobody answered"
"""Who answered where nobody did."""


class Answer(TypedDict):
    """A person's answer, or that of the time limit."""

    approved: bool
    answered_by: str
    comment: str
    answered_at: datetime


class PromotionApproval(ApprovalOperator):
    """Waits, without a slot, until somebody approves or rejects the model of a verdict; skips itself when no approval is required.

    Without an answer within `response_timeout` the time limit rejects. Where approvers are named, Airflow's API refuses everybody
    else's answer.

    Args:
        verdict: the verdict as it stands in XCom.
        required: `"required"`, or `"off"` to promote without a person.
        describe: Markdown for the person who decides; called with the verdict and the address of the run in Airflow.
        record: keeps the answer; called with the verdict and the answer.
        approvers: ids of the users who may answer; empty: everybody who may run the DAG.
    """

    operator_extra_links = (ScorecardLink(),)
    template_fields: Sequence[str] = (*ApprovalOperator.template_fields, "verdict", "required")

    def __init__(
        self,
        *,
        verdict: Any,
        required: str,
        describe: Callable[[dict[str, str], str], str],
        record: Callable[[dict[str, str], Answer], None],
        approvers: Sequence[str] = (),
        **options: Any,
    ) -> None:
        # The params that Airflow hands over here are those of the DAG, which do not belong into the form of the question.
        options["params"] = {"comment": _ask_for_comment()}
        super().__init__(
            subject="Put this model into service?",
            defaults=[self.REJECT],
            assigned_users=[{"id": name, "name": name} for name in approvers] or None,
            **options,
        )
        self.verdict = verdict
        self.required = required
        self.describe = describe
        self.record = record

    def execute(self, context: Any) -> Any:
        if self.required == "off":
            raise AirflowSkipException("this run promotes without a person: approval is off")
        try:
            self.body = self.describe(self.verdict, url_of_run(context["dag_run"]))
        except LLMCoderError as error:
            raise to_airflow_error(error) from None
        return super().execute(context)

    def execute_complete(self, context: Any, event: dict[str, Any]) -> Any:
        # Before Airflow acts on it: on Reject nothing of the answer would be kept.
        if "error" not in event:
            try:
                self.record(self.verdict, self._read_answer(event))
            except LLMCoderError as error:
                raise to_airflow_error(error) from None
        return super().execute_complete(context, event)

    def _read_answer(self, event: dict[str, Any]) -> Answer:
        """Raises AirflowException, upon which the task asks again, when the comment cannot be kept: Airflow's API lets any pass."""
        given = event["params_input"] or {}
        try:
            self.validate_params_input(given)
        except (ValueError, ParamValidationError):
            raise AirflowException(
                f"the answer was not kept: a comment has at most {MAX_COMMENT_CHARACTERS} characters. Answer again"
            ) from None
        return Answer(
            approved=event["chosen_options"] == [self.APPROVE],
            answered_by=name_of(event["responded_by_user"]),
            comment=(given.get("comment") or "").strip(),
            answered_at=event["responded_at"],
        )


def _ask_for_comment() -> Param:
    return Param(
        None,
        type=["null", "string"],
        maxLength=MAX_COMMENT_CHARACTERS,
        title="Comment",
        description=f"Why, kept with your answer: at most {MAX_COMMENT_CHARACTERS} characters, and never anything of a patient.",
        source="task",
    )


def name_of(user: Any) -> str:
    """Who answered, as Airflow's login knows them; for an answer without a person, the time limit."""
    if user is None:
        return TIME_LIMIT
    return str(user["name"] if isinstance(user, dict) else user.name)


def url_of_run(dag_run: Any) -> str:
    """Where a browser finds a run."""
    base = conf.get("api", "base_url", fallback="").rstrip("/")
    return f"{base}/dags/{dag_run.dag_id}/runs/{quote(dag_run.run_id, safe='')}"


def require_promote(database: Database, verdict_id: str) -> None:
    """Pass when the gate said PROMOTE; else skip the rest of the run and say why."""
    verdict = _fetch_verdict(database, verdict_id)
    if verdict["decision"] != "PROMOTE":
        raise AirflowSkipException(
            f"{verdict['model_id']} stays out of service, {verdict['decision']}: {'; '.join(verdict['reasons'])}"
        )


def describe_verdict(database: Database, verdict_id: str, *, run_url: str, hours: int) -> str:
    """The verdict with its reasons, where the evidence lies, and the scorecard, as Markdown.

    Browsers open the run and the report; the files lie in the artifact store, and are named by their URIs. `hours` is the time for
    an answer.
    """
    verdict = _fetch_verdict(database, verdict_id)
    report_url = page_url("reports/scorecard/" + quote(verdict["evaluation_id"], safe=""))
    lines = [
        f"**{verdict['model_id']}** was judged **{verdict['decision']}**"
        + (
            f", against {verdict['against_model_id']} in service."
            if verdict["against_model_id"]
            else "; no model is in service yet."
        ),
        "",
        *(f"- {reason}" for reason in verdict["reasons"]),
        "",
        f"Approve, and it codes from the next night on. Reject, or give no answer in {hours} hours, and it stays out of service.",
        "",
        f"- The run: [{run_url}]({run_url})",
        f"- The report: [{report_url}]({report_url})",
        f"- The scorecard: `{verdict['scorecard_uri']}/scorecard.json`",
        f"- The model: `{verdict['model_uri']}`",
        "",
        "| coder | scenario | n | exact match | 95 % interval | category match |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for score in database.fetch_all("list_scores", evaluation_id=verdict["evaluation_id"]):
        lines.append(
            f"| {score['coder']} | {score['scenario']} | {score['n']} | {score['exact_match']:.1%} "
            f"| {score['exact_low']:.1%} to {score['exact_high']:.1%} | {score['category_match']:.1%} |"
        )
    return "\n".join(lines)


def _fetch_verdict(database: Database, verdict_id: str) -> Row:
    verdict = database.fetch_one("fetch_verdict", verdict_id=verdict_id)
    if verdict is None:
        raise PromotionError(f"there is no verdict {verdict_id}: clear judge_model to judge the scorecard again")
    return verdict
