"""`llmcoder VERB`: the steps of the pipeline, and `up`, `down`, `status`, `demo`, from a shell.

Each verb is the step of the same name. Imports stay inside the commands, so that `llmcoder --help` answers at once.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from dataclasses import asdict, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from llmcoder_tasks import __version__
from llmcoder_tasks.connections import Connections, connect
from llmcoder_tasks.errors import LLMCoderError, PromotionError
from llmcoder_tasks.records import DatasetRef, ModelRef, ReleaseRef, ScorecardRef, VariationsRef, VerdictRef
from llmcoder_tasks.settings import Settings


class Commands(click.Group):
    """A group whose expected errors are one line and exit status 1, and whose unexpected ones keep their trace."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; turn an LLMCoderError into its message."""
        try:
            return super().invoke(ctx)
        except LLMCoderError as error:
            raise click.ClickException(str(error)) from error


def _show(reference: Any) -> None:
    click.echo(json.dumps(asdict(reference), default=str))


def _day(value: datetime | None) -> date | None:
    return value.date() if value else None


def _docs_folder(connections: Connections) -> Path:
    return connections.settings.home / "data_docs"


def _cache_folder(connections: Connections) -> Path:
    return connections.settings.home / "cache"


DAY = click.DateTime(formats=["%Y-%m-%d"])


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="llmcoder")
@click.option("-v", "--verbose", is_flag=True, help="Show progress messages.")
def main(verbose: bool) -> None:
    """ICD-10-CM releases become a judged coder; the coder codes every night's discharge summaries."""
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(asctime)s %(message)s", stream=sys.stderr)


@main.command()
@click.option("--exit", "exit_after", is_flag=True, help="Stop all services at the end.")
def demo(exit_after: bool) -> None:
    """Run the whole loop on the full April 2026 release, through Airflow, and show the result.

    Example: llmcoder demo --exit
    """
    from llmcoder_tasks.demo import SIZE, run_demo

    run_demo(Settings.from_environment(SIZE | dict(os.environ)), exit_after=exit_after)


@main.command()
def up() -> None:
    """Start the embedded PostgreSQL and Airflow. Starting twice is harmless."""
    from llmcoder_tasks import services

    running = services.up(Settings.from_environment(), report=click.echo)
    if not running.started:
        click.echo("everything was up already")
    click.echo(f"Airflow UI: {running.ui_url}  user {running.username}  password {running.password}")


@main.command()
def down() -> None:
    """Stop what `up` started."""
    from llmcoder_tasks import services

    services.down(Settings.from_environment(), report=click.echo)


@main.command()
def status() -> None:
    """Show every embedded service: state, process, port, uptime, log."""
    from rich.console import Console
    from rich.table import Column, Table

    from llmcoder_tasks import services

    table = Table("service", "state", "pid", Column("address", overflow="fold"), "up for", Column("log", overflow="fold"))
    for state in services.status(Settings.from_environment()):
        uptime = str(timedelta(seconds=round(state.uptime_seconds))) if state.uptime_seconds is not None else ""
        word = "[green]running[/]" if state.is_running else "[red]stopped[/]"
        table.add_row(state.name, word, str(state.pid or ""), state.address, uptime, str(state.log_file))
    Console().print(table)


@main.command()
def migrate() -> None:
    """Bring the results database to the schema of this version."""
    applied = connect().database.migrate()
    click.echo("\n".join(f"applied {name}" for name in applied) or "nothing to apply")


@main.command("ingest-release")
@click.argument("source", required=False)
@click.option("--release", "release_key", help="Release key, like FY2026 or FY2026-April; default: found in the files.")
@click.option("--replace", is_flag=True, help="Accept the corrected content of a release that is already loaded.")
def ingest_release_command(source: str | None, release_key: str | None, replace: bool) -> None:
    """Load an ICD-10-CM release from SOURCE: a folder, a zip, an s3:// prefix or a URL.

    Without SOURCE: the full April 2026 release that is installed with LLMCoder. With --replace, datasets, models and coded notes of
    the content before stay with it, and the corrected one is loaded beside it, as FY2027-corrected-1, where there are any.

    Example: llmcoder ingest-release ~/icd10cm/FY2027 --release FY2027
    """
    from llmcoder_tasks.steps.ingest_release import ingest_release

    with_stores = connect()
    _show(
        ingest_release(
            source,
            release_key=release_key,
            replace=replace,
            storage=with_stores.storage,
            database=with_stores.database,
            docs_folder=_docs_folder(with_stores),
            s3_endpoint_url=with_stores.settings.s3_endpoint_url,
        )
    )


