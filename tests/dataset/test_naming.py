"""Other names of a code, and shorter ones: only those that conventions give to it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from llmcoder_tasks.dataset.chance import Chance
from llmcoder_tasks.dataset.naming import join_title, names_of, other_names, shorter_names
from llmcoder_tasks.dataset.restyling import restyle
from llmcoder_tasks.dataset.titles import normalise_text
from llmcoder_tasks.icd10cm.code_set import Code, CodeSet, CodeTerm

_TITLES = {
    "S93401A": "Sprain of ligament of right ankle, initial encounter",
    "S93401D": "Sprain of ligament of right ankle, subsequent encounter",
    "S93409A": "Sprain of ligament of unspecified ankle, initial encounter",
    "O3180X0": "Complications of multiple gestation, unspecified trimester, not applicable or unspecified",
    "O3181X0": "Complications of multiple gestation, first trimester, not applicable or unspecified",
    "D649": "Anemia, unspecified",
    "T22411S": "Corrosion of first degree of forearm, sequela",
    "T22412S": "Corrosion of unspecified degree of forearm, sequela",
    "K358": "Appendicitis, unspecified",
    "K359": "Appendicitis",
}


@pytest.fixture(scope="module")
def small(code_set: CodeSet) -> CodeSet:
    codes = [Code(code, True, title, title) for code, title in _TITLES.items()]
    codes.append(Code("S93401", False, "Sprain of ligament of right ankle", "Sprain of ligament of right ankle"))
    terms = (
        CodeTerm("S93401", "inclusion_term", "Twisted right ankle NOS"),
        CodeTerm("D649", "inclusion_term", "Low blood count"),
        CodeTerm("K358", "inclusion_term", "Shared name"),
        CodeTerm("K359", "index_term", "Shared name"),
        CodeTerm("D649", "excludes1", "No name of it"),
    )
    return replace(code_set, codes=tuple(codes), terms=terms)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("S93401A", {"Sprain of ligament of right ankle"}),
        ("S93401D", set()),
        (
            "S93409A",
            {
                "Sprain of ligament of unspecified ankle",
                "Sprain of ligament of ankle, initial encounter",
                "Sprain of ligament of ankle",
            },
        ),
        ("O3180X0", {"Complications of multiple gestation, not applicable or unspecified"}),
        ("O3181X0", {"Complications of multiple gestation, first trimester"}),
        ("D649", {"Anemia"}),
        ("T22412S", set()),  # a degree is no side
        ("K358", set()),  # what is left is another code's title
    ],
)
def test_what_conventions_supply_may_be_left_out(code: str, expected: set[str], small: CodeSet) -> None:
    titles = frozenset(map(normalise_text, _TITLES.values()))
    assert {join_title(name) for name in shorter_names(code, _TITLES[code], names_of(small), titles)} == expected


def test_a_header_whose_codes_differ_by_encounter_alone_is_the_first_one(small: CodeSet) -> None:
    names = names_of(small)
    assert names["sprain of ligament of right ankle"] == "S93401A"
    assert names["twisted right ankle nos"] == "S93401A"
    assert names["shared name"] is None


def test_other_names_keep_the_encounter_of_their_code(small: CodeSet) -> None:
    others = {code: {join_title(name) for name in found} for code, found in other_names(small, names_of(small)).items()}
    assert others == {
        "S93401A": {"Twisted right ankle NOS, initial encounter"},
        "S93401D": {"Twisted right ankle NOS, subsequent encounter"},
        "D649": {"Low blood count"},
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Type 2 diabetes mellitus", "Type II diabetes mellitus"),
        ("Bipolar II disorder", "Bipolar 2 disorder"),
        ("Stage III ulcer of back", "Stage 3 ulcer of back"),
        ("Other disorders of bladder", "Other disorder of bladder"),
        ("open fracture type IIIA, IIIB, or IIIC", "open fractures type IIIA, IIIB, or IIIC"),
        ("Gout", "Gout"),
    ],
)
def test_numerals_and_numbers_change_without_changing_what_is_said(text: str, expected: str) -> None:
    assert expected in {restyle(text, Chance("restyle", number)) for number in range(30)}


def test_a_numeral_in_a_list_stays_as_it_is() -> None:
    texts = {restyle("open fracture type I or II", Chance("restyle", number)) for number in range(30)}
    assert texts == {"open fractures type I or II"}
