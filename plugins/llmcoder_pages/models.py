"""Models: every one that was trained, what made it, how it did, who let it into service, and two of them side by side."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from markupsafe import Markup
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse

from llmcoder_pages.charts import bar_chart, line_chart, reliability_chart
from llmcoder_pages.paging import decode_cursor, take_page
from llmcoder_pages.rendering import format_percent, render_page
from llmcoder_pages.scorecards import ScorecardView, compare_scorecards, find_fit, group_verdicts, read_scorecard
from llmcoder_pages.security import require_reader
from llmcoder_pages.stores import Stores
from llmcoder_tasks.coding.coder_fit import CoderFit
from llmcoder_tasks.connections import Connections
from llmcoder_tasks.database import Row
from llmcoder_tasks.errors import EvaluationError
from llmcoder_tasks.evaluation.error_kinds import ERROR_KINDS, ERROR_MEANINGS
from llmcoder_tasks.evaluation.report import CODER_MEANINGS

MODELS_DAG = "train_model"

router = APIRouter(prefix="/models", dependencies=[Depends(require_reader(MODELS_DAG))])

PAGE_SIZE = 30
TEXT_SHOWN = 600
"""Characters of a text of a worst answer; a whole note is longer, and stands in the report."""

_FACTS: Row = {"figures": {}, "files": {}, "seed": None, "code_version": None, "base_weights": None}
"""Of a model's manifest what is shown; an older one may lack some of it."""

SCORES_DRAWN = ("lexical", "stage_two", "in_service", "together")
"""What one would put into service; the others stand in the table."""


@router.get("", name="models")
def list_models(request: Request, stores: Stores, after: str | None = None) -> HTMLResponse:
    """All models, the newest first, and on the first page what is in training."""
    created_at, model_id = decode_cursor(after, (datetime.fromisoformat, str))
    rows = stores.database.fetch_all("list_models", after_created_at=created_at, after_model_id=model_id, limit=PAGE_SIZE + 1)
    page = take_page(rows, PAGE_SIZE, ("created_at", "model_id"))
    is_first = after is None
    running = stores.database.fetch_all("list_training_progress") if is_first else []
    jobs = stores.database.fetch_all("list_jobs_under_way") if is_first else []
    return render_page(request, "models/list.html", page=page, is_later_page=not is_first, running=running, jobs=jobs)


@router.get("/{model_id}", name="model")
def show_model(
    request: Request,
    stores: Stores,
    model_id: str,
    evaluation: str | None = None,
    other: Annotated[str | None, Query(alias="with")] = None,
) -> HTMLResponse:
    """One model by its newest evaluation, or by the one asked for; `with` puts another one beside it. 404 when one is unknown."""
    if other:
        return _show_beside(request, stores, model_id, other)
    model = _fetch_model(stores, model_id)
    scorecards = stores.database.fetch_all("list_model_scorecards", model_id=model_id)
    chosen = _choose(scorecards, evaluation)
    view, fault = _read(stores, chosen)
    fit, no_fit = find_fit(stores, model_id)
    lineage = stores.database.fetch_all("list_lineage", model_id=model_id)
    moves = stores.database.fetch_all("list_model_promotions", model_id=model_id)
    titles = {}
    if view:
        found = stores.database.fetch_all("list_long_titles", release_key=view.card.release_key, codes=view.codes)
        titles = {row["code"]: row["title"] for row in found}
    return render_page(
        request,
        "models/model.html",
        model=model,
        lineage=lineage,
        tables=_list_tables(model),
        curve=_draw_curve(stores, lineage, model_id),
        scorecards=scorecards,
        chosen=chosen,
        view=view,
        fault=fault,
        scores=_draw_scores(view) if view else None,
        reliability=_draw_reliability(fit) if fit else None,
        fit=fit,
        no_fit=no_fit,
        verdicts=group_verdicts(stores.database.fetch_all("list_model_verdicts", model_id=model_id)),
        moves=moves,
        service=next((move for move in moves if move["model_id"] == model_id), None),
        others=[row for row in stores.database.fetch_all("list_judged_models") if row["model_id"] != model_id],
        titles=titles,
        kinds=ERROR_KINDS,
        kind_meanings=ERROR_MEANINGS,
        coder_meanings=CODER_MEANINGS,
        text_shown=TEXT_SHOWN,
    )