@main.command("report-release")
@click.argument("release_key")
def report_release_command(release_key: str) -> None:
    """Write what a loaded release changes here: codes by chapter, those in use, encounters to code again, work to expect.

    Example: llmcoder report-release FY2027
    """
    from llmcoder_tasks.steps.report_release import report_release

    with_stores = connect()
    _show(report_release(release_key, storage=with_stores.storage, database=with_stores.database))


@main.command("build-dataset")
@click.argument("release_key")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of every variation.")
@click.option(
    "--variations-per-code",
    type=click.IntRange(min=1),
    help="Texts of each code and scenario to train on; default: LLMCODER_VARIATIONS_PER_CODE.",
)
@click.option("--variations", "variations_id", help="Id of variations from a language model, to train on too.")
def build_dataset_command(release_key: str, seed: int, variations_per_code: int | None, variations_id: str | None) -> None:
    """Make, validate and store the examples of a loaded release.

    Example: llmcoder build-dataset FY2026-April
    """
    from llmcoder_tasks.dataset.config import DatasetConfig
    from llmcoder_tasks.steps.build_dataset import build_dataset

    with_stores = connect()
    _show(
        build_dataset(
            ReleaseRef(release_key, with_stores.storage.uri_of(f"releases/{release_key}")),
            config=DatasetConfig.of_size(variations_per_code or with_stores.settings.variations_per_code, seed=seed),
            storage=with_stores.storage,
            database=with_stores.database,
            docs_folder=_docs_folder(with_stores),
            train_on_corrections=with_stores.settings.train_on_corrections,
            variations=VariationsRef(variations_id, with_stores.storage.uri_of(f"variations/{variations_id}"))
            if variations_id
            else None,
        )
    )


@main.command("generate-variations")
@click.argument("release_key")
@click.option(
    "--scenario",
    "scenarios",
    multiple=True,
    type=click.Choice(["reordered", "abbreviations", "typos", "sentences"]),
    help="What to ask for; may be given several times. Default: all four.",
)
@click.option("--count", type=int, default=2, show_default=True, help="Variations of each title in each scenario.")
@click.option("--limit", type=int, help="Titles to ask for, a fair sample; default: all that are trained on.")
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Seed of the dataset it is for: held-out codes are not asked for."
)
@click.option("--model", "model_name", help="The model to ask; default: LLMCODER_LLM_MODEL.")
@click.option("--batch-size", type=int, default=20, show_default=True, help="Titles in one request.")
@click.option("--concurrency", type=int, default=4, show_default=True, help="Requests at the same time.")
@click.option("--timeout", "timeout_seconds", type=float, default=120.0, show_default=True, help="Seconds to wait for an answer.")
@click.option("--max-cost", type=float, help="Refuse, or stop, above this cost, in the currency of the prices.")
@click.option("--dry-run", is_flag=True, help="Only say what would be asked and what it would cost.")
def generate_variations_command(
    release_key: str,
    scenarios: tuple[str, ...],
    count: int,
    limit: int | None,
    seed: int,
    model_name: str | None,
    batch_size: int,
    concurrency: int,
    timeout_seconds: float,
    max_cost: float | None,
    dry_run: bool,
) -> None:
    """Have a language model write variations of a loaded release's titles, to train on.

    Asks the server of LLMCODER_LLM_URL (any that speaks the OpenAI API). Only codes and titles of the release are sent, never text
    of a patient. What is answered is kept: a run that was stopped goes on where it ended.

    Example: llmcoder generate-variations FY2026-April --limit 5000 --max-cost 10 --dry-run
    """
    from llmcoder_tasks.dataset.llm_config import LLM_SCENARIOS, AskingConfig, VariationsConfig
    from llmcoder_tasks.steps.generate_variations import estimate_variations, generate_variations

    with_stores = connect()
    model = with_stores.settings.require_language_model()
    chosen = tuple(scenario for scenario in LLM_SCENARIOS if scenario in scenarios)
    arguments: dict[str, Any] = {
        "model": replace(model, name=model_name) if model_name else model,
        "config": VariationsConfig(seed=seed, scenarios=chosen or LLM_SCENARIOS, count=count, limit=limit),
        "asking": AskingConfig(batch_size, concurrency, timeout_seconds, max_cost=max_cost),
        "storage": with_stores.storage,
        "database": with_stores.database,
        "work_folder": with_stores.settings.home / "work",
    }
    release = ReleaseRef(release_key, with_stores.storage.uri_of(f"releases/{release_key}"))
    if dry_run:
        click.echo(estimate_variations(release, **arguments).render())
        return
    _show(
        generate_variations(
            release, docs_folder=_docs_folder(with_stores), report=lambda line: click.echo(line, err=True), **arguments
        )
    )


