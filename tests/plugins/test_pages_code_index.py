"""How codes are found while somebody types, on a handful of codes and on a whole release."""

from __future__ import annotations

import time

import pytest
from reviewed_hospital import Hospital

from llmcoder_pages.code_index import CodeIndex, load_code_index, split_words
from llmcoder_tasks.database import Database
from llmcoder_tasks.icd10cm.code_set import default_code_set

CODES = [
    ("E1122", "Type 2 diabetes mellitus with diabetic chronic kidney disease"),
    ("E119", "Type 2 diabetes mellitus without complications"),
    ("H8101", "Ménière's disease, right ear"),
    ("I10", "Essential (primary) hypertension"),
    ("J13", "Pneumonia due to Streptococcus pneumoniae"),
    ("J189", "Pneumonia, unspecified organism"),
    ("N189", "Chronic kidney disease, unspecified"),
]
INDEX = CodeIndex(CODES, [("I10", "High blood pressure"), ("E11", "Sugar disease"), ("Z99", "a code of another release")])


@pytest.mark.parametrize(
    ("query", "codes"),
    [
        ("E11", ["E1122", "E119"]),
        ("e11.2", ["E1122"]),
        ("pneumonia", ["J189", "J13"]),  # the shorter title first
        ("pneu strep", ["J13"]),
        ("kidney", ["N189", "E1122"]),
        ("disease of the kidney", ["N189", "E1122"]),
        ("meniere", ["H8101"]),
        ("Ménière", ["H8101"]),
        ("blood pressure", ["I10"]),
        ("sugar", ["E119", "E1122"]),  # a term of the header above both
        ("diabetes pneumonia", []),
        ("of the", []),
        ("", []),
        ("%_'; DROP", []),
        ("J99", []),
    ],
)
def test_codes_are_found_by_their_beginning_or_by_all_words(query: str, codes: list[str]) -> None:
    assert [found.code for found in INDEX.search(query)] == codes


def test_titles_come_before_terms_and_whole_words_before_beginnings() -> None:
    index = CodeIndex([("A01", "Cold"), ("A02", "Colds of many kinds"), ("A03", "Shivering")], [("A03", "cold")])
    assert [found.code for found in index.search("cold")] == ["A01", "A02", "A03"]


def test_no_more_are_shown_than_asked_for() -> None:
    assert [found.code for found in INDEX.search("disease", limit=1)] == ["N189"]


def test_alternatives_are_near_by_words_then_siblings_and_never_the_code_itself() -> None:
    found = [one.code for one in INDEX.suggest("E119", "sugar disease with bad kidney")]
    assert found[0] == "E1122"
    assert "N189" in found
    assert "E119" not in found
    assert [one.code for one in INDEX.suggest("J189", "")] == []
    assert [one.code for one in INDEX.suggest("E119", "")] == ["E1122"]


def test_words_are_small_plain_and_stand_once() -> None:
    assert split_words("Ménière's Ear, ear (2)") == ["meniere", "s", "ear", "2"]


@pytest.mark.integration
def test_an_index_holds_the_billable_codes_of_its_release_and_is_read_once(database: Database) -> None:
    Hospital(database)
    index = load_code_index(database, "FY2026")
    assert [found.code for found in index.search("E11")] == ["E1122", "E119"]
    assert load_code_index(database, "FY2026") is index


def test_a_whole_release_answers_each_letter_in_less_than_a_tenth_of_a_second() -> None:
    release = default_code_set()
    names = [(term.code, term.term) for term in release.terms]
    index = CodeIndex([(code.code, code.long_title) for code in release.billable], names)
    for query in ("fr", "fracture of f", "subsequent encounter fracture initial closed displaced", "e1"):
        assert min(_seconds(index, query) for _ in range(5)) < 0.1, query


def _seconds(index: CodeIndex, query: str) -> float:
    started = time.perf_counter()
    index.search(query)
    return time.perf_counter() - started
