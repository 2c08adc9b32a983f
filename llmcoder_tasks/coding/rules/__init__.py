"""A coder's rules over the codes of a note: small, named, each with its source, applied in one fixed order.

A rule never removes silently: what it does stands in a finding, with a reason. Sources are sections of the ICD-10-CM Official
Guidelines for Coding and Reporting, and the notes of the tabular list; a release without such notes is coded without them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llmcoder_tasks.coding.rules import combinations, reporting, specificity
from llmcoder_tasks.coding.rules.draft import Draft, Proposed, RuleBook
from llmcoder_tasks.coding.rules.policy import US_INPATIENT, CodingPolicy
from llmcoder_tasks.records import CodePrediction, Finding

Rule = Callable[[Draft], None]

RULES: tuple[Rule, ...] = (
    # First each code for itself, then codes against each other, then what is asked for beside them, the order last.
    specificity.complete_code,
    specificity.require_confirmation,
    specificity.review_uncertain,
    specificity.set_initial_encounter,
    specificity.set_side_and_stage,
    reporting.require_own_mention,
    specificity.drop_repeated_history,
    specificity.drop_unspecified,
    combinations.combine_hypertension,
    combinations.combine_diabetes,
    combinations.combine_lung_disease,
    combinations.settle_excludes1,
    reporting.drop_integral_symptoms,
    reporting.ask_for_additional_code,
    reporting.put_cause_first,
    reporting.propose_principal,
)


def apply_rules(
    proposed: Sequence[Proposed],
    text: str,
    book: RuleBook,
    *,
    policy: CodingPolicy = US_INPATIENT,
    rules: Sequence[Rule] = RULES,
) -> tuple[tuple[CodePrediction, ...], tuple[Finding, ...]]:
    """The codes to report, the proposed principal diagnosis first, and what each rule did. `text` is the note, for evidence."""
    draft = Draft(proposed, text, book, policy)
    for rule in rules:
        rule(draft)
    codes = tuple(
        CodePrediction(item.code, book.titles[item.code], round(item.confidence, 4), item.decision, item.start, item.end)
        for item in draft.items
        if item.code in book.titles
    )
    return codes, tuple(draft.findings)
