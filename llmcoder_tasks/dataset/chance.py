"""Seeded chance, the same for ever: every draw comes out of BLAKE2 over a key and a count, whatever Python it runs on.

(A dataset must be reproducible to the byte. `random.Random` is too, but takes longer to seed than a text takes to write.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from itertools import count
from struct import Struct
from typing import TypeVar

T = TypeVar("T")

_UNPACK = Struct(">16I").unpack  # a digest of 64 bytes is sixteen draws
_STEP = 2.0**-32


class Chance:
    """A stream of draws, decided by its key alone: `Chance(seed, "typos", "E119", 0)` is the same in any order of work."""

    __slots__ = ("_draw",)

    def __init__(self, *key: object) -> None:
        self._draw = _numbers("/".join(map(str, key)).encode()).__next__

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


def _numbers(key: bytes) -> Iterator[float]:
    """Numbers from 0 to below 1."""
    for block in count():
        for number in _UNPACK(blake2b(key, salt=block.to_bytes(8, "big")).digest()):
            yield number * _STEP
