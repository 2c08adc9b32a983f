"""Plugins are loose files on Airflow's path: put that folder on ours, and keep Airflow out of the home folder."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="airflow-"))
os.environ.setdefault("AIRFLOW__CORE__LOAD_EXAMPLES", "False")

PLUGINS_FOLDER = str(Path(__file__).resolve().parents[2] / "plugins")
if PLUGINS_FOLDER not in sys.path:
    sys.path.append(PLUGINS_FOLDER)
