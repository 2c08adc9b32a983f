"""Where a note is cut for its evidence, and where words stand in it."""

from __future__ import annotations

import pytest

from llmcoder_pages.note_text import Segment, Span, cut_note, locate_words


def test_pieces_cover_a_note_once_whatever_overlaps() -> None:
    spans = [Span(2, 6, "B"), Span(4, 8, "A"), Span(4, 6, "C"), Span(2, 6, "D")]
    assert cut_note(10, spans) == [
        Segment(0, 2, ()),
        Segment(2, 4, ("B", "D")),
        Segment(4, 6, ("A", "B", "C", "D")),
        Segment(6, 8, ("A",)),
        Segment(8, 10, ()),
    ]


def test_evidence_beyond_a_note_is_cut_off_and_an_empty_note_has_no_piece() -> None:
    assert cut_note(5, [Span(3, 9, "A"), Span(7, 9, "B"), Span(4, 4, "C")]) == [Segment(0, 3, ()), Segment(3, 5, ("A",))]
    assert cut_note(0, [Span(0, 3, "A")]) == []


@pytest.mark.parametrize(
    ("words", "place"),
    [
        ("chest infection", (7, 22)),
        ("CHEST   Infection", (7, 22)),
        ("pains (left)", (24, 36)),
        ("no such words", None),
        ("  ", None),
        (".*", None),
    ],
)
def test_words_are_found_whatever_their_case_and_space(words: str, place: tuple[int, int] | None) -> None:
    assert locate_words("He had chest\ninfection; pains (left).", words) == place
