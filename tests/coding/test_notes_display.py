"""Coded texts in a terminal."""

from __future__ import annotations

from rich.console import Console

from llmcoder_tasks.coding.notes_display import render_coded_note, render_codes_table, render_findings
from llmcoder_tasks.records import CodePrediction, CodingResult, Drg, Finding, Grouping

TEXT = "Pneumonia and [bold]COPD[/bold]."
CODES = (
    CodePrediction("J189", "Pneumonia, unspecified organism", 0.97, "auto", 0, 9),
    CodePrediction("J449", "Chronic obstructive pulmonary disease, unspecified", 0.5, "review", 20, 24),
)


def _print(item: object) -> str:
    console = Console(width=160, record=True, force_terminal=False)
    console.print(item)
    return console.export_text()


def test_a_note_shows_its_codes_behind_their_evidence_and_keeps_its_own_brackets() -> None:
    shown = _print(render_coded_note(TEXT, CODES))
    assert "Pneumonia J18.9 and [bold]COPD J44.9[/bold]." in shown
    assert "97%" in shown


def test_overlapping_evidence_is_shown_once() -> None:
    codes = (CODES[0], CodePrediction("A419", "Sepsis, unspecified organism", 0.9, "review", 4, 13))
    assert "Pneumonia and J18.9 A41.9 [bold]" in _print(render_coded_note(TEXT, codes))


def test_a_table_has_a_row_for_each_code_error_and_empty_text() -> None:
    results = [
        CodingResult("1", "FY2026-April", "m", CODES),
        CodingResult("2", "FY2026-April", "m"),
        CodingResult("3", None, None, error="text is empty"),
    ]
    shown = _print(render_codes_table(results))
    assert all(words in shown for words in ("J18.9", "no code found", "error: text is empty"))


def test_what_rules_did_is_shown_with_the_reason_and_the_group_with_and_without_review_codes() -> None:
    finding = Finding("hypertension_with", "replaced", "I10", "I110", "inferred from I10 and I50.33", 0, 9)
    group = Grouping(431, Drg(193, 4, "Simple Pneumonia with MCC"), Drg(195, 4, "Simple Pneumonia without CC/MCC"))
    shown = _print(render_findings([CodingResult("1", "FY2026-April", "m", CODES, findings=(finding,), grouping=group)]))
    assert all(words in shown for words in ("I10", "replaced by I11.0", "hypertension with", "inferred from I10 and I50.33"))
    assert "1: DRG 193 Simple Pneumonia with MCC (MS-DRG 43.1); without the codes for review DRG 195" in shown


def test_a_group_that_stays_the_same_is_said_once_and_nothing_to_say_shows_nothing() -> None:
    same = Drg(195, 4, "Simple Pneumonia without CC/MCC")
    shown = _print(render_findings([CodingResult("1", "FY2026-April", "m", CODES, grouping=Grouping(431, same, same))]))
    assert "also without the codes for review" in shown
    assert "no group" in _print(render_findings([CodingResult("1", "F", "m", CODES, grouping=Grouping(431, same, None))]))
    assert render_findings([CodingResult("2", "FY2026-April", "m")]) is None
