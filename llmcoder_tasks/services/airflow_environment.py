"""What the embedded Airflow is told by environment variables: our settings, and its own configuration."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from llmcoder_tasks.services.credentials import USERNAME, Credentials, password_file
from llmcoder_tasks.settings import PROJECT_FOLDER, CoderServer, LanguageModel, Settings

METADATA_VARIABLE = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"


def airflow_home(settings: Settings) -> Path:
    """AIRFLOW_HOME of the embedded Airflow."""
    return settings.home / "airflow"


def render_environment(settings: Settings, credentials: Credentials, *, metadata_url: str, port: int) -> dict[str, str]:
    """What the services get on top of the caller's environment: the settings, and Airflow's configuration.

    An `AIRFLOW__*` variable that the caller has set wins over ours.
    """
    folder = airflow_home(settings)
    logs = settings.home / "logs" / "airflow"
    slots = str(max(4, os.cpu_count() or 1))
    ours = {
        "AIRFLOW_HOME": str(folder),
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__SECRET_KEY": credentials.session_key,
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__API_AUTH__JWT_SECRET": credentials.jwt_secret,
        "AIRFLOW__CORE__AUTH_MANAGER": "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager",
        "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": "60",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "True",
        "AIRFLOW__CORE__DAGS_FOLDER": str(PROJECT_FOLDER / "dags"),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__FERNET_KEY": credentials.fernet_key,
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": slots,
        "AIRFLOW__CORE__PARALLELISM": slots,
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(PROJECT_FOLDER / "plugins"),
        # Anonymous callers would be administrators: they could approve a model.
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(password_file(folder)),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USERNAME}:admin",
        METADATA_VARIABLE: metadata_url,
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "60",
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "60",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(logs),
        "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
        "AIRFLOW__LOGGING__DAG_PROCESSOR_CHILD_PROCESS_LOG_DIRECTORY": str(logs / "dag_processor"),
        # A new scheduler gives the tasks of a killed one to nobody before this check: by default that is five minutes later.
        "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "30",
        # Training may hold every core for a while: answers come late then, not never.
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "30",
        "DO_NOT_TRACK": "1",
        "GX_ANALYTICS_ENABLED": "false",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(PROJECT_FOLDER), os.environ.get("PYTHONPATH")])),
        "PYTHONUNBUFFERED": "1",
        **render_settings(settings),
    }
    theirs = {name: value for name, value in os.environ.items() if name.startswith("AIRFLOW__")}
    return {**ours, **theirs}


def render_settings(settings: Settings) -> dict[str, str]:
    """The settings as the variables that `Settings.from_environment` reads."""
    values = {
        "LLMCODER_HOME": str(settings.home),
        "LLMCODER_DATABASE_URL": settings.database_url,
        "LLMCODER_ARTIFACTS": settings.artifacts_uri,
        "LLMCODER_LANDING": settings.landing_uri,
        "LLMCODER_LANDING_SECONDS": settings.landing_seconds,
        "LLMCODER_INBOX": str(settings.inbox_folder),
        "LLMCODER_MAX_QUARANTINED_SHARE": settings.max_quarantined_share,
        "LLMCODER_CLAIM_SECONDS": settings.claim_seconds,
        "LLMCODER_S3_ENDPOINT_URL": settings.s3_endpoint_url,
        "LLMCODER_RECIPE": settings.recipe,
        "LLMCODER_VARIATIONS_PER_CODE": settings.variations_per_code,
        "LLMCODER_TRAIN_ON_CORRECTIONS": "on" if settings.train_on_corrections else "off",
        "LLMCODER_APPROVAL": "required" if settings.approval_required else "off",
        "LLMCODER_APPROVERS": ",".join(settings.approvers) or None,
        "LLMCODER_APPROVAL_HOURS": settings.approval_hours,
        "LLMCODER_DEADLINE_DAYS": settings.deadline_days,
        "LLMCODER_NIGHT_HOURS": settings.night_hours,
        "LLMCODER_NOTE_READERS": ",".join(sorted(settings.note_readers)),
        "LLMCODER_REVIEWERS": ",".join(sorted(settings.reviewers)),
        "LLMCODER_TRAINING_PROCESSES": settings.training_processes,
        "LLMCODER_TRAINING_NODES": settings.training_nodes.count if settings.training_nodes else None,
        "LLMCODER_TRAINING_RENDEZVOUS": settings.training_nodes.rendezvous if settings.training_nodes else None,
        "LLMCODER_TRAINING_NOTES": settings.training_notes,
        "LLMCODER_PORT": settings.port,
        **_render_language_model("LLMCODER_LLM", settings.language_model),
        **_render_language_model("LLMCODER_NOTE_LLM", settings.note_model),
        **_render_coder_server(settings.coder_server),
    }
    return {name: str(value) for name, value in values.items() if value is not None}


def _render_language_model(prefix: str, model: LanguageModel | Path | None) -> dict[str, object]:
    if not isinstance(model, LanguageModel):
        return {f"{prefix}_MODEL": model}
    values = {f"{prefix}_URL": model.url, f"{prefix}_MODEL": model.name, f"{prefix}_KEY": model.key}
    if prefix == "LLMCODER_NOTE_LLM":
        return {**values, f"{prefix}_AGREEMENT": urlsplit(model.url).hostname}  # it was asked for when the settings were read
    return {**values, f"{prefix}_INPUT_PRICE": model.input_price, f"{prefix}_OUTPUT_PRICE": model.output_price}


def _render_coder_server(server: CoderServer | None) -> dict[str, object]:
    if server is None:
        return {}
    return {
        "LLMCODER_CODER_LLM_URL": server.url,
        "LLMCODER_CODER_LLM_KEY": server.key,
        "LLMCODER_CODER_LLM_AGREEMENT": server.host if server.covers_patients else None,
        "LLMCODER_CODER_LLM_BATCH_FROM": server.batch_from,
        "LLMCODER_TRAIN_PRICE": server.train_price,
        "LLMCODER_TRAIN_MAX_COST": server.max_cost,
    }


def complete_environment(ours: Mapping[str, str]) -> dict[str, str]:
    """The caller's environment with `ours` on top, programs of this virtual environment first in PATH."""
    caller = {name: value for name, value in os.environ.items() if not name.startswith("LLMCODER_")}
    # Every task is a process that imports Airflow anew: without cached bytecode that costs seconds each time.
    caller.pop("PYTHONDONTWRITEBYTECODE", None)
    path = os.pathsep.join([str(Path(sys.executable).parent), caller.get("PATH", os.defpath)])
    return {**caller, **ours, "PATH": path}


def fingerprint_environment(ours: Mapping[str, str]) -> str:
    """Tells whether running services were started with the same settings; says nothing about the secrets among them."""
    return hashlib.sha256(repr(sorted(ours.items())).encode()).hexdigest()[:16]
