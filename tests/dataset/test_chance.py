"""Chance is decided by its key alone, and by nothing that another Python may draw otherwise."""

from __future__ import annotations

import random

from llmcoder_tasks.dataset.chance import Chance


def test_the_same_key_gives_the_same_draws_and_another_key_others() -> None:
    first, again, other = (Chance(0, "typos", code) for code in ("E119", "E119", "E110"))
    draws = [first.count(0, 10**6) for _ in range(5)]
    assert [again.count(0, 10**6) for _ in range(5)] == draws
    assert [other.count(0, 10**6) for _ in range(5)] != draws


def test_draws_come_from_the_numbers_that_python_promises_to_keep() -> None:
    draw = random.Random("1/x").random
    expected = [int(draw() * 3) for _ in range(20)]
    chance = Chance(1, "x")
    assert [chance.pick((0, 1, 2)) for _ in range(20)] == expected


def test_bounds_are_included_and_never_passed() -> None:
    chance = Chance("bounds")
    assert {chance.count(2, 4) for _ in range(200)} == {2, 3, 4}
    assert all(0.1 <= chance.share(0.1, 0.2) < 0.2 for _ in range(200))
    assert not any(chance.happens(0) for _ in range(50))
    assert all(chance.happens(1) for _ in range(50))


def test_early_items_are_picked_more_often() -> None:
    chance = Chance("early")
    picks = [chance.pick_early("abcd") for _ in range(1000)]
    assert picks.count("a") > 400
    assert 0 < picks.count("d") < 200


def test_shuffling_keeps_every_item_and_leaves_the_original_alone() -> None:
    items = tuple(range(50))
    shuffled = Chance("shuffle").shuffled(items)
    assert sorted(shuffled) == list(items)
    assert shuffled != list(items)
