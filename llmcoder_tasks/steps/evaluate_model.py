"""A trained model and a dataset → a scorecard of every coder on every scenario, with its report."""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from llmcoder_tasks import __version__
from llmcoder_tasks.coding.coder import Coder, CoderOpener
from llmcoder_tasks.coding.coder_fit import CODER_NAME, PHRASE_KINDS, CoderFit
from llmcoder_tasks.coding.model_alone import ModelAlone
from llmcoder_tasks.coding.notes import code_notes
from llmcoder_tasks.coding.selection import SELECTION_NAME, Selection
from llmcoder_tasks.database import Database
from llmcoder_tasks.dataset.corrections import HeldOut, bring_up_to_date, read_held_out, read_successors
from llmcoder_tasks.dataset.splits import is_judged_on
from llmcoder_tasks.dataset.store import MANIFEST, fetch_dataset, find_taught_texts, read_manifest
from llmcoder_tasks.errors import ArtifactMissing, EvaluationError
from llmcoder_tasks.evaluation.breadth import CodeGroups, make_breadth_suite
from llmcoder_tasks.evaluation.comparison import ModelComparison, SliceFigures, compare_outcomes, measure_slice
from llmcoder_tasks.evaluation.metrics import calculate_item_f1
from llmcoder_tasks.evaluation.outcomes import CoderRow, Outcome, Predictor, score_suite, write_outcomes
from llmcoder_tasks.evaluation.plots import ReliabilityBin
from llmcoder_tasks.evaluation.registry import read_promoted
from llmcoder_tasks.evaluation.report import Evidence, read_curve, read_last_line, render_report
from llmcoder_tasks.evaluation.reviewed import CANDIDATE, ReviewedFigures, judge_corrections
from llmcoder_tasks.evaluation.scorecard import (
    CODERS,
    IN_SERVICE,
    SCHEMA_VERSION,
    CalibrationFigures,
    Provenance,
    Scorecard,
    build_cells,
    parse_scorecard,
)
from llmcoder_tasks.evaluation.suites import Suite, hash_suites, read_suites
from llmcoder_tasks.icd10cm.code_set import CodeSet, read_code_set
from llmcoder_tasks.model.backend import CodingModel, FreeWriter, open_model, open_untrained
from llmcoder_tasks.model.manifest import MANIFEST_NAME, fetch_model, read_stored_manifest
from llmcoder_tasks.model.server_answers import made_up_texts
from llmcoder_tasks.progress import record_step, track
from llmcoder_tasks.records import DatasetRef, ModelRef, ScorecardRef
from llmcoder_tasks.settings import CoderServer, LanguageModel
from llmcoder_tasks.storage import Storage

logger = logging.getLogger(__name__)

DEFAULT_LIMIT = 300
UNTRAINED_LIMIT = 100
"""Items a scenario for the untrained row: it writes until its room ends, and a hundred items show that it knows nothing."""

NOTES_OF_SOURCE = 300
"""Coded notes of each source of encounters, at most, on which both models are compared."""

NOTES_READ = 5000
"""The newest coded notes, among which a fifth is kept for judging."""

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
    server: CoderServer | None = None,
) -> ScorecardRef:
    """Score a model, its stage one, its untrained self, the lexical baseline and the whole coder on a dataset's suites.

    At most `limit` items a scenario; slow rows answer fewer, and every figure says its number of items. Writes
    `scorecards/<evaluation_id>/` (outcomes, report, and the scorecard last) and the tables `scorecards` and `evaluations`. Where
    another model is in service, it answers the same items, and both answer a suite of breadth (`breadth.py`), what people corrected
    in reviews and what trained nothing, and coded notes of each source; of what is patients' words, only figures are kept. The same
    model, coder, dataset, limit, model in service and corrections give the same id: a second run changes nothing. Raises
    EvaluationError when the model is unknown to the database or has no coder, ModelError or DatasetError when files are altered.
    """
    coder_files = _read_coder(model, storage)
    corrections, in_service = read_held_out(database), _find_opponent(model, storage)
    evaluation_id = _make_id(model, dataset, coder_files, limit, corrections, in_service)
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
                    opener=CoderOpener(note_model, server),
                    corrections=corrections,
                    in_service=in_service,
                )
                scorecard = work.run(evaluation_id, coder_files)
                detail["seconds"] = work.seconds
                storage.publish_folder(Path(folder) / "scorecard", prefix, last="scorecard.json")
        _record(scorecard, storage.uri_of(prefix), database)
    return ScorecardRef(evaluation_id, storage.uri_of(prefix))


