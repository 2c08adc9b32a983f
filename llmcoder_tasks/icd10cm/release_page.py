"""The release report as one HTML page that needs nothing else. Its plots are boxes: their text stays readable on a phone."""

from __future__ import annotations

from pathlib import Path

from llmcoder_tasks.icd10cm.release_report import KINDS, ReleaseReport
from llmcoder_tasks.records import render_code

TEMPLATES_FOLDER = Path(__file__).resolve().parent / "templates"

MOST_USED_SHOWN = 20

CHAPTERS = (
    "Infections", "Neoplasms", "Blood, immune", "Endocrine, metabolic", "Mental", "Nervous system", "Eye", "Ear", "Circulatory",
    "Respiratory", "Digestive", "Skin", "Musculoskeletal", "Genitourinary", "Pregnancy, birth", "Perinatal", "Congenital",
    "Symptoms, findings", "Injury, poisoning", "External causes", "Health services", "Special purposes",
)  # fmt: skip
"""Short names of chapters 1 to 22."""

KIND_NAMES = {"added": "added", "deleted": "deleted", "became_header": "became headers", "revised": "revised"}
"""Kinds of changes as people call them, of several codes."""


def render_page(report: ReleaseReport) -> str:
    """The page. All texts are escaped; it names no address outside itself and no encounter."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES_FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(code=render_code, number=lambda value: f"{value:,}", chapter=lambda name: CHAPTERS[int(name) - 1])
    return environment.get_template("release.html").render(
        report=report,
        counts=report.counts,
        kinds=KINDS,
        kind_names=KIND_NAMES,
        most_changes=max((sum(row.values()) for row in report.by_chapter.values()), default=1),
        most_months=max(report.by_month.values(), default=1),
        most_shown=MOST_USED_SHOWN,
    )
