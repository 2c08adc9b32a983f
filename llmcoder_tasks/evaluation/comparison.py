"""A model beside the one in service on the same items, slice by slice: what the gate decides by.

A slice is a part of the items that somebody would want to know to be no worse: a scenario, a chapter, what a release changed, rare
codes, a source of notes. An item may belong to several. Texts of one code are one unit.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from llmcoder_tasks.errors import EvaluationError
from llmcoder_tasks.evaluation.error_kinds import ERROR_KINDS, ErrorKind
from llmcoder_tasks.evaluation.non_inferiority import Pairs, count_pairs
from llmcoder_tasks.evaluation.outcomes import NOTES_SCENARIO, Outcome

SliceKind = Literal["all", "scenario", "change", "rare", "chapter", "source"]
SLICE_KINDS: tuple[SliceKind, ...] = get_args(SliceKind)

SliceName = tuple[SliceKind, str]
"""Kind and name: `("chapter", "9")`, `("change", "new")`."""

Label = Callable[[str], Iterable[SliceName]]
"""The slices that a code belongs to."""

ALL: SliceName = ("all", "items of exact match")


@dataclass(frozen=True, slots=True)
class SliceFigures:
    """Both models on one slice: mean scores in [0, 1] over `n` items, and how many each answered better.

    `pairs_*` are the counts by units (see `count_pairs`), on which the gate's tests stand.
    """

    kind: SliceKind
    name: str
    n: int
    ours: float
    theirs: float
    better: int
    worse: int
    pairs_n: float
    pairs_better: float
    pairs_worse: float

    @property
    def pairs(self) -> Pairs:
        """The counts that tests stand on."""
        return Pairs(self.pairs_n, self.pairs_better, self.pairs_worse)

    @property
    def title(self) -> str:
        """For people: `new codes`, `chapter 9`, `typos`."""
        titles = {"change": f"{self.name} codes", "chapter": f"chapter {self.name}", "source": f"notes from {self.name}"}
        return titles.get(self.kind, self.name)


@dataclass(frozen=True, slots=True)
class ModelComparison:
    """The judged model beside `against_model_id`, the one in service.

    The two hashes are over the items that each answered. `errors` counts wrong answers by kind, `seconds` is processor time on the
    same items; both by `ours` and `theirs`.
    """

    against_model_id: str
    items_sha256: str
    against_items_sha256: str
    slices: tuple[SliceFigures, ...]
    errors: dict[str, dict[ErrorKind, int]]
    seconds: dict[str, float]


def compare_outcomes(
    ours: Sequence[Outcome],
    theirs: Sequence[Outcome],
    *,
    against_model_id: str,
    label: Label,
    seconds: Mapping[str, float],
    notes_by_source: Sequence[SliceFigures] = (),
) -> ModelComparison:
    """Put the answers of two models to the same items side by side. Raises EvaluationError when the items are not the same."""
    hashes = hash_items(ours), hash_items(theirs)
    if hashes[0] != hashes[1]:
        raise EvaluationError(f"{against_model_id} and the judged model answered other items: evaluate the model again")
    members = find_members(ours, label)
    scores = [(score_of(mine), score_of(other)) for mine, other in zip(ours, theirs, strict=True)]
    units = [outcome.true[0] if len(outcome.true) == 1 else outcome.example_id for outcome in ours]
    slices = [
        measure_slice(name, [scores[place] for place in places], [units[place] for place in places])
        for name, places in sorted(members.items(), key=lambda item: _sort_key(item[0]))
    ]
    return ModelComparison(
        against_model_id=against_model_id,
        items_sha256=hashes[0],
        against_items_sha256=hashes[1],
        slices=(*slices, *notes_by_source),
        errors={name: _count_errors(outcomes) for name, outcomes in (("ours", ours), ("theirs", theirs))},
        seconds=dict(seconds),
    )


def find_members(outcomes: Sequence[Outcome], label: Label) -> dict[SliceName, list[int]]:
    """The positions of the outcomes of each slice."""
    members: dict[SliceName, list[int]] = defaultdict(list)
    for position, outcome in enumerate(outcomes):
        for name in _slices_of(outcome, label):
            members[name].append(position)
    return members


def score_of(outcome: Outcome) -> float:
    """F1 for a whole note, whose long lists are seldom all right; exact match for everything else."""
    return outcome.f1 if outcome.scenario == NOTES_SCENARIO else float(outcome.exact)


def hash_items(outcomes: Sequence[Outcome]) -> str:
    """sha256 over scenario, id, text and codes of the answered items, in order."""
    rows = [(outcome.scenario, outcome.example_id, outcome.item_sha256) for outcome in outcomes]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def measure_slice(name: SliceName, scores: Sequence[tuple[float, float]], units: Sequence[str]) -> SliceFigures:
    """The figures of a slice from (our, their) scores in [0, 1] of its items and the unit that each belongs to."""
    n = len(scores)
    pairs = count_pairs([mine - other for mine, other in scores], units)
    return SliceFigures(
        kind=name[0],
        name=name[1],
        n=n,
        ours=sum(mine for mine, _ in scores) / n,
        theirs=sum(other for _, other in scores) / n,
        better=sum(mine > other for mine, other in scores),
        worse=sum(mine < other for mine, other in scores),
        pairs_n=pairs.n,
        pairs_better=pairs.better,
        pairs_worse=pairs.worse,
    )


def parse_comparison(document: Mapping[str, Any] | None) -> ModelComparison | None:
    """A comparison out of a scorecard's JSON, or None. Raises KeyError and TypeError."""
    if document is None:
        return None
    names = [field.name for field in fields(SliceFigures)]
    slices = tuple(SliceFigures(**{name: item[name] for name in names}) for item in document["slices"])
    return ModelComparison(**{**document, "slices": slices})


def _slices_of(outcome: Outcome, label: Label) -> Iterable[SliceName]:
    if outcome.scenario != BREADTH_SCENARIO:
        yield "scenario", outcome.scenario
    if outcome.scenario != NOTES_SCENARIO:
        yield ALL
    if len(outcome.true) == 1:
        yield from label(outcome.true[0])


BREADTH_SCENARIO = "breadth"
"""Items of `breadth.make_breadth_suite`: they belong to no scenario of their own."""


def _count_errors(outcomes: Sequence[Outcome]) -> dict[ErrorKind, int]:
    counts = Counter(outcome.error_kind for outcome in outcomes)
    return {kind: counts[kind] for kind in ERROR_KINDS}


def _sort_key(name: SliceName) -> tuple[int, int, str]:
    return SLICE_KINDS.index(name[0]), int(name[1]) if name[1].isdigit() else 0, name[1]
