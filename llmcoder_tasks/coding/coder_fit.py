"""What a coder has learnt from validation items beside its language model: `coder.json`, with its evidence."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llmcoder_tasks.coding.calibration import Calibration, fit_calibration
from llmcoder_tasks.coding.combination import LEXICAL_FEATURES, TOGETHER_FEATURES, Judged, describe, fit_weight, rank
from llmcoder_tasks.errors import ModelError

CODER_NAME = "coder.json"
SCHEMA_VERSION = 1
FIT_VERSION = 1
"""Raise it with every change that alters what is fitted: it is part of the fingerprint."""


@dataclass(frozen=True, slots=True)
class CoderFit:
    """The weight between similarity and language model, and a calibration for each way of coding."""

    fingerprint: str
    model_id: str
    dataset_id: str
    release_key: str
    weight: float
    lexical: Calibration
    together: Calibration

    def render(self) -> bytes:
        """The bytes of `coder.json`: the same fit gives the same bytes."""
        document: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "fingerprint": self.fingerprint,
            "model_id": self.model_id,
            "dataset_id": self.dataset_id,
            "release_key": self.release_key,
            "weight": self.weight,
            "lexical": self.lexical.to_document(),
            "together": self.together.to_document(),
        }
        return (json.dumps(document, indent=2, sort_keys=True) + "\n").encode()

    @classmethod
    def parse(cls, data: bytes) -> CoderFit:
        """The inverse of `render`. Raises ModelError."""
        try:
            document = json.loads(data)
            if document["schema_version"] != SCHEMA_VERSION:
                found = document["schema_version"]
                raise ModelError(f"coder.json has schema version {found}, this program reads {SCHEMA_VERSION}: fit the coder again")
            return cls(
                fingerprint=str(document["fingerprint"]),
                model_id=str(document["model_id"]),
                dataset_id=str(document["dataset_id"]),
                release_key=str(document["release_key"]),
                weight=float(document["weight"]),
                lexical=Calibration.from_document(document["lexical"]),
                together=Calibration.from_document(document["together"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise ModelError(f"coder.json is malformed ({type(error).__name__}: {error}): run `llmcoder fit-coder` again") from None


@dataclass(frozen=True, slots=True)
class ValidationItem:
    """A phrase with its true code ("" where it names no condition), judged by words alone and with the language model."""

    truth: str
    lexical: Judged
    together: Judged


def fit_weight_and_calibrations(items: Sequence[ValidationItem]) -> tuple[float, Calibration, Calibration]:
    """The weight, the lexical calibration and that of both together. Items without any candidate teach nothing and are left out."""
    found = [item for item in items if item.lexical.candidates]
    named = [item for item in found if item.truth]
    weight = fit_weight([item.together for item in named], [item.truth for item in named])
    truths = [item.truth for item in found]
    lexical = _calibrate(LEXICAL_FEATURES, [item.lexical for item in found], truths, weight)
    together = _calibrate(TOGETHER_FEATURES, [item.together for item in found], truths, weight)
    return weight, lexical, together


def _calibrate(names: Sequence[str], judged: Sequence[Judged], truths: Sequence[str], weight: float) -> Calibration:
    answers = [rank(item, weight)[0] for item in judged]
    rows = [describe(item, answer) for item, answer in zip(judged, answers, strict=True)]
    right = [item.candidates[answer].code == truth for item, answer, truth in zip(judged, answers, truths, strict=True)]
    return fit_calibration(names, rows, right)


def scramble(text: str) -> str:
    """A text of the same shape that names no condition: each word backwards. It teaches what strangeness looks like."""
    return " ".join(word[::-1] for word in text.split())
