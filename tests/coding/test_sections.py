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


def test_the_letters_of_a_visit_are_headings_where_two_of_them_stand() -> None:
    assert _parts("S: Sore throat.\nO: Red tonsils.\nA: Strep throat\nP: Penicillin.") == [
        ("present_illness", "Sore throat."),
        ("examination", "Red tonsils."),
        ("diagnoses", "Strep throat"),
        ("plan", "Penicillin."),
    ]
    assert _parts("Blood group\nA: yes") == [("narrative", "Blood group\nA: yes")]


def test_headings_are_found_where_line_breaks_are_lost() -> None:
    text = "SUBJECTIVE:,  She sneezes.,ALLERGIES: , None.,ASSESSMENT:,  1.  Allergic rhinitis.,2.  Asthma.,PLAN:,1.  Rest."
    assert _parts(text) == [
        ("present_illness", ",  She sneezes.,"),
        ("allergies", "None.,"),
        ("diagnoses", "1.  Allergic rhinitis.,2.  Asthma.,"),
        ("plan", "1.  Rest."),
    ]


def test_an_impression_is_the_final_list_unless_there_is_one_or_it_closes_a_report() -> None:
    assert _parts("HISTORY: asthma\nIMPRESSION:\nGout")[-1] == ("diagnoses", "Gout")
    assert _parts("Chest x-ray: clear\nIMPRESSION: normal")[-1] == ("results", "normal")
    assert _parts("Impression: gout\nFinal diagnosis: asthma")[0] == ("results", "gout")


def test_an_empty_note_has_no_sections() -> None:
    assert split_sections(" \n\t\n") == ()


@pytest.mark.parametrize(
    ("heading", "kind"),
    [
        ("Principal Discharge Diagnosis", "diagnoses"),
        ("Secondary diagnoses", "diagnoses"),
        ("Dx", "diagnoses"),
        ("IMPRESSION AND RECOMMENDATIONS", "diagnoses"),
        ("Primary Encounter Diagnosis", "diagnoses"),
        ("Today's Diagnoses", "diagnoses"),
        ("Overall impression", "diagnoses"),
        ("Working diagnosis", "admission_diagnoses"),
        ("Differential Diagnosis", "admission_diagnoses"),
        ("Past medical/surgical history", "history"),
        ("PAST PSYCHIATRIC HISTORY", "history"),
        ("FAMILY AND SOCIAL HISTORY", "family"),
        ("Medical Decision Making", "course"),
        ("Plan of Care", "plan"),
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
