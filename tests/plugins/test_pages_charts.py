"""Charts: no style or script of their own, words for those who do not see them, everything escaped, gaps as gaps."""

from __future__ import annotations

import sys
from xml.etree import ElementTree

import pytest

from llmcoder_pages.charts import bar_chart, line_chart, reliability_chart

SVG = "{http://www.w3.org/2000/svg}"


def parse(chart: str) -> ElementTree.Element:
    return ElementTree.fromstring(chart)


@pytest.mark.parametrize(
    "chart",
    [
        line_chart({"a": [1, 2], "b": [2, 1]}, ["x", "y"], text="words"),
        bar_chart({"a": [1, 2]}, ["x", "y"], text="words"),
        reliability_chart([(0.1, 0.2), (0.9, 0.8)], text="words"),
    ],
)
def test_a_chart_keeps_to_the_content_security_policy_and_says_what_it_shows(chart: str) -> None:
    tree = parse(chart)
    assert (tree.get("role"), tree.get("aria-label")) == ("img", "words")
    for element in tree.iter():
        assert element.tag not in {f"{SVG}style", f"{SVG}script"}
        assert "style" not in element.attrib
        assert not [name for name in element.attrib if name.startswith("on")]


def test_names_and_labels_are_escaped() -> None:
    chart = line_chart({"<script>": [1, 2], "b": [1, 2]}, ["<b>", "y"], text='"><img>')
    assert "<script>" not in chart
    assert parse(chart).get("aria-label") == '"><img>'


def test_each_mark_says_its_value_when_pointed_at() -> None:
    chart = bar_chart({"share": [0.25]}, ["night 1"], text="words", write=lambda value: f"{value:.0%}")
    assert [title.text for title in parse(chart).iter(f"{SVG}title")] == ["night 1: 25%"]


def test_a_missing_value_is_a_gap() -> None:
    chart = line_chart({"share": [1, None, 3]}, ["a", "b", "c"], text="words")
    assert len([mark for mark in parse(chart).iter(f"{SVG}circle")]) == 2


def test_more_series_than_colours_are_refused() -> None:
    with pytest.raises(ValueError, match="6 series in one chart"):
        line_chart({str(number): [1] for number in range(6)}, ["a"], text="words")


def test_drawing_leaves_no_import_hook_behind() -> None:
    bar_chart({"share": [0.25]}, ["night 1"], text="words")
    assert [finder for finder in sys.meta_path if type(finder).__module__ == "pygal"] == []
