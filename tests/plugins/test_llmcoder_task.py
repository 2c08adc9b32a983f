"""The manners of every task: references as dictionaries, errors as one line, and nothing of a note in any of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException
from llmcoder_task import llmcoder_task, require_key, take_result

from llmcoder_tasks.errors import DatabaseUnreachable, ReleaseError
from llmcoder_tasks.records import ModelRef

NOTE = "Mr Example, 68, crushing chest pain"


def _run(function: Any, **options: Any) -> Any:
    """Call the task's body as the worker does."""
    return llmcoder_task(**options)(function).function()


def test_a_reference_goes_into_xcom_as_a_dictionary() -> None:
    model = {"model_id": "m1", "uri": "file:///m1"}

    assert _run(lambda: ModelRef("m1", "file:///m1")) == model
    assert _run(lambda: [ModelRef("m1", "file:///m1")]) == [model]
    assert _run(lambda: None) is None


def test_bad_input_fails_at_once_with_its_one_line() -> None:
    def step() -> None:
        raise ReleaseError("duplicate code A000", file="order.txt", line=7)

    with pytest.raises(AirflowFailException, match="^ReleaseError: order.txt:7: duplicate code A000$"):
        _run(step)


def test_an_unreachable_service_is_tried_again() -> None:
    def step() -> None:
        raise DatabaseUnreachable("no connection to postgresql://host/results")

    with pytest.raises(AirflowException, match="^DatabaseUnreachable: no connection") as caught:
        _run(step)
    assert not isinstance(caught.value, AirflowFailException)


def test_an_unexpected_error_in_a_task_without_notes_keeps_its_words() -> None:
    def step() -> None:
        raise ValueError("learning rate is negative")

    with pytest.raises(ValueError, match="learning rate is negative"):
        _run(step)


def test_an_unexpected_error_among_notes_tells_its_place_and_not_its_words() -> None:
    def step() -> None:
        raise ValueError(f"cannot parse {NOTE!r}")

    with pytest.raises(AirflowException) as caught:
        _run(step, reads_notes=True)

    assert "ValueError, its message withheld" in str(caught.value)
    assert "test_llmcoder_task.py" in str(caught.value)
    assert "chest pain" not in repr(caught.value)
    assert caught.value.__suppress_context__, "the trace would show the original error below"


def test_a_skip_among_notes_stays_a_skip() -> None:
    def step() -> None:
        raise AirflowSkipException("nothing to do")

    with pytest.raises(AirflowSkipException):
        _run(step, reads_notes=True)


def test_a_run_is_about_its_partition_and_by_hand_about_its_param() -> None:
    by_asset, by_hand = SimpleNamespace(partition_key="FY2027"), SimpleNamespace(partition_key=None)

    assert require_key(by_asset, {"release_key": None}, "release_key") == "FY2027"
    assert require_key(by_hand, {"release_key": "FY2026-April"}, "release_key") == "FY2026-April"
    with pytest.raises(AirflowFailException, match="trigger it again with the partition key or the param 'release_key'"):
        require_key(by_hand, {"release_key": None}, "release_key")


def test_what_came_of_the_way_that_was_taken_goes_on_and_without_one_the_task_is_skipped() -> None:
    assert take_result(None, {"model_id": "m1"}) == {"model_id": "m1"}
    with pytest.raises(AirflowSkipException, match="nothing to do"):
        take_result(None, None)
