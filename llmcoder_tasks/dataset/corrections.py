"""What coders corrected, as examples: the phrase that they marked and the code that they gave it.

A phrase is patient text: this module reads it only when the operator allows it (`LLMCODER_TRAIN_ON_CORRECTIONS=on`), and takes no
more of a note than the evidence of one code. What looks like a date, a number of somebody or a name is left out. An id says where
a row is from: `corrections-E1122-42-FY2026` is action 42 of the audit, decided under FY2026.

The corrections of a fifth of the encounters train nothing: models are judged on them (`read_held_out`), in memory alone.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Literal

from llmcoder_tasks.database import Database
from llmcoder_tasks.dataset.config import DatasetConfig
from llmcoder_tasks.dataset.examples import MadeExample, Tables
from llmcoder_tasks.dataset.llm_store import drop_clashes
from llmcoder_tasks.dataset.naming import names_of
from llmcoder_tasks.dataset.splits import is_judged_on, sampling_order, split_of
from llmcoder_tasks.dataset.titles import normalise_text
from llmcoder_tasks.dataset.variations import VARIED_SCENARIOS
from llmcoder_tasks.icd10cm.code_set import CodeSet
from llmcoder_tasks.records import CORRECTIONS, Example

PHRASE_LENGTHS = (2, 200)
"""Characters of a phrase that may leave the notes: longer evidence is a sentence about a person, not a name of a condition."""

_MONTHS = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*"
_PRIVATE = re.compile(
    r"""
    \d{4,}                                             # a year, a number of a record, a telephone
    | \d[\d\s().-]*\d{3}[\s.-]*\d{2,}                  # a telephone with spaces, a social security number
    | \d{1,2}\s*[/.-]\s*\d{1,2}\s*[/.-]\s*\d{2,4}      # 3/14/26
    | \b\d{1,2}/\d{1,2}\b                              # 3/14; also 2/6 of a murmur, which is a small loss
    | \b"""
    + _MONTHS
    + r"""\.?\s+\d | \b\d{1,2}(?:st|nd|rd|th)?\s+"""
    + _MONTHS
    + r"""\b                                           # March 3, 3rd of a month
    | \b(?:9\d|1[0-3]\d)[\s-]*(?:y(?:ea)?rs?|y/?o)\b   # an age above 89
    | @ | https?: | www\.
    | \b(?:mr|mrs|ms|miss|dr|prof|sir|madam|rev|patient|pt|son|daughter|wife|husband|mother|father|nurse)\b\.?\s+(?-i:[A-Z])
    | \b(?:mr|mrs|ms|miss|dr|prof)\.?\s+\w             # a title stands before a name, however that is written
    """,
    re.VERBOSE | re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Correction:
    """A phrase and the code that a person gave it. `release_key` is that of the decision, `code` valid in the dataset's release."""

    action_id: int
    release_key: str
    code: str
    phrase: str


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A correction that judges models: what a person did, and the code of the decision. The phrase is patient text."""

    action_id: int
    kind: Literal["replaced", "added"]
    code: str
    phrase: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Corrections:
    """The corrections that a dataset may take up, and how many were moved to a new code, withdrawn with a dead one, or private."""

    rows: tuple[Correction, ...] = ()
    mapped: int = 0
    withdrawn: int = 0
    private: int = 0

    @property
    def sha256(self) -> str:
        """Over all rows: part of a dataset's id."""
        return hashlib.sha256(json.dumps([asdict(row) for row in self.rows]).encode()).hexdigest()


def is_private(phrase: str) -> bool:
    """Whether a phrase may name or date somebody. Errs on the side of yes; no list of patterns is a proof of the opposite."""
    shortest, longest = PHRASE_LENGTHS
    return not shortest <= len(phrase) <= longest or _PRIVATE.search(phrase) is not None


