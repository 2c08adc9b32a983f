"""The verdict as a versioned document: it lies beside its scorecard, and goes with the model when that is published."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from llmcoder_tasks.errors import EvaluationError
from llmcoder_tasks.evaluation.against_service import Decision
from llmcoder_tasks.evaluation.gate import Gate
from llmcoder_tasks.evaluation.registry import Promotion
from llmcoder_tasks.evaluation.scorecard import Provenance

SCHEMA_VERSION = 2


@dataclass(frozen=True, slots=True)
class Verdict:
    """The gate's answer on one scorecard, given while `against_model_id` (None: no model) was in service.

    `suites_sha256` and `items_sha256` are over what was judged: the suites, and the items that both models answered (None: there
    was no other). `coder_sha256` is of the `coder.json` that is promoted with the model.
    """

    schema_version: int
    verdict_id: str
    evaluation_id: str
    model_id: str
    against_model_id: str | None
    gate_name: str
    gate_version: int
    gate_sha256: str
    decision: Decision
    reasons: tuple[str, ...]
    dataset_id: str
    suites_sha256: str
    items_sha256: str | None
    coder_sha256: str
    provenance: Provenance | None

    def to_json(self) -> str:
        """The verdict as JSON."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"


def make_verdict_id(evaluation_id: str, gate: Gate, in_service: Promotion | None) -> str:
    """The same for the same scorecard, gate and model in service."""
    against = [in_service.model_id, in_service.evaluation_id] if in_service else []
    return f"{evaluation_id}-{hashlib.sha256(json.dumps([gate.sha256, *against]).encode()).hexdigest()[:8]}"


def verdict_key(evaluation_id: str, verdict_id: str) -> str:
    """Where a verdict lies in the artifact store."""
    return f"scorecards/{evaluation_id}/verdicts/{verdict_id}.json"


def parse_verdict(data: bytes) -> Verdict:
    """The inverse of `Verdict.to_json`. Raises EvaluationError on a malformed document or another schema version."""
    try:
        document = json.loads(data)
        if document["schema_version"] != SCHEMA_VERSION:
            raise EvaluationError(
                f"verdict of schema version {document['schema_version']}, this program reads {SCHEMA_VERSION}: judge again"
            )
        known = Provenance(**document["provenance"]) if document["provenance"] else None
        return Verdict(**{**document, "reasons": tuple(document["reasons"]), "provenance": known})
    except (ValueError, TypeError, KeyError) as error:
        raise EvaluationError(f"not a verdict ({type(error).__name__}): judge the scorecard again") from error
