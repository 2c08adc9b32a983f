"""A trained model and a dataset → a scorecard of every coder on every scenario, with its report."""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from llmcoder_tasks.coding.coder import Coder
from llmcoder_tasks.coding.coder_fit import CODER_NAME, CoderFit
from llmcoder_tasks.coding.model_alone import ModelAlone
from llmcoder_tasks.coding.notes import code_notes
from llmcoder_tasks.database import Database
from llmcoder_tasks.dataset.corrections import HeldOut, bring_up_to_date, read_held_out
from llmcoder_tasks.dataset.store import fetch_dataset, read_manifest
from llmcoder_tasks.errors import ArtifactMissing, EvaluationError
from llmcoder_tasks.evaluation.outcomes import CoderRow, Outcome, Predictor, write_outcomes
from llmcoder_tasks.evaluation.plots import ReliabilityBin
from llmcoder_tasks.evaluation.registry import read_promoted
from llmcoder_tasks.evaluation.report import Evidence, read_curve, render_report
from llmcoder_tasks.evaluation.reviewed import CANDIDATE, ReviewedFigures, judge_corrections
from llmcoder_tasks.evaluation.scorecard import CODERS, SCHEMA_VERSION, Scorecard, build_cells, parse_scorecard
from llmcoder_tasks.evaluation.suites import Suite, hash_suites, read_suites
from llmcoder_tasks.icd10cm.code_set import CodeSet, read_code_set
from llmcoder_tasks.model.manifest import fetch_model
from llmcoder_tasks.progress import record_step, track
from llmcoder_tasks.records import DatasetRef, ModelRef, ScorecardRef
from llmcoder_tasks.settings import LanguageModel
from llmcoder_tasks.storage import Storage

logger = logging.getLogger(__name__)

DEFAULT_LIMIT = 300
UNTRAINED_LIMIT = 100
"""Items a scenario for the untrained row: it writes until its room ends, and a hundred items show that it knows nothing."""

CURVE_NAME = "training_log.jsonl"


def evaluate_model(
    model: ModelRef,
    dataset: DatasetRef,
    *,
    storage: Storage,
    database: Database,
    cache_folder: Path,
    limit: int = DEFAULT_LIMIT,
    note_model: LanguageModel | Path | None = None,
) -> ScorecardRef:
    """Score a model, its stage one, its untrained self, the lexical baseline and the whole coder on a dataset's suites.

    At most `limit` items a scenario; slow rows answer fewer, and every figure says its number of items. Writes
    `scorecards/<evaluation_id>/` (outcomes, report, and the scorecard last) and the tables `scorecards` and `evaluations`. The
    model and the one in service also code what people corrected in reviews and what trained nothing; of that only figures are
    kept. The same model, coder, dataset, limit and corrections give the same id: a second run changes nothing. Raises
    EvaluationError when the model is unknown to the database or has no coder, ModelError or DatasetError when files are altered.
    """
    coder_json = _read_coder(model, storage)
    corrections, in_service = read_held_out(database), read_promoted(storage)
    evaluation_id = _make_id(model, dataset, coder_json, limit, corrections, in_service)
    prefix = f"scorecards/{evaluation_id}"
    with record_step(database, "evaluate_model", evaluation_id) as detail:
        if storage.exists(f"{prefix}/scorecard.json"):
            scorecard = parse_scorecard(storage.read_bytes(f"{prefix}/scorecard.json"))
            logger.info("scorecard %s is already there: nothing to evaluate", evaluation_id)
        else:
            with tempfile.TemporaryDirectory() as folder:
                work = _Evaluation(
                    model,
                    dataset,
                    storage=storage,
                    database=database,
                    cache_folder=cache_folder,
                    work_folder=Path(folder),
                    limit=limit,
                    note_model=note_model,
                    corrections=corrections,
                    in_service=in_service,
                )
                scorecard = work.run(evaluation_id, coder_json)
                detail["seconds"] = work.seconds
                storage.publish_folder(Path(folder) / "scorecard", prefix, last="scorecard.json")
        _record(scorecard, storage.uri_of(prefix), database)
    return ScorecardRef(evaluation_id, storage.uri_of(prefix))