def read_corrections(database: Database, code_set: CodeSet) -> Corrections:
    """The corrections of finished reviews that may train, for a dataset of this release, in the order of the audit.

    A code that is not billable in it is replaced by its successor where the conversion tables up to this release name exactly one,
    and withdrawn otherwise.
    """
    found = [row for row in database.fetch_all("list_corrections") if not is_judged_on(row["encounter_id"])]
    successors = read_successors(database, code_set)
    counts: Counter[str] = Counter()
    rows = []
    for row in found:
        phrase = clean_phrase(row["phrase"])
        code = find_successor(row["code"], successors, code_set)
        if is_private(phrase):
            counts["private"] += 1
        elif code is None:
            counts["withdrawn"] += 1
        else:
            counts["mapped"] += code != row["code"]
            rows.append(Correction(row["action_id"], row["release_key"], code, phrase))
    return Corrections(tuple(rows), counts["mapped"], counts["withdrawn"], counts["private"])


def read_held_out(database: Database) -> tuple[HeldOut, ...]:
    """The corrections of finished reviews that train nothing, in sampling order: the first ones are a fair sample."""
    rows = [row for row in database.fetch_all("list_corrections") if is_judged_on(row["encounter_id"])]
    held_out = [HeldOut(row["action_id"], row["origin"], row["code"], clean_phrase(row["phrase"])) for row in rows]
    return tuple(sorted(held_out, key=lambda item: (sampling_order(f"{item.action_id}"), item.code)))


def bring_up_to_date(rows: Sequence[HeldOut], database: Database, code_set: CodeSet) -> list[HeldOut]:
    """The same under a release: a dead code is its one successor; what has none is withdrawn, as is a phrase of no word."""
    successors = read_successors(database, code_set)
    moved = [(row, find_successor(row.code, successors, code_set)) for row in rows if len(row.phrase) >= PHRASE_LENGTHS[0]]
    return [replace(row, code=code) for row, code in moved if code is not None]


def clean_phrase(phrase: str) -> str:
    """A phrase as it leaves the notes: one line, without the marks around it."""
    return " ".join(phrase.split()).strip(" .,;:")


def read_successors(database: Database, code_set: CodeSet) -> dict[str, set[str]]:
    """The codes that took over from a code, by the conversion tables of the releases up to this one."""
    successors: dict[str, set[str]] = defaultdict(set)
    for row in database.fetch_all("list_conversions_until", release_key=code_set.release_key):
        successors[row["previous_code"]].add(row["code"])
    return successors


def find_successor(code: str, successors: Mapping[str, set[str]], code_set: CodeSet) -> str | None:
    """The code itself while it is billable, or what became of it, from table to table; None where that is not exactly one code."""
    seen: set[str] = set()
    while code not in code_set.titles:
        seen.add(code)
        following = successors.get(code, set()) - seen
        if len(following) != 1:
            return None
        (code,) = following
    return code


def merge_corrections(tables: Tables, corrections: Sequence[Correction], code_set: CodeSet, config: DatasetConfig) -> int:
    """Put corrections into a dataset as a table of their own, and say how many.

    Each into the split of its code, so that nothing that is judged was learnt. Left out are phrases that say no more than the
    title, that the release itself calls another code, that stand for two codes, or that a variation has already.
    """
    names = names_of(code_set)
    rows = []
    for row in corrections:
        text = normalise_text(row.phrase)
        if names.get(text) in (None, row.code) and text != normalise_text(code_set.titles[row.code]):
            split = split_of(row.code, seed=config.seed, held_out_share=config.held_out_share)
            example_id = f"{CORRECTIONS}-{row.code}-{row.action_id}-{row.release_key}"
            rows.append(MadeExample(Example(example_id, CORRECTIONS, split, row.phrase, (row.code,)), 1))
    kept = drop_clashes(rows, standing=(made for scenario in VARIED_SCENARIOS for made in tables[scenario])) if rows else []
    if kept:
        tables[CORRECTIONS] = sorted(kept, key=lambda made: sampling_order(made.example.example_id))
    return len(kept)
