"""How Airflow finds the pages: loaded once, built late, and shown where people look for them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from llmcoder_dashboard import DashboardPlugin, LazyPages

PROJECT_FOLDER = Path(__file__).resolve().parents[2]

LOAD_PLUGINS = """
import json, sys
from airflow.plugins_manager import _get_plugins, get_fastapi_plugins, _get_ui_plugins
plugins, errors = _get_plugins()
apps, _ = get_fastapi_plugins()
views, _ = _get_ui_plugins()
print(json.dumps({
    "plugins": sorted(plugin.name for plugin in plugins if str(plugin.source).startswith("$PLUGINS_FOLDER")),
    "errors": errors,
    "apps": [app["url_prefix"] for app in apps],
    "views": [[view["destination"], view["href"]] for view in views],
    "ours": sorted(name for name, module in sys.modules.items() if str(getattr(module, "__file__", "")).startswith(sys.argv[1])),
}))
"""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What a fresh Airflow below a path of its host finds in the folder."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW__", "LLMCODER_"))},
        "AIRFLOW_HOME": str(tmp_path_factory.mktemp("airflow")),
        "AIRFLOW__API__BASE_URL": "https://hospital.example/airflow",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(PROJECT_FOLDER / "plugins"),
        "PYTHONPATH": str(PROJECT_FOLDER),
    }
    run = subprocess.run(
        [sys.executable, "-c", LOAD_PLUGINS, str(PROJECT_FOLDER / "plugins")],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    found: dict[str, object] = json.loads(run.stdout.splitlines()[-1])
    return found


def test_airflow_loads_the_two_plugins_and_nothing_beside_them(loaded: dict[str, object]) -> None:
    assert loaded["errors"] == {}
    assert loaded["plugins"] == ["llmcoder_calendar", "llmcoder_dashboard"]
    assert loaded["ours"] == ["llmcoder_calendar", "llmcoder_dashboard"], "a plugin is loaded everywhere: import inside functions"


def test_the_pages_are_in_the_navigation_and_beside_each_run(loaded: dict[str, object]) -> None:
    assert loaded["apps"] == ["/llmcoder"]
    assert loaded["views"] == [
        ["nav", "/airflow/llmcoder/"],
        ["dag_run", "/airflow/llmcoder/runs?dag_id={DAG_ID}&run_id={RUN_ID}"],
    ]


def test_bad_settings_are_refused_without_a_word_to_the_caller(
    airflow_login: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from fastapi.testclient import TestClient

    monkeypatch.setenv("LLMCODER_APPROVAL", "perhaps")
    pages = LazyPages()
    answer = TestClient(pages).get("/")
    assert answer.status_code == 503
    assert "perhaps" not in answer.text
    assert "LLMCODER_APPROVAL='perhaps'" in caplog.text
    # Mended, the next request finds them.
    monkeypatch.delenv("LLMCODER_APPROVAL")
    assert TestClient(pages).get("/").status_code == 401


def test_nothing_is_built_before_the_first_request() -> None:
    assert DashboardPlugin.fastapi_apps[0]["app"]._app is None
