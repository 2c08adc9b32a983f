"""When ICD-10-CM releases take effect: 1 October, and the April update.

Releases are published months before they take effect and start the loop when they arrive (`llmcoder_landing`). On the day
itself this timetable starts one more run, the alarm for a release that nobody has loaded.
"""

from __future__ import annotations

from datetime import date
from typing import Any

from airflow.plugins_manager import AirflowPlugin
from airflow.timetables.base import Timetable
from airflow.timetables.trigger import CronTriggerTimetable
from airflow.utils.types import DagRunType

from llmcoder_tasks.records import render_release_key


class ReleaseTimetable(CronTriggerTimetable):
    """06:00 UTC on 1 April and 1 October, whose runs are named after the release that takes effect: `scheduled__FY2028`."""

    def __init__(self) -> None:
        super().__init__("0 6 1 4,10 *", timezone="UTC")
        self.description = "The day on which an ICD-10-CM release takes effect: 1 April and 1 October"

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> Timetable:
        return cls()

    def serialize(self) -> dict[str, Any]:
        return {}

    @property
    def summary(self) -> str:
        return "1 April and 1 October"

    def generate_run_id(self, *, run_type: DagRunType, run_after: Any, **extra: Any) -> str:
        if run_type == DagRunType.SCHEDULED:
            return run_type.generate_run_id(suffix=release_in_effect(run_after.date()))
        return super().generate_run_id(run_type=run_type, run_after=run_after, **extra)


def release_in_effect(day: date) -> str:
    """Key of the release that takes effect on `day`, as it stands in the run id and in the partitions of the release asset.

    Raises ReleaseError on any other day than the first of a release's month.
    """
    return render_release_key(day)


class ReleaseCalendarPlugin(AirflowPlugin):
    """Registers the timetable, so that the scheduler can read it back."""

    name = "llmcoder_calendar"
    timetables = [ReleaseTimetable]  # noqa: RUF012 - the plugin manager wants a plain list
