"""The report's figures, as SVG to stand inside a page: text stays text, and the colours follow the page's theme."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmcoder_tasks.evaluation.comparison import ModelComparison
from llmcoder_tasks.evaluation.error_kinds import ERROR_KINDS
from llmcoder_tasks.evaluation.non_inferiority import estimate_interval
from llmcoder_tasks.evaluation.scorecard import CODERS, Scorecard

# Colours that matplotlib draws with; each is replaced by a variable of the page's style sheet.
_COLOURS = {
    "ink": "#010203",
    "muted": "#010204",
    "grid": "#010205",
    "untrained": "#010301",
    "lexical": "#010302",
    "stage_one": "#010303",
    "stage_two": "#010304",
    "together": "#010305",
    "in_service": "#010306",
    "nonexistent": "#010401",
    "quantity": "#010402",
    "level": "#010403",
    "character": "#010404",
}
_MARKERS = {"untrained": "x", "lexical": "s", "stage_one": "^", "stage_two": "D", "in_service": "v", "together": "o"}
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"
_WIDTH_INCHES = 4.8
_SETTINGS = {"svg.fonttype": "none", "font.size": 9.5, "axes.spines.top": False, "axes.spines.right": False}


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One line of a training log: the mean loss of the steps before it, and the tokens seen until then."""

    tokens_seen: int
    loss: float


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Predictions of similar confidence: their mean confidence, the share that is right, both in [0, 1], and their number."""

    confidence: float
    accuracy: float
    n: int


def plot_exact_match(scorecard: Scorecard) -> str:
    """Exact match with its 95 % interval: a line a scenario, a mark a coder."""
    scenarios = list(scorecard.suite_sizes)
    figure, axes = _open(height=0.53 * len(scenarios) + 1.2)
    coders = [coder for coder in CODERS if any(cell.coder == coder for cell in scorecard.cells)]
    for position, coder in enumerate(coders):
        offset = 0.13 * (position - (len(coders) - 1) / 2)
        cells = [(row, cell) for row, name in enumerate(scenarios) if (cell := scorecard.find_cell(coder, name))]
        exact = [100 * cell.exact.value for _, cell in cells]
        axes.errorbar(
            exact,
            [row + offset for row, _ in cells],
            xerr=[
                [100 * (cell.exact.value - cell.exact.low) for _, cell in cells],
                [100 * (cell.exact.high - cell.exact.value) for _, cell in cells],
            ],
            fmt=_MARKERS[coder],
            markersize=4.5,
            linewidth=1.2,
            color=_COLOURS[coder],
            label=_label(coder),
        )
    axes.set_yticks(range(len(scenarios)), scenarios)
    axes.invert_yaxis()
    axes.set_xlim(-2, 102)
    axes.set_xlabel("exact match, %")
    axes.grid(axis="x")
    _add_legend(figure, axes)
    return _render(figure, "exact-match", "Exact match of each coder on each scenario, with 95 % intervals")


def plot_comparison(comparison: ModelComparison) -> str:
    """The judged model less the one in service, slice by slice, with the 90 % intervals of the gate's test; right is better."""
    figure, axes = _open(height=0.2 * len(comparison.slices) + 0.9)
    for row, figures in enumerate(comparison.slices):
        low, high = estimate_interval(figures.pairs)
        axes.plot([100 * low, 100 * high], [row, row], color=_COLOURS["muted"], linewidth=1.2)
        axes.plot(100 * figures.pairs.difference, row, "o", markersize=4.5, color=_COLOURS["together"])
    axes.axvline(0, color=_COLOURS["in_service"], linewidth=1.2)
    axes.set_yticks(range(len(comparison.slices)), [figures.title for figures in comparison.slices])
    axes.invert_yaxis()
    axes.set_xlabel("difference to the model in service, points")
    axes.grid(axis="x", color=_COLOURS["grid"], linewidth=0.8)
    return _render(figure, "comparison", "Difference to the model in service on each slice, with 90 % intervals")