def _dataset(with_stores: Connections, dataset_id: str) -> DatasetRef:
    return DatasetRef(dataset_id, with_stores.storage.uri_of(f"datasets/{dataset_id}"))


def _trained_model(with_stores: Connections, model_id: str) -> ModelRef:
    return ModelRef(model_id, with_stores.storage.uri_of(f"training/{model_id}"))


def _published_model(with_stores: Connections, model_id: str | None) -> ModelRef:
    """The named published model, or the one in service."""
    from llmcoder_tasks.evaluation.registry import read_promoted

    if model_id is not None:
        return ModelRef(model_id, with_stores.storage.uri_of(f"models/{model_id}"))
    promoted = read_promoted(with_stores.storage)
    if promoted is None:
        raise PromotionError("no model is in service: run `make demo`, or train and promote one")
    return promoted


@main.command("train-model")
@click.argument("dataset_id")
@click.option(
    "--stage", type=click.Choice(["stage_one", "stage_two", "notes", "update"]), required=True, help="Which stage of the recipe."
)
@click.option("--recipe", "recipe_name", help="Name of a recipe, or a YAML file; default: LLMCODER_RECIPE.")
@click.option("--from", "base_model_id", help="The model that any other stage than the first starts from.")
def train_model_command(dataset_id: str, stage: str, recipe_name: str | None, base_model_id: str | None) -> None:
    """Train one stage of a recipe on a dataset: here, or at the server of LLMCODER_CODER_LLM_URL where the recipe says so.

    Example: llmcoder train-model DATASET --stage stage_two --from MODEL
    """
    from llmcoder_tasks.model.recipe import read_recipe
    from llmcoder_tasks.steps.train_model import train_model

    with_stores = connect()
    settings = with_stores.settings
    _show(
        train_model(
            _dataset(with_stores, dataset_id),
            recipe=read_recipe(recipe_name or settings.recipe),
            stage=stage,
            base=_trained_model(with_stores, base_model_id) if base_model_id else None,
            storage=with_stores.storage,
            database=with_stores.database,
            work_folder=settings.home / "work",
            processes=settings.training_processes,
            server=settings.coder_server,
            report=lambda line: click.echo(line, err=True),
            nodes=settings.training_nodes,
            notes=settings.training_notes,
        )
    )


@main.command("fit-coder")
@click.argument("model_id")
@click.argument("dataset_id")
def fit_coder_command(model_id: str, dataset_id: str) -> None:
    """Fit how a model and the lexical candidates are combined, and how sure the result is.

    Example: llmcoder fit-coder MODEL DATASET
    """
    from llmcoder_tasks.steps.fit_coder import fit_coder

    with_stores = connect()
    _show(
        fit_coder(
            _trained_model(with_stores, model_id),
            _dataset(with_stores, dataset_id),
            storage=with_stores.storage,
            database=with_stores.database,
            cache_folder=_cache_folder(with_stores),
            server=with_stores.settings.coder_server,
        )
    )


@main.command("fit-selection")
@click.argument("model_id")
@click.option(
    "--notes",
    "notes_file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Coded notes as JSON lines {id, text, codes}; without, those of the database.",
)
def fit_selection_command(model_id: str, notes_file: Path | None) -> None:
    """Learn from coded notes which of the codes that a note suggests are coded. Before the model is promoted.

    Example: llmcoder fit-selection MODEL --notes coded_notes.jsonl
    """
    from llmcoder_tasks.steps.fit_selection import fit_selection

    with_stores = connect()
    _show(
        fit_selection(
            _trained_model(with_stores, model_id),
            storage=with_stores.storage,
            database=with_stores.database,
            cache_folder=_cache_folder(with_stores),
            notes_file=notes_file,
            server=with_stores.settings.coder_server,
        )
    )


