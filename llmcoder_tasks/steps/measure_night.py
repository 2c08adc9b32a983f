"""A coded night → its row in `night_statistics`: confidence, shares, mix of chapters, unknown words, against the nights before."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from llmcoder_tasks.database import Database, Row
from llmcoder_tasks.errors import NoteError
from llmcoder_tasks.evaluation.drift import NIGHTS_COMPARED, NightFigures, compare_night, count_chapters
from llmcoder_tasks.icd10cm.code_set import read_code_set
from llmcoder_tasks.progress import record_step

logger = logging.getLogger(__name__)

SAMPLED_NOTES = 200
"""Notes of a night whose words are looked up: with some 80,000 words the share is known to a fraction of a percentage point."""

_WORD = re.compile(r"[^\W\d_]{3,}")


@dataclass(frozen=True, slots=True)
class MeasuredNight:
    """What a notifier needs: names of figures and numbers. `summary` says it in one line."""

    coding_run_id: str
    notes: int
    nights_compared: int
    stability_index: float | None
    out_of_band: tuple[dict[str, Any], ...]
    summary: str


def measure_night(coding_run_id: str, database: Database) -> MeasuredNight:
    """Measure a run that was coded, compare it and keep both; the same run measured again replaces its row.

    Raises NoteError when the run was not planned.
    """
    if database.fetch_one("fetch_coding_run", coding_run_id=coding_run_id) is None:
        raise NoteError(f"coding run {coding_run_id} is not planned: nothing to measure")
    with record_step(database, "measure_night", coding_run_id) as detail:
        tonight = _measure(coding_run_id, database)
        rows = database.fetch_all("list_earlier_nights", coding_run_id=coding_run_id, size=NIGHTS_COMPARED)
        drift = compare_night(tonight, [NightFigures(**row) for row in reversed(rows)])
        out_of_band = tuple(asdict(figure) for figure in drift.out_of_band)
        kept = {**asdict(tonight), "nights_compared": drift.nights_compared, "stability_index": drift.stability_index}
        kept |= {"chapters": json.dumps(tonight.chapters), "out_of_band": json.dumps(out_of_band)}
        database.execute("save_night_statistics", {"coding_run_id": coding_run_id, **kept})
        detail["out_of_band"] = len(out_of_band)
    logger.info("%s: %s", coding_run_id, drift)
    return MeasuredNight(coding_run_id, tonight.notes, drift.nights_compared, drift.stability_index, out_of_band, str(drift))


def _measure(coding_run_id: str, database: Database) -> NightFigures:
    counts = database.fetch_one("count_night", coding_run_id=coding_run_id) or {}
    codes = database.fetch_all("count_night_codes", coding_run_id=coding_run_id)
    total, notes = counts["codes"], counts["notes"]
    mean = sum(row["confidence"] for row in codes) / total if total else None
    squared = sum(row["confidence_squared"] for row in codes) / total if total else 0.0
    return NightFigures(
        notes=notes,
        codes=total,
        mean_confidence=mean,
        confidence_deviation=math.sqrt(max(squared - mean**2, 0.0)) if mean is not None else 0.0,
        auto_share=_share(counts["auto"], total),
        review_share=_share(counts["reviewed"], notes),
        failed_share=_share(counts["failed"], notes),
        unknown_word_share=_measure_unknown_words(coding_run_id, database),
        chapters=count_chapters({row["code"]: row["count"] for row in codes}),
    )


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _measure_unknown_words(coding_run_id: str, database: Database) -> float | None:
    """The share of words of a sample of notes that no title or term of their release has; words of three letters and more."""
    rows = database.fetch_all("sample_night_notes", coding_run_id=coding_run_id, size=SAMPLED_NOTES)
    known = {key: _list_known_words(key, database) for key in {row["release_key"] for row in rows}}
    return _share(*_count_unknown(rows, known))


def _list_known_words(release_key: str, database: Database) -> frozenset[str]:
    code_set = read_code_set(database, release_key)
    texts = [*code_set.titles.values(), *(term.term for term in code_set.terms)]
    return frozenset(word for text in texts for word in _WORD.findall(text.casefold()))


def _count_unknown(rows: Sequence[Row], known: Mapping[str, frozenset[str]]) -> tuple[int, int]:
    """(unknown words, all words)."""
    unknown = total = 0
    for row in rows:
        words = _WORD.findall(row["note_text"].casefold())
        total += len(words)
        unknown += sum(word not in known[row["release_key"]] for word in words)
    return unknown, total
