"""Headings as hospitals write them, and what belongs to which."""

from __future__ import annotations

import pytest

from llmcoder_tasks.coding.sections import name_section, split_sections

NOTE = """DISCHARGE SUMMARY
Service: Medicine

CHIEF COMPLAINT: Cough.

History of Present Illness:
Three days of cough.

PMH: COPD
FH: mother - asthma
**Discharge Diagnoses:**
1. Pneumonia
2. COPD

Discharge Medications
aspirin
"""


def _parts(text: str) -> list[tuple[str, str]]:
    return [(section.kind, text[section.start : section.end].strip()) for section in split_sections(text)]


def test_a_note_is_parted_at_its_headings() -> None:
    assert _parts(NOTE) == [
        ("other", "Medicine"),
        ("complaint", "Cough."),
        ("present_illness", "Three days of cough."),
        ("history", "COPD"),
        ("family", "mother - asthma"),
        ("diagnoses", "1. Pneumonia\n2. COPD"),
        ("medications", "aspirin"),
    ]


def test_a_note_without_headings_is_one_narrative() -> None:
    assert _parts("A 60-year-old man came with cough.\nHe went home: well.") == [
        ("narrative", "A 60-year-old man came with cough.\nHe went home: well.")
    ]


def test_an_empty_note_has_no_sections() -> None:
    assert split_sections(" \n\t\n") == ()


@pytest.mark.parametrize(
    ("heading", "kind"),
    [
        ("Principal Discharge Diagnosis", "diagnoses"),
        ("Secondary diagnoses", "diagnoses"),
        ("Dx", "diagnoses"),
        ("ADMISSION DIAGNOSIS", "admission_diagnoses"),
        ("Past Medical History", "history"),
        ("Family History", "family"),
        ("Brief Hospital Course", "course"),
        ("HPI", "present_illness"),
        ("Physical Exam", "examination"),
        ("Follow-up", "plan"),
        ("Medications on Admission", "medications"),
        ("the patient", None),
    ],
)
def test_headings_are_told_by_name(heading: str, kind: str | None) -> None:
    assert name_section(heading) == kind


def test_windows_line_ends_change_nothing() -> None:
    text = NOTE.replace("\n", "\r\n")
    assert [kind for kind, _ in _parts(text)] == [kind for kind, _ in _parts(NOTE)]
