"""What coded notes teach: habits of coders and which names are coded, in a file without a patient's words."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest

from llmcoder_tasks.coding.notes import code_notes, read_notes, terminology_of
from llmcoder_tasks.coding.selection import Habit, Habits, Selection, Trees, find_phrases, measure_surprise
from llmcoder_tasks.coding.selection_fit import CodedText, fingerprint_notes, learn_selection, score_codes
from llmcoder_tasks.coding.title_coder import TitleCoder
from llmcoder_tasks.errors import ModelError
from llmcoder_tasks.icd10cm.code_set import Code, CodeSet, CodeTerm

CODE_SET = CodeSet(
    "FY2026-April",
    date(2026, 4, 1),
    tuple(
        Code(code, True, title, title)
        for code, title in (
            ("I10", "Essential (primary) hypertension"),
            ("M109", "Gout, unspecified"),
            ("R0602", "Shortness of breath"),
            ("F17210", "Nicotine dependence, cigarettes, uncomplicated"),
            ("J189", "Pneumonia, unspecified organism"),
            ("N390", "Urinary tract infection, site not specified"),
        )
    ),
    (CodeTerm("F17210", "inclusion_term", "Pack year smoker"),),
)


def _notes() -> list[CodedText]:
    """Coders of this hospital leave shortness of breath alone, and give F17.210 to who smokes a pack."""
    notes = []
    for number in range(240):
        sentences, codes = [f"Mr. Zyxomma{number} came to us."], []
        if number % 3 == 0:
            sentences.append("He has gout.")
            codes.append("M10.9")
        if number % 2 == 0:
            sentences.append("He reported shortness of breath.")
        if number % 5 == 0:
            sentences.append("He is a pack smoker.")
            codes.append("F17.210")
        if number % 7 == 0:
            sentences.append("There was no pneumonia.")
        if number % 4 == 0:
            sentences.append("He has a urinary tract infection.")
            codes.append("N39.0")
        notes.append(CodedText(" ".join(sentences), tuple(codes), f"patient {number}"))
    return notes


@pytest.fixture(scope="module")
def selection() -> Selection:
    return learn_selection(_notes(), TitleCoder(CODE_SET))


def _coder(selection: Selection | None) -> TitleCoder:
    coder = TitleCoder(CODE_SET)
    coder.selection = selection
    return coder


def _codes(coder: TitleCoder, text: str) -> set[str]:
    return {code.code for code in code_notes(coder, [text])[0].codes}


def test_what_coders_leave_alone_is_left_alone_and_their_habits_are_taken_up(selection: Selection) -> None:
    text = "Mrs. Quux has gout. She reported shortness of breath. She is a pack smoker. There was no pneumonia."
    assert _codes(_coder(None), text) >= {"M109", "R0602"}
    assert _codes(_coder(selection), text) == {"M109", "F17210"}


def test_a_code_that_no_name_gave_says_from_what_it_was_inferred(selection: Selection) -> None:
    text = "She is a pack smoker."
    (note,) = code_notes(_coder(selection), [text])
    (finding,) = [finding for finding in note.findings if finding.rule == "habit"]
    assert (finding.code, finding.action) == ("F17210", "added")
    assert text[finding.start : finding.end] == "pack smoker"
    assert finding.reason == "coders gave F17.210 to 48 of 48 notes with these words"


def test_the_evidence_compares_held_out_notes_with_the_constants(selection: Selection) -> None:
    assert selection.evidence["f1"] > 0.95 > selection.evidence["constants_f1"]
    assert selection.evidence["notes"] == 240
    assert selection.kinds == {"prose"}


def test_notes_with_a_final_list_are_left_to_the_constants_when_none_was_learnt_from(selection: Selection) -> None:
    text = "DISCHARGE DIAGNOSES:\n1. Gout\n2. Shortness of breath\n"
    assert _codes(_coder(selection), text) == _codes(_coder(None), text)


def test_the_file_holds_no_word_that_the_release_does_not_use(selection: Selection) -> None:
    written = selection.render().decode()
    assert "smoker" in written
    assert "zyxomma" not in written.casefold()


def test_a_fit_comes_back_from_its_file_and_is_the_same_in_any_order(selection: Selection) -> None:
    assert Selection.parse(selection.render()).render() == selection.render()
    again = learn_selection(_notes()[::-1], TitleCoder(CODE_SET))
    assert again.render() == selection.render()
    assert selection.fingerprint == fingerprint_notes(_notes()[::-1], "FY2026-April")


def test_notes_coded_together_and_alone_get_the_same_codes(selection: Selection) -> None:
    texts = [note.text for note in _notes()[:40]]
    coder = _coder(selection)
    together = code_notes(coder, texts)
    assert together == [code_notes(coder, [text])[0] for text in texts]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda data: data.replace(b'"schema_version": 1', b'"schema_version": 9'), "another version"),
        (lambda data: data[:200], "malformed"),
        (lambda data: data.replace(b'"policy": "', b'"policy": "un'), "malformed"),
    ],
)
def test_a_spoilt_file_is_refused_with_the_cure(selection: Selection, spoil: object, message: str) -> None:
    with pytest.raises(ModelError, match=message) as refused:
        Selection.parse(spoil(selection.render()))  # type: ignore[operator]
    assert "fit-selection" in str(refused.value)


def test_too_few_notes_are_refused() -> None:
    with pytest.raises(ValueError, match="3 coded notes are too few: 200 are needed"):
        learn_selection(_notes()[:3], TitleCoder(CODE_SET))


def test_a_tree_that_leads_out_of_itself_is_refused() -> None:
    document = {"base": 0.0, "depth": 1, "feature": [[0, 0, 0]], "threshold": [[0.5, 0, 0]], "value": [[0, -1.0, 1.0]]}
    whole = document | {"left": [[1, 1, 2]], "right": [[2, 1, 2]]}
    rows = np.zeros((2, 34), dtype=np.float32)
    rows[1, 0] = 1.0
    # Log-odds of -1 and of 1.
    assert Trees.from_document(whole).estimate(rows).round(4).tolist() == [0.2689, 0.7311]
    with pytest.raises(ValueError, match="leads out of itself"):
        Trees.from_document(document | {"left": [[3, 1, 2]], "right": [[2, 1, 2]]})


def test_phrases_keep_within_sentences_and_know_what_is_denied() -> None:
    text = "No pneumonia. Gout flared. Urinary tract infection."
    (note,) = read_notes(_coder(None), [text])
    found = find_phrases(text, note.sections, terminology_of(_coder(None)).words, None)
    assert not found[("pneumonia",)].is_affirmed
    assert found[("gout",)].is_affirmed
    assert ("gout", "pneumonia") not in found
    place = found[("infection", "tract", "urinary")]
    assert text[place.start : place.end] == "Urinary tract infection"


def test_a_share_is_drawn_to_how_often_the_code_is_given_at_all() -> None:
    habits = Habits({}, {"I10": 10}, 100)
    # (4 + 2 * 0.1) / (5 + 2)
    assert habits.share(Habit("I10", 4, 5, 1.0)) == pytest.approx(0.6)
    # 4 * ln(4 / 0.5) - (4 - 0.5)
    assert habits.surprise(Habit("I10", 4, 5, 1.0)) == pytest.approx(4.8178, abs=1e-4)
    assert measure_surprise(3, 3.0) == 0.0


def test_a_gold_code_that_is_no_billable_one_is_met_by_any_code_below_it() -> None:
    titles = {"E119": "", "I10": ""}
    score = score_codes([["E119", "I10"]], [["E11", "M109"]], titles)
    assert (score.precision, score.recall) == (0.5, 0.5)
    assert score_codes([[]], [["I10"]], titles).f1 == 0.0
