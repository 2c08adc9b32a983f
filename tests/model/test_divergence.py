"""The rule by which a training is given up."""

from __future__ import annotations

import pytest

from llmcoder_tasks.model.divergence import DivergenceWatch


@pytest.mark.parametrize(
    ("losses", "is_found"),
    [
        ([6, 2, 1, 7, 8, 9], True),
        ([6, 2, 1, 7, 8], False),  # two are noise
        ([6, 2, 1, 7, 8, 5, 9], False),  # better than the beginning in between
        ([0.5, 0.4, 0.55, 0.6, 0.7], False),  # above the beginning, not twice the lowest
        ([0.5, 0.1, 0.3, 0.3, 0.3], False),  # three times the lowest, below the beginning
        ([1, 2.1, 2.2, 2.3], True),  # never any better
    ],
)
def test_three_losses_in_a_row_above_the_first_and_twice_the_lowest_end_a_run(losses: list[float], is_found: bool) -> None:
    watch = DivergenceWatch()
    faults = [watch.find_fault(loss) for loss in losses]
    assert (faults[-1] is not None) == is_found
    assert all(fault is None for fault in faults[:-1])


def test_the_message_has_the_figures_and_a_run_that_goes_on_remembers_what_it_saw() -> None:
    watch = DivergenceWatch([6.0, 2.0, 1.0, 7.0, 8.0])
    assert watch.find_fault(9.0) == "the loss diverged: 7, 8, 9 after 1, and 6 at the beginning"
