"""Rules about codes that belong together: combination codes, presumed links, and pairs that exclude each other."""

from __future__ import annotations

from itertools import combinations

from llmcoder_tasks.coding.rules.draft import Draft, Proposed, shown

_HEART_FAILURE = ("I50",)
_END_STAGE = ("N185", "N186")
_DIABETES = ("E08", "E09", "E10", "E11", "E13")
_LOWER_AIRWAY_INFECTIONS = ("J12", "J13", "J14", "J15", "J16", "J17", "J18", "J20", "J21", "J22")

_WITH_DIABETES = (
    # (the complication, what follows the category of diabetes, whether the combination says it all)
    (("N18",), "22", False),
    (("G629", "G63"), "42", True),
    (("K3184",), "43", False),
    (("I739",), "51", True),
    (("L974", "L975"), "621", False),
    (("R739",), "65", True),
)
"""Index, `Diabetes, with`: kidney disease, polyneuropathy, gastroparesis, peripheral angiopathy, foot ulcer, hyperglycemia."""

_CLEARLY_SURER = 0.25


def combine_hypertension(draft: Draft) -> None:
    """Hypertension with heart failure is I11.0, with chronic kidney disease I12, with both I13. Guideline I.C.9.a: the link is
    presumed. The codes of the failure and of the stage stay.
    """
    if draft.policy.presume_links:
        _presume_hypertension(draft)
    for item in draft.find("I10"):
        for holder in draft.find("I11", "I12", "I13")[:1]:
            draft.remove(item, "hypertension_with", f"{shown(holder.code)} holds it", holder)


def _presume_hypertension(draft: Draft) -> None:
    for item in draft.find("I10", "I11", "I12"):
        failure, kidney = draft.find(*_HEART_FAILURE), draft.find("N18")
        has_heart = bool(failure) or item.code == "I110"
        has_kidney = bool(kidney) or item.code.startswith("I12")
        is_end_stage = bool(draft.find(*_END_STAGE)) or item.code == "I120"
        code = _hypertension_code(has_heart, has_kidney, is_end_stage)
        reasons = [part for part in (*failure[:1], *kidney[:1])]
        if code and code[:3] > item.code[:3] and reasons:
            parts = shown(item.code, *(part.code for part in reasons))
            draft.swap(item, code, "hypertension_with", f"inferred from {parts}: the link is presumed", reasons[-1])


def _hypertension_code(has_heart: bool, has_kidney: bool, is_end_stage: bool) -> str | None:
    if has_heart and has_kidney:
        return "I132" if is_end_stage else "I130"
    if has_kidney:
        return "I120" if is_end_stage else "I129"
    return "I110" if has_heart else None


def combine_diabetes(draft: Draft) -> None:
    """Diabetes with a complication that the index lists under `with` is one code. Guideline I.A.15: the link is presumed."""
    if not draft.policy.presume_links:
        return
    for complications, ending, says_all in _WITH_DIABETES:
        diabetes, complication = draft.find(*_DIABETES)[:1], draft.find(*complications)[:1]
        if not diabetes or not complication:
            continue
        item, other = diabetes[0], complication[0]
        if other.code.startswith("L97") and draft.find(*(f"{category}5" for category in _DIABETES)):
            continue  # the angiopathy explains the ulcer
        code = item.code[:3] + ending
        reason = f"inferred from {shown(item.code, other.code)}: the link is presumed"
        if item.code.endswith("9") and len(item.code) == len("E119"):
            draft.swap(item, code, "diabetes_with", reason, other)
        else:
            draft.add(item, code, "diabetes_with", reason, other)
        if says_all and draft.find(code):
            draft.remove(other, "diabetes_with", f"{shown(code)} says it", draft.find(code)[0])


def combine_lung_disease(draft: Draft) -> None:
    """Chronic obstructive pulmonary disease with an acute lower respiratory infection is J44.0, beside the infection.
    Tabular list, J44.0; guideline I.C.10.a.
    """
    for item in draft.find("J449"):
        for infection in draft.find(*_LOWER_AIRWAY_INFECTIONS)[:1]:
            reason = f"inferred from {shown(item.code, infection.code)}"
            draft.swap(item, "J440", "lung_disease_with_infection", reason, infection)


def settle_excludes1(draft: Draft) -> None:
    """Two codes of which the tabular list excludes one from the other (Excludes1) are not reported together: the clearly less sure
    one goes, or both are flagged. Guideline I.A.12.a. Excludes2 allows both.
    """
    for one, two in list(combinations(draft.items, 2)):
        if one not in draft.items or two not in draft.items or not _exclude(draft, one, two):
            continue
        keep, drop = (one, two) if _strength(one) >= _strength(two) else (two, one)
        if draft.policy.resolve_excludes1 and _strength(keep) - _strength(drop) >= _CLEARLY_SURER:
            reason = f"the tabular list excludes it beside {shown(keep.code)} (Excludes1), which is surer"
            draft.remove(drop, "excludes1", reason, keep)
        else:
            draft.flag(drop, "excludes1", f"the tabular list excludes it beside {shown(keep.code)} (Excludes1): choose one", keep)


def _exclude(draft: Draft, one: Proposed, two: Proposed) -> bool:
    notes = draft.book.notes
    return notes.names(one.code, "excludes1", two.code) or notes.names(two.code, "excludes1", one.code)


def _strength(item: Proposed) -> float:
    """How sure a code is; the final list outweighs prose."""
    return item.confidence + item.is_listed
