"""Where a line of several conditions is cut, and where it is not."""

from __future__ import annotations

import pytest

from llmcoder_tasks.coding.coder import Coder
from llmcoder_tasks.coding.phrases import Span, rank_cuts, split_pieces


def _pieces(text: str) -> list[list[str]]:
    return [[text[span.start : span.end] for span in group] for group in split_pieces(text)]


def _cuts(coder: Coder, text: str) -> list[str]:
    return [text[found.start : found.end] for found in coder.code_text(text)]


def test_lines_and_items_of_a_list_are_always_cut() -> None:
    assert _pieces("Diagnoses:\n1. gout, left hand\n2. asthma") == [["gout", "left hand"], ["asthma"]]
    assert _pieces("1) gout 2) asthma 3) anemia") == [["gout"], ["asthma"], ["anemia"]]
    assert _pieces("- gout\n- asthma\n\u2022 anemia") == [["gout"], ["asthma"], ["anemia"]]


def test_a_number_that_does_not_count_up_is_no_item_of_a_list() -> None:
    assert _pieces("1) malpresentation of fetus 4. 2) gout") == [["malpresentation of fetus 4"], ["gout"]]
    assert _pieces("pressure ulcer, stage 2. of heel") == [["pressure ulcer", "stage 2. of heel"]]


def test_a_word_with_and_inside_a_decimal_and_a_slash_inside_a_short_form_stay_whole() -> None:
    for text in (
        "s/p hand surgery",
        "w/o coma",
        "fracture L/R",
        "creatinine 1.5 high",
        "displ. fx of lt. femur",
        "Salter-Harris Type I",
    ):
        assert _pieces(text) == [[text]]


def test_a_heading_is_of_few_words() -> None:
    assert _pieces("Final dx: gout") == [["gout"]]
    assert _pieces("gout of the left hand with diagnosis: asthma") == [["gout of the left hand with diagnosis: asthma"]]


def test_cuts_maximise_the_worth_less_a_price_for_each_condition_and_each_piece_left_out() -> None:
    # Apart: 5 + 1 + 5 - 3 x 2 = 5. The first two together: 7 + 5 - 2 x 2 = 8. All together: 6 - 2 = 4.
    # The middle left out: 5 + 5 - 2 x 2 - 0.5 = 5.5. With 4.25 for the first two: 4.25 + 5 - 2 x 2 = 5.25.
    pieces = [Span(0, 1), Span(2, 3), Span(4, 5)]
    worth = {(0, 0): 5.0, (1, 1): 1.0, (2, 2): 5.0, (0, 1): 7.0, (1, 2): 3.0, (0, 2): 6.0}
    apart, first_two, all_three = (Span(0, 1), Span(2, 3), Span(4, 5)), (Span(0, 3), Span(4, 5)), (Span(0, 5),)
    ranked = rank_cuts(pieces, lambda first, last: worth[first, last], price=2.0, drop=0.5, most=3)
    assert ranked == [(8.0, first_two), (5.5, (Span(0, 1), Span(4, 5))), (5.0, apart)]
    worth[0, 1] = 4.25
    ranked = rank_cuts(pieces, lambda first, last: worth[first, last], price=2.0, drop=0.5, most=9)
    assert ranked[:3] == [(5.5, (Span(0, 1), Span(4, 5))), (5.25, first_two), (5.0, apart)]
    assert (4.0, all_three) in ranked


@pytest.mark.parametrize(
    "text",
    [
        "Nondisplaced fracture of shaft of left femur, initial encounter for open fracture type IIIA, IIIB, or IIIC",
        "Injury of muscle, fascia and tendon of long head of biceps, right arm, sequela",
    ],
)
def test_commas_and_words_inside_a_title_do_not_cut_it(coder: Coder, text: str) -> None:
    assert _cuts(coder, text) == [text]
    assert _cuts(coder, f"{text}, gout, unspecified") == [text, "gout, unspecified"]
    assert _cuts(coder, f"Asthma and {text}") == ["Asthma", text]


def test_an_encounter_goes_with_the_condition_that_lacks_it(coder: Coder) -> None:
    assert _cuts(coder, "Gout, unspecified and Subsequent encounter, other specified vocal cord injuries") == [
        "Gout, unspecified",
        "Subsequent encounter, other specified vocal cord injuries",
    ]
    assert _cuts(coder, "laceration of rt. Achilles tendon, sequelae, asthma") == [
        "laceration of rt. Achilles tendon, sequelae",
        "asthma",
    ]