def _show_beside(request: Request, stores: Connections, model_id: str, other: str) -> HTMLResponse:
    models = [_fetch_model(stores, name) for name in (model_id, other)]
    chosen = [_choose(stores.database.fetch_all("list_model_scorecards", model_id=name), None) for name in (model_id, other)]
    (ours, our_fault), (theirs, their_fault) = [_read(stores, row) for row in chosen]
    compared = None
    if ours and theirs and chosen[0] and chosen[1]:
        compared = compare_scorecards(stores, ours, theirs, (chosen[0]["uri"], chosen[1]["uri"]))
    return render_page(
        request,
        "models/beside.html",
        models=models,
        views=[ours, theirs],
        faults=[our_fault, their_fault],
        fits=[find_fit(stores, name)[0] for name in (model_id, other)],
        moves=[_find_service(stores, name) for name in (model_id, other)],
        verdicts=[_find_verdict(stores, name) for name in (model_id, other)],
        compared=compared,
        scenarios=list(dict.fromkeys(name for view in (ours, theirs) if view for name in view.scenarios)),
        kinds=ERROR_KINDS,
        kind_meanings=ERROR_MEANINGS,
    )


def _fetch_model(stores: Connections, model_id: str) -> Row:
    model = stores.database.fetch_one("fetch_model_page", model_id=model_id)
    if model is None:
        raise HTTPException(404)
    return {**model, "manifest": _FACTS | model["manifest"]}


def _choose(scorecards: Sequence[Row], evaluation_id: str | None) -> Row | None:
    """The newest scorecard, or the one asked for. 404 when the model has no such one."""
    if evaluation_id is None:
        return scorecards[0] if scorecards else None
    chosen = next((row for row in scorecards if row["evaluation_id"] == evaluation_id), None)
    if chosen is None:
        raise HTTPException(404)
    return chosen


def _read(stores: Connections, row: Row | None) -> tuple[ScorecardView | None, str]:
    """The view of a scorecard, or None and why."""
    if row is None:
        return None, "This model was not evaluated."
    try:
        return read_scorecard(stores.database, row["evaluation_id"]), ""
    except EvaluationError as error:
        return None, str(error)


def _find_service(stores: Connections, model_id: str) -> Row | None:
    moves = stores.database.fetch_all("list_model_promotions", model_id=model_id)
    return next((move for move in moves if move["model_id"] == model_id), None)


def _find_verdict(stores: Connections, model_id: str) -> Row | None:
    return next(iter(stores.database.fetch_all("list_model_verdicts", model_id=model_id)), None)


def _list_tables(model: Row) -> list[Row]:
    """Rows of each scenario of the dataset, by split. A dataset of tests or of an older version may not say."""
    tables = model["dataset_manifest"].get("tables", {})
    return [{"scenario": name, "rows": table["rows"], **table.get("rows_by_split", {})} for name, table in tables.items()]


def _draw_curve(stores: Connections, lineage: Sequence[Row], model_id: str) -> Markup | None:
    """Loss over tokens: that of stage one first, where this model goes on from it in the same training."""
    me = next(row for row in lineage if row["generation"] == 0)
    trained = [me]
    if me["stage"] == "stage_two":
        trained = [row for row in lineage if row["generation"] in (-1, 0)]
    rows = stores.database.fetch_all("list_training_curves", model_ids=[row["model_id"] for row in trained])
    series: dict[str, list[float | None]] = {}
    labels: list[str] = []
    tokens = 0
    for model in trained:
        points = [row for row in rows if row["model_id"] == model["model_id"]]
        if not points:
            continue
        for name in series:
            series[name] += [None] * len(points)
        series[model["stage"].replace("_", " ")] = [None] * len(labels) + [point["loss"] for point in points]
        labels += [_write_tokens(tokens + point["tokens_seen"]) for point in points]
        tokens += points[-1]["tokens_seen"]
    if not series:
        return None
    ends = "; ".join(
        f"{stage} from {next(value for value in values if value is not None):.2f} to "
        f"{next(value for value in reversed(values) if value is not None):.2f}"
        for stage, values in series.items()
    )
    return line_chart(series, labels, text=f"Training loss over tokens seen: {ends}", write=lambda loss: f"{loss:.2f}")


def _write_tokens(count: int) -> str:
    return f"{count / 1e6:.1f} M" if count >= 1e6 else f"{count / 1e3:.0f} k"


def _draw_scores(view: ScorecardView) -> Markup:
    """Exact match of those coders, by scenario."""
    series = {
        coder.replace("_", " "): [
            cell.exact.value if (cell := view.card.find_cell(coder, name)) else None for name in view.scenarios
        ]
        for coder in SCORES_DRAWN
        if coder in view.coders
    }
    text = "Exact match by scenario; the table below has the figures"
    return bar_chart(series, view.scenarios, text=text, write=format_percent)


def _draw_reliability(fit: CoderFit) -> Markup | None:
    bins = fit.together.reliability
    if not bins:
        return None
    points = [(entry.confidence, entry.accuracy) for entry in bins]
    return reliability_chart(
        points, text="Share of answers that were right, by the coder's confidence in them; the table has the figures"
    )
