"""A night's figures in words: their names, how they are written, how they compare with the nights before, and as charts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from markupsafe import Markup

from llmcoder_pages.charts import bar_chart, line_chart
from llmcoder_pages.rendering import format_count, format_percent
from llmcoder_tasks.database import Row
from llmcoder_tasks.icd10cm.release_page import CHAPTERS

NIGHTS_COMPARED = 30

FIGURES = {
    "notes": "Notes",
    "mean_confidence": "Mean confidence of a code",
    "auto_share": "Codes accepted automatically",
    "review_share": "Notes with a code to review",
    "failed_share": "Notes that could not be coded",
    "unknown_word_share": "Words that the release does not know",
}
STABILITY_INDEX = "chapter_stability_index"

REASONS = {
    "no_discharge_summary": "no discharge summary has arrived",
    "no_release_on_discharge_date": "no release is valid on the discharge date",
    "empty_note": "the note is empty",
    "note_too_long": "the note is too long",
    "binary": "the note is binary",
    "rtf": "the note is RTF",
    "html": "the note is HTML",
    "wrong_encoding": "the note is in another encoding",
    "no_discharge_date": "there is no discharge date",
    "bad_date": "a date cannot be read",
    "discharge_in_future": "the discharge lies in the future",
    "duplicate_encounter": "the encounter stands twice in the file",
    "bad_field": "a field cannot be read",
    "unreadable_row": "the row cannot be read",
    "unknown_file": "the file is of no known form",
    "refused_by_database": "the database refused the note",
}


@dataclass(frozen=True, slots=True)
class Comparison:
    """One figure of a night beside the nights before. `band` is what was expected, where the night left it."""

    name: str
    tonight: str
    before: str
    band: str | None


def name_figure(figure: str) -> str:
    """A figure of `night_statistics.out_of_band` as people call it."""
    if figure == STABILITY_INDEX:
        return "Mix of chapters, stability index"
    if figure.startswith("chapter_"):
        number = int(figure.split("_")[1])
        return f"Share of chapter {number}, {CHAPTERS[number - 1]}"
    return FIGURES.get(figure, figure)


def write_figure(figure: str, value: float | None) -> str:
    """A value of a figure."""
    if figure == "notes":
        return format_count(None if value is None else round(value))
    if figure == STABILITY_INDEX:
        return "–" if value is None else f"{value:.3f}"
    return format_percent(value)


def compare_figures(night: Row, before: Sequence[Row]) -> list[Comparison]:
    """Every figure beside the median of the nights before; chapters only where they left their band."""
    bands = {left["figure"]: _write_band(left) for left in night["out_of_band"]}
    rows = []
    for figure in FIGURES:
        past = [known for row in before if (known := row[figure]) is not None]
        middle = median(past) if past else None
        rows.append(
            Comparison(name_figure(figure), write_figure(figure, night[figure]), write_figure(figure, middle), bands.get(figure))
        )
    index = write_figure(STABILITY_INDEX, night["stability_index"])
    rows.append(Comparison(name_figure(STABILITY_INDEX), index, "–", bands.get(STABILITY_INDEX)))
    rows += [
        Comparison(name_figure(left["figure"]), write_figure(left["figure"], left["value"]), "–", bands[left["figure"]])
        for left in night["out_of_band"]
        if left["figure"].startswith("chapter_") and left["figure"] != STABILITY_INDEX
    ]
    return rows


def _write_band(left: Mapping[str, float | str]) -> str:
    figure = str(left["figure"])
    return f"{write_figure(figure, float(left['low']))} to {write_figure(figure, float(left['high']))}"


def draw_trends(night: Row, before: Sequence[Row]) -> dict[str, Markup]:
    """Charts of the nights before, oldest first, and this one: `confidence`, `shares`, `notes`."""
    nights = [*reversed(before), night]
    labels = [f"{row['to_date']:%d %b}" for row in nights]

    def values(figure: str) -> list[float | None]:
        return [row[figure] for row in nights]

    def percent(value: float) -> str:
        return format_percent(value, places=0)

    return {
        "confidence": line_chart(
            {"Mean confidence": values("mean_confidence")}, labels, write=percent, zero=False, text=_say("Mean confidence", nights)
        ),
        "shares": line_chart(
            {"Codes accepted automatically": values("auto_share"), "Notes with a code to review": values("review_share")},
            labels, write=percent, text="Share of codes accepted automatically, and of notes with a code to review, by night.",
        ),
        "notes": bar_chart({"Notes": values("notes")}, labels, write=lambda value: f"{value:,.0f}", text="Notes coded, by night."),
    }  # fmt: skip


def _say(name: str, nights: Sequence[Row]) -> str:
    known = [row["mean_confidence"] for row in nights if row["mean_confidence"] is not None]
    if not known:
        return f"{name}: not known."
    low, high, newest = (format_percent(value) for value in (min(known), max(known), known[-1]))
    return f"{name} of {len(nights)} nights: {low} to {high}, now {newest}."


def draw_chapters(night: Row, before: Sequence[Row]) -> Markup | None:
    """The mix of codes by chapter, beside that of the nights before; None without a code."""
    tonight, past = night["chapters"] or {}, _pool(before)
    if not tonight:
        return None
    chapters = sorted(tonight.keys() | past.keys(), key=int)
    series: dict[str, list[float | None]] = {"This night": _shares(tonight, chapters)}
    if past:
        series["The nights before"] = _shares(past, chapters)
    most = max(tonight, key=lambda chapter: tonight[chapter])
    text = f"Share of codes by chapter. Most are of chapter {most}, {CHAPTERS[int(most) - 1]}."
    return bar_chart(series, chapters, write=lambda value: format_percent(value, places=0), text=text, every_label=True)


def list_chapters(night: Row, before: Sequence[Row]) -> list[tuple[str, str, str, str]]:
    """The figures of that chart: chapter, what it is about, its share this night and before."""
    tonight, past = night["chapters"] or {}, _pool(before)
    chapters = sorted(tonight.keys() | past.keys(), key=int)
    rows = zip(chapters, _shares(tonight, chapters), _shares(past, chapters), strict=True)
    return [(key, CHAPTERS[int(key) - 1], format_percent(now), format_percent(then)) for key, now, then in rows]


def _pool(nights: Sequence[Row]) -> dict[str, int]:
    pooled: dict[str, int] = {}
    for night in nights:
        for chapter, count in night["chapters"].items():
            pooled[chapter] = pooled.get(chapter, 0) + count
    return pooled


def _shares(counts: Mapping[str, int], chapters: Sequence[str]) -> list[float | None]:
    total = sum(counts.values())
    return [counts.get(chapter, 0) / total if total else None for chapter in chapters]
