"""All examples of a dataset, table by table.

    base            every billable code with its title, all in train: every code has to be learnt
    reordered, abbreviations, typos, sentences     one condition, written otherwise
    multiple        two to five conditions in one text
    notes           short discharge notes

The variations of held-out codes are the validation and test suites. An example's id says which codes it was made from, so that its
label can be recomputed.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

from llmcoder_tasks.dataset.chance import Chance
from llmcoder_tasks.dataset.companions import Companions
from llmcoder_tasks.dataset.config import DatasetConfig
from llmcoder_tasks.dataset.lexicon import load_lexicon
from llmcoder_tasks.dataset.multiple import group_items, join_conditions
from llmcoder_tasks.dataset.notes import write_note
from llmcoder_tasks.dataset.splits import sampling_order, split_of
from llmcoder_tasks.dataset.titles import normalise_text
from llmcoder_tasks.dataset.variations import VARIED_SCENARIOS, Variations
from llmcoder_tasks.icd10cm.code_set import CodeSet
from llmcoder_tasks.progress import track
from llmcoder_tasks.records import SCENARIOS, Example, Split

GENERATOR_VERSION = "4"
"""Raise it with every change that alters a generated text: it is part of the dataset's id."""

_SPLITS: tuple[Split, ...] = ("train", "validation", "test")
_NOTE_SHARE = {"train": 0.8, "validation": 0.1, "test": 0.1}


@dataclass(frozen=True, slots=True)
class MadeExample:
    """An example and how many conditions were written into its text, which has to be the number of its codes."""

    example: Example
    condition_count: int


Tables = dict[str, list[MadeExample]]


def make_examples(code_set: CodeSet, config: DatasetConfig) -> Tables:
    """Every table of the dataset, each in sampling order. The same arguments give the same examples, to the letter."""
    with _no_collection():
        return _make_tables(code_set, config)


def _make_tables(code_set: CodeSet, config: DatasetConfig) -> Tables:
    variations = Variations.of_release(code_set, load_lexicon(), seed=config.seed)
    companions = Companions.of_release(code_set, variations.sources)
    splits: dict[Split, list[str]] = {split: [] for split in _SPLITS}
    for code in variations.sources:
        splits[split_of(code, seed=config.seed, held_out_share=config.held_out_share)].append(code)
    tables: Tables = {scenario: [] for scenario in SCENARIOS}
    tables["base"] = [_single("base", "train", code.code, 0, code.long_title) for code in code_set.billable]
    for made in _vary_codes(variations, splits, config):
        tables[made.example.scenario].append(made)
    _drop_ambiguous(tables)
    for split, codes in splits.items():
        tables["multiple"] += _combine_codes(variations, split, codes, config)
        tables["notes"] += _write_notes(variations, split, codes, config, companions)
    for rows in tables.values():
        rows.sort(key=lambda made: sampling_order(made.example.example_id))
    return tables


@contextmanager
def _no_collection() -> Iterator[None]:
    """Without cyclic garbage collection, which would look through millions of texts again and again; nothing here makes cycles."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def source_codes(example_id: str) -> tuple[str, ...]:
    """The codes that an example was made from, out of its id."""
    return tuple(example_id.split("-")[1].split("+"))


def _vary_codes(variations: Variations, splits: dict[Split, list[str]], config: DatasetConfig) -> Iterator[MadeExample]:
    work = [(split, code) for split, codes in splits.items() for code in codes]
    wanted = [(scenario, getattr(config, scenario)) for scenario in VARIED_SCENARIOS]
    for split, code in track(work, "varying titles", total=len(work), unit="codes"):
        for scenario, count in wanted:
            for ordinal in range(count if split == "train" else 1):
                text = variations.vary(scenario, code, ordinal, taught=split == "train")
                if text:
                    yield _single(scenario, split, code, ordinal, text)


def _drop_ambiguous(tables: Tables) -> None:
    """Drop variations that would say the same of two codes (`MS`: mitral stenosis, multiple sclerosis), and repetitions."""
    meanings: dict[str, str | None] = {}
    read: dict[str, list[str]] = {}
    for scenario in VARIED_SCENARIOS:
        read[scenario] = [normalise_text(made.example.text) for made in tables[scenario]]
        for text, made in zip(read[scenario], tables[scenario], strict=True):
            code = made.example.codes[0]
            if meanings.setdefault(text, code) != code:
                meanings[text] = None
    for scenario in VARIED_SCENARIOS:
        kept = []
        for text, made in zip(read.pop(scenario), tables[scenario], strict=True):
            if meanings[text] is not None:
                meanings[text] = None  # the next one would be a repetition
                kept.append(made)
        tables[scenario] = kept


def _combine_codes(variations: Variations, split: Split, codes: Sequence[str], config: DatasetConfig) -> Iterator[MadeExample]:
    for turn in range(config.multiple):
        groups = group_items(codes, Chance(config.seed, "multiple", split, turn))
        for group in track(groups, f"combining conditions, {split}", total=len(groups), unit="texts"):
            chance = Chance(config.seed, "multiple", turn, *group)
            conditions = [variations.mention(code, chance) for code in group]
            first = variations.sources[group[0]]
            person = variations.narrator.cast(first.code, first.parts.condition, chance)
            example_id = f"multiple-{'+'.join(group)}-{turn}"
            text = join_conditions(conditions, person, chance)
            yield MadeExample(Example(example_id, "multiple", split, text, tuple(group)), len(conditions))


def _write_notes(
    variations: Variations, split: Split, codes: Sequence[str], config: DatasetConfig, companions: Companions
) -> Iterator[MadeExample]:
    wanted = max(1, round(config.notes * _NOTE_SHARE[split]))
    made, before = 0, -1
    turn = 0
    while before < made < wanted:  # a turn without a note: no two of these codes may stand together
        before = made
        for group in islice(companions.deal(codes, Chance(config.seed, "notes", split, turn)), wanted - made):
            text, mentioned = write_note(group, variations, Chance(config.seed, "notes", turn, *group))
            example_id = f"notes-{'+'.join(mentioned)}-{turn}"
            yield MadeExample(Example(example_id, "notes", split, text, mentioned), len(group))
            made += 1
        turn += 1


def _single(scenario: str, split: Split, code: str, ordinal: int, text: str) -> MadeExample:
    return MadeExample(Example(f"{scenario}-{code}-{ordinal}", scenario, split, text, (code,)), 1)


def count_by_split(rows: Sequence[MadeExample]) -> dict[str, int]:
    """How many rows each split has; splits without rows are absent."""
    counts = Counter(made.example.split for made in rows)
    return {split: counts[split] for split in _SPLITS if counts[split]}
