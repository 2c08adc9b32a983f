"""A coded text for the terminal: a table of codes, or the note itself with its evidence marked; what rules did; its group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmcoder_tasks.records import CodePrediction, CodingResult, Drg, Grouping, render_code

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

_STYLES = {"auto": "bold black on green", "review": "bold black on yellow"}


def render_codes_table(results: Sequence[CodingResult]) -> Table:
    """One row a code, one for a text without codes, one for an error; in the order of the input."""
    from rich.table import Table
    from rich.text import Text

    table = Table("id", "code", "description", "confidence", "decision", "evidence")
    for result in results:
        if result.error is not None:
            table.add_row(Text(result.id), "", Text(f"error: {result.error}", style="red"), "", "", "")
        elif not result.codes:
            table.add_row(Text(result.id), "", Text("no code found", style="dim"), "", "", "")
        for code in result.codes:
            table.add_row(
                Text(result.id),
                render_code(code.code),
                Text(code.description),
                f"{code.confidence:.0%}",
                Text(code.decision, style="green" if code.decision == "auto" else "yellow"),
                f"{code.start}-{code.end}",
            )
    return table


def render_findings(results: Sequence[CodingResult]) -> Group | None:
    """What rules and payer edits did or ask, and the group of each stay; None when there is nothing to show."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table("id", "code", "rule", "what", "why")
    for result in results:
        for finding in result.findings:
            new = f" by {render_code(finding.related_code)}" if finding.action == "replaced" and finding.related_code else ""
            code, what = render_code(finding.code), finding.action + new
            table.add_row(Text(result.id), code, finding.rule.replace("_", " "), what, Text(finding.reason))
    lines = [Text(f"{result.id}: {render_grouping(result.grouping)}") for result in results if result.grouping]
    if not table.row_count and not lines:
        return None
    return Group(*([table] if table.row_count else []), *lines)


def render_grouping(grouping: Grouping) -> str:
    """The group with all codes and, where that is another one, without those for review."""
    shown = f"{_render_drg(grouping.with_all)} (MS-DRG {grouping.version / 10:.1f})"
    if grouping.with_auto == grouping.with_all:
        return f"{shown}, also without the codes for review"
    return f"{shown}; without the codes for review {_render_drg(grouping.with_auto)}"


def _render_drg(drg: Drg | None) -> str:
    return f"DRG {drg.number} {drg.title}" if drg else "no group"


def render_coded_note(text: str, codes: Sequence[CodePrediction]) -> Group:
    """A note with the evidence of each code marked (green: passes by itself, yellow: a person looks), and its codes below."""
    from rich.console import Group
    from rich.panel import Panel
    from rich.text import Text

    note = Text()
    written = 0
    for start, end, group in _merge_evidence(codes):
        note.append(text[written:start])
        style = _STYLES["auto" if all(code.decision == "auto" for code in group) else "review"]
        note.append(text[start:end], style=style)
        note.append(" " + " ".join(render_code(code.code) for code in group), style="bold cyan")
        written = end
    note.append(text[written:])
    return Group(Panel(note, title="discharge summary"), _render_code_list(codes))


def _merge_evidence(codes: Sequence[CodePrediction]) -> list[tuple[int, int, list[CodePrediction]]]:
    """(start, end, codes) of each stretch of evidence in order of place; overlapping stretches become one."""
    merged: list[tuple[int, int, list[CodePrediction]]] = []
    for code in sorted(codes, key=lambda code: (code.start, code.end)):
        if merged and code.start < merged[-1][1]:
            start, end, group = merged[-1]
            merged[-1] = (start, max(end, code.end), [*group, code])
        else:
            merged.append((code.start, code.end, [code]))
    return merged


def _render_code_list(codes: Sequence[CodePrediction]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table("code", "description", "confidence", "decision")
    for code in codes:
        colour = "green" if code.decision == "auto" else "yellow"
        table.add_row(render_code(code.code), Text(code.description), f"{code.confidence:.0%}", Text(code.decision, style=colour))
    return table
