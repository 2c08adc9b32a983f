"""Coded texts in a terminal."""

from __future__ import annotations

from rich.console import Console

from llmcoder_tasks.coding.notes_display import render_coded_note, render_codes_table
from llmcoder_tasks.records import CodePrediction, CodingResult

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
