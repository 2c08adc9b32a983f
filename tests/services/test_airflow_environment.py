"""What the embedded Airflow is told: our settings back to the letter, its own configuration, and where a person may overrule it."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from llmcoder_tasks.errors import ServiceError
from llmcoder_tasks.services.airflow_components import choose_port, read_last_line
from llmcoder_tasks.services.airflow_environment import (
    METADATA_VARIABLE,
    complete_environment,
    fingerprint_environment,
    render_environment,
    render_settings,
)
from llmcoder_tasks.services.credentials import Credentials, ensure_credentials, read_credentials
from llmcoder_tasks.settings import Settings

CREDENTIALS = Credentials(fernet_key="fernet", jwt_secret="jwt", session_key="session", password="word")


@pytest.fixture(autouse=True)
def _no_airflow_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("AIRFLOW"):
            monkeypatch.delenv(name)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.from_environment({"LLMCODER_HOME": str(tmp_path)})


def test_settings_survive_the_way_through_the_environment(tmp_path: Path) -> None:
    settings = Settings.from_environment(
        {
            "LLMCODER_HOME": str(tmp_path / "a b"),
            "LLMCODER_DATABASE_URL": "postgresql://someone:secret@127.0.0.1/results",
            "LLMCODER_ARTIFACTS": "s3://bucket/prefix",
            "LLMCODER_LANDING": "s3://bucket/landing",
            "LLMCODER_LANDING_SECONDS": "60",
            "LLMCODER_INBOX": str(tmp_path / "in"),
            "LLMCODER_S3_ENDPOINT_URL": "http://127.0.0.1:9000",
            "LLMCODER_RECIPE": "tiny",
            "LLMCODER_VARIATIONS_PER_CODE": "3",
            "LLMCODER_TRAIN_ON_CORRECTIONS": "on",
            "LLMCODER_APPROVAL": "off",
            "LLMCODER_APPROVERS": "anna,7",
            "LLMCODER_APPROVAL_HOURS": "24",
            "LLMCODER_DEADLINE_DAYS": "21",
            "LLMCODER_NIGHT_HOURS": "4",
            "LLMCODER_NOTE_READERS": "coder,admin",
            "LLMCODER_REVIEWERS": "coder",
            "LLMCODER_TRAINING_PROCESSES": "2",
            "LLMCODER_TRAINING_NODES": "3",
            "LLMCODER_TRAINING_RENDEZVOUS": "gpu-one:29400",
            "LLMCODER_TRAINING_NOTES": "/data/notes.jsonl",
            "LLMCODER_PORT": "8099",
            "LLMCODER_MAX_QUARANTINED_SHARE": "0.2",
            "LLMCODER_CLAIM_SECONDS": "30",
            "LLMCODER_LLM_URL": "http://127.0.0.1:9001/v1",
            "LLMCODER_LLM_MODEL": "writer",
            "LLMCODER_LLM_INPUT_PRICE": "0.5",
            "LLMCODER_NOTE_LLM_URL": "https://reader.example/v1",
            "LLMCODER_NOTE_LLM_MODEL": "reader",
            "LLMCODER_NOTE_LLM_KEY": "secret",
            "LLMCODER_NOTE_LLM_AGREEMENT": "reader.example",
            "LLMCODER_CODER_LLM_URL": "https://coder.example/v1",
            "LLMCODER_CODER_LLM_KEY": "secret too",
            "LLMCODER_CODER_LLM_AGREEMENT": "coder.example",
            "LLMCODER_CODER_LLM_BATCH_FROM": "500",
            "LLMCODER_TRAIN_PRICE": "3.5",
            "LLMCODER_TRAIN_MAX_COST": "0",
        }
    )
    assert Settings.from_environment(render_settings(settings)) == settings


def test_a_folder_of_weights_that_reads_notes_survives_it_too(tmp_path: Path) -> None:
    settings = Settings.from_environment({"LLMCODER_HOME": str(tmp_path), "LLMCODER_NOTE_LLM_MODEL": str(tmp_path / "weights")})

    assert Settings.from_environment(render_settings(settings)) == settings


def test_unset_settings_stay_unset(settings: Settings) -> None:
    assert Settings.from_environment(render_settings(settings)) == settings
    assert "LLMCODER_DATABASE_URL" not in render_settings(settings)


def test_the_embedded_airflow_is_local_and_knows_who_calls(settings: Settings) -> None:
    ours = render_environment(settings, CREDENTIALS, metadata_url="postgresql+psycopg2://x", port=8099)
    assert ours["AIRFLOW__API__HOST"] == "127.0.0.1"
    assert ours["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS"] == "False"
    assert ours["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == "http://127.0.0.1:8099/execution/"
    assert ours["GX_ANALYTICS_ENABLED"] == "false"


def test_a_variable_that_the_caller_set_wins(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(METADATA_VARIABLE, "postgresql+psycopg2://theirs")
    monkeypatch.setenv("AIRFLOW__CORE__PARALLELISM", "32")
    ours = render_environment(settings, CREDENTIALS, metadata_url="postgresql+psycopg2://ours", port=8080)
    assert ours[METADATA_VARIABLE] == "postgresql+psycopg2://theirs"
    assert ours["AIRFLOW__CORE__PARALLELISM"] == "32"


def test_tasks_may_keep_bytecode_and_see_no_setting_but_ours(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("LLMCODER_RECIPE", "llama-3.2-1b")
    complete = complete_environment(render_settings(settings))
    assert "PYTHONDONTWRITEBYTECODE" not in complete
    assert complete["LLMCODER_RECIPE"] == "compact"
    assert complete["HOME"] == os.environ["HOME"]


def test_the_fingerprint_changes_with_a_setting_and_tells_no_secret(settings: Settings) -> None:
    ours = render_environment(settings, CREDENTIALS, metadata_url="x", port=8080)
    changed = {**ours, "LLMCODER_APPROVAL": "off"}
    assert fingerprint_environment(ours) == fingerprint_environment(dict(reversed(ours.items())))
    assert fingerprint_environment(ours) != fingerprint_environment(changed)
    assert len(fingerprint_environment(ours)) == 16


def test_a_chosen_port_that_is_taken_is_an_error_with_the_cure(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = Settings.from_environment({"LLMCODER_HOME": str(tmp_path), "LLMCODER_PORT": str(port)})
        with pytest.raises(ServiceError, match=f"port {port} is taken.*LLMCODER_PORT"):
            choose_port(settings, None)
    assert choose_port(settings, None) == port


def test_without_a_chosen_port_the_previous_one_is_kept_if_free(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert choose_port(settings, port) != port
    assert choose_port(settings, port) == port


def test_credentials_are_made_once_and_for_their_owner_only(tmp_path: Path) -> None:
    first = ensure_credentials(tmp_path)
    assert ensure_credentials(tmp_path) == first == read_credentials(tmp_path)
    assert ensure_credentials(tmp_path / "other") != first
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.glob("*.json")} == {
        "credentials.json": 0o600,
        "passwords.json": 0o600,
    }


@pytest.mark.parametrize(
    ("content", "message"), [(None, "run `llmcoder up` first"), ("{", "is damaged"), ('{"a": 1}', "is damaged")]
)
def test_missing_or_damaged_credentials_are_an_error_with_the_cure(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "credentials.json").write_text(content)
    with pytest.raises(ServiceError, match=message):
        read_credentials(tmp_path)


def test_the_last_line_of_a_log_is_the_last_that_says_something(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert read_last_line(log) == "no log"
    log.write_text("")
    assert read_last_line(log) == "an empty log"
    log.write_text("first\n  ValueError: second \n\n")
    assert read_last_line(log) == "ValueError: second"
