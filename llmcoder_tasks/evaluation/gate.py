"""The gate: whether a scorecard lets a model into service.

Three kinds of rule, all written in a versioned YAML file of `gates/`:

- floors: the measured figure (not the end of its interval) of each named coder on each named scenario. A missing or undefined
  figure is a failure, never a pass.
- baseline: the coder that goes into service is not worse than the lexical baseline on the same items, beyond noise.
- model in service: the candidate is not worse on any scenario, beyond noise. The items that both models answered are compared in
  pairs; when those are too few (another release, another dataset), all items are compared unpaired, and a drop then HOLDS instead
  of rejecting, because the suites may differ in difficulty.
- corrections: on what people corrected in reviews that trained nothing, the candidate is not worse than the model in service, in
  pairs. Fewer than `minimum_items` corrections cannot tell: the reasons say so, and other rules decide.

"Beyond noise" is a two-sided p-value below `significance` divided by the number of scenarios compared (Bonferroni).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from llmcoder_tasks.errors import EvaluationError
from llmcoder_tasks.evaluation.metrics import calculate_paired_p_value, calculate_unpaired_p_value
from llmcoder_tasks.evaluation.outcomes import Outcome
from llmcoder_tasks.evaluation.reviewed import CANDIDATE, ReviewedFigures
from llmcoder_tasks.evaluation.scorecard import CODERS, Cell, Scorecard
from llmcoder_tasks.records import SCENARIOS

GATES_FOLDER = Path(__file__).resolve().parent / "gates"

Metric = Literal["exact", "category", "f1"]
Decision = Literal["PROMOTE", "HOLD", "REJECT"]

_METRIC_NAMES: dict[Metric, str] = {"exact": "exact match", "category": "category match", "f1": "micro-F1"}


@dataclass(frozen=True, slots=True)
class Floor:
    """The least figure, in [0, 1], that a coder may have on a scenario."""

    coder: str
    scenario: str
    metric: Metric
    least: float


@dataclass(frozen=True, slots=True)
class Gate:
    """The rules. `coder` is the row that goes into service; `baseline` the row it must not be worse than, or None.

    `minimum_items` is how many items a scenario needs before its figures count.
    """

    name: str
    version: int
    coder: str
    baseline: str | None
    minimum_items: int
    significance: float
    floors: tuple[Floor, ...]
    sha256: str

    @property
    def metrics(self) -> dict[str, Metric]:
        """The metric by which the coder in service is judged, by scenario."""
        return {floor.scenario: floor.metric for floor in self.floors if floor.coder == self.coder}


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one rule, in plain words."""

    decision: Decision
    text: str


