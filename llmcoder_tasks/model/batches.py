"""The plan of a training run: which examples stand together in which step. Pure, seeded, the same for every number of processes.

Rows of one step have one length, so that nothing is padded, and one code or several each, so that their answers are about equally
long.
A step's rows are shared among the processes; a run that was cut off goes on by skipping the steps that are done.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]

_CHUNK = 65_536
"""Examples among which rows of one length are looked for: enough that few steps are short, few enough that order stays random."""


def draw_examples(scenarios: Sequence[str], shares: dict[str, float], count: int, *, seed: int) -> Indices:
    """`count` example indices, each scenario by its share and each of its examples equally often (give or take one).

    A scenario without examples leaves its share to the others. The order is random but for this: an example comes again only when
    all others of its scenario have come.
    """
    random = np.random.default_rng(seed)
    names = np.asarray(scenarios)
    pools = {name: np.flatnonzero(names == name) for name in shares}
    pools = {name: pool for name, pool in pools.items() if len(pool)}
    total = sum(shares[name] for name in pools)
    positions: list[NDArray[np.float64]] = []
    streams: list[Indices] = []
    for name, pool in pools.items():
        wanted = round(count * shares[name] / total)
        rounds = [random.permutation(pool) for _ in range(-(-wanted // len(pool)))]
        stream = np.concatenate(rounds)[:wanted] if rounds else pool[:0]
        # Spread every stream evenly over the run, with a jitter, and merge by position.
        positions.append((np.arange(wanted) + random.random(wanted)) / max(wanted, 1))
        streams.append(stream)
    return np.concatenate(streams)[np.argsort(np.concatenate(positions), kind="stable")]


def plan_steps(
    lengths: Sequence[int], code_counts: Sequence[int], order: Indices, *, tokens_per_step: int, processes: int, seed: int
) -> list[Indices]:
    """Cut an order of examples into steps of at most `tokens_per_step` tokens and at least one row a process.

    Args:
        lengths: input tokens of each example.
        code_counts: codes of each example.
        order: example indices in the order in which they should come, which the steps keep roughly.
    """
    random = np.random.default_rng(seed)
    sizes = np.asarray(lengths, dtype=np.int64)
    keys = sizes * 2 + (np.asarray(code_counts) > 1)
    steps: list[Indices] = []
    waiting = order[:0]
    for start in range(0, len(order), _CHUNK):
        chunk = np.concatenate([waiting, order[start : start + _CHUNK]])
        full, waiting = _cut(chunk, keys, sizes, tokens_per_step, processes)
        random.shuffle(full)
        steps += full
    # What never filled a step stands in short ones, spread over the run: at its end, where the learning rate is zero, rare
    # lengths would never be learnt. np.resize repeats rows where there are fewer than one for each process.
    for key in np.unique(keys[waiting]):
        rows = waiting[keys[waiting] == key]
        steps.insert(int(random.integers(len(steps) + 1)), rows if len(rows) >= processes else np.resize(rows, processes))
    return steps


def _cut(chunk: Indices, keys: Indices, lengths: Indices, tokens_per_step: int, processes: int) -> tuple[list[Indices], Indices]:
    """Full steps out of a chunk, and the rows that wait for others of their kind."""
    full: list[Indices] = []
    waiting: list[Indices] = [chunk[:0]]
    for key in np.unique(keys[chunk]):
        rows = chunk[keys[chunk] == key]
        size = max(tokens_per_step // int(lengths[rows[0]]), processes)
        whole = len(rows) - len(rows) % size
        full += [rows[begin : begin + size] for begin in range(0, whole, size)]
        waiting.append(rows[whole:])
    return full, np.concatenate(waiting)
