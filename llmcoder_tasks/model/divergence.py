"""When a training has gone wrong for good: a rule on its logged losses. Pure."""

from __future__ import annotations

from collections.abc import Iterable

PATIENCE = 3
"""Logged losses in a row that must be bad: one bad batch is no divergence."""

FACTOR = 2.0
"""A bad loss is more than so many times the lowest one, and more than the first one."""


class DivergenceWatch:
    """Follows the losses of a run, each the mean since the one before.

    A run has diverged when three of them in a row are each above the first one of the run and above twice the lowest one so far: it
    is worse than where it began, and that is no noise.
    """

    def __init__(self, losses: Iterable[float] = ()) -> None:
        self._first: float | None = None
        self._lowest = float("inf")
        self._bad: list[float] = []
        for loss in losses:
            self.find_fault(loss)

    def find_fault(self, loss: float) -> str | None:
        """Take the next loss; what is wrong, None while nothing is."""
        if self._first is None:
            self._first = loss
        is_bad = loss > self._first and loss > FACTOR * self._lowest
        self._bad = [*self._bad, loss] if is_bad else []
        self._lowest = min(self._lowest, loss)
        if len(self._bad) < PATIENCE:
            return None
        values = ", ".join(f"{value:.3g}" for value in self._bad[-PATIENCE:])
        return f"the loss diverged: {values} after {self._lowest:.3g}, and {self._first:.3g} at the beginning"