@main.command("attach-note-model")
@click.argument("model_id")
def attach_note_model_command(model_id: str) -> None:
    """Have a language model read whole notes: makes a model of MODEL_ID and LLMCODER_NOTE_LLM_MODEL, to be judged and promoted.

    Example: llmcoder attach-note-model MODEL
    """
    from llmcoder_tasks.steps.attach_note_model import attach_note_model

    with_stores = connect()
    _show(
        attach_note_model(
            _trained_model(with_stores, model_id),
            with_stores.settings.require_note_model(),
            storage=with_stores.storage,
            database=with_stores.database,
        )
    )


def _evaluate_suite(with_stores: Connections, suite: Path, model_id: str | None, on: date, kind: Any, way: Any) -> None:
    from rich.console import Console

    from llmcoder_tasks.steps.evaluate_suite import evaluate_suite, render_suite_result

    result = evaluate_suite(
        suite,
        model=_published_model(with_stores, model_id),
        on=on,
        kind=kind,
        way=way,
        storage=with_stores.storage,
        database=with_stores.database,
        cache_folder=_cache_folder(with_stores),
        note_model=with_stores.settings.note_model,
        server=with_stores.settings.coder_server,
    )
    Console().print(render_suite_result(result))


@main.command("evaluate-model")
@click.argument("model_id", required=False)
@click.argument("dataset_id", required=False)
@click.option(
    "--suite", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="JSONL rows {id, text, codes} to judge on."
)
@click.option("--date", "on", type=DAY, help="With --suite: codes valid on this date; default: today.")
@click.option(
    "--kind", type=click.Choice(["phrase", "note"]), default="phrase", show_default=True, help="With --suite: what its texts are."
)
@click.option(
    "--coder",
    "way",
    type=click.Choice(["together", "lexical", "model"]),
    default="together",
    show_default=True,
    help="With --suite: coding as shipped, by words alone, or by the language model alone.",
)
@click.option("--limit", type=int, default=1000, show_default=True, help="Items for each scenario of a dataset.")
def evaluate_model_command(
    model_id: str | None, dataset_id: str | None, suite: Path | None, on: datetime | None, kind: Any, way: Any, limit: int
) -> None:
    """Judge a trained model on a dataset's suites, or the model in service (or MODEL_ID) on your own suite.

    Examples: llmcoder evaluate-model MODEL DATASET; llmcoder evaluate-model --suite mine.jsonl
    """
    with_stores = connect()
    if suite is not None:
        _evaluate_suite(with_stores, suite, model_id, _day(on) or date.today(), kind, way)
        return
    if model_id is None or dataset_id is None:
        raise click.UsageError("give MODEL_ID and DATASET_ID, or --suite FILE.jsonl")
    from llmcoder_tasks.steps.evaluate_model import evaluate_model

    _show(
        evaluate_model(
            _trained_model(with_stores, model_id),
            _dataset(with_stores, dataset_id),
            storage=with_stores.storage,
            database=with_stores.database,
            cache_folder=_cache_folder(with_stores),
            note_model=with_stores.settings.note_model,
            server=with_stores.settings.coder_server,
            limit=limit,
        )
    )


@main.command("judge-model")
@click.argument("evaluation_id")
def judge_model_command(evaluation_id: str) -> None:
    """Say PROMOTE, HOLD or REJECT for a scorecard, with reasons.

    Example: llmcoder judge-model EVALUATION
    """
    from llmcoder_tasks.evaluation.gate import load_gate
    from llmcoder_tasks.steps.judge_model import judge_model

    with_stores = connect()
    scorecard = ScorecardRef(evaluation_id, with_stores.storage.uri_of(f"scorecards/{evaluation_id}"))
    _show(judge_model(scorecard, gate=load_gate(), storage=with_stores.storage, database=with_stores.database))


@main.command("promote-model")
@click.argument("verdict_id")
@click.option("--by", "promoted_by", required=True, help="Who answers for it.")
def promote_model_command(verdict_id: str, promoted_by: str) -> None:
    """Publish the model of a PROMOTE verdict and put it into service.

    Example: llmcoder promote-model VERDICT --by "A. Person"
    """
    from llmcoder_tasks.steps.promote_model import promote_model

    with_stores = connect()
    _show(
        promote_model(
            VerdictRef(verdict_id, "PROMOTE"), promoted_by=promoted_by, storage=with_stores.storage, database=with_stores.database
        )
    )


