"""Plugins are loose files on Airflow's path: `pages_app` puts that folder on ours, and keeps Airflow out of the home folder."""

from __future__ import annotations

import pages_app  # noqa: F401 - before any test here imports Airflow or a plugin
