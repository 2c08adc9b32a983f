"""A scorecard → PROMOTE, HOLD or REJECT, with reasons."""

from __future__ import annotations

import json
import logging
import tempfile
from pathlib import Path

from llmcoder_tasks.database import Database
from llmcoder_tasks.evaluation.gate import Gate, judge
from llmcoder_tasks.evaluation.outcomes import Outcome, read_outcomes
from llmcoder_tasks.evaluation.registry import Promotion, read_standing
from llmcoder_tasks.evaluation.scorecard import parse_scorecard
from llmcoder_tasks.evaluation.verdict import SCHEMA_VERSION, Verdict, make_verdict_id, parse_verdict, verdict_key
from llmcoder_tasks.progress import record_step
from llmcoder_tasks.records import ScorecardRef, VerdictRef
from llmcoder_tasks.storage import Storage

logger = logging.getLogger(__name__)


def judge_model(scorecard: ScorecardRef, *, gate: Gate, storage: Storage, database: Database) -> VerdictRef:
    """Judge a scorecard by a gate and against the model in service; keep the verdict with its reasons.

    The same scorecard, gate and model in service give the same verdict: a second run changes nothing. Raises EvaluationError on a
    malformed scorecard, or one that was not made beside the model in service on the same items; ArtifactMissing when there is none.
    """
    with record_step(database, "judge_model", scorecard.evaluation_id) as detail:
        in_service = read_standing(storage).promotion
        key = verdict_key(scorecard.evaluation_id, make_verdict_id(scorecard.evaluation_id, gate, in_service))
        if storage.exists(key):
            verdict = parse_verdict(storage.read_bytes(key))
            logger.info("verdict %s is already given: nothing to judge", verdict.verdict_id)
        else:
            verdict = _judge(scorecard, gate, in_service, storage)
            storage.write_bytes(key, verdict.to_json().encode())
        database.execute(
            "record_verdict",
            {
                "verdict_id": verdict.verdict_id,
                "evaluation_id": verdict.evaluation_id,
                "model_id": verdict.model_id,
                "against_model_id": verdict.against_model_id,
                "decision": verdict.decision,
                "reasons": json.dumps(verdict.reasons),
            },
        )
        detail["decision"] = verdict.decision
    for reason in verdict.reasons:
        logger.info("%s: %s", verdict.decision, reason)
    return VerdictRef(verdict.verdict_id, verdict.decision)


def _judge(reference: ScorecardRef, gate: Gate, in_service: Promotion | None, storage: Storage) -> Verdict:
    prefix = f"scorecards/{reference.evaluation_id}"
    scorecard = parse_scorecard(storage.read_bytes(f"{prefix}/scorecard.json"))
    outcomes = _read_outcomes(storage, reference.evaluation_id)
    decision, reasons = judge(gate, scorecard, outcomes, in_service.model_id if in_service else None)
    return Verdict(
        schema_version=SCHEMA_VERSION,
        verdict_id=make_verdict_id(reference.evaluation_id, gate, in_service),
        evaluation_id=reference.evaluation_id,
        model_id=scorecard.model_id,
        against_model_id=in_service.model_id if in_service else None,
        gate_name=gate.name,
        gate_version=gate.version,
        gate_sha256=gate.sha256,
        decision=decision,
        reasons=reasons,
        dataset_id=scorecard.dataset_id,
        suites_sha256=scorecard.suites_sha256,
        items_sha256=scorecard.comparison.items_sha256 if scorecard.comparison else None,
        coder_sha256=scorecard.coder_sha256,
        provenance=scorecard.provenance,
    )


def _read_outcomes(storage: Storage, evaluation_id: str) -> list[Outcome]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "outcomes.parquet"
        storage.fetch_file(f"scorecards/{evaluation_id}/outcomes.parquet", path)
        return read_outcomes(path)
