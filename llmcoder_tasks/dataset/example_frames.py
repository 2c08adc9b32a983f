"""Examples beside what they should be, recomputed from their ids and the release: the tables that expectations are held against."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING

from llmcoder_tasks.dataset.examples import MadeExample, Tables, source_codes
from llmcoder_tasks.dataset.titles import normalise_text
from llmcoder_tasks.icd10cm.code_set import CodeSet

if TYPE_CHECKING:
    import pandas as pd

CHAPTER_TOLERANCE = 0.04
"""Difference of shares allowed. Titles of one word have no other order: chapter 19 has few of them, and gains share there."""

# First category of each chapter of ICD-10-CM, in ASCII order (chapter 22 stands before 20 there).
_CHAPTER_STARTS = (
    ("A00", "1"), ("C00", "2"), ("D50", "3"), ("E00", "4"), ("F00", "5"), ("G00", "6"), ("H00", "7"), ("H60", "8"), ("I00", "9"),
    ("J00", "10"), ("K00", "11"), ("L00", "12"), ("M00", "13"), ("N00", "14"), ("O00", "15"), ("P00", "16"), ("Q00", "17"),
    ("R00", "18"), ("S00", "19"), ("U00", "22"), ("V00", "20"), ("Z00", "21"),
)  # fmt: skip


def example_frame(
    rows: Sequence[MadeExample], *, titles: Mapping[str, str], names: Mapping[str, str | None], leaked: frozenset[str]
) -> pd.DataFrame:
    """One row an example. The columns that name a fault (`unbillable_code`, ...) are None where there is none.

    `titles` are those of the billable codes, `names` says whose name a normalised text is (`naming.names_of`), `leaked` are the
    codes whose variations stand both in train and in a held-out split.
    """
    import pandas as pd

    examples = [made.example for made in rows]
    texts = [normalise_text(example.text) if len(example.codes) == 1 else "" for example in examples]
    return pd.DataFrame(
        {
            "example_id": [example.example_id for example in examples],
            "split": [example.split for example in examples],
            "text": [example.text for example in examples],
            "codes": [" ".join(example.codes) for example in examples],
            "source_codes": [_source_codes(example.example_id) for example in examples],
            "title": [titles.get(example.codes[0]) if len(example.codes) == 1 else None for example in examples],
            "unbillable_code": [_first(code for code in example.codes if code not in titles) for example in examples],
            "leaked_code": [_first(code for code in example.codes if code in leaked) for example in examples],
            "title_repeated": [
                example.text if len(example.codes) == 1 and text == normalise_text(titles.get(example.codes[0], "")) else None
                for example, text in zip(examples, texts, strict=True)
            ],
            "other_code_named": [
                named if (named := names.get(text)) not in (None, *example.codes) else None
                for example, text in zip(examples, texts, strict=True)
            ],
            "condition_count": [made.condition_count for made in rows],
            "code_count": [len(set(example.codes)) for example in examples],
        }
    )


def chapter_frame(tables: Tables, code_set: CodeSet) -> pd.DataFrame:
    """One row for each scenario and chapter: its share of the table's codes, and of the release's billable codes.

    `excess` is by how much the difference is larger than allowed: positive is a fault.
    """
    import pandas as pd

    wanted = chapter_shares(code.code for code in code_set.billable)
    records = []
    for scenario, rows in tables.items():
        codes = [code for made in rows for code in made.example.codes]
        found = chapter_shares(codes)
        allowed = CHAPTER_TOLERANCE + 2 / math.sqrt(max(len(codes), 1))  # a small table may stray further by chance
        for chapter in sorted(found.keys() | wanted.keys(), key=int):
            share, share_in_release = found.get(chapter, 0.0), wanted.get(chapter, 0.0)
            excess = round(abs(share - share_in_release) - allowed, 4)
            records.append((f"{chapter} of {scenario}", round(share, 4), round(share_in_release, 4), excess))
    return pd.DataFrame(records, columns=["chapter", "share", "share_in_release", "excess"])


def chapter_shares(codes: Iterable[str]) -> Mapping[str, float]:
    """Share of each chapter, `"1"` to `"22"`, among the codes."""
    counts = Counter(chapter_of(code) for code in codes)
    return {chapter: count / counts.total() for chapter, count in counts.items()}


def chapter_of(code: str) -> str:
    """The chapter that a code belongs to, by its category."""
    return _chapter_of_category(code[:3])


@cache
def _chapter_of_category(category: str) -> str:
    return _CHAPTER_STARTS[max(0, bisect_right(_CHAPTER_STARTS, (category, "~")) - 1)][1]


def leaked_codes(tables: Tables) -> frozenset[str]:
    """Codes of which one variation is trained on while another is held out. Titles (`base`) are all learnt, on purpose."""
    trained: set[str] = set()
    held_out: set[str] = set()
    for scenario, rows in tables.items():
        if scenario == "base":
            continue
        for made in rows:
            (trained if made.example.split == "train" else held_out).update(made.example.codes)
    return frozenset(trained & held_out)


def _source_codes(example_id: str) -> str:
    try:
        return " ".join(source_codes(example_id))
    except IndexError:
        return "(no codes in the id)"


def _first(codes: Iterable[str]) -> str | None:
    return next(iter(codes), None)
