"""The demo's eyes and its last page. The whole demo runs in tests/e2e, piece by piece."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from llmcoder_tasks.database import Database
from llmcoder_tasks.demo import fill_inbox
from llmcoder_tasks.demo.display import LiveDisplay, PlainDisplay, TaskLine, open_display
from llmcoder_tasks.demo.follow import read_log_lines
from llmcoder_tasks.demo.report import print_report
from llmcoder_tasks.errors import ServiceError
from llmcoder_tasks.settings import Settings


def _console(*, terminal: bool = False) -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, force_terminal=terminal, width=200, color_system=None), out


def _write_log(path: Path, *records: dict[str, object]) -> Path:
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")
    return path


def test_the_samples_lie_in_the_inbox_with_their_days(tmp_path: Path) -> None:
    settings = Settings.from_environment({"LLMCODER_HOME": str(tmp_path)})

    samples = fill_inbox(settings)
    again = fill_inbox(settings)

    (file,) = (tmp_path / "inbox").iterdir()
    assert len(file.read_text(encoding="utf-8").splitlines()) == len(samples.encounter_ids) >= 24
    assert samples.from_date <= samples.to_date
    assert again == samples


def test_of_a_task_log_only_what_we_said_is_shown(tmp_path: Path) -> None:
    log = _write_log(
        tmp_path / "attempt=1.log",
        {"event": "Filling up the DagBag from dags/train_model.py", "logger": "airflow.dag_processing.dagbag"},
        {"event": "step 50/200, loss 0.412", "logger": "llmcoder_tasks.steps.train_model"},
        {"event": "Pushing xcom", "logger": "task", "filename": "task_runner.py"},
    )

    assert read_log_lines(log) == ["step 50/200, loss 0.412"]


def test_the_error_of_a_task_and_the_reason_of_a_skip_are_shown(tmp_path: Path) -> None:
    log = _write_log(
        tmp_path / "attempt=1.log",
        {"event": "Skipping task.", "reason": "approval is off", "logger": "task"},
        {
            "event": "Task failed",
            "logger": "task",
            "error_detail": [{"exc_type": "AirflowFailException", "exc_value": "ReleaseError: x"}],
        },
    )

    assert read_log_lines(log) == ["approval is off", "AirflowFailException: ReleaseError: x"]


def test_a_line_that_is_cut_off_or_a_log_that_is_missing_says_nothing(tmp_path: Path) -> None:
    log = tmp_path / "attempt=1.log"
    log.write_text(
        '"event": "the end of a long line"}\n{"event": "whole", "logger": "llmcoder_tasks.x"}\n{"event": "half', encoding="utf-8"
    )

    assert read_log_lines(log) == ["whole"]
    assert read_log_lines(tmp_path / "none.log") == []


def test_outside_a_terminal_a_line_is_printed_when_a_task_changes(tmp_path: Path) -> None:
    console, out = _console()
    with open_display(console) as display:
        assert isinstance(display, PlainDisplay)
        for state, seconds in (("queued", None), ("running", 1.0), ("running", 2.0), ("success", 3.04)):
            display.show([TaskLine("build_dataset", "build_dataset", state, seconds, "")])

    lines = out.getvalue().splitlines()
    assert [line.split() for line in lines] == [
        ["build_dataset.build_dataset", "running", "1.0", "s"],
        ["build_dataset.build_dataset", "success", "3.0", "s"],
    ]


def test_in_a_terminal_each_task_has_one_line_with_its_newest_note() -> None:
    console, out = _console(terminal=True)
    with open_display(console) as display:
        assert isinstance(display, LiveDisplay)
        display.show([TaskLine("train_model", "train_stage_one", "running", 1.0, "loss 2.1")])
        display.show([TaskLine("train_model", "train_stage_one", "running", 9.0, "loss [0.4]")])

    last = out.getvalue().rpartition("train_model\n")[2] or out.getvalue()
    assert "loss [0.4]" in last, "markup in a log line must not be interpreted"


@pytest.mark.integration
def test_the_last_page_shows_scores_codes_counts_and_costs(database: Database) -> None:
    console, out = _console()
    _fill(database)

    print_report(console, database, encounter_id="S-1", after_step_run_id=0, peak_memory_mib=1234.4, seconds=700.2)

    page = " ".join(out.getvalue().split())
    assert "90.0 / 95.0" in page
    assert "85.0 to 93.5" in page
    assert "PROMOTE" in page
    assert "every floor is reached" in page
    assert "J18.9" in page
    assert "1 of 2 found, 1 proposed: precision 1.00, recall 0.50, F1 0.67" in page
    assert "1 releases, 1 billable codes" in page
    assert "ingest_release" in page
    assert "All together: 700 s, and at most 1,234 MiB of memory" in page


@pytest.mark.integration
def test_without_a_verdict_the_last_page_says_where_to_look(database: Database) -> None:
    console, _ = _console()

    with pytest.raises(ServiceError, match="ended without a verdict: see the train_model runs"):
        print_report(console, database, encounter_id="S-1", after_step_run_id=0, peak_memory_mib=0, seconds=0)


def _fill(database: Database) -> None:
    """One release, model, verdict and coded note, as the loop would leave them."""
    sha = "a" * 64
    with database.transaction() as transaction:
        transaction.run_script(
            f"""
            INSERT INTO releases (release_key, effective_from, source, content_sha256, code_count, billable_count, uri)
                VALUES ('FY2027', '2026-10-01', 'test', 'x', 1, 1, 'u');
            INSERT INTO codes VALUES ('FY2027', 'J189', true, 'Pneumonia', 'Pneumonia, unspecified organism', 1);
            INSERT INTO datasets (dataset_id, release_key, uri, manifest) VALUES ('d1', 'FY2027', 'u', '{{}}');
            INSERT INTO models (model_id, release_key, dataset_id, recipe, stage, parent_model_id, uri, manifest) VALUES
                ('m1', 'FY2027', 'd1', 'tiny', 'stage_one', NULL, 'u', '{{}}'),
                ('m2', 'FY2027', 'd1', 'tiny', 'stage_two', 'm1', 'u', '{{}}');
            INSERT INTO scorecards (evaluation_id, model_id, dataset_id, suites_sha256, uri, scorecard)
                VALUES ('e1', 'm2', 'd1', 's', 'u', '{{}}');
            INSERT INTO evaluations (evaluation_id, coder, scenario, n, exact_match, exact_low, exact_high, category_match)
                VALUES ('e1', 'together', 'typos', 200, 0.9, 0.85, 0.935, 0.95);
            INSERT INTO verdicts (verdict_id, evaluation_id, model_id, decision, reasons)
                VALUES ('v1', 'e1', 'm2', 'PROMOTE', '["every floor is reached"]');
            INSERT INTO encounters (encounter_id, discharge_date, source) VALUES ('S-1', '2026-10-02', 'test');
            INSERT INTO discharge_summaries (encounter_id, note_sha256, note_text, version)
                VALUES ('S-1', '{sha}', 'Admitted with pneumonia.', 1);
            INSERT INTO gold_codes VALUES ('S-1', 'J189', 1), ('S-1', 'E119', 2);
            INSERT INTO coding_runs (coding_run_id, from_date, to_date, model_id, status, encounter_count)
                VALUES ('r1', '2026-10-02', '2026-10-02', 'm2', 'running', 1);
            INSERT INTO coded_notes (encounter_id, note_sha256, model_id, release_key, coding_run_id, status)
                VALUES ('S-1', '{sha}', 'm2', 'FY2027', 'r1', 'coded');
            INSERT INTO predictions
                (encounter_id, note_sha256, model_id, release_key, code, rank, confidence, decision, evidence_start, evidence_end)
                VALUES ('S-1', '{sha}', 'm2', 'FY2027', 'J189', 1, 0.97, 'auto', 14, 23);
            INSERT INTO step_runs (step, subject, seconds, peak_memory_mib) VALUES ('ingest_release', 'FY2027', 3.2, 512);
            """
        )
