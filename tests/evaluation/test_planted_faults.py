"""Worse candidates made on purpose, on items of the whole April 2026 release: each is caught, and an equal one is not.

The coders here know the answers and err on a few items, each on others, as two real coders of one recipe do.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import cache

import pytest
from evaluation_fakes import make_scorecard

from llmcoder_tasks.dataset.example_frames import chapter_of
from llmcoder_tasks.evaluation.against_service import Finding, check_service
from llmcoder_tasks.evaluation.breadth import CodeGroups, make_breadth_suite
from llmcoder_tasks.evaluation.comparison import compare_outcomes
from llmcoder_tasks.evaluation.gate import load_gate
from llmcoder_tasks.evaluation.outcomes import Outcome, score_suite
from llmcoder_tasks.evaluation.suites import Suite
from llmcoder_tasks.icd10cm.code_set import default_code_set

NEW_CHAPTER_4 = "E"
ERRORS = 0.01
"""Share of the items on which each coder errs by chance."""

Answer = Callable[[str], str]


@cache
def items() -> tuple[Suite, CodeGroups]:
    """The suite for a release in which 120 codes of chapter 4 are new and 120 codes of chapter 9 have another title."""
    code_set = default_code_set()
    before = dict(code_set.titles)
    for code in [code for code in before if code.startswith(NEW_CHAPTER_4)][:120]:
        del before[code]
    for code in [code for code in before if code.startswith("I")][:120]:
        before[code] = f"{before[code]}, as it was called"
    groups = CodeGroups.of_releases(before, code_set, {})
    return make_breadth_suite(code_set, groups, seed=0, find_taught=lambda texts: frozenset()), groups


def answer(seed: int, plant: Answer = lambda code: code) -> list[Outcome]:
    """The outcomes of a coder with errors of its own, and with a fault planted."""
    suite, _ = items()
    chance = random.Random(seed)
    wrong = {example.text for example in suite.examples if chance.random() < ERRORS}
    true = {example.text: example.codes[0] for example in suite.examples}
    known = frozenset(true.values())

    def predict(texts: Sequence[str]) -> list[tuple[str, ...]]:
        return [("R99",) if text in wrong else (plant(true[text]),) for text in texts]

    return score_suite("x", predict, suite, known_codes=known)


def judge(candidate: list[Outcome]) -> list[Finding]:
    suite, groups = items()
    gate = load_gate()
    assert gate.in_service is not None
    seconds = {"ours": 1.0, "theirs": 1.0}
    comparison = compare_outcomes(candidate, answer(1), against_model_id="m1", label=groups.label, seconds=seconds)
    card = make_scorecard([], [suite], model_id="m2", evaluation_id="e", coder_json=b"", comparison=comparison)
    return check_service(gate.in_service, card, "m1", minimum_items=gate.minimum_items)


def rejected(findings: Sequence[Finding]) -> list[str]:
    """Titles of the slices that are worse beyond noise."""
    return [finding.text.partition(":")[0] for finding in findings if finding.decision == "REJECT"]


@pytest.mark.parametrize("seed", range(2, 12))
def test_an_equal_model_with_other_errors_passes_every_slice(seed: int) -> None:
    assert {finding.decision for finding in judge(answer(seed))} == {"PROMOTE"}


def test_shuffled_labels_are_caught_in_every_slice_with_data() -> None:
    codes = sorted({example.codes[0] for example in items()[0].examples})
    shuffled = dict(zip(codes, random.Random(3).sample(codes, len(codes)), strict=True))

    found = rejected(judge(answer(2, shuffled.__getitem__)))

    assert {"items of exact match", "new codes", "revised codes", "unchanged codes", "rare codes"} <= set(found)
    assert {f"chapter {number}" for number in range(1, 22)} <= set(found)


@pytest.mark.parametrize("chapter", ["3", "9", "16", "21"])
def test_a_dropped_chapter_is_caught_and_named(chapter: str) -> None:
    found = rejected(judge(answer(2, lambda code: "R99" if chapter_of(code) == chapter else code)))

    assert f"chapter {chapter}" in found
    assert not [name for name in found if name.startswith("chapter") and name != f"chapter {chapter}"]


@pytest.mark.parametrize(("slice_name", "title"), [("new", "new codes"), ("revised", "revised codes")])
def test_one_broken_slice_of_few_codes_is_caught_and_named(slice_name: str, title: str) -> None:
    _, groups = items()
    broken = {code for code in getattr(groups, slice_name) if hash_of(code) < 0.15}

    found = rejected(judge(answer(2, lambda code: "R99" if code in broken else code)))

    assert title in found
    assert "unchanged codes" not in found


def hash_of(code: str) -> float:
    """A share in [0, 1) that is always the same for a code."""
    return random.Random(code).random()


def test_a_slice_of_three_codes_is_said_to_have_too_few_and_does_not_pass_for_shown() -> None:
    (finding,) = [finding for finding in judge(answer(2)) if finding.text.startswith("chapter 22")]

    assert "not enough data to tell: 3 codes or texts, about " in finding.text
    assert "no worse than" not in finding.text


def test_no_text_of_the_suite_was_taught_or_stands_for_two_codes() -> None:
    suite, groups = items()
    code_set = default_code_set()
    taught = {example.text for example in suite.examples[:50]}

    again = make_breadth_suite(code_set, groups, seed=0, find_taught=lambda texts: frozenset(taught & set(texts)))

    assert not taught & {example.text for example in again.examples}
    texts = [example.text for example in suite.examples]
    assert len(texts) == len(set(texts))
    assert not set(texts) & set(code_set.titles.values())
