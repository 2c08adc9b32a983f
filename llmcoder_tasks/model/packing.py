"""Several examples in one row without seeing each other: which stand together, and what a row of them looks like. Pure.

Positions restart with every example, and attention stops at its beginning (`positions == 0`), so that an example's numbers are
those that it has alone. What stays free at the end of a row are examples without a label.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmcoder_tasks.model.batches import Indices

_OPEN_ROWS = 64
"""Rows that wait for an example that fits: enough that little stays free, few enough that the order of examples stays random."""


@dataclass(frozen=True, slots=True)
class PackedRows:
    """One process's part of a step.

    `ids` and `positions` are [rows, tokens of a row]. When the rows stand behind each other, `starts` are where examples begin,
    with their whole length at the end, and `places` are the tokens that a token of an answer follows, `answers`.
    """

    ids: Indices
    positions: Indices
    starts: NDArray[np.int32]
    places: Indices
    answers: Indices


def pack_examples(lengths: Sequence[int], order: Indices, row_tokens: int) -> list[Indices]:
    """Rows of at most `row_tokens` tokens, filled with examples in their order: each goes into the fullest open row with room."""
    rows: list[list[int]] = []
    free: list[tuple[int, int]] = []  # (free tokens, row) of the open ones, sorted
    closed: list[Indices] = []
    for example in order.tolist():
        length = lengths[example]
        place = bisect_left(free, (length, -1))
        if place == len(free):
            if len(free) == _OPEN_ROWS:
                closed.append(np.array(rows[free.pop(0)[1]], np.int64))
            rows.append([])
            room, row = row_tokens, len(rows) - 1
        else:
            room, row = free.pop(place)
        rows[row].append(example)
        insort(free, (room - length, row))
    return closed + [np.array(rows[row], np.int64) for _, row in sorted(free, key=lambda entry: entry[1])]


def plan_packed_steps(rows: Sequence[Indices], *, rows_per_step: int, processes: int) -> list[list[Indices]]:
    """Rows by steps, at least one a process: a last step that has fewer takes some of its rows again."""
    steps = [list(rows[start : start + rows_per_step]) for start in range(0, len(rows), rows_per_step)]
    if steps and len(steps[-1]) < processes:
        last = steps[-1]
        steps[-1] = [last[number % len(last)] for number in range(processes)]
    return steps


def lay_out_rows(examples: Sequence[Sequence[tuple[Indices, Indices]]], *, row_tokens: int, longest: int) -> PackedRows:
    """Rows of (input ids, answer) pairs as arrays; an input ends before the last token of its answer.

    No example has more than `longest` tokens, and none is made longer of what is free.
    """
    ids = np.zeros((len(examples), row_tokens), np.int64)
    positions = np.zeros((len(examples), row_tokens), np.int64)
    places: list[Indices] = []
    for number, row in enumerate(examples):
        begin = 0
        for inputs, answer in row:
            end = begin + len(inputs)
            ids[number, begin:end] = inputs
            places.append(np.arange(end - len(answer), end) + number * row_tokens)
            positions[number, begin:end] = np.arange(len(inputs))
            begin = end
        positions[number, begin:] = np.arange(row_tokens - begin) % longest
    starts = np.append(np.flatnonzero(positions.reshape(-1) == 0), positions.size).astype(np.int32)
    answers = np.concatenate([answer for row in examples for _, answer in row])
    return PackedRows(ids, positions, starts, np.concatenate(places), answers)
