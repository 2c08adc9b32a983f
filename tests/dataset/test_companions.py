"""Conditions of one made-up note: those that one person can have, and that a coder who follows the guidelines reports together."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest

from llmcoder_tasks.dataset.chance import Chance
from llmcoder_tasks.dataset.companions import Companions
from llmcoder_tasks.dataset.lexicon import load_lexicon
from llmcoder_tasks.dataset.notes import write_note
from llmcoder_tasks.dataset.variations import Variations
from llmcoder_tasks.icd10cm.code_set import CodeSet, default_code_set
from llmcoder_tasks.records import parse_code

NAMED = [
    "E109", "E119", "E8720", "I10", "I5033", "I4891", "J189", "J449", "J9601", "N184", "N401", "O80", "O2441", "O24410", "P220",
    "Q211", "Q2110", "R059", "R531", "R5381", "S72001A", "S72002A", "S0101XA", "S72001D", "W010XXA", "W010XXD", "W19XXXA",
    "Z955", "Z3A38", "G43909", "E1142", "G629",
]  # fmt: skip


@pytest.fixture(scope="module")
def variations() -> Variations:
    whole = default_code_set()
    kept = {*NAMED, *(code.code for code in whole.billable[::140])}
    return Variations.of_release(
        replace(whole, codes=tuple(code for code in whole.codes if code.code in kept)), load_lexicon(), seed=0
    )


@pytest.fixture(scope="module")
def companions(variations: Variations) -> Companions:
    return Companions.of_release(default_code_set(), variations.sources)


@pytest.mark.parametrize(
    ("one", "other", "may"),
    [
        ("I10", "E11.9", True),
        ("J18.9", "I48.91", True),
        ("E10.9", "E11.9", False),  # E10 Excludes1: type 2 diabetes mellitus (E11.-)
        ("J18.9", "R05.9", False),  # a cough belongs to pneumonia
        ("I48.91", "R53.1", False),  # whether it explains weakness is a matter of judgement: not asked
        ("R05.9", "R53.1", True),
        ("R05.9", "Z95.5", True),
        ("I10", "I50.33", False),  # I11.0
        ("I10", "N18.4", False),  # I12.9
        ("E11.9", "N18.4", False),  # E11.22
        ("E11.9", "G62.9", False),  # E11.42
        ("J44.9", "J18.9", False),  # J44.0
        ("S72.001A", "S72.002A", False),  # one category
        ("S72.001A", "S01.01XA", True),
        ("N40.1", "O80", False),  # a man's and a woman's
        ("N40.1", "Z3A.38", False),
        ("O80", "Z3A.38", True),
        ("P22.0", "Q21.10", True),
        ("P22.0", "I10", False),  # a newborn's and a grown-up's
        ("P22.0", "O80", False),  # the mother's is another record
        ("W01.0XXA", "W19.XXXA", False),  # one fall
    ],
)
def test_two_conditions_stand_together_only_where_nothing_joins_excludes_or_explains_them(
    companions: Companions, one: str, other: str, may: bool
) -> None:
    first, second = parse_code(one), parse_code(other)
    assert companions.agree(first, second) is may
    assert companions.agree(second, first) is may


def test_an_external_cause_needs_an_injury_of_the_same_encounter(companions: Companions) -> None:
    assert companions.fits("W010XXA", ["I10", "S72001A"])
    assert not companions.fits("W010XXA", ["S72001D"])
    assert companions.fits("W010XXD", ["S72001D"])
    assert not companions.fits("W010XXA", ["I10"])


def test_codes_are_dealt_into_notes_that_hold_to_it_each_once_and_never_a_cause_first(companions: Companions) -> None:
    groups = list(companions.deal(list(companions.sources), Chance("deal")))
    dealt = [code for group in groups for code in group]
    assert len(set(dealt)) == len(dealt) > 0.95 * len(companions.sources)
    assert {len(group) for group in groups} == {2, 3, 4, 5}
    for group in groups:
        assert not group[0].startswith(("V", "W", "X", "Y"))
        assert all(companions.agree(one, other) for one, other in combinations(group, 2))
    assert groups == list(companions.deal(list(companions.sources), Chance("deal")))


def test_codes_that_may_not_stand_together_give_no_note(companions: Companions) -> None:
    assert list(companions.deal(["E109", "E119"], Chance("deal"))) == []
    assert list(companions.deal(["W010XXA", "W19XXXA"], Chance("deal"))) == []


@pytest.mark.parametrize(
    ("codes", "person"), [(["I10", "N401"], "Sex: male"), (["I4891", "O80"], "Sex: female"), (["Q2110", "P220"], "Baby")]
)
def test_a_note_is_about_somebody_who_can_have_all_its_conditions(variations: Variations, codes: list[str], person: str) -> None:
    for number in range(20):
        text, _ = write_note(codes, variations, Chance("person", number))
        assert person in text


def test_a_release_without_a_tabular_list_excludes_nothing(variations: Variations) -> None:
    bare = default_code_set()
    companions = Companions.of_release(CodeSet(bare.release_key, bare.effective_from, bare.codes, ()), variations.sources)
    assert companions.agree("E109", "E119")
    assert not companions.agree("J189", "R059")
