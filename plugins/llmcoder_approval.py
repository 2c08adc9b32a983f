"""A person's word on a promotion: what they are shown, and that their answer is kept whichever it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk.exceptions import AirflowSkipException
from llmcoder_task import to_airflow_error

from llmcoder_tasks.database import Database, Row
from llmcoder_tasks.errors import LLMCoderError, PromotionError


class PromotionApproval(ApprovalOperator):
    """Waits, without a slot, until somebody approves or rejects the model of a verdict; skips itself when no approval is required.

    Args:
        verdict: the verdict as it stands in XCom.
        required: `"required"`, or `"off"` to promote without a person.
        describe: Markdown for the person who decides; called with the verdict.
        record: keeps the answer; called with the verdict, whether it was approved, and by whom.
    """

    template_fields: Sequence[str] = (*ApprovalOperator.template_fields, "verdict", "required")

    def __init__(
        self,
        *,
        verdict: Any,
        required: str,
        describe: Callable[[dict[str, str]], str],
        record: Callable[[dict[str, str], bool, str], None],
        **options: Any,
    ) -> None:
        super().__init__(subject="Put this model into service?", **options)
        self.verdict = verdict
        self.required = required
        self.describe = describe
        self.record = record

    def execute(self, context: Any) -> Any:
        if self.required == "off":
            raise AirflowSkipException("this run promotes without a person: approval is off")
        try:
            self.body = self.describe(self.verdict)
        except LLMCoderError as error:
            raise to_airflow_error(error) from None
        return super().execute(context)

    def execute_complete(self, context: Any, event: dict[str, Any]) -> Any:
        # Before Airflow acts on it: on Reject nothing of the answer would be kept.
        if "error" not in event:
            try:
                self.record(self.verdict, event["chosen_options"] == [self.APPROVE], name_of(event["responded_by_user"]))
            except LLMCoderError as error:
                raise to_airflow_error(error) from None
        return super().execute_complete(context, event)


def name_of(user: Any) -> str:
    """Who answered, as Airflow's login knows them; an answer by timeout has nobody."""
    if user is None:
        return "nobody (timeout)"
    return str(user["name"] if isinstance(user, dict) else user.name)


def require_promote(database: Database, verdict_id: str) -> None:
    """Pass when the gate said PROMOTE; else skip the rest of the run and say why."""
    verdict = _fetch_verdict(database, verdict_id)
    if verdict["decision"] != "PROMOTE":
        raise AirflowSkipException(
            f"{verdict['model_id']} stays out of service, {verdict['decision']}: {'; '.join(verdict['reasons'])}"
        )


def describe_verdict(database: Database, verdict_id: str) -> str:
    """The verdict with its reasons and the scorecard as Markdown."""
    verdict = _fetch_verdict(database, verdict_id)
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
        "| coder | scenario | n | exact match | 95 % interval | category match |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for score in database.fetch_all("list_scores", evaluation_id=verdict["evaluation_id"]):
        lines.append(
            f"| {score['coder']} | {score['scenario']} | {score['n']} | {score['exact_match']:.1%} "
            f"| {score['exact_low']:.1%} to {score['exact_high']:.1%} | {score['category_match']:.1%} |"
        )
    return "\n".join([*lines, "", f"The whole report: `{verdict['scorecard_uri']}`"])


def _fetch_verdict(database: Database, verdict_id: str) -> Row:
    verdict = database.fetch_one("fetch_verdict", verdict_id=verdict_id)
    if verdict is None:
        raise PromotionError(f"there is no verdict {verdict_id}: clear judge_model to judge the scorecard again")
    return verdict
