"""Whole notes: what is coded, what is left alone, and evidence that points at the very words."""

from __future__ import annotations

import json
from datetime import date

import pytest

from llmcoder_tasks.coding.notes import PhraseCoder, code_note, code_notes, terminology_of
from llmcoder_tasks.coding.terminology import Terminology, content_words
from llmcoder_tasks.coding.title_coder import TitleCoder
from llmcoder_tasks.icd10cm.code_set import Code, CodeSet, CodeTerm, default_code_set
from llmcoder_tasks.settings import SAMPLES_FOLDER

_TITLES = {
    "A41": "Other sepsis",
    "A419": "Sepsis, unspecified organism",
    "E11": "Type 2 diabetes mellitus",
    "E1165": "Type 2 diabetes mellitus with hyperglycemia",
    "E119": "Type 2 diabetes mellitus without complications",
    "I10": "Essential (primary) hypertension",
    "I110": "Hypertensive heart disease with heart failure",
    "I219": "Acute myocardial infarction, unspecified",
    "I252": "Old myocardial infarction",
    "I509": "Heart failure, unspecified",
    "J189": "Pneumonia, unspecified organism",
    "J449": "Chronic obstructive pulmonary disease, unspecified",
    "J939": "Pneumothorax, unspecified",
    "N390": "Urinary tract infection, site not specified",
    "R059": "Cough, unspecified",
    "R079": "Chest pain, unspecified",
    "Z8701": "Personal history of pneumonia (recurrent)",
}
CODE_SET = CodeSet(
    release_key="FY2026-April",
    effective_from=date(2026, 4, 1),
    codes=tuple(Code(code, len(code) > 3 or code == "I10", title[:60], title) for code, title in _TITLES.items()),
    terms=(CodeTerm("J449", "inclusion_term", "Chronic obstructive airway disease NOS"),),
)


@pytest.fixture
def coder() -> PhraseCoder:
    return TitleCoder(CODE_SET)


def _code(coder: PhraseCoder, text: str) -> dict[str, str]:
    """Evidence words by code."""
    return {code.code: text[code.start : code.end] for code in code_note(coder, text)}


def test_each_line_of_the_final_list_is_one_condition(coder: PhraseCoder) -> None:
    text = "DISCHARGE DIAGNOSES:\n1. Sepsis, unspecified organism.\n2) UTI\n- COPD (on home oxygen)\n\nDISPOSITION: home"
    assert _code(coder, text) == {"A419": "Sepsis, unspecified organism", "N390": "UTI", "J449": "COPD"}


def test_a_numbered_list_in_one_line_is_parted_where_the_numbers_count_up(coder: PhraseCoder) -> None:
    text = "ASSESSMENT: 1. Not a name 2 of us know. 2. UTI.,3) HTN"
    assert list(_code(coder, text).values()) == ["UTI", "HTN"]
    assert _code(coder, "Diagnoses:\n3. Pneumonia. 4. UTI.\n5. HTN") == {"J189": "Pneumonia", "N390": "UTI", "I10": "HTN"}


def test_a_list_all_in_lower_case_has_an_item_a_line(coder: PhraseCoder) -> None:
    assert _code(coder, "Problem list:\npneumonia, unspecified organism\ncopd\nhtn\n") == {
        "J189": "pneumonia, unspecified organism", "J449": "copd", "I10": "htn",
    }  # fmt: skip


def test_how_well_a_condition_does_is_no_part_of_its_name(coder: PhraseCoder) -> None:
    text = "Impression:\nCOPD stable\nHTN, well controlled\nUTI - doing well"
    assert _code(coder, text) == {"J449": "COPD", "I10": "HTN", "N390": "UTI"}


def test_conditions_beside_each_other_are_parted_when_each_is_a_name(coder: PhraseCoder) -> None:
    assert _code(coder, "Final diagnosis: pneumonia, COPD and UTI; HTN") == {
        "J189": "pneumonia", "J449": "COPD", "N390": "UTI", "I10": "HTN",
    }  # fmt: skip


def test_a_comma_inside_a_title_parts_nothing(coder: PhraseCoder) -> None:
    assert _code(coder, "Discharge Diagnosis:\nChronic obstructive pulmonary disease, unspecified") == {
        "J449": "Chronic obstructive pulmonary disease, unspecified"
    }


def test_a_line_that_wraps_is_one_condition(coder: PhraseCoder) -> None:
    text = "Discharge diagnoses:\n1. Type 2 diabetes mellitus\n   with hyperglycemia\n2. Pneumonia"
    assert _code(coder, text) == {"E1165": "Type 2 diabetes mellitus\n   with hyperglycemia", "J189": "Pneumonia"}


def test_what_is_denied_or_ruled_out_or_of_the_family_is_not_coded(coder: PhraseCoder) -> None:
    text = (
        "HPI: Denies chest pain and cough. Pneumonia was ruled out.\nFAMILY HISTORY: Father had myocardial infarction.\n"
        "DISCHARGE DIAGNOSES:\n1. COPD\n2. Pneumothorax, ruled out\nFOLLOW-UP: return for chest pain."
    )
    assert _code(coder, text) == {"J449": "COPD"}


