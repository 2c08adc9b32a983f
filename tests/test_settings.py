"""Settings from the environment: defaults, every check, and no password in a message."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmcoder_tasks.errors import SettingsError
from llmcoder_tasks.settings import PROJECT_FOLDER, CoderServer, LanguageModel, Nodes, Settings


def test_an_empty_environment_means_the_embedded_services_in_the_project() -> None:
    settings = Settings.from_environment({})
    home = PROJECT_FOLDER / ".llmcoder"
    assert settings == Settings(
        home=home,
        database_url=None,
        artifacts_uri=(home / "artifacts").as_uri(),
        landing_uri=(home / "landing").as_uri(),
        landing_seconds=30,
        inbox_folder=home / "inbox",
        max_quarantined_share=0.05,
        claim_seconds=120,
        s3_endpoint_url=None,
        recipe="compact",
        variations_per_code=4,
        train_on_corrections=False,
        approval_required=True,
        approvers=(),
        approval_hours=72,
        deadline_days=14,
        night_hours=6,
        note_readers=frozenset({"op", "admin"}),
        reviewers=frozenset({"op", "admin"}),
        training_processes=None,
        training_nodes=None,
        training_notes=None,
        port=None,
        language_model=None,
        note_model=None,
    )


def test_every_setting_is_read(tmp_path: Path) -> None:
    settings = Settings.from_environment(
        {
            "LLMCODER_HOME": str(tmp_path),
            "LLMCODER_DATABASE_URL": "postgresql://someone@db/results",
            "LLMCODER_ARTIFACTS": "s3://bucket/prefix/",
            "LLMCODER_LANDING": "file:///landing",
            "LLMCODER_LANDING_SECONDS": "600",
            "LLMCODER_INBOX": str(tmp_path / "in"),
            "LLMCODER_MAX_QUARANTINED_SHARE": "0.1",
            "LLMCODER_CLAIM_SECONDS": "60",
            "LLMCODER_S3_ENDPOINT_URL": "http://127.0.0.1:9000",
            "LLMCODER_RECIPE": "llama-3.2-1b",
            "LLMCODER_VARIATIONS_PER_CODE": "2",
            "LLMCODER_APPROVAL": "off",
            "LLMCODER_APPROVERS": "anna, 7,",
            "LLMCODER_APPROVAL_HOURS": "24",
            "LLMCODER_DEADLINE_DAYS": "21",
            "LLMCODER_NIGHT_HOURS": "4",
            "LLMCODER_NOTE_READERS": "Coder, admin",
            "LLMCODER_REVIEWERS": "coder",
            "LLMCODER_TRAINING_PROCESSES": "4",
            "LLMCODER_TRAINING_NODES": "2",
            "LLMCODER_TRAINING_RENDEZVOUS": "gpu-one:29400",
            "LLMCODER_TRAINING_NOTES": "/data/mimic",
            "LLMCODER_PORT": "8081",
            "LLMCODER_LLM_URL": "https://models.example.org/v1/",
            "LLMCODER_LLM_MODEL": "some-model",
            "LLMCODER_LLM_KEY": "sk-1",
            "LLMCODER_LLM_INPUT_PRICE": "0.25",
            "LLMCODER_LLM_OUTPUT_PRICE": "2",
            "LLMCODER_NOTE_LLM_URL": "https://notes.example.org/v1/",
            "LLMCODER_NOTE_LLM_MODEL": "reader",
            "LLMCODER_NOTE_LLM_KEY": "sk-2",
            "LLMCODER_NOTE_LLM_AGREEMENT": "notes.example.org",
            "LLMCODER_CODER_LLM_URL": "https://coder.example.org/v1/",
            "LLMCODER_CODER_LLM_KEY": "sk-3",
            "LLMCODER_CODER_LLM_AGREEMENT": "coder.example.org",
            "LLMCODER_CODER_LLM_BATCH_FROM": "1000",
            "LLMCODER_TRAIN_PRICE": "3",
            "LLMCODER_TRAIN_MAX_COST": "250",
            "PATH": "not ours",
        }
    )
    assert settings == Settings(
        home=tmp_path,
        database_url="postgresql+psycopg2://someone@db/results",
        artifacts_uri="s3://bucket/prefix",
        landing_uri="file:///landing",
        landing_seconds=600,
        inbox_folder=tmp_path / "in",
        max_quarantined_share=0.1,
        claim_seconds=60,
        s3_endpoint_url="http://127.0.0.1:9000",
        recipe="llama-3.2-1b",
        variations_per_code=2,
        train_on_corrections=False,
        approval_required=False,
        approvers=("anna", "7"),
        approval_hours=24,
        deadline_days=21,
        night_hours=4,
        note_readers=frozenset({"coder", "admin"}),
        reviewers=frozenset({"coder"}),
        training_processes=4,
        training_nodes=Nodes(2, "gpu-one:29400"),
        training_notes=Path("/data/mimic"),
        port=8081,
        language_model=LanguageModel("https://models.example.org/v1", "some-model", "sk-1", 0.25, 2.0),
        note_model=LanguageModel("https://notes.example.org/v1", "reader", "sk-2", prefix="LLMCODER_NOTE_LLM"),
        coder_server=CoderServer("https://coder.example.org/v1", "sk-3", True, 3.0, 250.0, 1000),
    )


def test_patients_words_go_to_a_coder_elsewhere_only_where_an_agreement_names_its_host() -> None:
    url = {"LLMCODER_CODER_LLM_URL": "https://coder.example.org/v1"}
    server = Settings.from_environment(url).coder_server
    assert server == CoderServer("https://coder.example.org/v1")
    assert not server.covers_patients
    assert "sk-" not in repr(Settings.from_environment(url | {"LLMCODER_CODER_LLM_KEY": "sk-1"}))
    with pytest.raises(SettingsError, match="'other.org' is not the host of LLMCODER_CODER_LLM_URL, coder.example.org"):
        Settings.from_environment(url | {"LLMCODER_CODER_LLM_AGREEMENT": "other.org"})
    here = Settings.from_environment({"LLMCODER_CODER_LLM_URL": "http://localhost:8000/v1"})
    assert here.coder_server == CoderServer("http://localhost:8000/v1", covers_patients=True)
    assert here.coder_server_without_waiting == CoderServer("http://localhost:8000/v1", covers_patients=True, waits=False)


def test_empty_values_count_as_unset() -> None:
    names = ("DATABASE_URL", "ARTIFACTS", "S3_ENDPOINT_URL", "RECIPE", "APPROVAL", "TRAINING_PROCESSES", "PORT", "HOME", "INBOX")
    empty = Settings.from_environment({f"LLMCODER_{name}": "" for name in names})
    assert empty == Settings.from_environment({})


@pytest.mark.parametrize(
    ("name", "value", "cure"),
    [
        ("LLMCODER_ARTEFACTS", "file:///x", "unknown setting LLMCODER_ARTEFACTS"),
        ("LLMCODER_ARTIFACTS", "/just/a/path", "neither s3://bucket/prefix nor file:///absolute/folder"),
        ("LLMCODER_ARTIFACTS", "s3://", "neither s3://bucket/prefix"),
        ("LLMCODER_ARTIFACTS", "file://host/folder", "neither s3://bucket/prefix"),
        ("LLMCODER_LANDING", "https://example.org", "LLMCODER_LANDING"),
        ("LLMCODER_APPROVAL", "yes", "neither 'required' nor 'off'"),
        ("LLMCODER_TRAINING_PROCESSES", "0", "positive whole number"),
        ("LLMCODER_TRAINING_NODES", "2", "LLMCODER_TRAINING_RENDEZVOUS='': with LLMCODER_TRAINING_NODES=2 write host:port"),
        ("LLMCODER_TRAINING_NOTES", "mimic", "LLMCODER_TRAINING_NOTES='mimic' is no absolute path"),
        ("LLMCODER_PORT", "-1", "positive whole number"),
        ("LLMCODER_PORT", "http", "positive whole number"),
        ("LLMCODER_LLM_INPUT_PRICE", "cheap", "is no price: write what a million tokens cost"),
        ("LLMCODER_LLM_OUTPUT_PRICE", "-1", "is no price"),
        ("LLMCODER_LLM_OUTPUT_PRICE", "inf", "is no price"),
        ("LLMCODER_LLM_OUTPUT_PRICE", "nan", "is no price"),
    ],
)
def test_a_malformed_setting_is_named_with_its_cure(name: str, value: str, cure: str) -> None:
    with pytest.raises(SettingsError, match=cure):
        Settings.from_environment({name: value})


@pytest.mark.parametrize("value", ["models.example.org", "ftp://models.example.org", "https://user:hunter2@models.example.org/v1"])
def test_a_malformed_address_of_a_language_model_is_refused_without_its_password(value: str) -> None:
    with pytest.raises(SettingsError, match="LLMCODER_LLM_URL must be") as caught:
        Settings.from_environment({"LLMCODER_LLM_URL": value, "LLMCODER_LLM_MODEL": "some-model"})
    assert "hunter2" not in str(caught.value)


def test_a_language_model_is_asked_for_only_when_it_is_needed() -> None:
    settings = Settings.from_environment({"LLMCODER_LLM_MODEL": "some-model", "LLMCODER_LLM_KEY": "sk-1"})
    with pytest.raises(SettingsError, match="set LLMCODER_LLM_URL and LLMCODER_LLM_MODEL"):
        settings.require_language_model()
    settings = Settings.from_environment(
        {"LLMCODER_LLM_URL": "http://localhost:8000/v1", "LLMCODER_LLM_MODEL": "some-model", "LLMCODER_LLM_KEY": "sk-1"}
    )
    assert settings.require_language_model().input_price is None
    assert "sk-1" not in repr(settings)


def test_a_malformed_database_url_is_refused_without_its_password() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment({"LLMCODER_DATABASE_URL": "mysql://root:hunter2@db/results"})
    assert "hunter2" not in str(caught.value)
    assert "postgresql://" in str(caught.value)


def test_the_embedded_database_is_found_where_up_left_its_address(tmp_path: Path) -> None:
    settings = Settings.from_environment({"LLMCODER_HOME": str(tmp_path)})
    with pytest.raises(SettingsError, match="run `llmcoder up`"):
        settings.require_database_url()
    settings.embedded_url_file.parent.mkdir(parents=True)
    settings.embedded_url_file.write_text("postgresql+psycopg2://postgres@/results?host=/tmp\n")
    assert settings.require_database_url() == "postgresql+psycopg2://postgres@/results?host=/tmp"


def test_a_database_url_goes_before_the_embedded_one(tmp_path: Path) -> None:
    settings = Settings.from_environment(
        {"LLMCODER_HOME": str(tmp_path), "LLMCODER_DATABASE_URL": "postgresql+psycopg2://someone@db/results"}
    )
    settings.embedded_url_file.parent.mkdir(parents=True)
    settings.embedded_url_file.write_text("postgresql+psycopg2://embedded")
    assert settings.require_database_url() == "postgresql+psycopg2://someone@db/results"


def test_the_environment_of_the_process_is_the_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LLMCODER_HOME", str(tmp_path))
    assert Settings.from_environment().home == tmp_path


def test_every_variable_of_the_table_in_the_docstring_is_known() -> None:
    import re

    from llmcoder_tasks import settings

    documented = set(re.findall(r"^\| (LLMCODER_\w+) \|", settings.__doc__ or "", re.MULTILINE))
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment({"LLMCODER_NOTHING": "x"})
    assert set(re.findall(r"LLMCODER_\w+", str(caught.value).split("the settings are")[1])) == documented


@pytest.mark.parametrize("value", ["5 %", "-0.1", "1.5", "nan"])
def test_a_share_lies_between_nothing_and_all(value: str) -> None:
    with pytest.raises(SettingsError, match="write a number between 0 and 1"):
        Settings.from_environment({"LLMCODER_MAX_QUARANTINED_SHARE": value})


@pytest.mark.parametrize("agreement", [None, "other.example.org"])
def test_notes_leave_the_house_only_where_an_agreement_names_the_host(agreement: str | None) -> None:
    environment = {"LLMCODER_NOTE_LLM_URL": "https://notes.example.org/v1", "LLMCODER_NOTE_LLM_MODEL": "reader"}
    if agreement:
        environment["LLMCODER_NOTE_LLM_AGREEMENT"] = agreement
    with pytest.raises(SettingsError, match="send discharge summaries to notes.example.org.*LLMCODER_NOTE_LLM_AGREEMENT=notes"):
        Settings.from_environment(environment)


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000", "[::1]:8000"])
def test_a_server_on_this_machine_needs_no_agreement(host: str) -> None:
    settings = Settings.from_environment({"LLMCODER_NOTE_LLM_URL": f"http://{host}/v1", "LLMCODER_NOTE_LLM_MODEL": "reader"})
    assert settings.require_note_model() == LanguageModel(f"http://{host}/v1", "reader", prefix="LLMCODER_NOTE_LLM")


def test_without_a_server_notes_are_read_by_a_folder_of_weights() -> None:
    assert Settings.from_environment({"LLMCODER_NOTE_LLM_MODEL": "/weights/llama"}).note_model == Path("/weights/llama")
    with pytest.raises(SettingsError, match="'llama' is no absolute path of a folder of weights"):
        Settings.from_environment({"LLMCODER_NOTE_LLM_MODEL": "llama"})
    with pytest.raises(SettingsError, match="no language model for notes: set LLMCODER_NOTE_LLM_MODEL"):
        Settings.from_environment({}).require_note_model()