@dataclass(frozen=True, slots=True)
class Opponent:
    """What the candidate is compared with: a name for the reader, its outcomes, and the id where it is a model."""

    name: str
    outcomes: Sequence[Outcome]
    model_id: str | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two coders on one scenario: whether ours is lower, and how likely such a difference (either way) is by chance."""

    is_paired: bool
    is_lower: bool
    p_value: float
    figures: str


def load_gate(name: str | Path = "default") -> Gate:
    """A gate by name (`default` is `gates/default.yaml`) or by the path of a YAML file. Raises EvaluationError with the fault."""
    path = Path(name) if str(name).endswith((".yaml", ".yml")) else GATES_FOLDER / f"{name}.yaml"
    try:
        text = path.read_text(encoding="utf-8")
        document = yaml.safe_load(text)
    except FileNotFoundError:
        known = ", ".join(sorted(found.stem for found in GATES_FOLDER.glob("*.yaml")))
        raise EvaluationError(f"there is no gate {path}: write a .yaml file, or use one of {known}") from None
    except yaml.YAMLError as error:
        raise EvaluationError(f"gate {path} is no YAML: {str(error).splitlines()[0]}") from None
    try:
        return _parse_gate(document, hashlib.sha256(text.encode()).hexdigest())
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise EvaluationError(f"gate {path} is malformed ({error}): compare it with {GATES_FOLDER / 'default.yaml'}") from None


def _parse_gate(document: Mapping[str, Any], sha256: str) -> Gate:
    expected = {"name", "version", "coder", "baseline", "minimum_items", "significance", "floors"}
    if set(document) != expected:
        raise ValueError(f"its keys must be {', '.join(sorted(expected))}")
    floors = tuple(
        _parse_floor(coder, scenario, rule) for coder, rules in document["floors"].items() for scenario, rule in rules.items()
    )
    gate = Gate(
        name=str(document["name"]),
        version=int(document["version"]),
        coder=_one_of(document["coder"], CODERS),
        baseline=document["baseline"] and _one_of(document["baseline"], CODERS),
        minimum_items=int(document["minimum_items"]),
        significance=float(document["significance"]),
        floors=floors,
        sha256=sha256,
    )
    if not gate.metrics:
        raise ValueError(f"it has no floor for {gate.coder}, the coder that goes into service")
    if not 0 < gate.significance < 1 or gate.minimum_items < 1:
        raise ValueError("significance must lie between 0 and 1, minimum_items must be positive")
    return gate


def _parse_floor(coder: str, scenario: str, rule: Mapping[str, float]) -> Floor:
    ((metric, least),) = rule.items()
    if not 0 <= float(least) <= 1:
        raise ValueError(f"the floor of {coder} on {scenario} must lie between 0 and 1")
    chosen: Any = _one_of(metric, get_args(Metric))
    return Floor(_one_of(coder, CODERS), _one_of(scenario, SCENARIOS), chosen, float(least))


def _one_of(value: Any, allowed: Iterable[str]) -> str:
    if value not in allowed:
        raise ValueError(f"{value!r} is none of {', '.join(allowed)}")
    return str(value)


def judge(
    gate: Gate, scorecard: Scorecard, outcomes: Sequence[Outcome], in_service: Opponent | None
) -> tuple[Decision, tuple[str, ...]]:
    """The decision and its reasons: the gravest first. One failed rule rejects; one rule that cannot tell holds."""
    findings = check_floors(gate, scorecard) + check_reviewed(gate, scorecard.reviewed, in_service)
    if gate.baseline:
        rows = [outcome for outcome in outcomes if outcome.coder == gate.baseline]
        findings += compare(gate, outcomes, Opponent(f"the {gate.baseline} baseline", rows))
    if in_service:
        findings += compare(gate, outcomes, in_service, more=_is_told(gate, scorecard.reviewed))
    else:
        findings.append(Finding("PROMOTE", "no model is in service: there is nothing to compare with"))
    order: list[Decision] = ["REJECT", "HOLD", "PROMOTE"]
    findings.sort(key=lambda finding: order.index(finding.decision))
    return findings[0].decision, tuple(finding.text for finding in findings)


def check_floors(gate: Gate, scorecard: Scorecard) -> list[Finding]:
    """One finding for each floor."""
    return [_check_floor(gate, floor, scorecard.find_cell(floor.coder, floor.scenario)) for floor in gate.floors]


def _check_floor(gate: Gate, floor: Floor, cell: Cell | None) -> Finding:
    place = f"{floor.coder} on {floor.scenario}"
    if cell is None:
        return Finding("REJECT", f"{place}: not measured, but the gate asks for it")
    value = _figure(cell, floor.metric)
    if not math.isfinite(value):
        return Finding("REJECT", f"{place}: {_METRIC_NAMES[floor.metric]} is {value}, not a number")
    measured = f"{place}: {_METRIC_NAMES[floor.metric]} {value:.1%} (n {cell.n:,})"
    if value < floor.least:
        return Finding("REJECT", f"{measured} is below the floor of {floor.least:.1%}")
    if cell.n < gate.minimum_items:
        return Finding(
            "HOLD", f"{measured} reaches the floor of {floor.least:.1%}, but {gate.minimum_items:,} items are needed to tell"
        )
    return Finding("PROMOTE", f"{measured} reaches the floor of {floor.least:.1%}")


def _figure(cell: Cell, metric: Metric) -> float:
    return cell.micro.f1 if metric == "f1" else cell.exact.value if metric == "exact" else cell.category.value


def check_reviewed(gate: Gate, reviewed: ReviewedFigures | None, in_service: Opponent | None) -> list[Finding]:
    """What the corrections of reviewers say: at most one finding, none for a scorecard that did not look for any."""
    if reviewed is None:
        return []
    place = f"{gate.coder} on corrections of reviewers"
    ours = reviewed.find_slice(CANDIDATE)
    if ours is None or not _is_told(gate, reviewed):
        return [
            Finding("PROMOTE", f"{place}: {reviewed.n:,} held out, {gate.minimum_items:,} are needed to tell: not judged by them")
        ]
    measured = f"{place}: exact match {ours.exact.value:.1%} (n {ours.n:,})"
    if in_service is None:
        return [Finding("PROMOTE", f"{measured}, with no model in service to compare with")]
    if reviewed.against_model_id != in_service.model_id:
        against = reviewed.against_model_id or "no model"
        return [Finding("HOLD", f"{measured}, measured against {against} and not {in_service.name}: evaluate the model again")]
    met = sum(1 for scenario in gate.metrics if any(outcome.scenario == scenario for outcome in in_service.outcomes))
    comparison = Comparison(
        is_paired=True,
        is_lower=reviewed.worse > reviewed.better,
        p_value=calculate_paired_p_value(reviewed.better, reviewed.worse),
        figures=f"better on {reviewed.better:,} and worse on {reviewed.worse:,} of them",
    )
    return [_judge_comparison(f"{measured} against {in_service.name}", comparison, gate.significance / (met + 1))]


def _is_told(gate: Gate, reviewed: ReviewedFigures | None) -> bool:
    return reviewed is not None and reviewed.n >= gate.minimum_items


def compare(gate: Gate, outcomes: Sequence[Outcome], opponent: Opponent, *, more: int = 0) -> list[Finding]:
    """One finding for each scenario in which the coder that goes into service meets an opponent; `more` are compared elsewhere."""
    candidate = [outcome for outcome in outcomes if outcome.coder == gate.coder]
    scenarios = [scenario for scenario in gate.metrics if any(outcome.scenario == scenario for outcome in opponent.outcomes)]
    level = gate.significance / max(1, len(scenarios) + more)
    findings = []
    for scenario in scenarios:
        ours = _scores(candidate, scenario, gate.metrics[scenario])
        theirs = _scores(opponent.outcomes, scenario, gate.metrics[scenario])
        if ours:  # a scenario that the candidate did not answer has failed its floor already
            comparison = compare_scores(ours, theirs, minimum_items=gate.minimum_items)
            findings.append(_judge_comparison(f"{gate.coder} on {scenario} against {opponent.name}", comparison, level))
    return findings


def _scores(outcomes: Sequence[Outcome], scenario: str, metric: Metric) -> dict[str, float]:
    """Score in [0, 1] of every item of a scenario, by what identifies the item."""
    return {outcome.item_sha256: float(getattr(outcome, metric)) for outcome in outcomes if outcome.scenario == scenario}


def compare_scores(ours: Mapping[str, float], theirs: Mapping[str, float], *, minimum_items: int) -> Comparison:
    """Compare scores in [0, 1] by item: in pairs where at least `minimum_items` (or all) items are common, else unpaired."""
    shared = ours.keys() & theirs.keys()
    if len(shared) >= minimum_items or len(shared) == len(ours) == len(theirs):
        better = sum(ours[item] > theirs[item] for item in shared)
        worse = sum(ours[item] < theirs[item] for item in shared)
        figures = f"better on {better:,} and worse on {worse:,} of {len(shared):,} common items"
        return Comparison(is_paired=True, is_lower=worse > better, p_value=calculate_paired_p_value(better, worse), figures=figures)
    first, second = list(ours.values()), list(theirs.values())
    mean, other = sum(first) / len(first), sum(second) / len(second)
    figures = f"{mean:.1%} of {len(first):,} items against {other:.1%} of {len(second):,} others, unpaired"
    return Comparison(is_paired=False, is_lower=mean < other, p_value=calculate_unpaired_p_value(first, second), figures=figures)


def _judge_comparison(place: str, comparison: Comparison, level: float) -> Finding:
    measured = f"{place}: {comparison.figures}, p {_render_p(comparison.p_value)} (noise from {level:.4f})"
    if not comparison.is_lower or comparison.p_value >= level:
        return Finding("PROMOTE", f"{measured}: not worse beyond noise")
    if comparison.is_paired:
        return Finding("REJECT", f"{measured}: worse beyond noise")
    return Finding("HOLD", f"{measured}: lower, but the suites differ; evaluate both models on one dataset to tell")


def _render_p(p_value: float) -> str:
    return "below 0.0001" if p_value < 0.0001 else f"{p_value:.4f}"
