"""The small records that steps hand to each other, and the rows that leave the system.

References (`*Ref`) are an id and a URI, never data: they are what a DAG passes between tasks. Code strings are stored without the
dot, as in the release files (`E119`), and shown with it (`E11.9`).
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from datetime import date
from typing import Any, Literal

from llmcoder_tasks.errors import ReleaseError

Decision = Literal["auto", "review"]
Action = Literal["removed", "replaced", "added", "flagged"]
Sex = Literal["F", "M"]
Split = Literal["train", "validation", "test"]

SCENARIOS = ("base", "reordered", "abbreviations", "typos", "multiple", "sentences", "notes")
"""Kinds of example, in the order in which scorecards list them."""

CORRECTIONS = "corrections"
"""The table of a dataset that holds what coders corrected, where the operator allows it; no scenario of the scorecard."""

MAX_COMMENT_CHARACTERS = 1000
"""Of what a person says about a promotion or a rollback."""

_RELEASE_KEY = re.compile(r"FY(?P<year>20\d\d)(?:-(?P<month>January|April|July))?")
_CORRECTION = re.compile(r"-corrected-[1-9]\d*$")
_MONTHS = {"January": 1, "April": 4, "July": 7}


def parse_release_key(key: str) -> date:
    """The effective date of a release key: `FY2026` is 2025-10-01, `FY2026-April` is 2026-04-01.

    The federal fiscal year starts on 1 October of the year before. Raises ReleaseError on another form.
    """
    match = _RELEASE_KEY.fullmatch(key)
    if match is None:
        raise ReleaseError(f"{key!r} is no release key: write FY2026 for October 2025, FY2026-April for April 2026")
    year, month = int(match["year"]), match["month"]
    return date(year, _MONTHS[month], 1) if month else date(year - 1, 10, 1)


def find_effective_date(key: str) -> date:
    """The effective date of the key of a loaded release, which may be that of a corrected one: `FY2026-corrected-1`."""
    return parse_release_key(_CORRECTION.sub("", key))


def name_correction(key: str, number: int) -> str:
    """The key under which the corrected content of a release is loaded: `FY2026-corrected-1`. Corrections count from 1."""
    return f"{_CORRECTION.sub('', key)}-corrected-{number}"


def render_release_key(effective: date) -> str:
    """The release key of an effective date: the inverse of `parse_release_key`."""
    months = {number: name for name, number in _MONTHS.items()}
    if effective.day == 1 and effective.month == 10:
        return f"FY{effective.year + 1}"
    if effective.day == 1 and effective.month in months:
        return f"FY{effective.year}-{months[effective.month]}"
    raise ReleaseError(f"no ICD-10-CM release takes effect on {effective}: expected 1 October, January, April or July")


def render_code(code: str) -> str:
    """`E119` as people write it: `E11.9`."""
    return code if len(code) <= 3 else f"{code[:3]}.{code[3:]}"


def parse_code(text: str) -> str:
    """`e11.9` as the release files write it: `E119`."""
    return text.strip().replace(".", "").upper()


@dataclass(frozen=True, slots=True)
class ReleaseRef:
    """A release in the database. `key` is like `FY2026-April`; `uri` is its folder in the artifact store."""

    key: str
    uri: str


@dataclass(frozen=True, slots=True)
class DatasetRef:
    """A dataset in the artifact store, validated."""

    dataset_id: str
    uri: str


@dataclass(frozen=True, slots=True)
class VariationsRef:
    """A set of variations in the artifact store, written by a language model and validated."""

    variations_id: str
    uri: str


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A model folder in the artifact store with its manifest."""

    model_id: str
    uri: str


@dataclass(frozen=True, slots=True)
class ScorecardRef:
    """A scorecard of one model on one dataset's suites."""

    evaluation_id: str
    uri: str


@dataclass(frozen=True, slots=True)
class VerdictRef:
    """The gate's answer on one scorecard."""

    verdict_id: str
    decision: Literal["PROMOTE", "HOLD", "REJECT"]


@dataclass(frozen=True, slots=True)
class Example:
    """One training or test item: a text and the codes of the conditions it names, in order of mention."""

    example_id: str
    scenario: str
    split: Split
    text: str
    codes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CodePrediction:
    """One code proposed for a text, with where the text says so.

    `start` and `end` are character offsets into the original text (end exclusive). `confidence` is in [0, 1].
    """

    code: str
    description: str
    confidence: float
    decision: Decision
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Patient:
    """What rules and edits ask of a patient. None: not known."""

    sex: Sex | None = None
    age_years: int | None = None
    admission_date: date | None = None
    discharge_date: date | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """What a rule or a payer's edit did with a code, or has to say about it, and why.

    `code` was removed, replaced (`related_code` stands for it now), added (because of `related_code`) or flagged. `reason` is in
    plain words and holds no patient text. `start` and `end` are the evidence of the code, as character offsets into the note.
    """

    rule: str
    action: Action
    code: str
    related_code: str | None
    reason: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Drg:
    """A diagnosis related group: what a stay is paid by. `category` is its major diagnostic category, None for a few groups."""

    number: int
    category: int | None
    title: str


@dataclass(frozen=True, slots=True)
class Grouping:
    """The group of a stay by a version of the grouper (`431` is 43.1): with all proposed codes, and without those for review.

    None where the codes lead to no group.
    """

    version: int
    with_all: Drg | None
    with_auto: Drg | None


@dataclass(frozen=True, slots=True)
class CodedNote:
    """The codes of a note, the proposed principal diagnosis first; what rules and edits found; and, where known, its group."""

    codes: tuple[CodePrediction, ...]
    findings: tuple[Finding, ...] = ()
    grouping: Grouping | None = None


@dataclass(frozen=True, slots=True)
class CodingResult:
    """What `llmcoder code` prints for one input row: codes, or an error and no code."""

    id: str
    release: str | None
    model: str | None
    codes: tuple[CodePrediction, ...] = field(default=())
    error: str | None = None
    findings: tuple[Finding, ...] = field(default=())
    grouping: Grouping | None = None

    def to_row(self) -> dict[str, Any]:
        """The output row of the stable interface; codes carry the dot there. Findings and grouping stand where there are any."""
        row = asdict(self)
        row["codes"] = [{**code, "code": render_code(code["code"])} for code in row["codes"]]
        row["findings"] = [
            {
                **finding,
                "code": render_code(finding["code"]),
                "related_code": render_code(finding["related_code"]) if finding["related_code"] else None,
            }
            for finding in row["findings"]
        ]
        return {name: value for name, value in row.items() if value or name not in {"findings", "grouping"}}
