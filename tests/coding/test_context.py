"""What a sentence says about the conditions it names."""

from __future__ import annotations

import pytest

from llmcoder_tasks.coding.context import Sentence, assess_mentions, split_sentences


def _assess(text: str, *names: str) -> list[str]:
    spans = [(text.index(name), text.index(name) + len(name)) for name in names]
    return list(assess_mentions(text, Sentence(0, len(text)), spans))


@pytest.mark.parametrize(
    ("text", "name", "assertion"),
    [
        ("She has pneumonia.", "pneumonia", "present"),
        ("No evidence of pneumonia.", "pneumonia", "negated"),
        ("Pneumonia was ruled out.", "Pneumonia", "negated"),
        ("Pneumonia cannot be ruled out.", "Pneumonia", "possible"),
        ("Pneumonia unlikely.", "Pneumonia", "negated"),
        ("Denies fever, chills, cough or chest pain.", "chest pain", "negated"),
        ("Denies fever but has a cough.", "cough", "present"),
        ("There was no prior history of stroke.", "history of stroke", "negated"),
        ("Family history of breast cancer.", "breast cancer", "family"),
        ("His mother had diabetes.", "diabetes", "family"),
        ("Return to ED for chest pain.", "chest pain", "hypothetical"),
        ("Heparin for DVT prophylaxis.", "DVT", "hypothetical"),
        ("History of pneumonia in 2010.", "pneumonia", "historical"),
        ("s/p myocardial infarction", "myocardial infarction", "historical"),
        ("Pneumonia, likely bacterial.", "Pneumonia", "present"),
        ("Possible pneumonia.", "pneumonia", "possible"),
        ("A 72-year-old with heart failure.", "heart failure", "present"),
        ("Gram negative sepsis.", "sepsis", "present"),
        ("No increase in edema.", "edema", "present"),
    ],
)
def test_triggers_reach_what_they_speak_about(text: str, name: str, assertion: str) -> None:
    assert _assess(text, name) == [assertion]


def test_each_condition_of_a_sentence_is_judged_by_itself() -> None:
    text = "No fever, but productive cough; history of asthma"
    assert _assess(text, "fever", "cough", "asthma") == ["negated", "present", "historical"]


def test_a_trigger_inside_a_name_does_not_touch_it() -> None:
    text = "Gastroesophageal reflux disease without esophagitis"
    assert _assess(text, text) == ["present"]


def test_sentences_end_at_points_and_bullets_but_not_inside_a_broken_list() -> None:
    text = "Seen by Dr. Lee. Denies fever,\nChills or cough.\n- Has pain\n- Temp 37.2 today"
    parts = [text[sentence.start : sentence.end].strip() for sentence in split_sentences(text, 0, len(text))]
    assert parts == ["Seen by Dr. Lee.", "Denies fever,\nChills or cough.", "- Has pain", "- Temp 37.2 today"]


@pytest.mark.parametrize(
    ("text", "name", "assertion"),
    [
        ("Return to the emergency department for chest pain.", "chest pain", "hypothetical"),
        ("Monitor for infection.", "infection", "hypothetical"),
        ("Should bleeding recur, come back.", "bleeding", "hypothetical"),
        ("Glaucoma runs in her family.", "Glaucoma", "family"),
        ("Glaucoma in his father.", "Glaucoma", "family"),
    ],
)
def test_a_phrase_with_alternatives_in_it_spoils_no_other_phrase(text: str, name: str, assertion: str) -> None:
    assert _assess(text, name) == [assertion]
