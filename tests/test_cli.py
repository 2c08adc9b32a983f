"""The command line: every verb explains itself, and every expected error is one line with its cure."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from reviewed_hospital import Hospital

from llmcoder_tasks.cli import main
from llmcoder_tasks.database import Database
from llmcoder_tasks.steps.review_encounters import open_reviews

PROJECT_FOLDER = Path(__file__).resolve().parent.parent


def _run(*arguments: str, environment: dict[str, str] | None = None, stdin: str | None = None) -> Result:
    return CliRunner().invoke(main, arguments, env=environment, input=stdin)


@pytest.mark.parametrize("name", sorted(main.commands))
def test_every_command_has_help_for_itself_and_for_each_option(name: str) -> None:
    command = main.commands[name]
    assert command.help, f"{name} has no help: write a docstring"
    for option in command.params:
        if isinstance(option, click.Option):
            assert option.help, f"{name} {option.name} has no help"
    assert _run(name, "--help").exit_code == 0


@pytest.mark.parametrize("name", sorted(main.commands))
def test_every_command_is_in_the_readme(name: str) -> None:
    readme = (PROJECT_FOLDER / "README.md").read_text(encoding="utf-8")
    assert f"llmcoder {name}" in readme, f"README.md does not mention `llmcoder {name}`"


def test_a_missing_database_is_one_line_with_the_cure(tmp_path: Path) -> None:
    result = _run("migrate", environment={"LLMCODER_HOME": str(tmp_path)})
    assert result.exit_code == 1
    assert result.output.strip() == (
        "Error: no results database: run `llmcoder up` for the embedded one, or set LLMCODER_DATABASE_URL"
    )


def test_an_unknown_setting_is_named(tmp_path: Path) -> None:
    result = _run("migrate", environment={"LLMCODER_HOME": str(tmp_path), "LLMCODER_DATABSE_URL": "x"})
    assert result.exit_code == 1
    assert "unknown setting LLMCODER_DATABSE_URL" in result.output


@pytest.mark.integration
def test_coding_without_a_model_in_service_says_how_to_get_one(database: Database, tmp_path: Path) -> None:
    environment = {
        "LLMCODER_HOME": str(tmp_path),
        "LLMCODER_DATABASE_URL": database.engine.url.render_as_string(hide_password=False),
    }
    result = _run("code", environment=environment, stdin="pneumonia\n")
    assert result.exit_code == 1
    assert "no model is in service: run `make demo`" in result.output


@pytest.mark.integration
def test_encounters_are_loaded_and_bad_rows_are_reported_beside(database: Database, tmp_path: Path) -> None:
    rows = [
        {"encounter_id": "e1", "discharge_date": "2026-09-21", "text": "Pneumonia."},
        {"encounter_id": "e2", "text": "No date."},
    ]
    source = tmp_path / "night.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    environment = {
        "LLMCODER_HOME": str(tmp_path),
        "LLMCODER_DATABASE_URL": database.engine.url.render_as_string(hide_password=False),
    }
    result = _run("load-encounters", str(source), environment=environment)
    assert result.exit_code == 0, result.output
    assert "1 encounters, 1 new notes, 0 unchanged" in result.output
    assert "discharge_date" in result.output
    assert "No date." not in result.output


@pytest.mark.integration
def test_the_queue_and_an_export_are_shown_as_rows(database: Database, tmp_path: Path) -> None:
    hospital = Hospital(database)
    hospital.code("E1", [("E119", 0.4, "review")])
    hospital.code("E2", [("I10", 0.99, "auto")])
    open_reviews("night", database)
    environment = {
        "LLMCODER_HOME": str(tmp_path),
        "LLMCODER_DATABASE_URL": database.engine.url.render_as_string(hide_password=False),
    }
    (row,) = _run("review-queue", environment=environment).output.splitlines()
    assert (json.loads(row)["encounter_id"], json.loads(row)["held_by"]) == ("E1", None)
    result = _run("export-encounters", environment=environment)
    assert json.loads(result.output) == {"first": 1, "last": 1, "encounters": 1, "codes": 1}
    assert (tmp_path / "artifacts" / "exports" / "000001" / "manifest.json").is_file()
