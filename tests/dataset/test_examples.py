"""The tables of a dataset: whole, split by code, reproducible, and labelled by what their texts say."""

from __future__ import annotations

import hashlib
import re

import pytest

from llmcoder_tasks.dataset.chance import Chance
from llmcoder_tasks.dataset.config import DatasetConfig
from llmcoder_tasks.dataset.examples import GENERATOR_VERSION, Tables, count_by_split, make_examples, source_codes
from llmcoder_tasks.dataset.lexicon import load_lexicon
from llmcoder_tasks.dataset.multiple import group_items, join_conditions
from llmcoder_tasks.dataset.notes import write_note
from llmcoder_tasks.dataset.sentences import Person
from llmcoder_tasks.dataset.splits import split_of
from llmcoder_tasks.dataset.titles import normalise_text
from llmcoder_tasks.dataset.variations import Variations
from llmcoder_tasks.errors import DatasetError
from llmcoder_tasks.icd10cm.code_set import CodeSet
from llmcoder_tasks.records import SCENARIOS
from tests.dataset.conftest import CONFIG

GOLDEN = {"1": "0acb9d28fade5bd4", "2": "7e67fcff0bf5269c", "3": "8c1232cf9bd73b6f", "4": "e213cfca2900160f"}


def _digest(tables: Tables) -> str:
    lines = (
        f"{made.example.example_id}\t{made.example.split}\t{made.example.text}\t{made.condition_count}"
        for rows in tables.values()
        for made in rows
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def test_every_scenario_has_its_table_and_base_every_code(tables: Tables, code_set: CodeSet) -> None:
    assert tuple(tables) == SCENARIOS
    assert {made.example.codes[0] for made in tables["base"]} == set(code_set.titles)
    assert {made.example.split for made in tables["base"]} == {"train"}
    assert all(rows for rows in tables.values())


def test_the_same_seed_gives_the_same_tables_and_another_seed_others(tables: Tables, code_set: CodeSet) -> None:
    assert _digest(make_examples(code_set, CONFIG)) == _digest(tables)
    assert _digest(make_examples(code_set, DatasetConfig(seed=8, notes=60, held_out_share=0.1))) != _digest(tables)


def test_generated_texts_change_only_with_the_generator_version(tables: Tables) -> None:
    assert GOLDEN.get(GENERATOR_VERSION) == _digest(tables), "texts have changed: raise GENERATOR_VERSION and note the new digest"


def test_variations_of_held_out_codes_are_never_trained_on(tables: Tables) -> None:
    splits: dict[str, set[str]] = {}
    for scenario in SCENARIOS[1:]:
        for made in tables[scenario]:
            for code in made.example.codes:
                splits.setdefault(code, set()).add(made.example.split)
    assert all(len(found) == 1 for found in splits.values())
    assert {split for found in splits.values() for split in found} == {"train", "validation", "test"}


def test_a_code_keeps_its_split_whatever_stands_beside_it() -> None:
    codes = [f"A{number:04d}" for number in range(20_000)]
    splits = [split_of(code, seed=0, held_out_share=0.03) for code in codes]
    assert splits == [split_of(code, seed=0, held_out_share=0.03) for code in codes]
    assert splits.count("test") == pytest.approx(600, abs=90)
    assert splits.count("validation") == pytest.approx(600, abs=90)


def test_labels_can_be_recomputed_from_the_ids(tables: Tables) -> None:
    for rows in tables.values():
        for made in rows:
            assert source_codes(made.example.example_id) == made.example.codes


def test_no_text_stands_for_two_codes_and_none_is_the_title(tables: Tables, code_set: CodeSet) -> None:
    meanings: dict[str, str] = {}
    for scenario in ("reordered", "abbreviations", "typos", "sentences"):
        for made in tables[scenario]:
            text, code = normalise_text(made.example.text), made.example.codes[0]
            assert meanings.setdefault(text, code) == code
            assert text != normalise_text(code_set.titles[code])


def test_the_first_rows_are_a_fair_sample(tables: Tables) -> None:
    first = [made.example.codes[0] for made in tables["base"][:100]]
    share_of_injuries = sum(code[0] in "ST" for code in first) / len(first)
    share_in_all = sum(made.example.codes[0][0] in "ST" for made in tables["base"]) / len(tables["base"])
    assert share_of_injuries == pytest.approx(share_in_all, abs=0.15)


def test_each_code_stands_in_as_many_texts_of_several_conditions_as_wanted(tables: Tables) -> None:
    counts: dict[str, int] = {}
    for made in tables["multiple"]:
        assert 2 <= len(made.example.codes) <= 5
        for code in made.example.codes:
            counts[code] = counts.get(code, 0) + 1
    assert set(counts.values()) == {CONFIG.multiple}


def test_items_are_dealt_into_groups_of_two_to_five_each_once() -> None:
    for count in range(2, 40):
        groups = group_items(range(count), Chance("deal", count))
        assert sorted(item for group in groups for item in group) == list(range(count))
        assert all(2 <= len(group) <= 5 for group in groups)
    assert group_items([1], Chance("deal")) == []


def test_conditions_are_joined_in_order_in_many_ways() -> None:
    person = Person("Ana", False, 50, "her")
    texts = {join_conditions(("gout", "asthma", "scurvy"), person, Chance("join", number)) for number in range(300)}
    assert len(texts) > 60
    for text in texts:
        places = [text.lower().index(name) for name in ("gout", "asthma", "scurvy")]
        assert places == sorted(places)
    for sign in ("\n", "; ", ", ", " and ", "1. ", "- "):
        assert any(sign in text for text in texts), sign


def test_a_note_asserts_each_of_its_codes_in_order_of_mention(code_set: CodeSet) -> None:
    variations = Variations.of_release(code_set, load_lexicon(), seed=0)
    codes = list(variations.sources)
    for number in range(100):
        wanted = codes[number * 3 : number * 3 + 3]
        text, mentioned = write_note(wanted, variations, Chance("note", number))
        assert sorted(mentioned) == sorted(wanted)
        assert re.search(r"discharge", text, re.IGNORECASE)
        assert not re.search(r"[{}]", text)
        assert re.search(r"[Nn]o |[Dd]eni|[Nn]egative|ruled out|excluded", text)


def test_counts_by_split_leave_out_what_is_empty(tables: Tables) -> None:
    assert count_by_split(tables["base"]) == {"train": len(tables["base"])}
    assert sum(count_by_split(tables["typos"]).values()) == len(tables["typos"])


@pytest.mark.parametrize(("field", "value"), [("typos", 0), ("notes", -1), ("held_out_share", 0.5), ("held_out_share", 0)])
def test_a_config_without_a_suite_is_refused(field: str, value: float) -> None:
    with pytest.raises(DatasetError, match=field):
        DatasetConfig(**{field: value})  # type: ignore[arg-type]
