"""The scorecard as one HTML page that needs nothing else: figures, tables and examples; and as a table for a terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmcoder_tasks.errors import EvaluationError
from llmcoder_tasks.evaluation.error_kinds import ERROR_KINDS, ERROR_MEANINGS
from llmcoder_tasks.evaluation.metrics import Share
from llmcoder_tasks.evaluation.plots import (
    CurvePoint,
    ReliabilityBin,
    plot_comparison,
    plot_curves,
    plot_errors,
    plot_exact_match,
    plot_reliability,
)
from llmcoder_tasks.evaluation.scorecard import CODERS, Cell, Scorecard
from llmcoder_tasks.records import render_code

TEMPLATES_FOLDER = Path(__file__).resolve().parent / "templates"

CODER_MEANINGS = {
    "untrained": "the same architecture before any training, free to write codes that do not exist, or to finish none",
    "lexical": "the nearest titles and terms, no language model: what needs no training at all",
    "stage_one": "the model after stage one, which saw each code's title alone",
    "stage_two": "the model after stage two, which also saw variations",
    "in_service": "the model in service, as it would code this release if it stayed",
    "together": "lexical candidates ranked by the stage-two model: this is what goes into service",
}

_TABLE_COLUMNS = 5  # the untrained row is the one that says least

COUNT_SCENARIOS = ("multiple", "notes")
"""Scenarios with several codes an item, where precision and recall say more than exact match."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the page shows beside the scorecard. `titles` are long titles by code; curves and the last lines of training logs are by
    stage, in order of training.
    """

    titles: Mapping[str, str]
    last_lines: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, kw_only=True)
    curves: Mapping[str, Sequence[CurvePoint]] = field(default_factory=dict)
    reliability: Sequence[ReliabilityBin] = ()


def read_curve(path: Path) -> list[CurvePoint]:
    """A `training_log.jsonl`. Raises EvaluationError with the line that is none."""
    points = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
            points.append(CurvePoint(int(row["tokens_seen"]), float(row["loss"])))
        except (ValueError, KeyError, TypeError) as error:
            raise EvaluationError(f"{path.name}:{number}: not a line of a training log ({type(error).__name__})") from error
    return points


def read_last_line(path: Path) -> dict[str, Any]:
    """The last line of a `training_log.jsonl`; nothing of an empty one."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return dict(json.loads(lines[-1])) if lines else {}


def describe_speed(line: Mapping[str, Any]) -> str:
    """`12,345,678 tokens, 56,000 a second, MFU 42.9 %, at most 45.1 GB`: what the last line of a training log says."""
    parts = [f"{line['tokens_seen']:,} tokens"]
    if line.get("tokens_per_second") is not None:
        parts.append(f"{line['tokens_per_second']:,.0f} a second")
    if line.get("model_flops_utilization") is not None:
        parts.append(f"MFU {100 * line['model_flops_utilization']:.1f} %")
    if line.get("peak_memory_bytes") is not None:
        parts.append(f"at most {line['peak_memory_bytes'] / 1e9:.1f} GB")
    return ", ".join(parts)


def render_report(scorecard: Scorecard, evidence: Evidence) -> str:
    """The page. All texts are escaped; it names no address outside itself."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES_FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(percent=_percent, interval=_interval, code=render_code, label=_label)
    figures = [
        ("Exact match", plot_exact_match(scorecard)),
        *([("Against the model in service", plot_comparison(scorecard.comparison))] if scorecard.comparison else []),
        ("Kinds of error", plot_errors(scorecard)),
        *([("Training loss", plot_curves(evidence.curves))] if evidence.curves else []),
        *([("Is the confidence honest?", plot_reliability(evidence.reliability))] if evidence.reliability else []),
    ]
    return environment.get_template("report.html").render(
        scorecard=scorecard,
        coders=[coder for coder in CODERS if any(cell.coder == coder for cell in scorecard.cells)],
        scenarios=list(scorecard.suite_sizes),
        count_scenarios=[name for name in scorecard.suite_sizes if name in COUNT_SCENARIOS],
        coder_meanings=CODER_MEANINGS,
        kinds=ERROR_KINDS,
        kind_meanings=ERROR_MEANINGS,
        figures=[(title, Markup(svg)) for title, svg in figures],  # noqa: S704 - our own SVG of figures and fixed words
        titles=evidence.titles,
        speeds={stage: describe_speed(line) for stage, line in evidence.last_lines.items() if line},
        cell=scorecard.find_cell,
        best=_find_best(scorecard),
        totals=_sum_errors(scorecard),
    )


def _find_best(scorecard: Scorecard) -> set[tuple[str, str]]:
    """(coder, scenario) of the highest exact match of each scenario."""
    best = set()
    for scenario in scorecard.suite_sizes:
        cells = [cell for cell in scorecard.cells if cell.scenario == scenario]
        top = max((cell.exact.value for cell in cells), default=0.0)
        best |= {(cell.coder, scenario) for cell in cells if cell.exact.value == top}
    return best


def _sum_errors(scorecard: Scorecard) -> dict[str, dict[str, Any]]:
    """Items and wrong answers by kind of each coder, over all scenarios."""
    totals: dict[str, dict[str, Any]] = {}
    for cell in scorecard.cells:
        total = totals.setdefault(cell.coder, {"n": 0, "errors": dict.fromkeys(ERROR_KINDS, 0), "mistakes": []})
        total["n"] += cell.n
        for kind, count in cell.errors.items():
            total["errors"][kind] += count
        total["mistakes"] += [(cell.scenario, mistake) for mistake in cell.worst]
    return totals


def render_table(cells: Sequence[Cell]) -> Any:
    """Exact match as a rich table for a terminal of 80 columns: a row a scenario, a column a coder, the last five of them."""
    from rich.table import Table

    coders = list(dict.fromkeys(cell.coder for cell in cells))[-_TABLE_COLUMNS:]
    table = Table(title="exact match, % (95 % interval)", title_justify="left", padding=(0, 1, 0, 0))
    table.add_column("scenario", no_wrap=True)
    for coder in coders:
        sizes = sorted({cell.n for cell in cells if cell.coder == coder})
        table.add_column(
            f"{_label(coder)}\n[dim]n {'-'.join(map(str, dict.fromkeys((sizes[0], sizes[-1]))))}[/dim]", justify="right"
        )
    for scenario in dict.fromkeys(cell.scenario for cell in cells):
        row = {cell.coder: cell for cell in cells if cell.scenario == scenario}
        table.add_row(scenario, *(_render_cell(row[coder]) if coder in row else "-" for coder in coders))
    return table


def _render_cell(cell: Cell) -> str:
    return f"{_percent(cell.exact.value)} [dim]{100 * cell.exact.low:.0f}–{100 * cell.exact.high:.0f}[/dim]"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _interval(share: Share) -> str:
    return f"{100 * share.low:.1f}–{100 * share.high:.1f}"


def _label(name: str) -> str:
    return name.replace("_", " ")
