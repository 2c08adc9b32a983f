"""The scorecard: how each coder did on each scenario, and how sure that is.

Versioned JSON, the same for the same inputs but for the processor time of `comparison`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

from llmcoder_tasks.errors import EvaluationError
from llmcoder_tasks.evaluation.comparison import ModelComparison, parse_comparison
from llmcoder_tasks.evaluation.error_kinds import ERROR_KINDS, ErrorKind
from llmcoder_tasks.evaluation.metrics import MicroScores, Share, calculate_micro_scores, estimate_share
from llmcoder_tasks.evaluation.outcomes import Outcome
from llmcoder_tasks.evaluation.reviewed import ReviewedFigures, parse_reviewed
from llmcoder_tasks.evaluation.suites import Suite

SCHEMA_VERSION = 2

IN_SERVICE = "in_service"

CODERS = ("untrained", "lexical", "stage_one", "stage_two", IN_SERVICE, "together")
"""Rows of a scorecard, in order. The last one is what goes into service. A model that was updated has its row as `stage_two`."""

EXAMPLES_PER_KIND = 3


@dataclass(frozen=True, slots=True)
class Mistake:
    """A wrong answer on a generated item; codes without dots."""

    kind: ErrorKind
    text: str
    true: tuple[str, ...]
    predicted: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Cell:
    """One coder on one scenario. `errors` counts every kind; `worst` shows up to three of each, wrong categories first."""

    coder: str
    scenario: str
    n: int
    exact: Share
    category: Share
    micro: MicroScores
    errors: dict[ErrorKind, int]
    worst: tuple[Mistake, ...]


@dataclass(frozen=True, slots=True)
class CalibrationFigures:
    """How honest the coder's confidence is, as `fit_coder` measured it on held-out items; all shares in [0, 1].

    `accepted` is the share of phrases that pass without a person, `error_bound` what share of those is wrong at most.
    """

    expected_error: float
    accepted: float
    error_bound: float


@dataclass(frozen=True, slots=True)
class Provenance:
    """What was judged, to the byte: seeds, the program's version, and the sha256 of the manifests of dataset and models.

    `against_sha256` is None where no model was in service, `training_seed` where the model's recipe does not say.
    """

    code_version: str
    dataset_seed: int
    training_seed: int | None
    dataset_sha256: str
    model_sha256: str
    against_sha256: str | None


@dataclass(frozen=True, slots=True)
class Scorecard:
    """Everything that was measured on one model with one dataset's suites.

    `suite_sizes` is items by scenario; a slow coder may have answered fewer, which its cells say. `coder_sha256` is the hash of the
    `coder.json` that "together" ran with, so that no other one is promoted on this evidence. `reviewed` are the figures on what
    people corrected in reviews, `comparison` those beside the model that was in service.
    """

    schema_version: int
    evaluation_id: str
    model_id: str
    stage_one_model_id: str | None
    dataset_id: str
    release_key: str
    coder_sha256: str
    suites_sha256: str
    suite_sizes: dict[str, int]
    cells: tuple[Cell, ...]
    reviewed: ReviewedFigures | None = None
    comparison: ModelComparison | None = None
    calibration: CalibrationFigures | None = None
    provenance: Provenance | None = None

    def find_cell(self, coder: str, scenario: str) -> Cell | None:
        """The cell of a coder and a scenario, or None when that was not measured."""
        return next((cell for cell in self.cells if (cell.coder, cell.scenario) == (coder, scenario)), None)

    def to_json(self) -> str:
        """The scorecard as JSON. Raises EvaluationError on a figure that is not a number."""
        try:
            return json.dumps(asdict(self), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        except ValueError as error:
            raise EvaluationError(f"scorecard {self.evaluation_id} holds a figure that is not a number: {error}") from error


def build_cells(outcomes: Sequence[Outcome], suites: Sequence[Suite]) -> tuple[Cell, ...]:
    """The cells of all outcomes, by coder and scenario in the order given."""
    groups = groupby(outcomes, key=lambda outcome: (outcome.coder, outcome.scenario))
    return tuple(build_cell(list(group), suites) for _, group in groups)


def build_cell(outcomes: Sequence[Outcome], suites: Sequence[Suite]) -> Cell:
    """The cell of the outcomes of one coder on one scenario; the suites hold the texts."""
    first = outcomes[0]
    texts = {example.example_id: example.text for suite in suites if suite.scenario == first.scenario for example in suite.examples}
    counts = Counter(outcome.error_kind for outcome in outcomes)
    return Cell(
        coder=first.coder,
        scenario=first.scenario,
        n=len(outcomes),
        exact=estimate_share(sum(outcome.exact for outcome in outcomes), len(outcomes)),
        category=estimate_share(sum(outcome.category for outcome in outcomes), len(outcomes)),
        micro=calculate_micro_scores([(frozenset(outcome.true), frozenset(outcome.predicted)) for outcome in outcomes]),
        errors={kind: counts[kind] for kind in ERROR_KINDS},
        worst=tuple(_find_worst(outcomes, texts)),
    )


def _find_worst(outcomes: Sequence[Outcome], texts: Mapping[str, str]) -> list[Mistake]:
    worst = []
    for kind in ERROR_KINDS:
        wrong = [outcome for outcome in outcomes if outcome.error_kind == kind]
        wrong.sort(key=lambda outcome: (outcome.category, outcome.f1))
        worst += [
            Mistake(kind, texts[outcome.example_id], outcome.true, outcome.predicted) for outcome in wrong[:EXAMPLES_PER_KIND]
        ]
    return worst


def parse_scorecard(data: str | bytes) -> Scorecard:
    """The inverse of `Scorecard.to_json`. Raises EvaluationError on another schema version or a malformed document."""
    try:
        document = json.loads(data)
        version = document["schema_version"]
        if version != SCHEMA_VERSION:
            raise EvaluationError(
                f"scorecard of schema version {version}, this program reads {SCHEMA_VERSION}: evaluate the model again"
            )
        cells = tuple(_parse_cell(cell) for cell in document["cells"])
        parts: dict[str, Any] = {
            "cells": cells,
            "reviewed": parse_reviewed(document.get("reviewed")),
            "comparison": parse_comparison(document.get("comparison")),
            "calibration": _parse_part(CalibrationFigures, document.get("calibration")),
            "provenance": _parse_part(Provenance, document.get("provenance")),
        }
        return Scorecard(**{**document, **parts})
    except (ValueError, TypeError, KeyError) as error:
        raise EvaluationError(f"not a scorecard ({type(error).__name__}): evaluate the model again") from error


def _parse_part(kind: Callable[..., Any], document: Mapping[str, Any] | None) -> Any:
    return None if document is None else kind(**document)


def _parse_cell(cell: dict[str, Any]) -> Cell:
    return Cell(
        **{
            **cell,
            "exact": Share(**cell["exact"]),
            "category": Share(**cell["category"]),
            "micro": MicroScores(**cell["micro"]),
            "worst": tuple(
                Mistake(**{**mistake, "true": tuple(mistake["true"]), "predicted": tuple(mistake["predicted"])})
                for mistake in cell["worst"]
            ),
        }
    )
