"""Dockerfile, docker-compose.yaml, .env.example and the hooks, as far as they can be checked without a Docker engine."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmcoder_tasks.services.airflow_environment import render_environment
from llmcoder_tasks.services.credentials import Credentials
from llmcoder_tasks.settings import PROJECT_FOLDER, Settings

COMPOSE = PROJECT_FOLDER / "docker-compose.yaml"
AIRFLOW_SERVICES = ("airflow-init", "api-server", "scheduler", "dag-processor", "triggerer", "worker", "gpu-worker")
VARIABLE = re.compile(r"(?<!\$)\$\{(?P<name>\w+)(?P<rule>:[-?])(?P<text>[^}]*)\}")
OPTIONAL_SECRETS = {"LLMCODER_CODER_LLM_KEY", "LLMCODER_LLM_KEY", "LLMCODER_NOTE_LLM_KEY"}
SECRET_NAME = re.compile(r"PASSWORD|SECRET|_KEY|REDISCLI_AUTH")


def _read_example() -> dict[str, str]:
    lines = (PROJECT_FOLDER / ".env.example").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def _required() -> set[str]:
    return {match["name"] for match in VARIABLE.finditer(COMPOSE.read_text(encoding="utf-8")) if match["rule"] == ":?"}


def _render(text: str, values: dict[str, str]) -> str:
    """Compose's own interpolation: `${NAME:-default}` and `${NAME:?message}`."""

    def replace(match: re.Match[str]) -> str:
        value = values.get(match["name"], "")
        if not value and match["rule"] == ":?":
            raise KeyError(match["name"])
        return value or match["text"]

    return VARIABLE.sub(replace, text).replace("$$", "$")


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """The services with a made-up value for every secret that is required."""
    values = _read_example() | {name: f"madeup{name.replace('_', '').lower()}" for name in _required()}
    document = yaml.safe_load(_render(COMPOSE.read_text(encoding="utf-8"), values))
    found: dict[str, Any] = document["services"]
    return found


