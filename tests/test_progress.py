"""Progress lines in a log, and the record of what a step cost."""

from __future__ import annotations

import logging

import pytest

from llmcoder_tasks import progress
from llmcoder_tasks.database import Database
from llmcoder_tasks.progress import record_step, render_progress, track


def test_a_progress_line_says_rate_and_time_left() -> None:
    line = render_progress("training", 300, 1200, 25.0, "steps")
    assert line == "training: 300/1,200 steps (25 %), 12.0 steps/s, 75 s left"


def test_a_progress_line_before_any_time_or_item_claims_nothing() -> None:
    assert render_progress("training", 0, 10, 0.0, "steps") == "training: 0/10 steps (0 %), 0.0 steps/s, time left unknown"
    assert render_progress("training", 0, 0, 1.0, "steps").startswith("training: 0/0 steps (100 %)")


def test_tracking_passes_every_item_on_and_ends_with_a_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert list(track("abc", "reading", total=3, unit="files")) == ["a", "b", "c"]
    assert [record.message.split(" in ")[0] for record in caplog.records] == ["reading: 3 files"]


def test_a_long_loop_logs_now_and_then(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(progress, "LINE_INTERVAL_SECONDS", 0.0)
    with caplog.at_level(logging.INFO):
        list(track(range(2), "reading", total=2))
    assert [record.message.split(",")[0] for record in caplog.records[:2]] == [
        "reading: 1/2 items (50 %)",
        "reading: 2/2 items (100 %)",
    ]


@pytest.mark.integration
def test_a_step_is_recorded_with_its_cost_and_figures(database: Database) -> None:
    with record_step(database, "ingest_release", "FY2026") as detail:
        detail["rows"] = 98186
    (row,) = database.fetch_all("list_step_runs")
    assert (row["step"], row["subject"], row["detail"]) == ("ingest_release", "FY2026", {"rows": 98186})
    assert 0 <= row["seconds"] < 5
    assert row["peak_memory_mib"] > 10


@pytest.mark.integration
def test_a_step_that_fails_leaves_no_record(database: Database) -> None:
    with pytest.raises(ValueError, match="no"), record_step(database, "ingest_release", "FY2026"):
        raise ValueError("no")
    assert database.fetch_all("list_step_runs") == []