def _read_coder(model: ModelRef, storage: Storage) -> bytes:
    try:
        return storage.read_bytes(f"coders/{model.model_id}/{CODER_NAME}")
    except ArtifactMissing:
        raise EvaluationError(f"{model.model_id} has no {CODER_NAME}: run `llmcoder fit-coder` on it first") from None


def _make_id(
    model: ModelRef,
    dataset: DatasetRef,
    coder_json: bytes,
    limit: int,
    corrections: Sequence[HeldOut],
    in_service: ModelRef | None,
) -> str:
    inputs: list[Any] = [SCHEMA_VERSION, model.model_id, dataset.dataset_id, hashlib.sha256(coder_json).hexdigest(), limit]
    if corrections:  # by the numbers of the audit: a hash of a phrase could be guessed
        inputs += [[(row.action_id, row.code) for row in corrections], in_service.model_id if in_service else None]
    return f"{model.model_id}-{hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:8]}"


class _Evaluation:
    """One evaluation in progress: what it reads from, and how long each row took."""

    def __init__(
        self,
        model: ModelRef,
        dataset: DatasetRef,
        *,
        storage: Storage,
        database: Database,
        cache_folder: Path,
        work_folder: Path,
        limit: int,
        note_model: LanguageModel | Path | None,
        corrections: Sequence[HeldOut],
        in_service: ModelRef | None,
    ) -> None:
        row = database.fetch_one("fetch_judged_model", model_id=model.model_id)
        if row is None:
            raise EvaluationError(f"the table models does not know {model.model_id}: train it against this database")
        self.model, self.lineage = model, row
        self.dataset, self.manifest = dataset, read_manifest(storage, dataset.uri)
        self.storage, self.database = storage, database
        self.cache_folder, self.work_folder = cache_folder, work_folder
        self.limit, self.note_model = limit, note_model
        self.corrections, self.in_service = corrections, in_service
        self.reviewed: ReviewedFigures | None = None
        self.seconds: dict[str, float] = {}

    def run(self, evaluation_id: str, coder_json: bytes) -> Scorecard:
        """Score every row and write `scorecard/` into the work folder."""
        code_set = read_code_set(self.database, self.manifest.release_key)
        data = fetch_dataset(self.storage, self.dataset, self.cache_folder)
        suites = read_suites(data, self.manifest.tables, limit=self.limit)
        stages = self._fetch_stages()
        fit = CoderFit.parse(coder_json)
        outcomes = self._score(_open_rows(stages, code_set, fit, limit=self.limit, note_model=self.note_model), suites, code_set)
        scorecard = Scorecard(
            schema_version=SCHEMA_VERSION,
            evaluation_id=evaluation_id,
            model_id=self.model.model_id,
            stage_one_model_id=self.lineage["parent_model_id"],
            dataset_id=self.dataset.dataset_id,
            release_key=code_set.release_key,
            coder_sha256=hashlib.sha256(coder_json).hexdigest(),
            suites_sha256=hash_suites(suites),
            suite_sizes={suite.scenario: len(suite.examples) for suite in suites},
            cells=build_cells(outcomes, suites),
            reviewed=self.reviewed,
        )
        evidence = Evidence(
            titles={code.code: code.long_title for code in code_set.codes},
            curves={stage: read_curve(folder / CURVE_NAME) for stage, folder in stages.items()},
            reliability=[ReliabilityBin(entry.confidence, entry.accuracy, entry.n) for entry in fit.together.reliability],
        )
        self._write(scorecard, outcomes, evidence)
        return scorecard

    def _fetch_stages(self) -> dict[str, Path]:
        """Folders by stage, in order of training; the last one is the model that is evaluated."""
        stages: dict[str, Path] = {}
        parent_id = self.lineage["parent_model_id"]
        if parent_id:
            parent = self.database.fetch_one("fetch_judged_model", model_id=parent_id)
            if parent is None:
                raise EvaluationError(f"the table models does not know {parent_id}, from which {self.model.model_id} was trained")
            stages[parent["stage"]] = fetch_model(self.storage, parent["uri"], self.cache_folder)
        stages[self.lineage["stage"]] = fetch_model(self.storage, self.model.uri, self.cache_folder)
        return stages

    def _score(self, rows: Iterable[CoderRow], suites: Sequence[Suite], code_set: CodeSet) -> list[Outcome]:
        known_codes = frozenset(code.code for code in code_set.codes)
        outcomes: list[Outcome] = []
        for row in track(rows, "evaluating", total=len(CODERS), unit="coders"):
            started = time.monotonic()
            for suite in suites:
                outcomes += row.score(suite, known_codes=known_codes)
            if row.coder == CANDIDATE:
                self.reviewed = self._judge_corrections(row.phrases, code_set)
            self.seconds[row.coder] = round(time.monotonic() - started, 1)
            logger.info("%s answered in %.1f s", row.coder, self.seconds[row.coder])
        return outcomes

    def _judge_corrections(self, candidate: Predictor, code_set: CodeSet) -> ReviewedFigures:
        items = bring_up_to_date(self.corrections, self.database, code_set)
        opponent = None
        if items and self.in_service is not None:
            opponent = (self.in_service.model_id, self._open_in_service(self.in_service, code_set).predict_together)
        withdrawn = len(self.corrections) - len(items)
        return judge_corrections(items[: self.limit], candidate, opponent, withdrawn=withdrawn)

    def _open_in_service(self, model: ModelRef, code_set: CodeSet) -> Coder:
        """The phrase coder of the model in service, whatever language model reads notes for it."""
        from llmcoder_tasks.model.local import LocalModel  # imports torch

        folder = fetch_model(self.storage, model.uri, self.cache_folder)
        fit = CoderFit.parse((folder / CODER_NAME).read_bytes())
        return Coder(code_set, model=LocalModel.load(folder), fit=fit)

    def _write(self, scorecard: Scorecard, outcomes: Sequence[Outcome], evidence: Evidence) -> None:
        folder = self.work_folder / "scorecard"
        folder.mkdir()
        write_outcomes(outcomes, folder / "outcomes.parquet")
        (folder / "report.html").write_text(render_report(scorecard, evidence), encoding="utf-8")
        (folder / "scorecard.json").write_text(scorecard.to_json(), encoding="utf-8")


