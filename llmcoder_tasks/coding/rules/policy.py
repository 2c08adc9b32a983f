"""What a place codes by choice: the rules that differ between payers, countries and purposes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CodingPolicy:
    """The defaults are those of a stay in a US hospital.

    `code_symptoms`: symptoms stand beside the diagnosis that explains them (a registry of every mention; guideline I.B.5 says no).
    `keep_unspecified`: an unspecified code stays beside a specific one of its category.
    `presume_links`: two conditions that the classification joins by "with" are taken as linked (guideline I.A.15).
    `resolve_excludes1`: of two codes that exclude each other the clearly less sure one goes (else both stay, flagged).
    """

    code_symptoms: bool = False
    keep_unspecified: bool = False
    presume_links: bool = True
    resolve_excludes1: bool = True


US_INPATIENT = CodingPolicy()
EVERY_MENTION = CodingPolicy(code_symptoms=True, keep_unspecified=True, presume_links=False, resolve_excludes1=False)
"""For registries and data sets that code each mention for itself."""

POLICIES = {"us-inpatient": US_INPATIENT, "every-mention": EVERY_MENTION}
