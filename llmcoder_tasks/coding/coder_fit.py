"""What a coder has learnt from validation items beside its language model: `coder.json`, with its evidence."""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmcoder_tasks.coding.calibration import Calibration, Observation, fit_calibration
from llmcoder_tasks.coding.combination import LEXICAL_FEATURES, TOGETHER_FEATURES, Judged, describe, fit_weight, rank
from llmcoder_tasks.errors import ModelError

CODER_NAME = "coder.json"
SCHEMA_VERSION = 2
FIT_VERSION = 2
"""Raise it with every change that alters what is fitted: it is part of the fingerprint."""

_ENCOUNTER = re.compile(r", (?:(?:initial|subsequent) encounter\b.*|sequela)$")
_SIDE = re.compile(r"(?:,| of)? \b(?:left|right|bilateral)(?=,|$)|,? \b(?:left|right)(?= )")


@dataclass(frozen=True, slots=True)
class CoderFit:
    """The weight between similarity and language model, and a calibration for each way of coding.

    `known_codes` are the billable codes of the release that the model was trained on: of others it knows nothing.
    """

    fingerprint: str
    model_id: str
    dataset_id: str
    release_key: str
    weight: float
    lexical: Calibration
    together: Calibration
    known_codes: frozenset[str] = frozenset()

    def knows(self, code: str) -> bool:
        """Whether the release that the model was trained on held a code. A fit without any list knows every code."""
        return not self.known_codes or code in self.known_codes

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
            "known_codes": pack_codes(self.known_codes),
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
                known_codes=unpack_codes(document["known_codes"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise ModelError(f"coder.json is malformed ({type(error).__name__}: {error}): run `llmcoder fit-coder` again") from None


def pack_codes(codes: Collection[str]) -> str:
    """Codes as one string, the same for the same codes: a whole release takes less than a quarter of a megabyte."""
    return base64.b64encode(zlib.compress(" ".join(sorted(codes)).encode(), 9)).decode()


def unpack_codes(packed: str) -> frozenset[str]:
    """The inverse of `pack_codes`. Raises ValueError on another string."""
    try:
        return frozenset(zlib.decompress(base64.b64decode(packed)).decode().split())
    except zlib.error as error:
        raise ValueError(f"the list of known codes cannot be unpacked ({error})") from None


PHRASE_KINDS = ("base", "reordered", "abbreviations", "typos", "sentences")
"""Kinds of item that say one condition in full."""


@dataclass(frozen=True, slots=True)
class ValidationItem:
    """A text of one condition, judged by words alone and with the language model. `truths` are the codes that are right: none where
    the text names no condition. Items of one `source` are of one code: all are learnt from, or all are kept for the evidence.
    """

    kind: str
    source: str
    truths: frozenset[str]
    lexical: Judged
    together: Judged

    @property
    def is_held_out(self) -> bool:
        """Whether the item is kept for threshold and evidence: half of the sources are."""
        return bool(zlib.crc32(self.source.encode()) & 1)


def fit_weight_and_calibrations(
    items: Sequence[ValidationItem], titles: Mapping[str, str]
) -> tuple[float, Calibration, Calibration]:
    """The weight, the lexical calibration and that of both together. Items without any candidate teach nothing and are left out.

    `titles` are those of the release's billable codes.
    """
    found = [item for item in items if item.lexical.candidates]
    named = [item for item in found if len(item.truths) == 1 and not item.is_held_out]
    weight = fit_weight([item.together for item in named], [next(iter(item.truths)) for item in named])
    lexical = _observe([(item, item.lexical) for item in found], titles, weight)
    together = _observe([(item, item.together) for item in found], titles, weight)
    return weight, fit_calibration(LEXICAL_FEATURES, lexical), fit_calibration(TOGETHER_FEATURES, together)


def _observe(judged: Sequence[tuple[ValidationItem, Judged]], titles: Mapping[str, str], weight: float) -> list[Observation]:
    observations = []
    for item, judgement in judged:
        answer = rank(judgement, weight)[0]
        code = judgement.candidates[answer].code
        features = describe(judgement, answer, titles[code])
        observations.append(Observation(features, code in item.truths, item.kind, item.is_held_out))
    return observations


def scramble(text: str) -> str:
    """A text of the same shape that names no condition: each word backwards. It teaches what strangeness looks like."""
    return " ".join(word[::-1] for word in text.split())


def shorten(title: str) -> str:
    """One or two words of a title, the same at each call: they name no condition in full. It teaches what too little looks like."""
    words = title.split()
    start = zlib.crc32(title.encode()) % max(1, len(words) - 1)
    return " ".join(words[start : start + 1 + len(title) % 2])


def leave_out(title: str) -> str:
    """A title without side and encounter, as people in haste write it; the title itself where it has neither."""
    return _SIDE.sub("", _ENCOUNTER.sub("", title))