def plot_errors(scorecard: Scorecard) -> str:
    """Wrong answers by kind, as a share of each coder's items."""
    coders = [coder for coder in CODERS if any(cell.coder == coder for cell in scorecard.cells)]
    figure, axes = _open(height=0.742 * len(coders) + 1.2)
    for row, coder in enumerate(coders):
        cells = [cell for cell in scorecard.cells if cell.coder == coder]
        items, left = sum(cell.n for cell in cells), 0.0
        for kind in ERROR_KINDS:
            share = 100 * sum(cell.errors[kind] for cell in cells) / items
            axes.barh(row, share, left=left, height=0.6, color=_COLOURS[kind], label=kind if row == 0 else None)
            left += share
    axes.set_yticks(range(len(coders)), [_label(coder) for coder in coders])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("wrong answers, % of all items")
    axes.grid(axis="x")
    _add_legend(figure, axes)
    return _render(figure, "errors", "Wrong answers of each coder by kind; the table of error kinds has the figures")


def plot_curves(curves: Mapping[str, Sequence[CurvePoint]]) -> str:
    """Training loss over tokens, on a logarithmic axis, one line a stage; later stages go on where the earlier one ended."""
    from matplotlib.ticker import LogLocator, NullLocator

    figure, axes = _open(height=3.0)
    start = 0
    for stage, points in curves.items():
        tokens = [(start + point.tokens_seen) / 1e6 for point in points]
        axes.plot(tokens, [point.loss for point in points], color=_COLOURS[stage], linewidth=1.4, label=_label(stage))
        start += points[-1].tokens_seen
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("million tokens seen")
    axes.set_ylabel("training loss")
    axes.grid(axis="both")
    _add_legend(figure, axes)
    return _render(figure, "loss", "Training loss over tokens seen, by stage")


def plot_reliability(bins: Sequence[ReliabilityBin]) -> str:
    """Confidence against the share that is right; on the diagonal it is honest. A mark's area: number of predictions."""
    figure, axes = _open(height=3.0)
    most = max(entry.n for entry in bins)
    axes.plot([0, 100], [0, 100], color=_COLOURS["muted"], linewidth=1, linestyle="--", label="honest")
    axes.scatter(
        [100 * entry.confidence for entry in bins],
        [100 * entry.accuracy for entry in bins],
        s=[20 + 160 * entry.n / most for entry in bins],
        color=_COLOURS["together"],
        alpha=0.85,
        label="together",
    )
    axes.set_xlim(-3, 103)
    axes.set_ylim(-3, 106)
    axes.set_xlabel("confidence, %")
    axes.set_ylabel("right, %")
    axes.grid(axis="both")
    _add_legend(figure, axes)
    return _render(figure, "reliability", "Confidence of the coder against the share of right answers on the validation split")


def _label(coder: str) -> str:
    return coder.replace("_", " ")


def _open(*, height: float) -> tuple[Any, Any]:
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=(_WIDTH_INCHES, height), layout="constrained")
        axes = figure.add_subplot()
    figure.patch.set_visible(False)
    axes.patch.set_visible(False)
    axes.tick_params(colors=_COLOURS["muted"], labelcolor=_COLOURS["ink"], length=0)
    axes.xaxis.label.set_color(_COLOURS["muted"])
    axes.yaxis.label.set_color(_COLOURS["muted"])
    axes.spines[:].set_color(_COLOURS["grid"])
    axes.set_axisbelow(True)
    return figure, axes


def _add_legend(figure: Any, axes: Any) -> None:
    axes.grid(color=_COLOURS["grid"], linewidth=0.8)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=5, frameon=False, labelcolor=_COLOURS["ink"], **_LEGEND_SPACING)


_LEGEND_SPACING = {"handlelength": 1.0, "handletextpad": 0.4, "columnspacing": 1.1, "borderaxespad": 0.2}


def _render(figure: Any, name: str, description: str) -> str:
    """The figure as an `<svg>` element whose ids are its own and whose size is its container's."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({**_SETTINGS, "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid=")', rf"\1{name}-", svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\1{name}-", svg)
    svg = re.sub(r"font: ([^;\"]*?[\d.]+px) [^;\"]*", rf"font: \1 {_FONT}", svg)
    for variable, colour in _COLOURS.items():
        svg = svg.replace(colour, f"var(--{variable.replace('_', '-')})")
    return re.sub(r'<svg ([^>]*?)width="[^"]*"', rf'<svg role="img" aria-label="{description}" \1', _drop_height(svg), count=1)


def _drop_height(svg: str) -> str:
    """Without the height of the outer element: the view box keeps the proportions."""
    end = svg.index(">")
    return re.sub(r' height="[^"]*"', "", svg[:end], count=1) + svg[end:]