@main.command("rollback-model")
@click.option("--to", "to_model_id", help="A model that was in service; default: the one before.")
@click.option("--by", "promoted_by", required=True, help="Who answers for it.")
@click.option("--reason", required=True, help="Why, kept with who and when.")
def rollback_model_command(to_model_id: str | None, promoted_by: str, reason: str) -> None:
    """Put an earlier model back into service.

    Example: llmcoder rollback-model --by "A. Person" --reason "codes nothing on ward 3"
    """
    from llmcoder_tasks.steps.rollback_model import plan_rollback, rollback_model

    with_stores = connect()
    stores: dict[str, Any] = {"storage": with_stores.storage, "database": with_stores.database}
    _show(rollback_model(plan_rollback(to_model_id, **stores), promoted_by=promoted_by, reason=reason, **stores))


@main.command("check-deadlines")
@click.option("--date", "on", type=DAY, help="As of which day; default: today.")
@click.option("--days", type=click.IntRange(min=0), help="How many days ahead; default: LLMCODER_DEADLINE_DAYS.")
def check_deadlines_command(on: datetime | None, days: int | None) -> None:
    """Say which release is in effect, or soon will be, without a model that learnt it, one JSON row each; tells nobody else.

    Example: llmcoder check-deadlines --days 30
    """
    from llmcoder_tasks.steps.check_deadlines import check_deadlines

    with_stores = connect()
    for deadline in check_deadlines(
        on=_day(on) or date.today(),
        days=with_stores.settings.deadline_days if days is None else days,
        storage=with_stores.storage,
        database=with_stores.database,
    ):
        _show(deadline)


@main.command("load-encounters")
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--format",
    "source_format",
    type=click.Choice(["auto", "jsonl", "csv", "mimic-iv"]),
    default="auto",
    show_default=True,
    help="What SOURCE is.",
)
@click.option("--date", "on", type=DAY, help="The day of the load: a later discharge is an error; default: today.")
def load_encounters_command(source: Path, source_format: Any, on: datetime | None) -> None:
    """Load encounters with their discharge summaries from SOURCE: a JSONL or CSV file, a folder of them, or MIMIC-IV's tables.

    Columns: encounter_id, discharge_date, text; and, where known, patient_id, admission_date, sex, age_years, codes. A row that
    cannot be used goes into quarantine with its reason; with more than LLMCODER_MAX_QUARANTINED_SHARE of them the exit status is 1.

    Example: llmcoder load-encounters ~/export/2026-09-30.jsonl
    """
    from llmcoder_tasks.steps.load_encounters import load_encounters

    with_stores = connect()
    loaded = load_encounters(
        source,
        source_format=source_format,
        on=_day(on) or date.today(),
        database=with_stores.database,
        max_quarantined_share=with_stores.settings.max_quarantined_share,
    )
    known = f", {loaded.files_known} files known already" if loaded.files_known else ""
    click.echo(
        f"{loaded.encounters} encounters, {loaded.notes_new} new notes, {loaded.notes_unchanged} unchanged, "
        f"{len(loaded.rejected)} in quarantine{known}"
    )
    for place, reason in loaded.rejected:
        click.echo(f"rejected {place}: {reason}", err=True)


@main.command("code-on-date")
@click.argument("code_name", metavar="CODE")
@click.argument("on", metavar="DATE", type=DAY)
def code_on_date_command(code_name: str, on: datetime) -> None:
    """Show whether CODE is billable on DATE, since when and until when, under which release, and what took over from a dead code.

    Example: llmcoder code-on-date E66.8 2024-10-01
    """
    from llmcoder_tasks.steps.find_code import find_code_on_date

    _show(find_code_on_date(code_name, on.date(), connect().database))