class _CoderFiles(NamedTuple):
    """What the fits left for a model: `coder.json`, and `selection.json` where coded notes taught it something."""

    coder: bytes
    selection: bytes | None


def _read_coder(model: ModelRef, storage: Storage) -> _CoderFiles:
    prefix = f"coders/{model.model_id}"
    try:
        coder = storage.read_bytes(f"{prefix}/{CODER_NAME}")
    except ArtifactMissing:
        raise EvaluationError(f"{model.model_id} has no {CODER_NAME}: run `llmcoder fit-coder` on it first") from None
    has_selection = storage.exists(f"{prefix}/{SELECTION_NAME}")
    return _CoderFiles(coder, storage.read_bytes(f"{prefix}/{SELECTION_NAME}") if has_selection else None)


def _find_opponent(model: ModelRef, storage: Storage) -> ModelRef | None:
    """The model in service, unless it is the one that is judged."""
    in_service = read_promoted(storage)
    return in_service if in_service and in_service.model_id != model.model_id else None


def _make_id(
    model: ModelRef,
    dataset: DatasetRef,
    files: _CoderFiles,
    limit: int,
    corrections: Sequence[HeldOut],
    in_service: ModelRef | None,
) -> str:
    hashes = [hashlib.sha256(data).hexdigest() if data is not None else None for data in files]
    inputs: list[Any] = [SCHEMA_VERSION, model.model_id, dataset.dataset_id, hashes, limit]
    # Corrections by the numbers of the audit: a hash of a phrase could be guessed.
    inputs += [in_service.model_id if in_service else None, [(row.action_id, row.code) for row in corrections]]
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
        opener: CoderOpener,
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
        self.limit, self.opener = limit, opener
        self.corrections, self.in_service = corrections, in_service
        self.opponent: CoderRow | None = None
        self.reviewed: ReviewedFigures | None = None
        self.notes_by_source: list[SliceFigures] = []
        self.seconds: dict[str, float] = {}
        self.breadth_seconds: dict[str, float] = {}

    def run(self, evaluation_id: str, files: _CoderFiles) -> Scorecard:
        """Score every row and write `scorecard/` into the work folder."""
        code_set = read_code_set(self.database, self.manifest.release_key)
        data = fetch_dataset(self.storage, self.dataset, self.cache_folder)
        suites = read_suites(data, self.manifest.tables, limit=self.limit)
        stages = self._fetch_stages()
        fit = CoderFit.parse(files.coder)
        selection = Selection.parse(files.selection) if files.selection is not None else None
        rows = _open_rows(stages, code_set, fit, selection, self._open_in_service(code_set), limit=self.limit, opener=self.opener)
        groups = self._group_codes(code_set)
        breadth = self._make_breadth(code_set, groups, data) if groups else None
        outcomes = self._score(rows, suites, breadth, code_set)
        every = [*suites, breadth] if breadth else suites
        scorecard = Scorecard(
            schema_version=SCHEMA_VERSION,
            evaluation_id=evaluation_id,
            model_id=self.model.model_id,
            stage_one_model_id=self.lineage["parent_model_id"] if self.lineage["stage"] == "stage_two" else None,
            dataset_id=self.dataset.dataset_id,
            release_key=code_set.release_key,
            coder_sha256=hashlib.sha256(files.coder).hexdigest(),
            suites_sha256=hash_suites(every),
            suite_sizes={suite.scenario: len(suite.examples) for suite in every},
            cells=build_cells(outcomes, every),
            reviewed=self.reviewed,
            comparison=self._compare(outcomes, groups) if groups else None,
            calibration=_read_calibration(fit),
            provenance=self._describe_provenance(),
        )
        evidence = Evidence(
            titles={code.code: code.long_title for code in code_set.codes},
            # A model behind a server has no curve of ours.
            last_lines={stage: read_last_line(path) for stage, path in _find_curves(stages).items()},
            curves={stage: read_curve(path) for stage, path in _find_curves(stages).items()},
            reliability=[ReliabilityBin(entry.confidence, entry.accuracy, entry.n) for entry in fit.together.reliability],
        )
        self._write(scorecard, outcomes, evidence)
        return scorecard

    def _fetch_stages(self) -> dict[str, Path]:
        """Folders by stage, in order of training; the last one is the model that is evaluated.

        An updated model, or one that learnt notes, stands alone in the row of stage two: what it was before is a model of its own.
        """
        folder = fetch_model(self.storage, self.model.uri, self.cache_folder)
        parent_id = self.lineage["parent_model_id"]
        if self.lineage["stage"] != "stage_two" or not parent_id:
            return {"stage_one" if self.lineage["stage"] == "stage_one" else "stage_two": folder}
        parent = self.database.fetch_one("fetch_judged_model", model_id=parent_id)
        if parent is None:
            raise EvaluationError(f"the table models does not know {parent_id}, from which {self.model.model_id} was trained")
        return {parent["stage"]: fetch_model(self.storage, parent["uri"], self.cache_folder), self.lineage["stage"]: folder}

    def _open_in_service(self, code_set: CodeSet) -> Callable[[], CoderRow] | None:
        """Opens the coder of the model in service under this release, as it would code if it stayed; None without such a model."""
        if self.in_service is None:
            return None
        model = self.in_service

        def open_row() -> CoderRow:
            folder = fetch_model(self.storage, model.uri, self.cache_folder)
            coder = self.opener(folder, code_set)
            self.opponent = CoderRow(IN_SERVICE, coder.predict_together, _note_predictor(coder), self.limit)
            return self.opponent

        return open_row

    def _group_codes(self, code_set: CodeSet) -> CodeGroups | None:
        """What the release changed since the one that the model in service learnt; None without such a model."""
        if self.in_service is None:
            return None
        learnt = read_stored_manifest(self.storage, self.in_service.uri)["release_key"]
        before = read_code_set(self.database, str(learnt)).titles
        return CodeGroups.of_releases(before, code_set, read_successors(self.database, code_set))

    def _make_breadth(self, code_set: CodeSet, groups: CodeGroups, data: Path) -> Suite:
        find_taught = partial(find_taught_texts, data)
        return make_breadth_suite(code_set, groups, seed=self.manifest.seed, find_taught=find_taught)

    def _score(self, rows: Iterable[CoderRow], suites: Sequence[Suite], breadth: Suite | None, code_set: CodeSet) -> list[Outcome]:
        known_codes = frozenset(code.code for code in code_set.codes)
        outcomes: list[Outcome] = []
        for row in track(rows, "evaluating", total=len(CODERS) if breadth else len(CODERS) - 1, unit="coders"):
            started = time.monotonic()
            with made_up_texts(self.cache_folder / "answers"):
                row.prepare(suites)
                for suite in suites:
                    outcomes += row.score(suite, known_codes=known_codes)
                if breadth and row.coder in (IN_SERVICE, CANDIDATE):
                    before = time.process_time()
                    outcomes += score_suite(row.coder, row.phrases, breadth, known_codes=known_codes)
                    self.breadth_seconds[row.coder] = round(time.process_time() - before, 2)
            if row.coder == CANDIDATE:
                self.reviewed = self._judge_corrections(row.phrases, code_set)
                self.notes_by_source = self._judge_notes(row.notes, code_set)
            self.seconds[row.coder] = round(time.monotonic() - started, 1)
            logger.info("%s answered in %.1f s", row.coder, self.seconds[row.coder])
        return outcomes

    def _compare(self, outcomes: Sequence[Outcome], groups: CodeGroups) -> ModelComparison:
        answered = {coder: [outcome for outcome in outcomes if outcome.coder == coder] for coder in (CANDIDATE, IN_SERVICE)}
        return compare_outcomes(
            answered[CANDIDATE],
            answered[IN_SERVICE],
            against_model_id=self.in_service.model_id if self.in_service else "",
            label=groups.label,
            seconds={"ours": self.breadth_seconds[CANDIDATE], "theirs": self.breadth_seconds[IN_SERVICE]},
            notes_by_source=self.notes_by_source,
        )

    def _judge_corrections(self, candidate: Predictor, code_set: CodeSet) -> ReviewedFigures:
        items = bring_up_to_date(self.corrections, self.database, code_set)
        opponent = None
        if items and self.in_service is not None and self.opponent is not None:
            opponent = (self.in_service.model_id, self.opponent.phrases)
        withdrawn = len(self.corrections) - len(items)
        return judge_corrections(items[: self.limit], candidate, opponent, withdrawn=withdrawn)

    def _judge_notes(self, candidate: Predictor, code_set: CodeSet) -> list[SliceFigures]:
        """F1 of both models on coded notes that trained nothing, by the source of their encounters. The texts stay in memory."""
        if self.opponent is None:
            return []
        rows = self.database.fetch_all("list_coded_notes", most_notes=NOTES_READ)
        found: dict[str, list[tuple[str, frozenset[str]]]] = defaultdict(list)
        for row in rows:
            codes = frozenset(code for code in row["codes"] if code in code_set.titles)
            if codes and is_judged_on(row["encounter_id"]) and len(found[row["source"]]) < NOTES_OF_SOURCE:
                found[row["source"]].append((row["note_text"], codes))
        slices = []
        for source, notes in sorted(found.items()):
            texts, true = [text for text, _ in notes], [codes for _, codes in notes]
            answers = [[frozenset(codes) for codes in predict(texts)] for predict in (candidate, self.opponent.notes)]
            scores = [
                (calculate_item_f1(codes, ours), calculate_item_f1(codes, theirs))
                for codes, ours, theirs in zip(true, *answers, strict=True)
            ]
            slices.append(measure_slice(("source", source), scores, [str(number) for number in range(len(scores))]))
        return slices

    def _describe_provenance(self) -> Provenance:
        hash_of = partial(_hash_stored, self.storage)
        recipe = read_stored_manifest(self.storage, self.model.uri).get("recipe_settings", {})
        return Provenance(
            code_version=__version__,
            dataset_seed=self.manifest.seed,
            training_seed=recipe.get("seed"),
            dataset_sha256=hash_of(self.dataset.uri, MANIFEST),
            model_sha256=hash_of(self.model.uri, MANIFEST_NAME),
            against_sha256=hash_of(self.in_service.uri, MANIFEST_NAME) if self.in_service else None,
        )

    def _write(self, scorecard: Scorecard, outcomes: Sequence[Outcome], evidence: Evidence) -> None:
        folder = self.work_folder / "scorecard"
        folder.mkdir()
        write_outcomes(outcomes, folder / "outcomes.parquet")
        (folder / "report.html").write_text(render_report(scorecard, evidence), encoding="utf-8")
        (folder / "scorecard.json").write_text(scorecard.to_json(), encoding="utf-8")


