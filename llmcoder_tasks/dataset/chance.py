"""Seeded chance, the same for ever: every draw comes from `random.Random.random`, whose numbers Python promises never to change.

(`choice`, `shuffle` and `randint` may draw otherwise in another Python, and a dataset must be reproducible to the byte.)
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Chance:
    """A stream of draws, decided by its key alone: `Chance(seed, "typos", "E119", 0)` is the same in any order of work."""

    __slots__ = ("_draw",)

    def __init__(self, *key: object) -> None:
        self._draw = random.Random("/".join(map(str, key))).random

    def happens(self, probability: float) -> bool:
        """True with the given probability."""
        return self._draw() < probability

    def pick(self, items: Sequence[T]) -> T:
        """One of the items, each equally likely."""
        return items[int(self._draw() * len(items))]

    def pick_early(self, items: Sequence[T]) -> T:
        """One of the items, the first ones more likely: for lists that begin with the most usual."""
        draw = self._draw()
        return items[int(draw * draw * len(items))]

    def count(self, low: int, high: int) -> int:
        """A whole number between `low` and `high`, both included."""
        return low + int(self._draw() * (high - low + 1))

    def share(self, low: float, high: float) -> float:
        """A number between `low` and `high`."""
        return low + self._draw() * (high - low)

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """The items in a random order."""
        order = list(items)
        for last in range(len(order) - 1, 0, -1):
            other = int(self._draw() * (last + 1))
            order[last], order[other] = order[other], order[last]
        return order