def _open_rows(
    stages: Mapping[str, Path], code_set: CodeSet, fit: CoderFit, *, limit: int, note_model: LanguageModel | Path | None
) -> Iterator[CoderRow]:
    """The rows of a scorecard in the order of CODERS, each opened when its turn comes. Raises ModelError."""
    # Here: they import torch, which a DAG file must not.
    from llmcoder_tasks.model.local import LocalModel
    from llmcoder_tasks.model.trie import CodeTrie

    *_, folder = stages.values()
    untrained = LocalModel.untrained(folder)
    answer = partial(untrained.predict, trie=None)
    yield CoderRow("untrained", answer, answer, min(limit, UNTRAINED_LIMIT))
    coder = Coder.open(folder, code_set, fit=fit, note_model=note_model)
    words_alone = Coder(code_set, index=coder.index, fit=fit)
    yield CoderRow("lexical", coder.predict_lexical, _note_predictor(words_alone), limit)
    for stage, path in stages.items():
        model = LocalModel.load(path)
        trie = CodeTrie.build((code.code for code in code_set.billable), model.tokenizer)
        # A model alone answers a note as one long phrase, from the note's beginning.
        yield CoderRow(stage, ModelAlone(model, trie).predict, partial(model.predict, trie=trie), limit)
    yield CoderRow("together", coder.predict_together, _note_predictor(coder), limit)


def _note_predictor(coder: Coder) -> Predictor:
    """Whole notes through sections, mentions and context; all codes count, also those that a person would review."""
    return lambda texts: [tuple(prediction.code for prediction in note.codes) for note in code_notes(coder, texts)]


def _record(scorecard: Scorecard, uri: str, database: Database) -> None:
    with database.transaction() as transaction:
        transaction.execute(
            "record_scorecard",
            {
                "evaluation_id": scorecard.evaluation_id,
                "model_id": scorecard.model_id,
                "dataset_id": scorecard.dataset_id,
                "suites_sha256": scorecard.suites_sha256,
                "uri": uri,
                "scorecard": scorecard.to_json(),
            },
        )
        rows = [
            {
                "evaluation_id": scorecard.evaluation_id,
                "coder": cell.coder,
                "scenario": cell.scenario,
                "n": cell.n,
                "exact_match": cell.exact.value,
                "exact_low": cell.exact.low,
                "exact_high": cell.exact.high,
                "category_match": cell.category.value,
            }
            for cell in scorecard.cells
        ]
        if rows:
            transaction.execute("record_evaluation", rows)
