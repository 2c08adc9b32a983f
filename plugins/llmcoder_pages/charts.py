"""Charts as SVG inside the page: drawn by pygal, coloured by `static/pages.css`, so that they follow light and dark.

pygal's own style sheet and script, which the pages' content security policy forbids, are taken out. Every chart says in words what
it shows (`text`, read to those who do not see it), and its values appear when a mark is pointed at. Where figures matter one by
one, put a table beside it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any
from xml.etree import ElementTree

from markupsafe import Markup

MAX_SERIES = 5
"""Colours in the style sheet."""

_LABELS_SHOWN = 6
_SVG = "http://www.w3.org/2000/svg"

Values = Mapping[str, Sequence[float | None]]


def line_chart(
    series: Values, labels: Sequence[str], *, text: str, write: Callable[[float], str] = str, zero: bool = True
) -> Markup:
    """Lines over the same labels; None leaves a gap. `write` renders a value; without `zero` the axis begins where values do."""
    chart = _load_pygal().Line(**_options(write, labels, len(series)), include_x_axis=zero, allow_interruptions=True)
    return _draw(chart, series, labels, text)


def bar_chart(
    series: Values,
    labels: Sequence[str],
    *,
    text: str,
    write: Callable[[float], str] = str,
    every_label: bool = False,
    stacked: bool = False,
) -> Markup:
    """Upright bars, those of one label side by side or on each other. With `every_label` none is left out to save space."""
    kind = _load_pygal().StackedBar if stacked else _load_pygal().Bar
    options = _options(write, () if every_label else labels, len(series))
    return _draw(kind(**options, rounded_bars=2), series, labels, text)


def reliability_chart(points: Sequence[tuple[float, float]], *, text: str) -> Markup:
    """A reliability diagram: (mean confidence, share that was right) of each bin, both in [0, 1], beside a perfect coder's."""
    options = _options(lambda share: f"{100 * share:.0f} %", (), 2)
    chart = _load_pygal().XY(**options, range=(0, 1), xrange=(0, 1), x_value_formatter=lambda share: f"{100 * share:.0f} %")
    chart.add("this coder", list(points))
    chart.add("perfect", [(0, 0), (1, 1)], show_dots=False)
    return _finish(chart.render_tree(), text)


@cache
def _load_pygal() -> Any:
    """pygal, without the import hook for its plugins that it leaves behind: Python 3.11 warns of it at every later import."""
    import pygal
    import pygal.style

    sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__module__ != "pygal"]
    return pygal


def _options(write: Callable[[float], str], labels: Sequence[str], series: int) -> dict[str, Any]:
    return {
        "js": (), "css": (), "disable_xml_declaration": True,
        "width": 520, "height": 250, "margin": 8, "spacing": 6,
        "style": _load_pygal().style.Style(label_font_size=13, major_label_font_size=13, legend_font_size=13),
        "show_legend": series > 1, "legend_at_bottom": True, "legend_at_bottom_columns": min(series, 4), "legend_box_size": 12,
        "dots_size": 3.5, "value_formatter": lambda value: "" if value is None else write(value),
        "show_minor_x_labels": False, "x_labels_major_every": max(1, -(-len(labels) // _LABELS_SHOWN)),
        "max_scale": 6, "truncate_legend": -1, "truncate_label": -1,
    }  # fmt: skip


def _draw(chart: Any, series: Values, labels: Sequence[str], text: str) -> Markup:
    if len(series) > MAX_SERIES:
        raise ValueError(f"{len(series)} series in one chart: at most {MAX_SERIES} can be told apart")
    chart.x_labels = list(labels)
    for name, values in series.items():
        chart.add(name, list(values))
    return _finish(chart.render_tree(), text)


def _finish(tree: Any, text: str) -> Markup:
    for parent in list(tree.iter()):
        for child in list(parent):
            if not isinstance(child.tag, str) or child.tag.rpartition("}")[2] in {"script", "style", "title"}:
                parent.remove(child)
    for mark in tree.iter():
        described = {child.get("class"): child.text for child in mark if child.tag.rpartition("}")[2] == "desc"}
        for child in [child for child in mark if child.tag.rpartition("}")[2] == "desc"]:
            mark.remove(child)
        if described.get("value"):
            words = [described[key] for key in ("x_label", "value") if described.get(key)]
            ElementTree.SubElement(mark, "title").text = ": ".join(words)
    tree.set("role", "img")
    tree.set("aria-label", text)
    for element in tree.iter():
        element.tag = element.tag.rpartition("}")[2]
        # Several charts of one page would share pygal's ids.
        for name in ("style", "id"):
            element.attrib.pop(name, None)
    tree.set("xmlns", _SVG)
    # All of it is what pygal drew; its serialiser escapes the words.
    return Markup(ElementTree.tostring(tree, encoding="unicode"))  # noqa: S704
