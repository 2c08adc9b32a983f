"""The gate: whether a scorecard lets a model into service.

All rules are written in a versioned YAML file of `gates/`:

- floors: the measured figure (not the end of its interval) of each named coder on each named scenario. A missing or undefined
  figure is a failure, never a pass. Ceilings are the same for kinds of error, and `calibration` for the honesty of confidences.
- baseline: the coder that goes into service is not worse than the lexical baseline on the same items, beyond noise: a two-sided
  McNemar's test below `significance` divided by the number of scenarios (Bonferroni).
- in_service: `against_service.py` compares the model with the one in service, slice by slice.
- corrections: on what people corrected in reviews that trained nothing, the candidate is not worse than the model in service, in
  pairs. Fewer than `minimum_items` corrections cannot tell: the reasons say so, and other rules decide.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from llmcoder_tasks.errors import EvaluationError
from llmcoder_tasks.evaluation.against_service import Decision, Finding, ServiceRules, SliceRule, check_service
from llmcoder_tasks.evaluation.comparison import SLICE_KINDS
from llmcoder_tasks.evaluation.error_kinds import ERROR_KINDS, ErrorKind
from llmcoder_tasks.evaluation.metrics import calculate_paired_p_value
from llmcoder_tasks.evaluation.outcomes import Outcome
from llmcoder_tasks.evaluation.reviewed import CANDIDATE, ReviewedFigures
from llmcoder_tasks.evaluation.scorecard import CODERS, Cell, Scorecard
from llmcoder_tasks.records import SCENARIOS

GATES_FOLDER = Path(__file__).resolve().parent / "gates"

Metric = Literal["exact", "category", "f1"]

_METRIC_NAMES: dict[Metric, str] = {"exact": "exact match", "category": "category match", "f1": "micro-F1"}


@dataclass(frozen=True, slots=True)
class Floor:
    """The least figure, in [0, 1], that a coder may have on a scenario."""

    coder: str
    scenario: str
    metric: Metric
    least: float


@dataclass(frozen=True, slots=True)
class Ceiling:
    """The greatest share of its items, in [0, 1], on which a coder may make one kind of error."""

    coder: str
    kind: ErrorKind
    most: float


@dataclass(frozen=True, slots=True)
class CalibrationRule:
    """The greatest mean gap between confidence and share of right answers, and the greatest proven error of what passes alone."""

    expected_error: float
    error_bound: float


@dataclass(frozen=True, slots=True)
class Gate:
    """The rules. `coder` is the row that goes into service; `baseline` the row it must not be worse than, or None.

    `minimum_items` is how many items a scenario needs before its figures count. `calibration` and `in_service` are None where
    nothing is asked; the gates of this folder ask.
    """

    name: str
    version: int
    coder: str
    baseline: str | None
    minimum_items: int
    significance: float
    floors: tuple[Floor, ...]
    sha256: str
    ceilings: tuple[Ceiling, ...] = ()
    calibration: CalibrationRule | None = None
    in_service: ServiceRules | None = None

    @property
    def metrics(self) -> dict[str, Metric]:
        """The metric by which the coder in service is judged, by scenario."""
        return {floor.scenario: floor.metric for floor in self.floors if floor.coder == self.coder}


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
    expected = {field.name for field in fields(Gate)} - {"sha256"}
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
        ceilings=tuple(
            _parse_ceiling(coder, kind, most) for coder, rules in document["ceilings"].items() for kind, most in rules.items()
        ),
        calibration=CalibrationRule(**{name: _share(value, name) for name, value in document["calibration"].items()}),
        in_service=_parse_service(document["in_service"]),
    )
    if not gate.metrics:
        raise ValueError(f"it has no floor for {gate.coder}, the coder that goes into service")
    if not 0 < gate.significance < 1 or gate.minimum_items < 1:
        raise ValueError("significance must lie between 0 and 1, minimum_items must be positive")
    return gate


def _parse_ceiling(coder: str, kind: str, most: float) -> Ceiling:
    chosen: Any = _one_of(kind, ERROR_KINDS)
    return Ceiling(_one_of(coder, CODERS), chosen, _share(most, f"the ceiling of {coder} for {kind}"))


def _parse_service(rules: Mapping[str, Any]) -> ServiceRules:
    slices: dict[Any, SliceRule] = {}
    for kind, rule in rules["slices"].items():
        if set(rule) != {"margin", "required"} or not isinstance(rule["required"], bool) or not 0 < float(rule["margin"]) < 1:
            raise ValueError(f"the slice {kind} needs a margin between 0 and 1, and required: true or false")
        slices[_one_of(kind, SLICE_KINDS)] = SliceRule(float(rule["margin"]), rule["required"])
    figures = {name: float(value) for name, value in rules.items() if name != "slices"}
    parsed = ServiceRules(**figures, slices=slices)
    if not all(0 < value < 1 for value in (parsed.level, parsed.harm, parsed.power)) or parsed.slowest < 1:
        raise ValueError("level, harm and power must lie between 0 and 1, slowest must be 1 or more")
    return parsed


def _share(value: Any, name: str) -> float:
    if not 0 <= float(value) <= 1:
        raise ValueError(f"{name} must lie between 0 and 1")
    return float(value)


def _parse_floor(coder: str, scenario: str, rule: Mapping[str, float]) -> Floor:
    ((metric, least),) = rule.items()
    chosen: Any = _one_of(metric, get_args(Metric))
    return Floor(_one_of(coder, CODERS), _one_of(scenario, SCENARIOS), chosen, _share(least, f"the floor of {coder} on {scenario}"))


def _one_of(value: Any, allowed: Iterable[str]) -> str:
    if value not in allowed:
        raise ValueError(f"{value!r} is none of {', '.join(allowed)}")
    return str(value)


def judge(
    gate: Gate, scorecard: Scorecard, outcomes: Sequence[Outcome], in_service_id: str | None
) -> tuple[Decision, tuple[str, ...]]:
    """The decision and its reasons: the gravest first. One failed rule rejects; one rule that cannot tell holds.

    `outcomes` are those of the scorecard. Raises EvaluationError when it was not judged beside the model in service, on one suite.
    """
    findings = [*check_floors(gate, scorecard), *check_ceilings(gate, scorecard), *check_calibration(gate, scorecard)]
    findings += compare_with_baseline(gate, outcomes)
    findings += _check_service(gate, scorecard, in_service_id)
    findings += check_reviewed(gate, scorecard.reviewed, in_service_id if in_service_id != scorecard.model_id else None)
    order: list[Decision] = ["REJECT", "HOLD", "PROMOTE"]
    findings.sort(key=lambda finding: order.index(finding.decision))
    return findings[0].decision, tuple(finding.text for finding in findings)


def _check_service(gate: Gate, scorecard: Scorecard, in_service_id: str | None) -> list[Finding]:
    if in_service_id is None:
        return [Finding("PROMOTE", "no model is in service: there is nothing to compare with")]
    if in_service_id == scorecard.model_id:
        return [Finding("PROMOTE", "this very model is in service: there is nothing to compare with")]
    if gate.in_service is None:
        return [Finding("PROMOTE", f"gate {gate.name} does not compare with {in_service_id}, which is in service")]
    return check_service(gate.in_service, scorecard, in_service_id, minimum_items=gate.minimum_items)


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


def check_ceilings(gate: Gate, scorecard: Scorecard) -> list[Finding]:
    """One finding for each ceiling, over all scenarios together."""
    return [_check_ceiling(ceiling, [cell for cell in scorecard.cells if cell.coder == ceiling.coder]) for ceiling in gate.ceilings]


def _check_ceiling(ceiling: Ceiling, cells: Sequence[Cell]) -> Finding:
    n, errors = sum(cell.n for cell in cells), sum(cell.errors[ceiling.kind] for cell in cells)
    place = f"{ceiling.coder}, errors of kind {ceiling.kind}"
    if not n:
        return Finding("REJECT", f"{place}: not measured, but the gate asks for it")
    measured = f"{place}: {errors:,} of {n:,} items"
    if errors > ceiling.most * n:
        return Finding("REJECT", f"{measured}, above the ceiling of {ceiling.most:.1%}")
    return Finding("PROMOTE", f"{measured}, within the ceiling of {ceiling.most:.1%}")


def check_calibration(gate: Gate, scorecard: Scorecard) -> list[Finding]:
    """Whether the confidences are honest, and what passes without a person is right; none where the gate does not ask."""
    rule, found = gate.calibration, scorecard.calibration
    if rule is None:
        return []
    if found is None:
        return [Finding("REJECT", "calibration: not measured, but the gate asks for it")]
    gap = f"calibration: confidence and share of right answers differ by {found.expected_error:.1%} in the mean"
    findings = [
        Finding("PROMOTE", f"{gap}, at most {rule.expected_error:.1%} are allowed")
        if found.expected_error <= rule.expected_error
        else Finding("REJECT", f"{gap}, more than the {rule.expected_error:.1%} that are allowed")
    ]
    if not found.accepted:
        return [*findings, Finding("HOLD", "calibration: nothing would pass without a person: every code would go to review")]
    passed = f"calibration: {found.accepted:.1%} of phrases pass without a person, at most {found.error_bound:.2%} of them wrong"
    decision: Decision = "PROMOTE" if found.error_bound <= rule.error_bound else "REJECT"
    return [*findings, Finding(decision, f"{passed} (95 % certainty; allowed {rule.error_bound:.2%})")]


def check_reviewed(gate: Gate, reviewed: ReviewedFigures | None, in_service_id: str | None) -> list[Finding]:
    """What the corrections of reviewers say: at most one finding, none for a scorecard that did not look for any."""
    if reviewed is None:
        return []
    place = f"{gate.coder} on corrections of reviewers"
    ours = reviewed.find_slice(CANDIDATE)
    if ours is None or reviewed.n < gate.minimum_items:
        return [
            Finding("PROMOTE", f"{place}: {reviewed.n:,} held out, {gate.minimum_items:,} are needed to tell: not judged by them")
        ]
    measured = f"{place}: exact match {ours.exact.value:.1%} (n {ours.n:,})"
    if in_service_id is None:
        return [Finding("PROMOTE", f"{measured}, with no model in service to compare with")]
    if reviewed.against_model_id != in_service_id:
        against = reviewed.against_model_id or "no model"
        return [Finding("HOLD", f"{measured}, measured against {against} and not {in_service_id}: evaluate the model again")]
    figures = f"better on {reviewed.better:,} and worse on {reviewed.worse:,} of them"
    return [
        _judge_pairs(
            f"{measured} against {in_service_id} in service: {figures}", reviewed.better, reviewed.worse, gate.significance
        )
    ]


def compare_with_baseline(gate: Gate, outcomes: Sequence[Outcome]) -> list[Finding]:
    """One finding for each scenario in which both the coder that goes into service and the baseline answered items."""
    rows = {
        coder: {(outcome.scenario, outcome.item_sha256): outcome for outcome in outcomes if outcome.coder == coder}
        for coder in (gate.coder, gate.baseline)
    }
    findings = []
    scenarios = [name for name in gate.metrics if any(scenario == name for scenario, _ in rows[gate.baseline])]
    for scenario in scenarios:
        ours, theirs = (
            {item: getattr(outcome, gate.metrics[scenario]) for (name, item), outcome in rows[coder].items() if name == scenario}
            for coder in (gate.coder, gate.baseline)
        )
        shared = ours.keys() & theirs.keys()
        better, worse = sum(ours[item] > theirs[item] for item in shared), sum(ours[item] < theirs[item] for item in shared)
        figures = f"better on {better:,} and worse on {worse:,} of {len(shared):,} common items"
        place = f"{gate.coder} on {scenario} against the {gate.baseline} baseline: {figures}"
        findings.append(_judge_pairs(place, better, worse, gate.significance / len(scenarios)))
    return findings


def _judge_pairs(measured: str, better: int, worse: int, level: float) -> Finding:
    p_value = calculate_paired_p_value(better, worse)
    told = f"{measured}, p {_render_p(p_value)} (noise from {level:.4f})"
    if worse > better and p_value < level:
        return Finding("REJECT", f"{told}: worse beyond noise")
    return Finding("PROMOTE", f"{told}: not worse beyond noise")


def _render_p(p_value: float) -> str:
    return "below 0.0001" if p_value < 0.0001 else f"{p_value:.4f}"
