"""What tests of judging share: coders that look answers up, scorecards with known errors, models that were trained."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from sqlalchemy import text

from llmcoder_tasks.database import Database
from llmcoder_tasks.evaluation.comparison import ModelComparison, compare_outcomes
from llmcoder_tasks.evaluation.outcomes import Outcome, score_suite, write_outcomes
from llmcoder_tasks.evaluation.registry import read_promoted
from llmcoder_tasks.evaluation.scorecard import SCHEMA_VERSION, CalibrationFigures, Provenance, Scorecard, build_cells
from llmcoder_tasks.evaluation.suites import Suite, hash_suites
from llmcoder_tasks.model.manifest import write_manifest
from llmcoder_tasks.records import Example, ModelRef, ScorecardRef
from llmcoder_tasks.storage import Storage

RIGHT, WRONG, KNOWN_CODES = "E119", "I10", {"E11", "E119", "I10"}


class LookupPredictor:
    """A coder that answers from a table and counts how often it is asked."""

    def __init__(self, answers: Mapping[str, tuple[str, ...]]) -> None:
        self.answers = answers
        self.calls = 0

    def __call__(self, texts: Sequence[str]) -> list[tuple[str, ...]]:
        self.calls += 1
        return [self.answers[text] for text in texts]


def make_suite(scenario: str, n: int, *, first: int = 0, has_own_codes: bool = False) -> Suite:
    """`n` items of one scenario, numbered from `first`; each has the one code RIGHT, or a code of its own."""
    codes = {i: f"A{i:04d}" if has_own_codes else RIGHT for i in range(first, first + n)}
    examples = (Example(f"{scenario}-{i}", scenario, "test", f"{scenario} text {i}", (code,)) for i, code in codes.items())
    return Suite(scenario, tuple(examples))


def answer_suite(coder: str, suite: Suite, wrong: int) -> list[Outcome]:
    """The outcomes of a coder that has the first `wrong` items wrong."""
    answers = {example.text: (WRONG,) if i < wrong else example.codes for i, example in enumerate(suite.examples)}
    known = KNOWN_CODES.union(*(example.codes for example in suite.examples))
    return score_suite(coder, LookupPredictor(answers), suite, known_codes=known)


def make_scorecard(
    outcomes: Sequence[Outcome],
    suites: Sequence[Suite],
    *,
    model_id: str,
    evaluation_id: str,
    coder_json: bytes,
    comparison: ModelComparison | None = None,
    calibration: CalibrationFigures | None = None,
) -> Scorecard:
    """A scorecard of outcomes."""
    return Scorecard(
        schema_version=SCHEMA_VERSION,
        evaluation_id=evaluation_id,
        model_id=model_id,
        stage_one_model_id=None,
        dataset_id="d1",
        release_key="FY2026-April",
        coder_sha256=hashlib.sha256(coder_json).hexdigest(),
        suites_sha256=hash_suites(suites),
        suite_sizes={suite.scenario: len(suite.examples) for suite in suites},
        cells=build_cells(outcomes, suites),
        comparison=comparison,
        calibration=calibration,
        provenance=Provenance("1.0", 0, 20260401, "d" * 64, "a" * 64, None),
    )


class TrainedModels:
    """Stores and a database in which models were trained, fitted and evaluated."""

    def __init__(self, storage: Storage, database: Database, folder: Path) -> None:
        self.storage, self.database, self.folder = storage, database, folder
        self.answered: dict[str, dict[str, int]] = {}
        with database.transaction() as transaction:
            transaction.run_script(
                """
                INSERT INTO releases (release_key, effective_from, source, content_sha256, code_count, billable_count, uri)
                VALUES ('FY2026-April', '2026-04-01', 'test', 'x', 3, 2, 'file:///x');
                INSERT INTO datasets (dataset_id, release_key, uri, manifest) VALUES ('d1', 'FY2026-April', 'file:///x', '{}');
                """
            )

    def train(self, model_id: str) -> ModelRef:
        """A model folder in the store, its coder, and its row."""
        folder = self.folder / model_id
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(model_id.encode())
        (folder / "config.json").write_text("{}")
        write_manifest(folder, {"model_id": model_id, "release_key": "FY2026-April", "recipe": "compact"})
        self.storage.publish_folder(folder, f"training/{model_id}", last="manifest.json")
        self.storage.write_bytes(f"coders/{model_id}/coder.json", self.coder_json(model_id))
        uri = self.storage.uri_of(f"training/{model_id}")
        with self.database.engine.begin() as connection:
            connection.execute(
                text(
                    "INSERT INTO models (model_id, release_key, dataset_id, recipe, stage, uri, manifest) "
                    "VALUES (:model_id, 'FY2026-April', 'd1', 'compact', 'stage_one', :uri, '{}')"
                ),
                {"model_id": model_id, "uri": uri},
            )
        return ModelRef(model_id, uri)

    def coder_json(self, model_id: str) -> bytes:
        """What `fit_coder` left for a model."""
        return json.dumps({"model_id": model_id}).encode()

    def evaluate(
        self, model_id: str, wrong: Mapping[str, int], *, n: int = 200, first: int = 0, baseline_wrong: int | None = None
    ) -> ScorecardRef:
        """A scorecard with `n` items a scenario, of which together has `wrong` and lexical `baseline_wrong` (or as many) wrong.

        The model in service answers the same items as it answered its own.
        """
        suites = [make_suite(scenario, n, first=first, has_own_codes=True) for scenario in wrong]
        outcomes = [
            outcome
            for coder in ("lexical", "together")
            for suite in suites
            for outcome in answer_suite(
                coder, suite, wrong[suite.scenario] if coder == "together" or baseline_wrong is None else baseline_wrong
            )
        ]
        evaluation_id = f"{model_id}-{hashlib.sha256(repr((wrong, n, first, baseline_wrong)).encode()).hexdigest()[:8]}"
        coder_json = self.coder_json(model_id)
        comparison = self._compare(model_id, outcomes, suites)
        self.answered[model_id] = dict(wrong)
        scorecard = make_scorecard(
            outcomes, suites, model_id=model_id, evaluation_id=evaluation_id, coder_json=coder_json, comparison=comparison
        )
        write_outcomes(outcomes, self.folder / "outcomes.parquet")
        prefix = f"scorecards/{evaluation_id}"
        self.storage.publish_file(self.folder / "outcomes.parquet", f"{prefix}/outcomes.parquet")
        self.storage.write_bytes(f"{prefix}/scorecard.json", scorecard.to_json().encode())
        self.database.execute(
            "record_scorecard",
            {
                "evaluation_id": evaluation_id,
                "model_id": model_id,
                "dataset_id": "d1",
                "suites_sha256": scorecard.suites_sha256,
                "uri": self.storage.uri_of(prefix),
                "scorecard": scorecard.to_json(),
            },
        )
        return ScorecardRef(evaluation_id, self.storage.uri_of(prefix))

    def _compare(self, model_id: str, outcomes: Sequence[Outcome], suites: Sequence[Suite]) -> ModelComparison | None:
        opponent = read_promoted(self.storage)
        if opponent is None or opponent.model_id == model_id:
            return None
        wrong = self.answered[opponent.model_id]
        theirs = [outcome for suite in suites for outcome in answer_suite("in_service", suite, wrong[suite.scenario])]
        ours = [outcome for outcome in outcomes if outcome.coder == "together"]
        return compare_outcomes(
            ours, theirs, against_model_id=opponent.model_id, label=lambda code: (), seconds={"ours": 1.0, "theirs": 1.0}
        )
