"""A coder's rules: each fires where its source says so, and leaves the rest alone."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import date

import pytest

from llmcoder_tasks.coding.rules import RULES, apply_rules
from llmcoder_tasks.coding.rules.draft import Proposed, RuleBook
from llmcoder_tasks.coding.rules.policy import EVERY_MENTION, US_INPATIENT, CodingPolicy
from llmcoder_tasks.icd10cm.code_set import CodeSet, default_code_set
from llmcoder_tasks.records import CodePrediction, Finding, parse_code


@pytest.fixture(scope="module")
def book() -> RuleBook:
    return RuleBook(default_code_set())


def _propose(*said: str) -> tuple[list[Proposed], str]:
    """Each `code words` is a line of a final list; `?code` is uncertain, `~code` is from prose."""
    text, proposed = "", []
    for line in said:
        code, _, words = line.partition(" ")
        words = words or "some words"
        is_listed = not code.startswith("~")
        proposed.append(
            Proposed(
                parse_code(code.strip("?~")), 0.95 if is_listed else 0.6, "auto" if is_listed else "review",
                len(text), len(text) + len(words), is_listed, code.startswith("?"),
            )
        )  # fmt: skip
        text += words + "\n"
    return proposed, text


def _apply(
    book: RuleBook, *said: str, policy: CodingPolicy = US_INPATIENT
) -> tuple[tuple[CodePrediction, ...], tuple[Finding, ...]]:
    proposed, text = _propose(*said)
    return apply_rules(proposed, text, book, policy=policy)


def _codes(book: RuleBook, *said: str, policy: CodingPolicy = US_INPATIENT) -> list[str]:
    return [code.code for code in _apply(book, *said, policy=policy)[0]]


def _spoken(book: RuleBook, *said: str) -> set[tuple[str, str, str]]:
    return {(finding.rule, finding.action, finding.code) for finding in _apply(book, *said)[1]}


@pytest.mark.parametrize(
    ("said", "codes"),
    [
        # seventh characters
        (["S72.001 fracture of the right hip"], ["S72001A"]),
        (["S72.001D fracture of the right hip"], ["S72001A"]),
        (["S72.001D healing fracture of the right hip"], ["S72001D"]),
        (["S72.001S sequela of a hip fracture"], ["S72001S"]),
        (["S72.001D hip fx, subs for clos fx w routn heal"], ["S72001D"]),  # as the official short titles say it
        (["S72.001S r hip fx, seq."], ["S72001S"]),
        (["S72.001D fx of r hip, f/u enc."], ["S72001D"]),
        (["S72.001D fracture of the hip, subskwent encoutnr"], ["S72001D"]),
        (["S72.001S fracture of the hip, saquela"], ["S72001S"]),
        (["S72.001D subsequently fell and broke the hip"], ["S72001A"]),
        (["S72.001D hip fracture and a bunion"], ["S72001A"]),
        (["E11"], []),
        # certainty
        (["?J18.9", "I10"], ["J189", "I10"]),
        (["?U07.1", "I10"], ["I10"]),
        (["U07.1"], ["U071"]),
        # side and stage
        (["M25.569 pain in the left knee"], ["M25562"]),
        (["M25.569 pain in the knee"], ["M25569"]),
        (["M25.569 right worse than left knee pain"], ["M25569"]),
        (["N18.9 chronic kidney disease stage 3b"], ["N1832"]),
        (["N18.9 chronic kidney disease stage IV"], ["N184"]),
        (["N18.9 chronic kidney disease"], ["N189"]),
        # what is said twice
        (["E11.65", "~E11.9"], ["E1165"]),
        (["I50.9", "I50.33"], ["I5033"]),
        (["~N39.0", "~N39.41"], ["N390", "N3941"]),  # one category, two conditions
        (["~E87.20", "~E87.5"], ["E8720", "E875"]),
        (["~E78.5", "~E78.2"], ["E782"]),
        (["~L89.92", "~L89.152"], ["L89152"]),
        (["~F17.200", "~F17.210"], ["F17210"]),
        (["S82.90XA", "S82.51XA"], ["S8290XA", "S8251XA"]),
        (["J44.1", "~J45.909"], ["J441"]),
        # combinations
        (["I10", "I50.33"], ["I110", "I5033"]),
        (["I10", "N18.4"], ["I129", "N184"]),
        (["I10", "N18.6"], ["I120", "N186"]),
        (["I10", "I50.33", "N18.4"], ["I130", "I5033", "N184"]),
        (["I10", "I50.33", "N18.5"], ["I132", "I5033", "N185"]),
        (["I11.0", "I50.33", "~I10"], ["I110", "I5033"]),
        (["I10", "J18.9"], ["I10", "J189"]),
        (["E11.9", "N18.4"], ["E1122", "N184"]),
        (["E11.65", "N18.4"], ["E1122", "E1165", "N184"]),
        (["E11.9", "G62.9"], ["E1142"]),
        (["E11.9", "J18.9"], ["E119", "J189"]),
        (["J44.9", "J18.9"], ["J440", "J189"]),
        (["J44.9", "J96.01"], ["J449", "J9601"]),
        # symptoms
        (["J18.9", "~R05.9"], ["J189"]),
        (["N18.4", "~R05.9"], ["N184", "R059"]),
        (["N40.1", "R33.8"], ["N401", "R338"]),  # the tabular list asks for the symptom
        (["E11.52", "L97.519"], ["E1152", "L97519"]),
        (["E11.9", "L97.519"], ["E11621", "L97519"]),
        # order
        (["N18.4", "E11.22"], ["E1122", "N184"]),
        (["~R07.9", "~I10"], ["I10", "R079"]),
        (["R07.9", "I10"], ["R079", "I10"]),
        (["Z95.5", "I25.10"], ["I2510", "Z955"]),
        (["R07.9"], ["R079"]),
    ],
)
def test_a_note_ends_with_the_codes_that_the_guidelines_ask_for(book: RuleBook, said: list[str], codes: list[str]) -> None:
    assert _codes(book, *said) == codes


@pytest.mark.parametrize(
    ("said", "finding"),
    [
        (["S72.001"], ("seventh_character", "replaced", "S72001")),
        (["S72.001D"], ("initial_encounter", "replaced", "S72001D")),
        (["E11"], ("not_billable", "removed", "E11")),
        (["?U07.1"], ("confirmed_only", "removed", "U071")),
        (["?J18.9"], ("uncertain_diagnosis", "flagged", "J189")),
        (["M25.569 left knee"], ("side_and_stage", "replaced", "M25569")),
        (["E11.65", "E11.9"], ("unspecified", "removed", "E119")),
        (["J44.1", "~J45.909"], ("repeated_history", "removed", "J45909")),
        (["J45.909", "~J45.20"], ("unspecified", "replaced", "J45909")),
        (["I10", "I50.33"], ("hypertension_with", "replaced", "I10")),
        (["E11.65", "N18.4"], ("diabetes_with", "added", "E1122")),
        (["J44.9", "J18.9"], ("lung_disease_with_infection", "replaced", "J449")),
        (["J18.9", "~R05.9"], ("integral_symptom", "removed", "R059")),
        (["E10.9", "E11.9"], ("excludes1", "flagged", "E119")),
        (["E10.9", "~E13.9"], ("excludes1", "removed", "E139")),
        (["I11.0"], ("use_additional_code", "flagged", "I110")),
        (["N18.4", "E11.22"], ("code_first", "flagged", "E1122")),
        (["F02.80"], ("code_first", "flagged", "F0280")),
        (["~R07.9", "~I10"], ("principal_diagnosis", "flagged", "I10")),
    ],
)
def test_nothing_happens_without_a_finding(book: RuleBook, said: list[str], finding: tuple[str, str, str]) -> None:
    assert finding in _spoken(book, *said)


def test_an_organism_asks_for_no_underlying_condition(book: RuleBook) -> None:
    assert _spoken(book, "N39.0", "B96.20") == set()


def test_plain_codes_in_order_give_no_finding(book: RuleBook) -> None:
    assert _spoken(book, "J18.9", "I10", "E78.5") == set()
    assert _apply(book) == ((), ())


def test_an_excludes2_note_allows_both_codes(book: RuleBook) -> None:
    # J18 has the neonatal pneumonia (P23.9) as excludes1; J44 has acute bronchitis nowhere as excludes1.
    assert "excludes1" not in {rule for rule, _, _ in _spoken(book, "J44.1", "J20.9")}


def test_words_that_say_a_condition_support_no_status_beside_it(book: RuleBook) -> None:
    proposed, text = _propose("J18.9 pneumonia")
    status = replace(proposed[0], code="Z8701")
    codes, findings = apply_rules([*proposed, status], text, book)
    assert [code.code for code in codes] == ["J189"]
    assert [(finding.rule, finding.code) for finding in findings] == [("own_mention", "Z8701")]


def test_a_policy_keeps_symptoms_links_and_conflicts(book: RuleBook) -> None:
    for said in (["J18.9", "~R05.9"], ["E11.9", "N18.4"], ["I10", "I50.33"], ["I50.33", "I50.9"], ["E10.9", "~E13.9"]):
        assert _codes(book, *said, policy=EVERY_MENTION) == [parse_code(code.strip("~")) for code in said]


def test_an_inferred_code_is_as_sure_as_the_less_sure_of_its_sources_and_keeps_evidence(book: RuleBook) -> None:
    codes, findings = _apply(book, "I10 hypertension", "~I50.33 failing heart")
    inferred = codes[0]
    assert (inferred.code, inferred.confidence, inferred.decision, inferred.start, inferred.end) == ("I110", 0.6, "review", 0, 12)
    (finding,) = [finding for finding in findings if finding.rule == "hypertension_with"]
    assert (finding.related_code, finding.reason) == ("I110", "inferred from I10 and I50.33: the link is presumed")


def test_no_code_disappears_without_a_finding_and_only_billable_codes_come_out_once(book: RuleBook) -> None:
    chance = random.Random(4)
    everyday = [
        "I10",
        "I5033",
        "N184",
        "N186",
        "E119",
        "E1165",
        "G629",
        "J449",
        "J189",
        "R059",
        "R509",
        "E109",
        "S72001",
        "Z8701",
        "F0280",
    ]
    every = [code.code for code in default_code_set().codes]
    for _ in range(200):
        said = dict.fromkeys(chance.sample(everyday, 6) + chance.sample(every, 6))
        marks = [chance.choice(["", "~", "?"]) + code for code in said]
        codes, findings = _apply(book, *marks)
        reported = [code.code for code in codes]
        assert len(set(reported)) == len(reported)
        assert set(reported) <= set(book.titles)
        gone = {finding.code for finding in findings if finding.action in {"removed", "replaced"}}
        new = {finding.code for finding in findings if finding.action == "added"}
        new |= {finding.related_code for finding in findings if finding.action == "replaced" and finding.related_code}
        assert set(said) - set(reported) <= gone
        assert set(reported) - set(said) <= new


def test_every_rule_has_a_docstring_that_names_its_source() -> None:
    for rule in RULES:
        assert rule.__doc__ is not None
        assert any(word in rule.__doc__ for word in ("Guideline", "Tabular list"))


def test_a_release_without_tabular_notes_is_coded_with_the_other_rules() -> None:
    full = default_code_set()
    bare = RuleBook(CodeSet("FY2026", date(2025, 10, 1), full.codes, ()))
    assert _codes(bare, "I10", "I50.33", "~R05.9") == ["I110", "I5033"]
