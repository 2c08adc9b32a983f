"""`up`, `status` and `down` for real: PostgreSQL and the four components of Airflow."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest

from llmcoder_tasks import services
from llmcoder_tasks.database import Database
from llmcoder_tasks.errors import DatabaseUnreachable, ServiceError, SettingsError
from llmcoder_tasks.settings import Settings

NAMES = ("postgres", "api-server", "scheduler", "dag-processor", "triggerer")


@pytest.fixture(autouse=True)
def _no_airflow_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("AIRFLOW"):
            monkeypatch.delenv(name)


@pytest.fixture
def settings(open_folder: Path) -> Settings:
    return Settings.from_environment({"LLMCODER_HOME": str(open_folder / "home")})


def test_status_and_down_say_so_when_nothing_runs(settings: Settings) -> None:
    assert [(state.name, state.is_running) for state in services.status(settings)] == [(name, False) for name in NAMES]
    said: list[str] = []
    assert services.down(settings, report=said.append) == ()
    assert said == ["nothing was running"]


def test_an_unreachable_results_database_is_told_before_anything_starts(tmp_path: Path) -> None:
    settings = Settings.from_environment(
        {"LLMCODER_HOME": str(tmp_path), "LLMCODER_DATABASE_URL": "postgresql://someone:secret@127.0.0.1:9/results"}
    )
    with pytest.raises(DatabaseUnreachable, match="LLMCODER_DATABASE_URL") as caught:
        services.up(settings)
    assert "secret" not in str(caught.value)
    assert not any(state.is_running for state in services.status(settings))


def test_a_client_without_services_is_told_to_start_them(settings: Settings) -> None:
    with pytest.raises(ServiceError, match="run `llmcoder up` first"):
        services.open_running_api(settings)


@pytest.mark.end_to_end
def test_services_start_once_answer_survive_a_kill_and_stop_without_a_trace(settings: Settings) -> None:
    try:
        running = services.up(settings)
        assert running.started == NAMES
        states = services.status(settings)
        assert all(state.is_running and state.log_file.exists() for state in states)
        pids = [state.pid for state in states]

        again = services.up(settings)
        assert (again.started, again.ui_url, again.password) == ((), running.ui_url, running.password)
        assert [state.pid for state in services.status(settings)] == pids

        database = Database(settings.require_database_url())
        database.verify_current()
        database.engine.dispose()
        with services.open_running_api(settings) as api:
            assert api.list_import_errors() == {}
            api.ensure_pool("gpu_pool", slots=1, description="it is there already")

        triggerer = psutil.Process(next(state.pid for state in states if state.name == "triggerer"))
        os.kill(triggerer.pid, signal.SIGKILL)
        triggerer.wait(timeout=20)
        assert services.up(settings).started == ("triggerer",)
    finally:
        services.down(settings)
    assert not any(state.is_running for state in services.status(settings))
    assert [
        process for process in psutil.process_iter(["cmdline"]) if str(settings.home) in " ".join(process.info["cmdline"] or [])
    ] == []
    with pytest.raises(SettingsError, match="llmcoder up"):
        settings.require_database_url()