@main.command("code-encounters")
@click.option("--from", "from_day", type=DAY, help="First discharge date.")
@click.option("--to", "to_day", type=DAY, help="Last discharge date; default: the first.")
@click.option(
    "--recode",
    "recode_key",
    help="Instead of dates: a release; codes again what an older or its withdrawn one coded since it took effect.",
)
@click.option("--model", "model_id", help="A published model; default: the one in service.")
def code_encounters_command(
    from_day: datetime | None, to_day: datetime | None, recode_key: str | None, model_id: str | None
) -> None:
    """Code the encounters of some discharge dates that are not coded yet, and queue what a person has to look at.

    May run beside the night, or twice: each note is coded once. The exit status is 1 when notes are left over, or when more than
    LLMCODER_MAX_QUARANTINED_SHARE of them are in quarantine.

    Examples: llmcoder code-encounters --from 2026-09-21 --to 2026-09-23; llmcoder code-encounters --recode FY2027
    """
    if (from_day is None) == (recode_key is None) or (to_day and recode_key):
        raise click.UsageError("give --from (and --to), or --recode RELEASE")
    from llmcoder_tasks.coding.claims import Pace
    from llmcoder_tasks.steps.code_encounters import code_encounters, recode_encounters
    from llmcoder_tasks.steps.review_encounters import open_reviews

    with_stores = connect()
    model = _published_model(with_stores, model_id)
    arguments: dict[str, Any] = {
        "model": model,
        "storage": with_stores.storage,
        "database": with_stores.database,
        "cache_folder": _cache_folder(with_stores),
        "note_model": with_stores.settings.note_model,
        "server": with_stores.settings.coder_server,
        "pace": Pace.of_lease(with_stores.settings.claim_seconds),
        "max_quarantined_share": with_stores.settings.max_quarantined_share,
    }
    if recode_key:
        coded = recode_encounters(recode_key, **arguments)
    elif from_day:
        first, last = from_day.date(), (to_day or from_day).date()
        run_id = f"{first}_{last}_{model.model_id}"
        coded = code_encounters(first, last, coding_run_id=run_id, **arguments)
    _show(coded)
    _show(open_reviews(coded.coding_run_id, with_stores.database))


@main.command("review-queue")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="Reviews to list, the most urgent first.")
def review_queue_command(limit: int) -> None:
    """List the coded notes that wait for a person, one JSON row each: priority and its terms, and who holds which until when.

    Example: llmcoder review-queue --limit 50
    """
    from llmcoder_tasks.steps.review_encounters import list_queue

    for waiting in list_queue(connect().database, page_size=limit):
        _show(waiting)


@main.command("export-encounters")
def export_encounters_command() -> None:
    """Write what was finished or changed since the last export: CSV, Parquet and FHIR Bundles below exports/ in the artifact store.

    Example: llmcoder export-encounters
    """
    from llmcoder_tasks.steps.export_encounters import export_encounters

    with_stores = connect()
    _show(export_encounters(storage=with_stores.storage, database=with_stores.database))


@main.command()
@click.argument("source", type=click.File("r", encoding="utf-8-sig", errors="replace"), default="-")
@click.option("--kind", type=click.Choice(["phrase", "note"]), default="phrase", show_default=True, help="What plain text is.")
@click.option("--date", "on", type=DAY, help="Codes valid on this date; default: today. A row's discharge_date goes before it.")
@click.option("--model", "model_id", help="A published model; default: the one in service.")
@click.option(
    "--policy",
    type=click.Choice(["us-inpatient", "every-mention"]),
    default="us-inpatient",
    show_default=True,
    help="Which rules go over a note: those of a stay in a US hospital, or each mention coded for itself.",
)
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["table", "jsonl"]),
    default="table",
    show_default=True,
    help="A table for people, or rows.",
)
def code(source: Any, kind: Any, on: datetime | None, model_id: str | None, policy: str, output_format: str) -> None:
    """Code phrases (one a line) or a whole note from SOURCE, or from standard input.

    SOURCE may also hold JSON lines {"id", "text", "kind"?, "discharge_date"?}.

    Examples: echo "T2DM w/ diabetic CKD" | llmcoder code; llmcoder code note.txt --kind note
    """
    from llmcoder_tasks.steps.code_texts import code_texts, read_rows, render_json_lines

    with_stores = connect()
    results = code_texts(
        read_rows(source, kind=kind),
        model=_published_model(with_stores, model_id),
        on=_day(on) or date.today(),
        storage=with_stores.storage,
        database=with_stores.database,
        cache_folder=_cache_folder(with_stores),
        note_model=with_stores.settings.note_model,
        server=with_stores.settings.coder_server,
        policy=policy,
    )
    if output_format == "jsonl":
        for line in render_json_lines(results):
            click.echo(line)
        return
    from rich.console import Console

    from llmcoder_tasks.coding.notes_display import render_codes_table, render_findings

    coded = list(results)
    Console().print(render_codes_table(coded))
    if (said := render_findings(coded)) is not None:
        Console().print(said)
