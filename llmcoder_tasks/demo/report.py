"""What the demo prints at its end, all of it read back from the database."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from llmcoder_tasks.coding.notes_display import render_coded_note, render_findings
from llmcoder_tasks.database import Database, Row
from llmcoder_tasks.errors import ServiceError
from llmcoder_tasks.records import SCENARIOS, CodePrediction, CodingResult, Drg, Finding, Grouping


def print_report(
    console: Console,
    database: Database,
    *,
    encounter_id: str,
    after_step_run_id: int,
    peak_memory_mib: float,
    seconds: float,
) -> None:
    """Print scorecard, a coded sample note, counts, and what each step since `after_step_run_id` cost.

    `encounter_id` names the sample note to show. Raises ServiceError when there is no verdict or no coded note to show.
    """
    print_scorecard(console, database)
    console.rule("A coded discharge summary")
    run = database.fetch_one("find_run_that_coded", encounter_id=encounter_id)
    if run is None:
        raise ServiceError(f"{encounter_id} was not coded: see the code_encounters runs in the Airflow UI")
    _print_note(console, database, run["coding_run_id"], encounter_id)
    _print_agreement(console, database, run["coding_run_id"])
    console.rule("In the database")
    counts = database.fetch_one("count_loop_rows") or {}
    console.print(", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in counts.items()))
    console.rule("Steps")
    console.print(_render_steps(database.fetch_all("list_step_runs_after", step_run_id=after_step_run_id)))
    console.print(
        f"All together: {seconds:.0f} s, and at most {peak_memory_mib:,.0f} MiB of memory, Airflow and PostgreSQL included."
    )


def print_scorecard(console: Console, database: Database) -> None:
    """Print the newest scorecard and the verdict on it. Raises ServiceError when there is none."""
    verdict = database.fetch_one("fetch_newest_verdict")
    if verdict is None:
        raise ServiceError("the loop ended without a verdict: see the train_model runs in the Airflow UI")
    console.rule("Scorecard")
    console.print(_render_scorecard(verdict, database.fetch_all("list_scores", evaluation_id=verdict["evaluation_id"])))
    console.print(f"Verdict on {verdict['model_id']}: [bold]{verdict['decision']}[/]")
    for reason in verdict["reasons"]:
        console.print(f"  {escape(str(reason))}")


def _render_scorecard(verdict: Row, scores: Sequence[Row]) -> Table:
    """A row for each scenario, a column for each coder."""
    cells = {(score["scenario"], score["coder"]): score for score in scores}
    coders = list(dict.fromkeys(score["coder"] for score in scores))
    present = {score["scenario"] for score in scores}
    table = Table(title=f"{verdict['model_id']}\nexact match / category match in %, 95 % interval of the exact match")
    table.add_column("scenario", no_wrap=True)
    for coder in coders:
        table.add_column(coder, justify="right", no_wrap=True)
    for scenario in [name for name in SCENARIOS if name in present] + sorted(present - set(SCENARIOS)):
        size = max(score["n"] for score in scores if score["scenario"] == scenario)
        row = [_render_score(cells.get((scenario, coder)), size) for coder in coders]
        table.add_row(Text.assemble(scenario, (f"\nn = {size:,}", "dim")), *row)
    return table


def _render_score(score: Row | None, size: int) -> Text:
    """`size` is the number of items of the suite; a coder that answered fewer says so."""
    if score is None:
        return Text("")
    exact, category = 100 * score["exact_match"], 100 * score["category_match"]
    interval = f"\n{100 * score['exact_low']:.1f} to {100 * score['exact_high']:.1f}"
    fewer = f"\nn = {score['n']:,}" if score["n"] < size else ""
    return Text.assemble((f"{exact:.1f}", "bold"), f" / {category:.1f}", (interval + fewer, "dim"))


def _print_note(console: Console, database: Database, coding_run_id: str, encounter_id: str) -> None:
    """One of our own sample notes with the evidence marked, and its codes."""
    note = database.fetch_one("fetch_coded_note", coding_run_id=coding_run_id, encounter_id=encounter_id) or {}
    key = {name: note[name] for name in ("encounter_id", "note_sha256", "model_id", "release_key")}
    codes = [CodePrediction(**row) for row in database.fetch_all("list_note_predictions", **key)]
    console.print(f"Encounter {encounter_id}, discharged {note['discharge_date']}, codes of {note['release_key']}")
    console.print(render_coded_note(note["note_text"], codes))
    findings = tuple(Finding(**row) for row in database.fetch_all("list_note_findings", **key))
    grouping = _read_grouping(database.fetch_all("list_note_drgs", **key))
    said = render_findings([CodingResult(encounter_id, None, None, findings=findings, grouping=grouping)])
    if said is not None:
        console.print(said)


def _read_grouping(rows: Sequence[Row]) -> Grouping | None:
    groups = {row["basis"]: Drg(row["drg"], row["category"], row["title"]) for row in rows}
    return Grouping(rows[0]["grouper_version"], groups.get("all"), groups.get("auto")) if rows else None


def _print_agreement(console: Console, database: Database, coding_run_id: str) -> None:
    """How the codes of a run agree with those that people gave the same notes."""
    score = database.fetch_one("measure_coding_run", coding_run_id=coding_run_id) or {}
    if not score.get("agreed"):
        console.print("No proposed code agrees with the gold codes of the notes.")
        return
    precision, recall = score["agreed"] / score["predicted"], score["agreed"] / score["gold"]
    f1 = 2 * precision * recall / (precision + recall)
    console.print(
        f"Against the gold codes of the notes: {score['agreed']} of {score['gold']} found, {score['predicted']} proposed: "
        f"precision {precision:.2f}, recall {recall:.2f}, F1 {f1:.2f}"
    )


def _render_steps(rows: Sequence[Row]) -> Table:
    table = Table()
    table.add_column("step", no_wrap=True)
    table.add_column("subject", no_wrap=True, overflow="ellipsis", max_width=72)
    table.add_column("seconds", justify="right", min_width=8)
    table.add_column("peak MiB", justify="right", min_width=8)
    for step, group in groupby(rows, key=lambda row: row["step"]):
        members = list(group)
        subject = members[0]["subject"] if len(members) == 1 else f"{len(members)} parts, seconds added up"
        seconds = sum(row["seconds"] for row in members)
        table.add_row(str(step), escape(subject), f"{seconds:.1f}", f"{max(row['peak_memory_mib'] for row in members):,.0f}")
    return table
