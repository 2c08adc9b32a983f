"""What a person is shown before a promotion, and what stops one."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowSkipException
from llmcoder_approval import PromotionApproval, describe_verdict, name_of, require_promote

from llmcoder_tasks.database import Database
from llmcoder_tasks.errors import PromotionError


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

    shown = describe_verdict(database, "v1")

    assert "**m2** was judged **PROMOTE**, against m1 in service." in shown
    assert "- typos: 90.0 % reaches the floor of 85 %" in shown
    assert "| together | typos | 200 | 90.0% | 85.0% to 93.5% | 95.0% |" in shown
    assert "file:///scorecards/e1" in shown


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


def _approval(required: str, answers: list[tuple[Any, ...]]) -> PromotionApproval:
    return PromotionApproval(
        task_id="approve",
        verdict={"verdict_id": "v1", "decision": "PROMOTE"},
        required=required,
        describe=lambda verdict: f"about {verdict['verdict_id']}",
        record=lambda *answer: answers.append(answer),
    )


def test_without_required_approval_nobody_is_asked() -> None:
    with pytest.raises(AirflowSkipException, match="promotes without a person"):
        _approval("off", []).execute({})


@pytest.mark.parametrize(("option", "approved"), [("Approve", True), ("Reject", False)])
def test_either_answer_is_kept_before_airflow_acts_on_it(option: str, approved: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[tuple[Any, ...]] = []
    acted_on: list[int] = []
    monkeypatch.setattr("llmcoder_approval.ApprovalOperator.execute_complete", lambda *_: acted_on.append(len(answers)))

    _approval("required", answers).execute_complete(
        {}, {"chosen_options": [option], "responded_by_user": {"id": "1", "name": "Dr. Who"}}
    )

    assert answers == [({"verdict_id": "v1", "decision": "PROMOTE"}, approved, "Dr. Who")]
    assert acted_on == [1]


def test_an_answer_that_never_came_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[tuple[Any, ...]] = []
    monkeypatch.setattr("llmcoder_approval.ApprovalOperator.execute_complete", lambda *_: None)

    _approval("required", answers).execute_complete({}, {"error": "no answer", "error_type": "timeout"})

    assert answers == []


def test_the_name_of_who_answered_comes_from_the_login() -> None:
    assert name_of(SimpleNamespace(id="1", name="admin")) == "admin"
    assert name_of({"id": "1", "name": "admin"}) == "admin"
    assert name_of(None) == "nobody (timeout)"
