"""Figures on what people corrected, and what the gate makes of them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from evaluation_fakes import make_scorecard, make_suite

from llmcoder_tasks.dataset.corrections import HeldOut
from llmcoder_tasks.evaluation.gate import Floor, Gate, check_reviewed
from llmcoder_tasks.evaluation.report import Evidence, render_report
from llmcoder_tasks.evaluation.reviewed import ReviewedFigures, judge_corrections
from llmcoder_tasks.evaluation.scorecard import parse_scorecard

GATE = Gate("test", 1, "together", None, 4, 0.05, (Floor("together", "base", "exact", 0.9),), "0" * 64)
CANARY = "Qxzebulon7731"
ITEMS = [
    HeldOut(1, "replaced", "E1122", f"{CANARY} sugar kidneys"),
    HeldOut(2, "replaced", "I10", f"{CANARY} pressure"),
    HeldOut(3, "added", "J189", f"{CANARY} lungs"),
    HeldOut(4, "added", "N390", f"{CANARY} water"),
]


def _answers(*codes: str) -> object:
    return lambda texts: [(code,) for code in codes[: len(texts)]]


def _judge(ours: Sequence[str], theirs: Sequence[str] | None, items: Sequence[HeldOut] = ITEMS) -> ReviewedFigures:
    opponent = ("m1", _answers(*theirs)) if theirs else None
    return judge_corrections(items, _answers(*ours), opponent, withdrawn=2)  # type: ignore[arg-type]


def test_both_models_are_counted_by_kind_of_correction_and_in_pairs() -> None:
    figures = _judge(["E1122", "I119", "J189", "N390"], ["E1121", "I10", "J189", "A419"])
    assert (figures.n, figures.withdrawn, figures.against_model_id) == (4, 2, "m1")
    # Ours alone has 1 and 4, theirs alone has 2, both have 3.
    assert (figures.better, figures.worse) == (2, 1)
    found = {(item.coder, item.kind): (item.n, item.exact.value, item.category.value) for item in figures.slices}
    assert found == {
        ("together", "all"): (4, 0.75, 0.75),
        ("together", "added"): (2, 1.0, 1.0),
        ("together", "replaced"): (2, 0.5, 0.5),
        ("in_service", "all"): (4, 0.5, 0.75),
        ("in_service", "added"): (2, 0.5, 0.5),
        ("in_service", "replaced"): (2, 0.5, 1.0),
    }


def test_without_corrections_there_is_nothing_but_a_count() -> None:
    figures = _judge([], ["x"], [])
    assert (figures.n, figures.slices) == (0, ())


def test_a_scorecard_keeps_the_figures_and_its_page_shows_them_without_a_word_of_the_phrases() -> None:
    from dataclasses import replace

    card = make_scorecard([], [make_suite("base", 1)], model_id="m2", evaluation_id="m2-e", coder_json=b"{}")
    card = replace(card, reviewed=_judge(["E1122", "I10", "J189", "A419"], ["I10", "I10", "I10", "I10"]))
    assert parse_scorecard(card.to_json()) == card
    page = render_report(card, Evidence({}))
    assert "corrections of reviewers" in page
    assert "in service" in page
    assert CANARY not in page + card.to_json() + repr(card) + repr(ITEMS)


def _said(figures: ReviewedFigures | None, in_service: str | None) -> tuple[str, str]:
    ((decision, text),) = [(found.decision, found.text) for found in check_reviewed(GATE, figures, in_service)]
    return decision, text


def test_too_few_corrections_are_said_and_do_not_decide() -> None:
    decision, text = _said(_judge(["E1122", "I10", "J189"], None, ITEMS[:3]), None)
    assert decision == "PROMOTE"
    assert text == "together on corrections of reviewers: 3 held out, 4 are needed to tell: not judged by them"
    assert check_reviewed(GATE, None, None) == []


def test_a_model_worse_on_corrections_beyond_noise_is_rejected() -> None:
    items = [HeldOut(number, "added", "I10", "pressure") for number in range(8)]
    # 0 better, 8 worse: p = 2 / 2^8 = 0.0078.
    decision, text = _said(_judge(["J189"] * 8, ["I10"] * 8, items), "m1")
    assert decision == "REJECT"
    assert "exact match 0.0% (n 8) against m1 in service: better on 0 and worse on 8 of them, p 0.0078" in text
    # 0 better, 5 worse: p = 2 / 2^5 = 0.0625.
    decision, _ = _said(_judge(["J189"] * 5, ["I10"] * 5, items[:5]), "m1")
    assert decision == "PROMOTE"


@pytest.mark.parametrize("theirs", [None, ["I10"] * 4])
def test_figures_against_another_model_than_the_one_in_service_hold(theirs: list[str] | None) -> None:
    decision, text = _said(_judge(["I10"] * 4, theirs), "m3")
    assert decision == "HOLD"
    assert f"measured against {'m1' if theirs else 'no model'} and not m3: evaluate the model again" in text


def test_without_a_model_in_service_the_figure_is_given() -> None:
    assert _said(_judge(["E1122", "I10", "J189", "N390"], None), None) == (
        "PROMOTE",
        "together on corrections of reviewers: exact match 100.0% (n 4), with no model in service to compare with",
    )
