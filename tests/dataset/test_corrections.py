"""What may leave the notes as an example, and which code a correction has in another release."""

from __future__ import annotations

import pytest

from llmcoder_tasks.dataset.config import DatasetConfig
from llmcoder_tasks.dataset.corrections import Correction, Corrections, find_successor, is_private, merge_corrections
from llmcoder_tasks.dataset.examples import make_examples
from llmcoder_tasks.dataset.splits import split_of
from llmcoder_tasks.icd10cm.code_set import CodeSet, default_code_set

CONFIG = DatasetConfig(notes=20, held_out_share=0.1)


@pytest.fixture(scope="module")
def code_set() -> CodeSet:
    full = default_code_set()
    wanted = {code.code for code in full.billable[::300]} | {"E119", "I10"}
    codes = tuple(code for code in full.codes if code.code in wanted)
    return CodeSet(full.release_key, full.effective_from, codes, ())


@pytest.mark.parametrize(
    "phrase",
    [
        "MI on 3/14/26", "stroke 2026-03-14", "CVA March 3", "fall on 3rd March", "seen 3/14", "MRN 88231", "call 555 123 4567",
        "SSN 123-45-6789", "Mr. Smith has gout", "mrs smith with gout", "Dr Jones: CHF", "patient Smith", "wife Anna is ill",
        "97-year-old with CHF", "102 y/o female", "mail a@b.org", "x", "long " * 50,
    ],
)  # fmt: skip
def test_what_looks_like_a_date_a_number_or_a_name_stays_in_the_notes(phrase: str) -> None:
    assert is_private(phrase)


@pytest.mark.parametrize(
    "phrase",
    [
        "CKD stage 3",
        "T2DM w/ neuropathy",
        "patient with CHF",
        "DM2",
        "s/p CABG x4",
        "67-year-old with CHF",
        "EF 35 %",
        "Mrsa bacteremia",
    ],
)
def test_what_names_a_condition_may_leave(phrase: str) -> None:
    assert not is_private(phrase)


def test_a_dead_code_follows_one_successor_from_table_to_table_and_no_more(code_set: CodeSet) -> None:
    successors = {"A01": {"A02"}, "A02": {"I10"}, "B01": {"I10", "E119"}, "C01": {"C02"}, "C02": {"C01"}}
    assert find_successor("E119", successors, code_set) == "E119"
    assert find_successor("A01", successors, code_set) == "I10"
    assert find_successor("B01", successors, code_set) is None
    assert find_successor("C01", successors, code_set) is None
    assert find_successor("D01", successors, code_set) is None


def test_corrections_become_a_table_with_their_provenance_in_the_split_of_their_code(code_set: CodeSet) -> None:
    tables = make_examples(code_set, CONFIG)
    rows = [
        Correction(1, "FY2026", "E119", "sugar disease"),
        Correction(2, "FY2026", "I10", "pressure troubles"),
        Correction(3, "FY2026", "I10", "Essential (primary) hypertension"),  # its title
        Correction(4, "FY2026", "E119", "essential primary hypertension"),  # another's title
        Correction(5, "FY2026", "E119", "bad blood"),
        Correction(6, "FY2026", "I10", "Bad Blood"),  # two people, two codes
        Correction(7, "FY2026", "E119", "Sugar disease"),  # once is enough
    ]
    assert merge_corrections(tables, rows, code_set, CONFIG) == 2
    found = {made.example.example_id: made.example for made in tables["corrections"]}
    assert set(found) == {"corrections-E119-1-FY2026", "corrections-I10-2-FY2026"}
    assert found["corrections-E119-1-FY2026"].split == split_of("E119", seed=0, held_out_share=0.1)


def test_without_a_usable_correction_there_is_no_table(code_set: CodeSet) -> None:
    tables = make_examples(code_set, CONFIG)
    assert merge_corrections(tables, [], code_set, CONFIG) == 0
    assert "corrections" not in tables


def test_other_corrections_are_another_dataset() -> None:
    one, two = (Corrections((Correction(1, "FY2026", "I10", phrase),)) for phrase in ("a b", "a c"))
    assert one.sha256 != two.sha256
