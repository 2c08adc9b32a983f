"""An encounter's codes as a FHIR R4 Bundle: a transaction that a FHIR server takes as it is, and takes twice without harm.

One Condition for each code, put under an id that follows from encounter and code, so that a second export replaces the first; a
DELETE for each code that an earlier export had and this one has not; one Provenance that names the model, the release and the
person. Offsets into the note go along, its text never.

Checked by `fhir.resources`, against its R4B model (4.3.0): of what stands here, Bundle, Condition and Provenance are the same in R4
(4.0.1), which the package does not carry any more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from llmcoder_tasks.errors import ExportError
from llmcoder_tasks.records import render_code

ICD10CM_SYSTEM = "http://hl7.org/fhir/sid/icd-10-cm"
EVIDENCE_EXTENSION = "urn:llmcoder:fhir:StructureDefinition:evidence"
RANK_EXTENSION = "urn:llmcoder:fhir:StructureDefinition:rank"

_TERMINOLOGY = "http://terminology.hl7.org/CodeSystem"


@dataclass(frozen=True, slots=True)
class FinalCode:
    """A code that stands. `origin` is `auto` when no person looked at the note, else how it came into the review."""

    code: str
    title: str
    rank: int
    origin: str
    confidence: float | None
    evidence_start: int | None
    evidence_end: int | None


@dataclass(frozen=True, slots=True)
class FinalEncounter:
    """An encounter whose codes are final, and who says so: the model alone (`finished_by` None) or a person.

    `settled_at` is when: the end of the review, or the hour of coding. `review_version` is 0 without a review. `withdrawn` are the
    codes that the encounter's last export had and this one has not.
    """

    encounter_id: str
    patient_id: str | None
    discharge_date: date
    note_sha256: str
    model_id: str
    release_key: str
    review_version: int
    finished_by: str | None
    settled_at: datetime
    withdrawn: tuple[str, ...]
    codes: tuple[FinalCode, ...]


def make_bundle(encounter: FinalEncounter) -> dict[str, Any]:
    """The Bundle of one encounter, as JSON values; not yet checked."""
    puts = [_put(_condition(encounter, code)) for code in encounter.codes]
    deletes = [
        {"request": {"method": "DELETE", "url": f"Condition/{_id(encounter.encounter_id, code)}"}} for code in encounter.withdrawn
    ]
    provenance = [_put(_provenance(encounter))] if encounter.codes else []
    return {"resourceType": "Bundle", "type": "transaction", "entry": [*puts, *deletes, *provenance]}


def verify_bundle(bundle: dict[str, Any]) -> None:
    """Raise ExportError when a Bundle is none, with the places and kinds of the faults, never a value."""
    from fhir.resources.R4B.bundle import Bundle
    from pydantic import ValidationError

    try:
        Bundle.model_validate(bundle)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(str(part) for part in fault['loc'])}: {fault['type']}"
            for fault in error.errors(include_input=False, include_url=False)[:3]
        )
        raise ExportError(f"a bundle is no FHIR R4 ({faults}): this is a fault of LLMCoder, report it") from None


def _condition(encounter: FinalEncounter, code: FinalCode) -> dict[str, Any]:
    certainty = "confirmed" if encounter.finished_by else "provisional"
    condition: dict[str, Any] = {
        "resourceType": "Condition",
        "id": _id(encounter.encounter_id, code.code),
        "extension": [{"url": RANK_EXTENSION, "valuePositiveInt": code.rank}],
        "clinicalStatus": _concept("condition-clinical", "active"),
        "verificationStatus": _concept("condition-ver-status", certainty),
        "category": [_concept("condition-category", "encounter-diagnosis")],
        "code": {
            "coding": [
                {
                    "system": ICD10CM_SYSTEM,
                    "version": encounter.release_key,
                    "code": render_code(code.code),
                    "display": code.title,
                }
            ]
        },
        "subject": _reference("Patient", encounter.patient_id),
        "encounter": _reference("Encounter", encounter.encounter_id),
        "recordedDate": encounter.settled_at.isoformat(),
    }
    if encounter.finished_by:
        condition["recorder"] = {"type": "Practitioner", "display": encounter.finished_by}
    if code.evidence_start is not None:
        condition["extension"].append(_evidence(encounter, code))
    return condition


def _evidence(encounter: FinalEncounter, code: FinalCode) -> dict[str, Any]:
    """Character offsets into the note of that hash, end exclusive."""
    return {
        "url": EVIDENCE_EXTENSION,
        "extension": [
            {"url": "start", "valueUnsignedInt": code.evidence_start},
            {"url": "end", "valueUnsignedInt": code.evidence_end},
            {"url": "noteSha256", "valueString": encounter.note_sha256},
        ],
    }


def _provenance(encounter: FinalEncounter) -> dict[str, Any]:
    agents = [{"type": _concept("provenance-participant-type", "assembler"), "who": _reference("Device", encounter.model_id)}]
    if encounter.finished_by:
        who = {"type": "Practitioner", "display": encounter.finished_by}
        agents.append({"type": _concept("provenance-participant-type", "verifier"), "who": who})
    return {
        "resourceType": "Provenance",
        "id": _id(encounter.encounter_id, "provenance"),
        "target": [{"reference": f"Condition/{_id(encounter.encounter_id, code.code)}"} for code in encounter.codes],
        "recorded": encounter.settled_at.isoformat(),
        "agent": agents,
    }


def _put(resource: dict[str, Any]) -> dict[str, Any]:
    return {"resource": resource, "request": {"method": "PUT", "url": f"{resource['resourceType']}/{resource['id']}"}}


def _reference(kind: str, identifier: str | None) -> dict[str, Any]:
    """A logical reference: a hospital's own id is no id on its FHIR server."""
    return {"type": kind, "identifier": {"value": identifier}} if identifier else {"type": kind, "display": "unknown"}


def _concept(system: str, code: str) -> dict[str, Any]:
    return {"coding": [{"system": f"{_TERMINOLOGY}/{system}", "code": code}]}


def _id(encounter_id: str, what: str) -> str:
    return hashlib.sha256(f"{encounter_id}\0{what}".encode()).hexdigest()[:32]


def sort_codes(codes: Sequence[FinalCode]) -> tuple[FinalCode, ...]:
    """By rank, the principal diagnosis first."""
    return tuple(sorted(codes, key=lambda code: (code.rank, code.code)))
