"""The page: whole, escaped, alone; and the table for a terminal."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path

import pytest
from evaluation_fakes import make_scorecard

from llmcoder_tasks.errors import EvaluationError
from llmcoder_tasks.evaluation.outcomes import score_suite
from llmcoder_tasks.evaluation.plots import CurvePoint, ReliabilityBin
from llmcoder_tasks.evaluation.report import Evidence, read_curve, render_report, render_table
from llmcoder_tasks.evaluation.scorecard import CODERS, Scorecard
from llmcoder_tasks.evaluation.suites import Suite
from llmcoder_tasks.records import SCENARIOS, Example

HOSTILE = '<script>alert("x")</script> & type 2'
TITLES = {"E119": "Type 2 diabetes mellitus without complications", "I10": "Essential (primary) hypertension"}
CURVES = {"stage_one": [CurvePoint(1000, 5.0), CurvePoint(2000, 1.0)], "stage_two": [CurvePoint(1000, 2.0), CurvePoint(2000, 0.5)]}
RELIABILITY = [ReliabilityBin(0.5, 0.45, 20), ReliabilityBin(0.95, 0.97, 80)]


def make_card() -> Scorecard:
    """Every coder on every scenario: 3 of 4 right, but the untrained one, which answers 2 of the 4 items and makes codes up."""
    suites = [Suite(name, tuple(Example(f"{name}-{i}", name, "test", HOSTILE, ("E119",)) for i in range(4))) for name in SCENARIOS]
    outcomes = []
    for coder in CODERS:
        for suite in suites:
            asked = suite.head(2) if coder == "untrained" else suite
            answers: list[tuple[str, ...]] = [("E1199",)] * 2 if coder == "untrained" else [("E119",)] * 3 + [("I10",)]
            outcomes += score_suite(coder, lambda texts, answers=answers: answers, asked, known_codes=set(TITLES))  # type: ignore[misc]
    return make_scorecard(outcomes, suites, model_id="FY2026-m1", evaluation_id="FY2026-m1-e1", coder_json=b"{}")


@pytest.fixture(scope="module")
def page() -> str:
    return render_report(make_card(), Evidence(TITLES, CURVES, RELIABILITY))


class Outline(HTMLParser):
    """Tags that are open, tables by caption, ids, and what a page would load."""

    VOID = frozenset({"meta", "br", "img", "link", "input", "hr"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.loads: list[str] = []
        self.headers_without_scope = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = dict(attrs)
        if tag not in self.VOID:
            self.open.append(tag)
        if names.get("id"):
            self.ids.append(str(names["id"]))
        self.headers_without_scope += tag == "th" and "scope" not in names
        for name in ("src", "href", "xlink:href"):
            if names.get(name) and not str(names[name]).startswith("#"):
                self.loads.append(str(names[name]))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_well_formed_and_loads_nothing(page: str) -> None:
    outline = Outline()
    outline.feed(page)
    assert outline.open == []
    assert outline.loads == []
    assert len(outline.ids) == len(set(outline.ids)), "two figures share an id"
    assert outline.headers_without_scope == 0
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)


def test_every_text_is_escaped(page: str) -> None:
    assert "<script" not in page
    assert "&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt; &amp; type 2" in page


def test_the_page_has_every_figure_of_the_scorecard(page: str) -> None:
    # 3 of 4: Wilson's interval is 30.1 to 95.4; none of 2: 0.0 to 65.8.
    assert page.count("<b>75.0</b><small>30.1–95.4</small><small>n 4</small>") == (len(CODERS) - 1) * len(SCENARIOS)
    assert page.count("<b>0.0</b><small>0.0–65.8</small><small>n 2</small>") == len(SCENARIOS)
    assert "together: 7 wrong of 28" in page
    assert "E11.99</b> <span>not in the release</span>" in page
    assert "E11.9</b> <span>Type 2 diabetes mellitus without complications</span>" in page


def test_figures_are_svg_in_the_colours_of_the_page(page: str) -> None:
    figures = re.findall(r"<svg .*?</svg>", page, re.DOTALL)
    assert len(figures) == 4
    for figure in figures:
        ET.fromstring(figure)
        assert 'role="img" aria-label="' in figure
        assert "viewBox" in figure
        assert not re.search(r"#0[01]0\d0\d", figure), "a colour was left that no theme changes"
    assert "var(--together)" in figures[0]
    assert "var(--stage-two)" in figures[2]


def test_figures_without_evidence_are_left_out() -> None:
    page = render_report(make_card(), Evidence(TITLES))
    assert page.count("<svg ") == 2
    assert "Training loss" not in page


def test_the_same_scorecard_gives_the_same_page(page: str) -> None:
    assert render_report(make_card(), Evidence(TITLES, CURVES, RELIABILITY)) == page


def test_a_training_log_is_read_and_a_broken_line_named(tmp_path: Path) -> None:
    path = tmp_path / "training_log.jsonl"
    path.write_text('{"tokens_seen": 10, "loss": 2.5, "step": 1}\n')
    assert read_curve(path) == [CurvePoint(10, 2.5)]
    path.write_text('{"tokens_seen": 10, "loss": 2.5}\n{"tokens_seen": 20}\n')
    with pytest.raises(EvaluationError, match="training_log.jsonl:2: not a line of a training log"):
        read_curve(path)


def test_the_terminal_table_fits_80_columns() -> None:
    from rich.console import Console

    output = StringIO()
    Console(file=output, width=80).print(render_table(make_card().cells))
    text = output.getvalue()
    assert "…" not in text
    assert "untrained" not in text  # five coders fit
    for scenario in SCENARIOS:
        assert re.search(rf"{scenario} +│ *75\.0 30–95 │ *75\.0 30–95", text)


def test_the_page_says_how_fast_and_how_large_each_training_was() -> None:
    line = {
        "tokens_seen": 1_234_567,
        "tokens_per_second": 56_000.4,
        "model_flops_utilization": 0.429,
        "peak_memory_bytes": 45_120_000_000,
    }
    page = render_report(make_card(), Evidence(TITLES, last_lines={"stage_two": line}))
    assert "1,234,567 tokens, 56,000 a second, MFU 42.9 %, at most 45.1 GB" in page
    old = {"tokens_seen": 10, "tokens_per_second": 5.0}
    assert "10 tokens, 5 a second</dd>" in render_report(make_card(), Evidence(TITLES, last_lines={"stage_two": old}))
