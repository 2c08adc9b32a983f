"""Which codes are held out: decided by a hash of the code, so that it never depends on order, count or release."""

from __future__ import annotations

import hashlib

from llmcoder_tasks.records import Split

JUDGED_SHARE = 0.2
"""Share of the encounters whose corrections are held out."""


def split_of(code: str, *, seed: int, held_out_share: float) -> Split:
    """The split that all variations of a code belong to. `held_out_share` is the share of test, and again of validation."""
    position = _position(f"{seed}/{code}")
    if position < held_out_share:
        return "test"
    return "validation" if position < 2 * held_out_share else "train"


def is_judged_on(encounter_id: str) -> bool:
    """Whether what people corrected in an encounter judges models, and so trains none: for ever, whatever comes beside it."""
    return _position(f"reviews/{encounter_id}") < JUDGED_SHARE


def split_of_patient(patient_id: str) -> Split:
    """The split of all notes of a patient: 80 in a hundred patients train, 10 validate, 10 test; for ever."""
    position = _position(f"patients/{patient_id}")
    if position < 0.1:
        return "test"
    return "validation" if position < 0.2 else "train"


def sampling_order(example_id: str) -> bytes:
    """Sort key under which the first rows of a table, or of any split of it, are a fair sample of the whole."""
    return hashlib.sha256(example_id.encode()).digest()


def _position(key: str) -> float:
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "big") / 2**56