def _find_curves(stages: Mapping[str, Path]) -> dict[str, Path]:
    return {stage: folder / CURVE_NAME for stage, folder in stages.items() if (folder / CURVE_NAME).is_file()}


def _hash_stored(storage: Storage, uri: str, name: str) -> str:
    return hashlib.sha256(storage.read_bytes(f"{storage.key_of(uri)}/{name}")).hexdigest()


def _read_calibration(fit: CoderFit) -> CalibrationFigures:
    phrases, threshold = fit.together.sum_kinds(PHRASE_KINDS), fit.together.threshold
    return CalibrationFigures(fit.together.expected_error, phrases.accepted / max(1, phrases.n), threshold.error_bound)


def _open_rows(
    stages: Mapping[str, Path],
    code_set: CodeSet,
    fit: CoderFit,
    selection: Selection | None,
    open_in_service: Callable[[], CoderRow] | None,
    *,
    limit: int,
    opener: CoderOpener,
) -> Iterator[CoderRow]:
    """The rows of a scorecard in the order of CODERS, each opened when its turn comes. Raises ModelError."""
    *_, folder = stages.values()
    untrained = open_untrained(folder, opener.server)
    answer = partial(untrained.predict, trie=None)
    yield CoderRow("untrained", answer, answer, min(limit, UNTRAINED_LIMIT), _ask_ahead(untrained))
    coder = Coder.open(folder, code_set, fit=fit, selection=selection, note_model=opener.note_model, server=opener.server)
    words_alone = Coder(code_set, index=coder.index, fit=fit)
    yield CoderRow("lexical", coder.predict_lexical, _note_predictor(words_alone), limit)
    for stage, path in stages.items():
        model = open_model(path, opener.server)
        trie = model.allow(code.code for code in code_set.billable)
        # A model alone answers a note as one long phrase, from the note's beginning.
        yield CoderRow(stage, ModelAlone(model, trie).predict, partial(model.predict, trie=trie), limit, _ask_ahead(model))
    if open_in_service is not None:
        yield open_in_service()
    yield CoderRow("together", coder.predict_together, _note_predictor(coder), limit)


def _ask_ahead(model: CodingModel) -> Predictor | None:
    return model.read_codes if isinstance(model, FreeWriter) else None


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
