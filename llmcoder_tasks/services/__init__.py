"""The embedded services behind `llmcoder up`, `down` and `status`: PostgreSQL and Airflow, with their state under `.llmcoder/`."""

from __future__ import annotations

from llmcoder_tasks.services.lifecycle import RunningServices, ServiceState, down, open_running_api, status, up

__all__ = ["RunningServices", "ServiceState", "down", "open_running_api", "status", "up"]
