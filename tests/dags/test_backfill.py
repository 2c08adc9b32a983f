"""Nights of the past by Airflow's own backfill, on a fresh metadata database."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

PROJECT_FOLDER = Path(__file__).resolve().parents[2]


def test_a_backfill_makes_one_night_for_each_date_as_of_that_date(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    environment |= {
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__CORE__DAGS_FOLDER": str(PROJECT_FOLDER / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(PROJECT_FOLDER / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "LLMCODER_HOME": str(tmp_path / "llmcoder"),
    }
    span = ["--from-date", "2026-09-22", "--to-date", "2026-09-24"]
    for command in (["db", "migrate"], ["dags", "reserialize"], ["backfill", "create", "--dag-id", "code_encounters", *span]):
        done = subprocess.run(
            [sys.executable, "-m", "airflow", *command], env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]

    database = sqlite3.connect(tmp_path / "airflow.db")
    try:
        runs = database.execute("SELECT substr(logical_date, 1, 16), run_type FROM dag_run ORDER BY 1").fetchall()
    finally:
        database.close()
    assert runs == [("2026-09-22 02:00", "backfill"), ("2026-09-23 02:00", "backfill")]
