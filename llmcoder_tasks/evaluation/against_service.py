"""The rules by which a model is compared with the one in service, slice by slice.

A slice passes when it is shown to be no worse than its margin allows (Tango's test at `level`): so a model that is worse by a whole
margin passes one time in twenty at most, however many slices there are, because each has to pass. What is not shown to be no worse

- rejects, where the slice is worse beyond noise. All slices are tested together by Holm's procedure (Scand. J. Stat. 6, 65, 1979),
  so that an equal model is rejected one time in a hundred at most;
- else has not enough data, where an equal model could not have been told from a worse one either: where the power of the test is
  less than an equal model needs to pass every slice with probability `power` (shared among the slices by Bonferroni). That holds
  the model back on a required slice, and is said on any other;
- else holds the model back: there was data enough, and it did not clear the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from llmcoder_tasks.errors import EvaluationError
from llmcoder_tasks.evaluation.comparison import ModelComparison, SliceFigures, SliceKind
from llmcoder_tasks.evaluation.non_inferiority import (
    calculate_harm_p_value,
    calculate_loss_p_value,
    calculate_power,
    find_needed_pairs,
)
from llmcoder_tasks.evaluation.scorecard import Scorecard

Decision = Literal["PROMOTE", "HOLD", "REJECT"]

TOO_FEW = "not enough data to tell"
"""What the finding on a slice says where its items could not have cleared an equal model."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one rule, in plain words."""

    decision: Decision
    text: str


@dataclass(frozen=True, slots=True)
class SliceRule:
    """The greatest loss, in (0, 1), that counts as none, and whether a slice without enough data holds the model back."""

    margin: float
    required: bool


@dataclass(frozen=True, slots=True)
class ServiceRules:
    """What the gate's file says under `in_service`; a kind of slice without a rule is not judged."""

    level: float
    harm: float
    power: float
    slowest: float
    slices: dict[SliceKind, SliceRule]


def check_service(rules: ServiceRules, scorecard: Scorecard, in_service_id: str, *, minimum_items: int) -> list[Finding]:
    """One finding for each slice, one for the kinds of error, one for speed.

    Raises EvaluationError when the scorecard cannot say: it was made beside another model, or the two answered other items.
    """
    comparison = _require_comparison(scorecard, in_service_id)
    findings = judge_slices(rules, comparison.slices, minimum_items=minimum_items).values()
    return [*findings, _describe_errors(comparison), _check_speed(rules, comparison)]


def judge_slices(rules: ServiceRules, slices: Sequence[SliceFigures], *, minimum_items: int) -> dict[SliceFigures, Finding]:
    """What is found of each slice that has a rule."""
    judged = [figures for figures in slices if figures.kind in rules.slices]
    harmed = find_harmed(judged, rules.harm)
    return {figures: _judge_slice(rules, figures, len(judged), figures in harmed, minimum_items) for figures in judged}


def _require_comparison(scorecard: Scorecard, in_service_id: str) -> ModelComparison:
    comparison = scorecard.comparison
    cure = f"evaluate {scorecard.model_id} again while {in_service_id} is in service (in Airflow: clear evaluate_model)"
    if comparison is None or comparison.against_model_id != in_service_id:
        beside = comparison.against_model_id if comparison else "no other model"
        raise EvaluationError(f"{scorecard.evaluation_id} was judged beside {beside}, and {in_service_id} is in service: {cure}")
    if comparison.items_sha256 != comparison.against_items_sha256:
        raise EvaluationError(f"{scorecard.evaluation_id}: the model and {in_service_id} were judged on other suites: {cure}")
    return comparison


def find_harmed(slices: Sequence[SliceFigures], level: float) -> list[SliceFigures]:
    """The slices that are worse beyond noise, by Holm's step-down procedure at a family-wise level."""
    ordered = sorted(slices, key=lambda figures: calculate_harm_p_value(figures.pairs))
    for passed, figures in enumerate(ordered):
        if calculate_harm_p_value(figures.pairs) >= level / (len(ordered) - passed):
            return ordered[:passed]
    return ordered


def _judge_slice(rules: ServiceRules, figures: SliceFigures, slices: int, is_harmed: bool, minimum_items: int) -> Finding:
    rule, pairs = rules.slices[figures.kind], figures.pairs
    measured = (
        f"{figures.title}: {figures.ours:.1%} against {figures.theirs:.1%} in service (better on {figures.better:,} and worse on "
        f"{figures.worse:,} of {figures.n:,} items)"
    )
    if figures.n >= minimum_items and calculate_loss_p_value(pairs, rule.margin) < rules.level:
        return Finding("PROMOTE", f"{measured}: no worse than the {rule.margin:.1%} that are allowed")
    if is_harmed:
        return Finding("REJECT", f"{measured}: worse beyond noise")
    wanted = 1 - (1 - rules.power) / slices
    if figures.n < minimum_items or calculate_power(pairs.n, pairs.noise, rule.margin, rules.level) < wanted:
        needed = max(minimum_items, find_needed_pairs(pairs.noise, rule.margin, rules.level, wanted))
        told = f"{TOO_FEW}: {pairs.n:.0f} codes or texts, about {needed:,} would be needed at this noise"
        return Finding("HOLD" if rule.required else "PROMOTE", f"{measured}: {told}")
    return Finding("HOLD", f"{measured}: not shown to be no worse than the {rule.margin:.1%} that are allowed")


def _describe_errors(comparison: ModelComparison) -> Finding:
    ours, theirs = comparison.errors["ours"], comparison.errors["theirs"]
    counts = ", ".join(f"{kind} {ours[kind]:,} against {theirs[kind]:,}" for kind in ours)
    return Finding("PROMOTE", f"kinds of error, against {comparison.against_model_id} in service: {counts}")


def _check_speed(rules: ServiceRules, comparison: ModelComparison) -> Finding:
    ours, theirs = comparison.seconds["ours"], comparison.seconds["theirs"]
    measured = f"speed: {ours:.1f} s of processor time against {theirs:.1f} s in service on the same items"
    if ours > rules.slowest * theirs:
        return Finding("HOLD", f"{measured}: more than {rules.slowest:g} times as long; measure again on an idle machine")
    return Finding("PROMOTE", f"{measured}: at most {rules.slowest:g} times as long")
