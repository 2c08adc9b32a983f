"""What a person is shown before a promotion, and what stops one."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowException, AirflowSkipException
from hospital import query
from llmcoder_approval import PromotionApproval, describe_verdict, name_of, require_promote, url_of_run

from llmcoder_tasks.database import Database
from llmcoder_tasks.errors import PromotionError
from llmcoder_tasks.records import VerdictRef
from llmcoder_tasks.steps.record_approval import record_approval


def _give_verdict(database: Database, decision: str, reasons: list[str]) -> None:
    """A verdict `v1` on model `m2`, with one measured cell."""
    with database.transaction() as transaction:
        transaction.run_script(
            f"""
            INSERT INTO releases (release_key, effective_from, source, content_sha256, code_count, billable_count, uri)
                VALUES ('FY2027', '2026-10-01', 'test', 'x', 1, 1, 'u');
            INSERT INTO datasets (dataset_id, release_key, uri, manifest) VALUES ('d1', 'FY2027', 'u', '{{}}');
            INSERT INTO models (model_id, release_key, dataset_id, recipe, stage, parent_model_id, uri, manifest) VALUES
                ('m1', 'FY2027', 'd1', 'tiny', 'stage_one', NULL, 'u', '{{}}'),
                ('m2', 'FY2027', 'd1', 'tiny', 'stage_two', 'm1', 'u', '{{}}');
            INSERT INTO scorecards (evaluation_id, model_id, dataset_id, suites_sha256, uri, scorecard)
                VALUES ('e1', 'm2', 'd1', 's', 'file:///scorecards/e1', '{{}}');
            INSERT INTO evaluations (evaluation_id, coder, scenario, n, exact_match, exact_low, exact_high, category_match)
                VALUES ('e1', 'together', 'typos', 200, 0.9, 0.85, 0.935, 0.95);
            INSERT INTO verdicts (verdict_id, evaluation_id, model_id, against_model_id, decision, reasons)
                VALUES ('v1', 'e1', 'm2', 'm1', '{decision}', '{json.dumps(reasons)}');
            """
        )


@pytest.mark.integration
def test_the_approver_sees_verdict_reasons_and_scores(database: Database) -> None:
    _give_verdict(database, "PROMOTE", ["typos: 90.0 % reaches the floor of 85 %"])

    shown = describe_verdict(database, "v1", run_url="http://ui/dags/train_model/runs/r1", hours=72)

    assert "**m2** was judged **PROMOTE**, against m1 in service." in shown
    assert "- typos: 90.0 % reaches the floor of 85 %" in shown
    assert "| together | typos | 200 | 90.0% | 85.0% to 93.5% | 95.0% |" in shown
    assert "/plugin/llmcoder/llmcoder/reports/scorecard/e1)" in shown
    assert "[http://ui/dags/train_model/runs/r1](http://ui/dags/train_model/runs/r1)" in shown
    assert "no answer in 72 hours" in shown


@pytest.mark.integration
def test_a_held_model_stops_the_run_and_says_why(database: Database) -> None:
    _give_verdict(database, "HOLD", ["typos: 90.0 % is below the floor of 95 %", "notes: 40 items are too few"])

    with pytest.raises(AirflowSkipException, match="m2 stays out of service, HOLD: typos: 90.0 % is below .*; notes: 40 items"):
        require_promote(database, "v1")


@pytest.mark.integration
def test_a_promoted_model_goes_on(database: Database) -> None:
    _give_verdict(database, "PROMOTE", ["all floors are reached"])

    require_promote(database, "v1")


@pytest.mark.integration
def test_a_verdict_that_is_gone_names_the_cure(database: Database) -> None:
    with pytest.raises(PromotionError, match="there is no verdict v9: clear judge_model"):
        require_promote(database, "v9")


WHEN = datetime(2026, 9, 20, 8, 30, tzinfo=UTC)


def _event(option: str, user: dict[str, str] | None, comment: str | None = None) -> dict[str, Any]:
    """What Airflow resumes the task with."""
    given = {"comment": comment}
    return {
        "chosen_options": [option],
        "responded_by_user": user,
        "params_input": given,
        "responded_at": WHEN,
        "timedout": not user,
    }


def _approval(required: str, answers: list[tuple[Any, ...]], approvers: tuple[str, ...] = ()) -> PromotionApproval:
    return PromotionApproval(
        task_id="approve",
        verdict={"verdict_id": "v1", "decision": "PROMOTE"},
        required=required,
        describe=lambda verdict, run_url: f"about {verdict['verdict_id']}, {run_url}",
        record=lambda *answer: answers.append(answer),
        approvers=approvers,
    )


def test_without_required_approval_nobody_is_asked() -> None:
    with pytest.raises(AirflowSkipException, match="promotes without a person"):
        _approval("off", []).execute({})


@pytest.mark.parametrize(("option", "approved"), [("Approve", True), ("Reject", False)])
def test_either_answer_is_kept_before_airflow_acts_on_it(option: str, approved: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[tuple[Any, ...]] = []
    acted_on: list[int] = []
    monkeypatch.setattr("llmcoder_approval.ApprovalOperator.execute_complete", lambda *_: acted_on.append(len(answers)))

    _approval("required", answers).execute_complete({}, _event(option, {"id": "1", "name": "Dr. Who"}, " seen the report "))

    kept = {"approved": approved, "answered_by": "Dr. Who", "comment": "seen the report", "answered_at": WHEN}
    assert answers == [({"verdict_id": "v1", "decision": "PROMOTE"}, kept)]
    assert acted_on == [1]


def test_an_answer_that_never_came_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[tuple[Any, ...]] = []
    monkeypatch.setattr("llmcoder_approval.ApprovalOperator.execute_complete", lambda *_: None)

    _approval("required", answers).execute_complete({}, {"error": "no answer", "error_type": "timeout"})

    assert answers == []


def test_the_name_of_who_answered_comes_from_the_login() -> None:
    assert name_of(SimpleNamespace(id="1", name="admin")) == "admin"
    assert name_of({"id": "1", "name": "admin"}) == "admin"
    assert name_of(None) == "the time limit, nobody answered"


def test_the_time_limit_rejects_and_is_kept_as_who_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[tuple[Any, ...]] = []
    monkeypatch.setattr("llmcoder_approval.ApprovalOperator.execute_complete", lambda *_: None)
    approval = _approval("required", answers)

    approval.execute_complete({}, _event("Reject", None))

    assert approval.defaults == ["Reject"]
    kept = {"approved": False, "answered_by": "the time limit, nobody answered", "comment": "", "answered_at": WHEN}
    assert answers[0][1] == kept


def test_a_comment_that_is_too_long_is_asked_for_again_and_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[tuple[Any, ...]] = []

    with pytest.raises(AirflowException, match="at most 1000 characters. Answer again") as refused:
        _approval("required", answers).execute_complete({}, _event("Approve", {"id": "1", "name": "Dr. Who"}, "q" * 1001))

    assert answers == []
    assert "qqq" not in str(refused.value)


@pytest.mark.integration
def test_the_comment_the_person_and_the_time_stand_in_the_table(database: Database) -> None:
    _give_verdict(database, "PROMOTE", ["all floors are reached"])

    for approved in (True, False):
        record_approval(
            VerdictRef("v1", "PROMOTE"),
            approved=approved,
            answered_by="Dr. Who",
            comment="seen",
            answered_at=WHEN,
            database=database,
        )

    rows = query(database, "SELECT approved, answered_by, comment, answered_at FROM approvals ORDER BY approval_id")
    assert rows == [(True, "Dr. Who", "seen", WHEN), (False, "Dr. Who", "seen", WHEN)]


def test_airflow_refuses_the_answer_of_who_is_not_named_even_of_an_administrator() -> None:
    """The question that Airflow's API asks its login before it takes an answer."""
    assigned = _approval("required", [], ("anna", "7")).assigned_users or []
    ids = {user["id"] for user in assigned}
    manager = SimpleAuthManager()

    assert manager.is_authorized_hitl_task(assigned_users=ids, user=SimpleAuthManagerUser(username="anna", role="user"))
    assert not manager.is_authorized_hitl_task(assigned_users=ids, user=SimpleAuthManagerUser(username="bob", role="admin"))


def test_the_form_asks_for_a_comment_and_for_nothing_that_belongs_to_the_dag() -> None:
    with DAG("some_dag", schedule=None, params={"recipe": "tiny"}):
        approval = _approval("required", [])

    assert approval.serialized_params.keys() == {"comment"}
    assert approval.serialized_params["comment"]["schema"]["maxLength"] == 1000


def test_without_approvers_nobody_is_assigned() -> None:
    assert _approval("required", []).assigned_users is None


def test_a_run_is_found_by_a_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example/")

    url = url_of_run(SimpleNamespace(dag_id="train_model", run_id="asset__2026 d1"))

    assert url == "https://airflow.example/dags/train_model/runs/asset__2026%20d1"