def test_compose_file_follows_the_compose_specification() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_part_of_the_production_column_is_there(services: dict[str, Any]) -> None:
    assert {"results-database", "airflow-database", "redis", "s3", "s3-init", *AIRFLOW_SERVICES} == set(services)
    gpu = services["gpu-worker"]
    assert gpu["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]
    assert gpu["command"][:4] == ["celery", "worker", "--queues", "gpu"]
    assert services["worker"]["command"][:4] == ["celery", "worker", "--queues", "default"]


def test_the_example_names_every_variable_and_no_other() -> None:
    asked = {match["name"] for match in VARIABLE.finditer(COMPOSE.read_text(encoding="utf-8"))}
    assert asked == set(_read_example())


def test_no_file_holds_a_secret() -> None:
    """A secret comes from a required variable, whole or inside a URL, and the example leaves it empty."""
    secrets = _required() | OPTIONAL_SECRETS
    example = _read_example()
    assert {name for name in example if SECRET_NAME.search(name)} == secrets
    assert {name: example[name] for name in secrets if example[name]} == {}
    for service in yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"].values():
        for name, value in service.get("environment", {}).items():
            if SECRET_NAME.search(name):
                assert VARIABLE.fullmatch(value), f"{name} is not taken from the environment"
            assert not re.search(r"://[^/$]*:[^$/@]+@", value), f"{name} holds a password"


@pytest.mark.parametrize("name", sorted(_required()))
def test_a_missing_secret_stops_the_start_by_name(name: str) -> None:
    values = {other: value or "x" for other, value in _read_example().items() if other != name}
    with pytest.raises(KeyError, match=name):
        _render(COMPOSE.read_text(encoding="utf-8"), values)


@pytest.mark.parametrize("name", AIRFLOW_SERVICES)
def test_the_settings_of_every_service_are_known_and_well_formed(services: dict[str, Any], name: str) -> None:
    environment = services[name]["environment"]
    ours = {key: str(value) for key, value in environment.items() if key.startswith("LLMCODER_")}
    settings = Settings.from_environment({"LLMCODER_HOME": "/var/lib/llmcoder", **ours})
    assert settings.require_database_url().startswith("postgresql+psycopg2://llmcoder:madeup")
    assert settings.artifacts_uri == "s3://llmcoder/artifacts"
    assert settings.approval_required


def _known_airflow_options() -> set[tuple[str, str]]:
    spec = importlib.util.find_spec("airflow")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    paths = [Path(folder) / "config_templates" / "config.yml" for folder in spec.submodule_search_locations]
    sections = yaml.safe_load(next(path for path in paths if path.exists()).read_text(encoding="utf-8"))
    return {(section, option) for section, body in sections.items() for option in body["options"]}


def test_every_airflow_variable_is_an_option_of_the_pinned_airflow(services: dict[str, Any]) -> None:
    known = _known_airflow_options()
    asked = {tuple(key.lower().split("__")[1:]) for key in services["scheduler"]["environment"] if key.startswith("AIRFLOW__")}
    of_celery = {("celery", "broker_url"), ("celery", "result_backend"), ("celery_broker_transport_options", "visibility_timeout")}
    assert asked - known == of_celery


def test_every_airflow_variable_of_the_embedded_services_is_an_option_too(tmp_path: Path) -> None:
    settings = Settings.from_environment({"LLMCODER_HOME": str(tmp_path)})
    credentials = Credentials(fernet_key="f", jwt_secret="j", session_key="s", password="p")
    ours = render_environment(settings, credentials, metadata_url="postgresql+psycopg2://x", port=8080)
    asked = {tuple(key.lower().split("__")[1:]) for key in ours if key.startswith("AIRFLOW__")}
    assert len(asked) > 20
    assert asked - _known_airflow_options() == set()


def test_coders_have_a_role_that_sees_the_pages_and_reads_notes(services: dict[str, Any]) -> None:
    init = services["airflow-init"]
    lines = init["command"][0].splitlines()
    assert lines.index("airflow roles create Coder") < lines.index("airflow roles add-perms Coder Viewer -a can_read -r Plugins")
    for setting in ("LLMCODER_NOTE_READERS", "LLMCODER_REVIEWERS"):
        assert init["environment"][setting] == "coder,op,admin"


def test_every_service_is_watched_or_ends_by_itself(services: dict[str, Any]) -> None:
    once = {name for name, service in services.items() if service["restart"] == "no"}
    assert once == {"s3-init", "airflow-init"}
    assert {name for name, service in services.items() if "healthcheck" in service} == set(services) - once


def test_services_wait_for_what_they_need(services: dict[str, Any]) -> None:
    for name, service in services.items():
        for needed, condition in service.get("depends_on", {}).items():
            ends = services[needed]["restart"] == "no"
            assert condition["condition"] == ("service_completed_successfully" if ends else "service_healthy"), (name, needed)
    assert all("airflow-init" in services[name]["depends_on"] for name in AIRFLOW_SERVICES if name != "airflow-init")


def test_only_the_user_interface_is_published_and_only_to_this_host(services: dict[str, Any]) -> None:
    assert {name: service["ports"] for name, service in services.items() if "ports" in service} == {
        "api-server": ["127.0.0.1:8080:8080"]
    }


def test_images_are_pinned(services: dict[str, Any]) -> None:
    for service in services.values():
        if "build" not in service:
            assert re.search(r":(\d|RELEASE)", service["image"]), service["image"]


def _dockerfile_lines() -> list[str]:
    text = (PROJECT_FOLDER / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_what_the_dockerfile_copies_is_there_and_not_ignored() -> None:
    rules = (PROJECT_FOLDER / ".dockerignore").read_text(encoding="utf-8").split()
    copied = [word for line in _dockerfile_lines() if line.startswith("COPY") for word in line.split()[1:-1] if word[:2] != "--"]
    assert {"constraints.txt", "pyproject.toml", "llmcoder_tasks", "dags", "plugins", "sql"} <= set(copied)
    for name in copied:
        assert (PROJECT_FOLDER / name).exists(), name
        last = [rule for rule in rules if fnmatch(name, rule.lstrip("!"))][-1]
        assert last.startswith("!"), f"{name} is copied and ignored by {last}"


def test_the_image_runs_as_an_ordinary_user_on_the_pinned_packages() -> None:
    lines = _dockerfile_lines()
    users = [line.split()[1] for line in lines if line.startswith("USER")]
    assert users == ["airflow"]
    assert any("--constraint constraints.txt" in line and ".[production]" in line for line in lines)


def test_hooks_are_well_formed_and_their_tools_installed() -> None:
    path = PROJECT_FOLDER / ".pre-commit-config.yaml"
    result = subprocess.run(
        [sys.executable, "-m", "pre_commit", "validate-config", str(path)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout
    hooks = [hook for repo in yaml.safe_load(path.read_text(encoding="utf-8"))["repos"] for hook in repo["hooks"]]
    assert {"ruff", "ruff-format", "mypy", "check-added-large-files", "detect-private-key"} <= {hook["id"] for hook in hooks}
    for hook in hooks:
        if hook["language"] == "system":
            program = Path(hook["entry"].split()[0])
            assert (Path(sys.executable).parent / program.name).exists(), program


def test_constraints_pin_exactly_and_name_no_build_or_place() -> None:
    lines = [line for line in (PROJECT_FOLDER / "constraints.txt").read_text(encoding="utf-8").splitlines() if line[:1] != "#"]
    assert [line for line in lines if not re.fullmatch(r"[a-z0-9.-]+==[0-9A-Za-z.]+", line)] == []
    assert len({line.split("==")[0] for line in lines}) == len(lines)
