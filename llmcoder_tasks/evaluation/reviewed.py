"""How coders do on what people corrected in reviews: figures alone.

The phrases are patients' words, and so are neither kept nor hashed: no item of this suite reaches `outcomes.parquet`, a list of
worst examples, or a digest. What is compared in pairs is compared here, while the phrases are in memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmcoder_tasks.dataset.corrections import HeldOut
from llmcoder_tasks.evaluation.metrics import Share, estimate_share, is_category_match, is_exact_match
from llmcoder_tasks.evaluation.outcomes import Predictor

CANDIDATE, IN_SERVICE = "together", "in_service"
ALL_KINDS = "all"


@dataclass(frozen=True, slots=True)
class ReviewedSlice:
    """One coder on the corrections of one kind: `replaced` a proposed code, `added` one that was missing, or `all`."""

    coder: str
    kind: str
    n: int
    exact: Share
    category: Share


@dataclass(frozen=True, slots=True)
class ReviewedFigures:
    """The suite of corrections. `withdrawn` ones have a dead code; `better` and `worse` count the corrections that only the judged
    model, or only the model in service (`against_model_id`, None: there is none) coded exactly.
    """

    n: int
    withdrawn: int
    against_model_id: str | None
    better: int
    worse: int
    slices: tuple[ReviewedSlice, ...]

    def find_slice(self, coder: str, kind: str = ALL_KINDS) -> ReviewedSlice | None:
        """One slice, or None where nothing was measured."""
        return next((item for item in self.slices if (item.coder, item.kind) == (coder, kind)), None)


def judge_corrections(
    items: Sequence[HeldOut], candidate: Predictor, in_service: tuple[str, Predictor] | None, *, withdrawn: int
) -> ReviewedFigures:
    """Let the judged coder, and the one in service with its model's id, code the phrases that people corrected."""
    true = [frozenset({item.code}) for item in items]
    kinds = [item.kind for item in items]
    phrases = [item.phrase for item in items]
    ours = [frozenset(codes) for codes in candidate(phrases)]
    slices = _measure(CANDIDATE, kinds, true, ours)
    better = worse = 0
    if in_service is not None:
        theirs = [frozenset(codes) for codes in in_service[1](phrases)]
        slices += _measure(IN_SERVICE, kinds, true, theirs)
        better = sum(one == code != other for code, one, other in zip(true, ours, theirs, strict=True))
        worse = sum(other == code != one for code, one, other in zip(true, ours, theirs, strict=True))
    return ReviewedFigures(len(items), withdrawn, in_service[0] if in_service else None, better, worse, tuple(slices))


def _measure(
    coder: str, kinds: Sequence[str], true: Sequence[frozenset[str]], predicted: Sequence[frozenset[str]]
) -> list[ReviewedSlice]:
    slices = []
    for kind in (ALL_KINDS, *sorted(set(kinds))):
        pairs = [pair for pair, found in zip(zip(true, predicted, strict=True), kinds, strict=True) if kind in (ALL_KINDS, found)]
        if pairs:
            exact = estimate_share(sum(is_exact_match(*pair) for pair in pairs), len(pairs))
            category = estimate_share(sum(is_category_match(*pair) for pair in pairs), len(pairs))
            slices.append(ReviewedSlice(coder, kind, len(pairs), exact, category))
    return slices


def parse_reviewed(document: Mapping[str, Any] | None) -> ReviewedFigures | None:
    """Figures out of a scorecard's JSON; None for a scorecard from before there were such. Raises KeyError and TypeError."""
    if document is None:
        return None
    slices = [
        ReviewedSlice(**{**item, "exact": Share(**item["exact"]), "category": Share(**item["category"])})
        for item in document["slices"]
    ]
    return ReviewedFigures(**{**document, "slices": tuple(slices)})
