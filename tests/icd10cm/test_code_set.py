"""The embedded release as everybody reads it."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from llmcoder_tasks.icd10cm.code_set import CodeTerm, default_code_set
from llmcoder_tasks.icd10cm.release_reader import read_release
from llmcoder_tasks.icd10cm.source import read_source


def test_the_embedded_release_is_april_2026_in_full() -> None:
    code_set = default_code_set()
    assert code_set.release_key == "FY2026-April"
    assert code_set.effective_from == date(2026, 4, 1)
    assert len(code_set.codes) == 98_186
    assert len(code_set.billable) == len(code_set.titles) == 74_719
    assert code_set.titles["E119"] == "Type 2 diabetes mellitus without complications"
    assert code_set.titles["S060XAS"].endswith(", sequela")
    assert "S061X7D" not in code_set.titles  # no later encounter after death
    assert "E11" not in code_set.titles
    assert CodeTerm("A000", "inclusion_term", "Classical cholera") in code_set.terms


def test_the_embedded_release_has_the_codes_and_titles_of_the_official_files(official_releases: Path) -> None:
    october = read_release(read_source(str(official_releases / "FY2026")), release_key=None)
    assert default_code_set().titles == october.billable_titles
    assert [code.code for code in default_code_set().codes] == [code.code for code in october.codes]
