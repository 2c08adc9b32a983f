"""Chance is decided by its key alone, and by nothing that another Python may draw otherwise."""

from __future__ import annotations

from hashlib import blake2b

from llmcoder_tasks.dataset.chance import Chance


def test_the_same_key_gives_the_same_draws_and_another_key_others() -> None:
    first, again, other = (Chance(0, "typos", code) for code in ("E119", "E119", "E110"))
    draws = [first.count(0, 10**6) for _ in range(5)]
    assert [again.count(0, 10**6) for _ in range(5)] == draws
    assert [other.count(0, 10**6) for _ in range(5)] != draws


def test_draws_are_numbers_out_of_blake2_sixteen_a_digest() -> None:
    digests = [blake2b(b"1/x", salt=bytes([0] * 7 + [block])).digest() for block in range(2)]
    numbers = [int.from_bytes(digest[start : start + 4], "big") / 2**32 for digest in digests for start in range(0, 64, 4)]
    chance = Chance(1, "x")
    assert [chance.share(0, 1) for _ in range(20)] == numbers[:20]


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
