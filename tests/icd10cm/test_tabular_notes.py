"""Notes of the tabular list as rules use them."""

from __future__ import annotations

import pytest

from llmcoder_tasks.icd10cm.code_set import default_code_set
from llmcoder_tasks.icd10cm.tabular_notes import CodeRange, TabularNotes, parse_ranges


@pytest.mark.parametrize(
    ("note", "ranges"),
    [
        ("type 1 diabetes mellitus (E10.-)", [("E10", "E10")]),
        ("malignant neoplasm of optic nerve (C72.3-)", [("C723", "C723")]),
        ("influenzal (J09.X9, J10.82, J11.82)", [("J09X9", "J09X9"), ("J1082", "J1082"), ("J1182", "J1182")]),
        ("pancreatitis and other diseases of the pancreas (K85-K86.-)", [("K85", "K86")]),
        ("pancytopenia (due to) (with) pure red cell aplasia (D61.01)", [("D6101", "D6101")]),
        ("iritis (due to) (in) diabetes mellitus (E08-E13 with .39)", []),
        ("angiostrongyliasis due to:", []),
    ],
)
def test_codes_in_parentheses_are_read_and_conditions_left_out(note: str, ranges: list[tuple[str, str]]) -> None:
    assert list(parse_ranges(note)) == [CodeRange(*found) for found in ranges]


def test_a_note_holds_below_its_code_and_covers_in_the_order_of_the_list() -> None:
    notes = TabularNotes(default_code_set())
    assert notes.names("E1165", "excludes1", "E1010")
    assert not notes.names("E1165", "excludes1", "I10")
    assert notes.covers([CodeRange("C00", "D49")], "C7A00")  # after C76 in the list, beyond C75 by letters
    assert notes.covers([CodeRange("B760", "B769")], "B761")
    assert not notes.covers([CodeRange("B760", "B769")], "B770")


def test_most_excludes1_notes_of_the_release_name_codes_that_can_be_read() -> None:
    terms = [term.term for term in default_code_set().terms if term.kind == "excludes1"]
    assert sum(bool(parse_ranges(term)) for term in terms) / len(terms) > 0.9
