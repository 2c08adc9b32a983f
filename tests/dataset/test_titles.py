"""Titles fall into parts that can be put together again."""

from __future__ import annotations

import pytest

from llmcoder_tasks.dataset.titles import Title, Vocabulary, normalise_text, parse_title
from llmcoder_tasks.icd10cm.code_set import CodeSet


@pytest.mark.parametrize(
    ("title", "parts"),
    [
        ("Gout, unspecified", Title("Gout", ("unspecified",), "")),
        ("Age-related osteoporosis without current pathological fracture",
         Title("Age-related osteoporosis without current pathological fracture", (), "")),
        ("Displaced fracture of shaft of humerus, right arm, subsequent encounter for fracture with delayed healing",
         Title("Displaced fracture of shaft of humerus", ("right arm",), "subsequent encounter for fracture with delayed healing")),
        ("Unspecified fracture of left femur, initial encounter for open fracture type IIIA, IIIB, or IIIC",
         Title("Unspecified fracture of left femur", (), "initial encounter for open fracture type IIIA, IIIB, or IIIC")),
        ("Strain of muscle, fascia and tendon of left hip, sequela",
         Title("Strain of muscle, fascia and tendon of left hip", (), "sequela")),
        ("Poisoning by caffeine, intentional self-harm, initial encounter",
         Title("Poisoning by caffeine", ("intentional self-harm",), "initial encounter")),
        ("Maternal care for breech presentation, fetus 2", Title("Maternal care for breech presentation", ("fetus 2",), "")),
        ("Burn of first degree of left ear [any part, except ear drum], initial encounter",
         Title("Burn of first degree of left ear [any part, except ear drum]", (), "initial encounter")),
    ],
)  # fmt: skip
def test_titles_are_cut_where_their_parts_end(title: str, parts: Title) -> None:
    assert parse_title(title) == parts


def test_no_word_of_any_title_is_lost(code_set: CodeSet) -> None:
    for title in code_set.titles.values():
        parts = parse_title(title)
        again = ", ".join(part for part in (parts.condition, *parts.qualifiers, parts.encounter) if part)
        assert normalise_text(again) == normalise_text(title)


def test_texts_that_read_the_same_are_normalised_to_the_same() -> None:
    assert normalise_text("  Gout,  UNSPECIFIED. ") == normalise_text("gout unspecified") == "gout unspecified"
    assert normalise_text("10% burn") != normalise_text("10 burn")


def test_names_keep_their_capital_inside_a_sentence() -> None:
    vocabulary = Vocabulary.of_titles(["Crohn's disease", "Injury of Achilles tendon", "XX male", "Old fracture"])
    assert vocabulary.lower_first("Crohn's disease") == "Crohn's disease"
    assert vocabulary.lower_first("Achilles tendon injury") == "Achilles tendon injury"
    assert vocabulary.lower_first("XX male") == "XX male"
    assert vocabulary.lower_first("Fracture of shaft") == "fracture of shaft"
