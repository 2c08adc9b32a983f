"""What is scored: for each scenario, items of the dataset that training has not seen, or a suite of one's own from a file.

Every code is learnt in `base`, so its suite is a sample of what was learnt. Every other suite holds variations of codes whose
variations were never trained on. A smaller suite is a part of a larger one, so that scorecards of different sizes share items.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmcoder_tasks.dataset.store import read_examples
from llmcoder_tasks.errors import EvaluationError
from llmcoder_tasks.records import SCENARIOS, Example, Split, parse_code

LEARNT_SCENARIO = "base"

_CODE = re.compile(r"[A-Z][0-9A-Z]{2,6}")


@dataclass(frozen=True, slots=True)
class Suite:
    """The items of one scenario, in a fixed order that has nothing to do with the order of codes."""

    scenario: str
    examples: tuple[Example, ...]

    def head(self, n: int) -> Suite:
        """The first `n` items: a random sample of the suite."""
        return Suite(self.scenario, self.examples[:n])


@dataclass(frozen=True, slots=True)
class BadRow:
    """A line of a suite file that cannot be scored; the reason holds nothing of the text."""

    line: int
    reason: str


def read_suites(folder: Path, scenarios: Iterable[str], *, limit: int) -> tuple[Suite, ...]:
    """The suites of a dataset folder, at most `limit` items each, in the order of SCENARIOS; those without items are left out."""
    wanted = set(scenarios)
    suites = (read_suite(folder, scenario, limit=limit) for scenario in SCENARIOS if scenario in wanted)
    return tuple(suite for suite in suites if suite.examples)


def read_suite(folder: Path, scenario: str, *, limit: int) -> Suite:
    """One suite: a fair sample of the scenario's items, because a table stands in sampling order."""
    split: Split = "train" if scenario == LEARNT_SCENARIO else "test"
    return Suite(scenario, tuple(read_examples(folder, scenario, split=split, limit=limit)))


def hash_item(example: Example) -> str:
    """What makes two items the same one: text and codes, whatever their ids."""
    return _digest(example.text, *sorted(example.codes))


def hash_suites(suites: Sequence[Suite]) -> str:
    """sha256 over scenario, id, text and codes of every item: two scorecards with the same hash judge the same items."""
    digest = hashlib.sha256()
    for suite in suites:
        for example in suite.examples:
            row = [suite.scenario, example.example_id, example.text, *sorted(example.codes)]
            digest.update(json.dumps(row).encode() + b"\n")
    return digest.hexdigest()


def _digest(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def read_suite_file(path: Path) -> tuple[list[Example], list[BadRow]]:
    """Items of a JSON Lines file with rows `{"id", "text", "codes"}`, and the lines that are none. Codes may carry the dot.

    Raises EvaluationError when the file cannot be read or has no row that can be scored.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise EvaluationError(f"cannot read the suite {path}: {reason}") from None
    examples: list[Example] = []
    bad_rows: list[BadRow] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            example = _parse_row(line)
            if example.example_id in seen:
                raise ValueError(f"its id stands on line {seen[example.example_id]} already")
        except ValueError as error:
            bad_rows.append(BadRow(number, str(error)))
            continue
        seen[example.example_id] = number
        examples.append(example)
    if not examples:
        first = f" (line {bad_rows[0].line}: {bad_rows[0].reason})" if bad_rows else ""
        raise EvaluationError(f'the suite {path} has no row that can be scored{first}: expected {{"id", "text", "codes": [...]}}')
    return examples, bad_rows


def _parse_row(line: str) -> Example:
    """One row. Raises ValueError with a reason that quotes no text: a suite of one's own may hold a patient's words."""
    try:
        row: Any = json.loads(line)
    except ValueError:
        raise ValueError("it is no JSON") from None
    if not isinstance(row, dict):
        raise ValueError("it is no JSON object")
    missing = [name for name in ("id", "text", "codes") if name not in row]
    if missing:
        raise ValueError(f"it lacks {', '.join(missing)}")
    if not isinstance(row["id"], str | int) or isinstance(row["id"], bool):
        raise ValueError("its id is neither text nor a whole number")
    if not isinstance(row["text"], str) or not row["text"].strip():
        raise ValueError("its text is empty or no text")
    return Example(str(row["id"]), "suite", "test", row["text"], _parse_codes(row["codes"]))


def _parse_codes(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list) or not values or not all(isinstance(value, str) for value in values):
        raise ValueError("its codes are not a list of at least one code")
    codes = [parse_code(value) for value in values]
    # A malformed "code" may be anything, a patient's words too: only its position is told.
    malformed = [str(position) for position, code in enumerate(codes, start=1) if not _CODE.fullmatch(code)]
    if malformed:
        raise ValueError(f"code {', '.join(malformed)} of {len(codes)} does not look like an ICD-10-CM code")
    return tuple(dict.fromkeys(codes))
