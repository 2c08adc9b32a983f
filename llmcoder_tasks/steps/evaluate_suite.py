"""A suite of one's own (`{"id", "text", "codes"}` rows) → how well a published model codes it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal

from llmcoder_tasks.coding.coder import Coder, CoderOpener
from llmcoder_tasks.coding.model_alone import ModelAlone
from llmcoder_tasks.coding.notes import code_notes
from llmcoder_tasks.database import Database
from llmcoder_tasks.errors import EvaluationError
from llmcoder_tasks.evaluation.error_kinds import ERROR_KINDS, ERROR_MEANINGS, ErrorKind
from llmcoder_tasks.evaluation.metrics import MicroScores, Share
from llmcoder_tasks.evaluation.outcomes import Predictor, score_suite
from llmcoder_tasks.evaluation.scorecard import build_cell
from llmcoder_tasks.evaluation.suites import BadRow, Suite, hash_suites, read_suite_file
from llmcoder_tasks.icd10cm.code_set import CodeSet, find_release, read_code_set
from llmcoder_tasks.model.backend import open_model
from llmcoder_tasks.model.manifest import fetch_model
from llmcoder_tasks.progress import record_step, track
from llmcoder_tasks.records import ModelRef
from llmcoder_tasks.settings import CoderServer, LanguageModel
from llmcoder_tasks.storage import Storage

logger = logging.getLogger(__name__)

TextKind = Literal["phrase", "note"]
Way = Literal["together", "lexical", "model"]
"""Coding as it is shipped, by words alone, or by the language model alone."""

_BATCH = 64


@dataclass(frozen=True, slots=True)
class SuiteResult:
    """Figures of one model on one suite, without its texts. `retired_codes` counts true codes that are not billable."""

    model_id: str
    release_key: str
    suite_sha256: str
    kind: TextKind
    way: Way
    n: int
    exact: Share
    category: Share
    micro: MicroScores
    errors: dict[ErrorKind, int]
    retired_codes: int
    bad_rows: tuple[BadRow, ...]


def evaluate_suite(
    suite: Path,
    *,
    model: ModelRef,
    on: date,
    kind: TextKind,
    storage: Storage,
    database: Database,
    cache_folder: Path,
    way: Way = "together",
    note_model: LanguageModel | Path | None = None,
    server: CoderServer | None = None,
) -> SuiteResult:
    """Score a published model on a file, with the codes valid `on` a date. Nothing of it is kept but how long it took.

    Rows that cannot be scored are reported with their line and left out. Raises EvaluationError when none can be, when no release
    is loaded for the date, or for notes by the model alone; ModelError when the model's files are altered.
    """
    if kind == "note" and way == "model":
        raise EvaluationError("the language model alone reads no whole notes: leave --coder out, or say lexical")
    examples, bad_rows = read_suite_file(suite)
    release = find_release(database, on)
    if release is None:
        raise EvaluationError(f"no loaded release is valid on {on}: ingest one, or give another date")
    with record_step(database, "evaluate_suite", model.model_id) as detail:
        code_set = read_code_set(database, release.key)
        folder = fetch_model(storage, model.uri, cache_folder)
        own = Suite("suite", tuple(examples))
        known_codes = frozenset(code.code for code in code_set.codes)
        predictor = _in_batches(_open(folder, code_set, kind, way, CoderOpener(note_model, server)))
        outcomes = score_suite(way, predictor, own, known_codes=known_codes)
        detail["items"] = len(examples)
    cell = build_cell(outcomes, [own])
    return SuiteResult(
        model_id=model.model_id,
        release_key=release.key,
        suite_sha256=hash_suites([own]),
        kind=kind,
        way=way,
        n=cell.n,
        exact=cell.exact,
        category=cell.category,
        micro=cell.micro,
        errors=cell.errors,
        retired_codes=sum(code not in code_set.titles for example in examples for code in example.codes),
        bad_rows=tuple(bad_rows),
    )


def _open(folder: Path, code_set: CodeSet, kind: TextKind, way: Way, opener: CoderOpener) -> Predictor:
    """What names all codes that a model folder proposes for texts, one way or another."""
    if way == "model":
        model = open_model(folder, opener.server)
        return ModelAlone(model, model.allow(code_set.titles)).predict
    coder = opener(folder, code_set)
    if way == "lexical":
        coder = Coder(code_set, index=coder.index, fit=coder.fit)
    if kind == "note":
        return lambda texts: [tuple(prediction.code for prediction in note.codes) for note in code_notes(coder, texts)]
    return coder.predict_lexical if way == "lexical" else coder.predict_together


def _in_batches(predictor: Predictor) -> Predictor:
    """The same in batches that show progress."""

    def predict(texts: Any) -> list[tuple[str, ...]]:
        answers: list[tuple[str, ...]] = []
        starts = range(0, len(texts), _BATCH)
        for start in track(starts, "coding the suite", total=len(starts), unit="batches"):
            answers += predictor(texts[start : start + _BATCH])
        return answers

    return predict


def render_suite_result(result: SuiteResult) -> Any:
    """The figures as a rich table for a terminal, the lines that could not be scored below it."""
    from rich.table import Table

    title = f"{result.model_id}, {result.way}, on {result.n:,} {result.kind}s, release {result.release_key}"
    table = Table(title=title, title_justify="left")
    for name, justify in (("figure", "left"), ("%", "right"), ("95 % interval", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for label, share in (("exact match", result.exact), ("category match", result.category)):
        table.add_row(label, f"{100 * share.value:.1f}", f"{100 * share.low:.1f}–{100 * share.high:.1f}")
    for label, value in (("precision", result.micro.precision), ("recall", result.micro.recall), ("F1", result.micro.f1)):
        table.add_row(f"micro {label}", f"{100 * value:.1f}", "")
    table.add_section()
    for kind in ERROR_KINDS:
        count = result.errors[kind]
        table.add_row(f"wrong, {kind}: {ERROR_MEANINGS[kind]}", f"{100 * count / result.n:.1f}", f"{count:,} items")
    table.caption = "\n".join(_list_notices(result)) or None
    table.caption_justify = "left"
    return table


def _list_notices(result: SuiteResult) -> list[str]:
    notices = [f"line {row.line} was left out: {row.reason}" for row in result.bad_rows]
    if result.retired_codes:
        notices.append(f"{result.retired_codes:,} true codes are not billable in {result.release_key}: they cannot be met")
    return notices