def test_an_uncertain_diagnosis_of_the_final_list_is_coded_but_never_without_review(coder: PhraseCoder) -> None:
    text = "DISCHARGE DIAGNOSES:\n1. Probable pneumonia\n2. COPD"
    pneumonia, copd = code_note(coder, text)
    assert (pneumonia.code, pneumonia.decision, text[pneumonia.start : pneumonia.end]) == ("J189", "review", "pneumonia")
    assert (copd.code, copd.decision) == ("J449", "auto")
    assert pneumonia.confidence < copd.confidence


def test_a_past_acute_condition_is_coded_as_history_and_a_chronic_one_as_present(coder: PhraseCoder) -> None:
    text = "A man with a history of pneumonia and of COPD came for a check."
    assert _code(coder, text) == {"Z8701": "pneumonia", "J449": "COPD"}


def test_symptoms_stand_back_behind_a_final_list(coder: PhraseCoder) -> None:
    symptom = "The patient came with chest pain."
    assert _code(coder, symptom) == {"R079": "chest pain"}
    assert _code(coder, f"HPI: {symptom}\nDISCHARGE DIAGNOSES:\n1. Pneumonia") == {"J189": "Pneumonia"}


def test_a_chronic_condition_of_the_history_joins_the_list_unless_the_list_holds_it(coder: PhraseCoder) -> None:
    assert set(_code(coder, "PMH: hypertension\nDISCHARGE DIAGNOSES:\n1. Pneumonia")) == {"J189", "I10"}
    assert set(_code(coder, "PMH: hypertension\nDISCHARGE DIAGNOSES:\n1. Hypertensive heart disease with heart failure")) == {
        "I110"
    }


def test_prose_without_headings_gives_names_in_any_order_for_review(coder: PhraseCoder) -> None:
    text = "An old woman with an infection of the urinary tract, later with heart failure."
    codes = code_note(coder, text)
    assert {code.code: text[code.start : code.end] for code in codes} == {
        "N390": "infection of the urinary tract", "I509": "heart failure",
    }  # fmt: skip
    assert {code.decision for code in codes} == {"review"}


def test_an_acronym_counts_only_in_capitals(coder: PhraseCoder) -> None:
    assert _code(coder, "He had MI yesterday.") == {"I219": "MI"}
    assert _code(coder, "He said mi yesterday.") == {}


def test_a_specific_code_in_prose_displaces_the_unspecified_one(coder: PhraseCoder) -> None:
    text = "Known type 2 diabetes. Type 2 diabetes mellitus with hyperglycemia on admission."
    assert set(_code(coder, text)) == {"E1165"}


def test_notes_coded_together_and_alone_have_the_same_codes(coder: PhraseCoder) -> None:
    texts = ["Final diagnosis: Pneumonia", "", "no disease at all", "PMH: COPD\nDx: UTI"]
    assert [note.codes for note in code_notes(coder, texts)] == [code_note(coder, text) for text in texts]
    assert code_notes(coder, []) == []


@pytest.mark.parametrize("text", ["", "\n\n", "DISCHARGE DIAGNOSES:", "🫀" * 50, "1." * 500, "a" * 20_000, "Dx: " + ",;/-" * 200])
def test_odd_texts_harm_nothing(coder: PhraseCoder, text: str) -> None:
    assert code_note(coder, text) == ()


def test_names_are_compared_by_their_content_words() -> None:
    assert (
        content_words("Infections of the Urinary Tract")
        == content_words("urinary tract infection")
        == ("infection", "tract", "urinary")
    )
    assert content_words("Gastro-oesophageal reflux") == content_words("gastroesophageal reflux")
    assert content_words("Acute renal failure") == content_words("acute kidney failure")


def test_a_header_leads_to_its_unspecified_code() -> None:
    terminology = Terminology.build(CODE_SET, spoken_names=[])
    named = terminology.find_phrase("type 2 diabetes mellitus")
    assert named is not None
    assert named.codes == ("E119",)


def test_a_spoken_name_that_the_release_lacks_is_passed_over() -> None:
    terminology = Terminology.build(CODE_SET, spoken_names=[("GERD", "Gastro-esophageal reflux disease without esophagitis")])
    assert terminology.find_phrase("GERD") is None


@pytest.fixture(scope="module")
def full_coder() -> PhraseCoder:
    return TitleCoder(default_code_set())


def test_the_sample_summaries_are_coded_with_high_precision(full_coder: PhraseCoder) -> None:
    rows = [json.loads(line) for line in (SAMPLES_FOLDER / "encounters.jsonl").read_text(encoding="utf-8").splitlines()]
    predictions = [note.codes for note in code_notes(full_coder, [row["text"] for row in rows])]
    hits = predicted = gold = 0
    for row, codes in zip(rows, predictions, strict=True):
        wanted = {code.replace(".", "") for code in row["codes"]}
        found = {code.code for code in codes}
        assert len(found) == len(codes)
        assert all(0 <= code.start < code.end <= len(row["text"]) for code in codes)
        hits += len(found & wanted)
        predicted += len(found)
        gold += len(wanted)
    assert hits / predicted > 0.85
    assert hits / gold > 0.85


def test_every_shipped_spoken_name_means_a_billable_code_of_the_release(full_coder: PhraseCoder) -> None:
    terminology = terminology_of(full_coder)
    path = SAMPLES_FOLDER.parent / "coding" / "spoken_names.tsv"
    said = [line.split("\t")[0] for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    namings = {name: terminology.find_phrase(name) for name in said}
    assert len(said) > 250
    assert [name for name, naming in namings.items() if naming is None] == []
    assert all(code in full_coder.code_set.titles for naming in namings.values() if naming for code in naming.codes)
