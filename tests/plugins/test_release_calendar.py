"""The days on which releases take effect, and what the runs of those days are called."""

from __future__ import annotations

from datetime import date

import pendulum
import pytest
from airflow.timetables.base import DataInterval, TimeRestriction
from airflow.utils.types import DagRunType
from llmcoder_calendar import ReleaseTimetable, release_in_effect

from llmcoder_tasks.errors import ReleaseError

FROM_THE_START = TimeRestriction(earliest=None, latest=None, catchup=True)


def _next_after(moment: pendulum.DateTime) -> pendulum.DateTime:
    info = ReleaseTimetable().next_dagrun_info(last_automated_data_interval=DataInterval.exact(moment), restriction=FROM_THE_START)
    assert info is not None
    return info.run_after


def test_the_days_are_the_first_of_april_and_of_october() -> None:
    october = _next_after(pendulum.datetime(2026, 4, 1, 6))
    april = _next_after(october)

    assert october == pendulum.datetime(2026, 10, 1, 6)
    assert april == pendulum.datetime(2027, 4, 1, 6)
    assert _next_after(april) == pendulum.datetime(2027, 10, 1, 6)


@pytest.mark.parametrize(("day", "key"), [(date(2026, 10, 1), "FY2027"), (date(2027, 4, 1), "FY2027-April")])
def test_a_day_names_the_release_that_takes_effect(day: date, key: str) -> None:
    assert release_in_effect(day) == key


def test_no_release_takes_effect_on_another_day() -> None:
    with pytest.raises(ReleaseError, match="no ICD-10-CM release takes effect on 2026-10-02"):
        release_in_effect(date(2026, 10, 2))


def test_a_scheduled_run_is_named_after_its_release() -> None:
    moment = pendulum.datetime(2026, 10, 1, 6)

    run_id = ReleaseTimetable().generate_run_id(
        run_type=DagRunType.SCHEDULED, run_after=moment, data_interval=DataInterval.exact(moment)
    )

    assert run_id == "scheduled__FY2027"


def test_runs_by_hand_on_one_day_have_different_names() -> None:
    timetable = ReleaseTimetable()
    moments = [pendulum.datetime(2026, 5, 5, 12, minute) for minute in (0, 1)]

    run_ids = {timetable.generate_run_id(run_type=DagRunType.MANUAL, run_after=moment, data_interval=None) for moment in moments}

    assert len(run_ids) == 2
    assert all(run_id.startswith("manual__") for run_id in run_ids)


def test_the_scheduler_reads_back_the_same_timetable() -> None:
    read_back = ReleaseTimetable.deserialize(ReleaseTimetable().serialize())

    assert read_back == ReleaseTimetable()
    assert read_back.summary == "1 April and 1 October"
