"""The word lists: large enough, well formed, readable both ways."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmcoder_tasks.dataset.lexicon import load_lexicon
from llmcoder_tasks.dataset.titles import Vocabulary
from llmcoder_tasks.errors import DatasetError
from llmcoder_tasks.icd10cm.code_set import CodeSet


def test_the_lists_hold_what_clinicians_write() -> None:
    lexicon = load_lexicon()
    assert len(lexicon.abbreviations) >= 300
    assert "fx" in lexicon.abbreviations["fracture"]
    assert "HTN" in lexicon.abbreviations["hypertension"]
    assert "dm2" in lexicon.abbreviations["type 2 diabetes mellitus"]
    assert lexicon.british["anemia"] == ("anaemia",)
    assert "hemorrage" in lexicon.misspellings["hemorrhage"]


def test_forms_lead_back_to_their_terms() -> None:
    lexicon = load_lexicon()
    assert "fracture" in lexicon.terms_by_form["fx"]
    assert set(lexicon.terms_by_form["mi"]) >= {"myocardial infarction"}
    assert lexicon.words_by_misspelling["haemorrhage"] == ("hemorrhage",)
    assert "wrist" in lexicon.words_by_misspelling["wirst"]


def test_no_term_is_its_own_form() -> None:
    lexicon = load_lexicon()
    for forms in (lexicon.abbreviations, lexicon.misspellings, lexicon.british, lexicon.synonyms):
        assert [term for term, written in forms.items() if term in written] == []


def test_no_misspelling_is_a_word_of_a_title(code_set: CodeSet) -> None:
    words = Vocabulary.of_titles(code_set.titles.values()).words
    wrong = {form for forms in load_lexicon().misspellings.values() for form in forms}
    assert wrong & words == set()


@pytest.mark.parametrize("line", ["fracture fx", "fracture\t", "fracture\tfx||frac", "\tfx"])
def test_a_malformed_line_is_refused_with_file_and_number(tmp_path: Path, line: str) -> None:
    for name in ("abbreviations", "misspellings", "british", "synonyms", "names"):
        (tmp_path / f"{name}.tsv").write_text(f"# comment\n{line}\n")
    with pytest.raises(DatasetError, match="abbreviations.tsv:2"):
        load_lexicon(tmp_path)


def test_a_term_that_stands_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "abbreviations.tsv").write_text("fracture\tfx\nFracture\tfrac\n")
    with pytest.raises(DatasetError, match="'Fracture' stands twice"):
        load_lexicon(tmp_path)
