"""What one training run will do, step by step, as plain arrays in one file: any process can take up its part at any step."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmcoder_tasks.errors import TrainingError
from llmcoder_tasks.model.batches import Indices, draw_examples, plan_steps
from llmcoder_tasks.model.packing import PackedRows, lay_out_rows, pack_examples, plan_packed_steps
from llmcoder_tasks.model.recipe import NotesStage, Stage, UpdateStage
from llmcoder_tasks.model.tokenizer import AnswerTokenizer
from llmcoder_tasks.prompt import TextKind
from llmcoder_tasks.records import Example

PLAN_NAME = "plan.npz"


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """Encoded examples and the steps they are taken in.

    Row i has the input ids `inputs[input_starts[i]:input_starts[i + 1]]` (prompt and answer without its last token) and an
    answer of `answer_lengths[i]` tokens, the last of them `last_ids[i]`; step k has the rows
    `steps[step_starts[k]:step_starts[k + 1]]`. Where examples are packed, these stand in rows of `row_tokens` tokens, which begin
    at the places `row_starts` of `steps`.
    """

    inputs: NDArray[np.int32]
    input_starts: Indices
    answer_lengths: NDArray[np.int32]
    last_ids: NDArray[np.int32]
    steps: Indices
    step_starts: Indices
    row_starts: Indices
    row_tokens: int
    left_out: int

    @classmethod
    def make(
        cls,
        examples: Sequence[Example],
        stage: Stage,
        tokenizer: AnswerTokenizer,
        *,
        processes: int,
        seed: int,
        changed: Set[str] = frozenset(),
    ) -> TrainingPlan:
        """Draw examples for a stage, encode what was drawn, and lay out the steps.

        `changed` are the codes that an update has to learn. Drawn examples that are too long are left out. Raises TrainingError
        when nothing is left to train on.
        """
        pools, shares = _share_out(examples, stage, changed)
        order = draw_examples(pools, shares, _count(stage, pools), seed=seed)
        drawn = [examples[number] for number in np.unique(order)]
        kinds = [_kind_of(example, stage) for example in drawn]
        prompts, _ = tokenizer.encode_texts([example.text for example in drawn], kinds)
        answers = [tokenizer.encode_answer(example.codes) for example in drawn]
        longest_answer = tokenizer.settings.answer_tokens
        kept = [
            number
            for number, (prompt, answer) in enumerate(zip(prompts, answers, strict=True))
            if len(prompt) + len(answer) <= stage.max_tokens and len(answer) <= longest_answer
        ]
        if not kept:
            raise TrainingError(f"none of {len(drawn)} examples fits {stage.max_tokens} tokens: raise max_tokens in the recipe")
        lengths = [len(prompts[number]) + len(answers[number]) - 1 for number in kept]
        code_counts = [len(drawn[number].codes) for number in kept]
        rows = np.full(len(drawn), -1, np.int64)
        rows[kept] = np.arange(len(kept))
        order = rows[np.searchsorted(np.unique(order), order)]
        order = order[order >= 0]
        if stage.packing:
            rows_per_step = max(stage.tokens_per_step // stage.packing, processes)
            packed = plan_packed_steps(
                pack_examples(lengths, order, stage.packing), rows_per_step=rows_per_step, processes=processes
            )
            steps = [np.concatenate(step) for step in packed]
            row_lengths = [len(row) for step in packed for row in step]
        else:
            steps = plan_steps(lengths, code_counts, order, tokens_per_step=stage.tokens_per_step, processes=processes, seed=seed)
            row_lengths = []
        return cls(
            inputs=np.concatenate([np.array([*prompts[number], *answers[number][:-1]], np.int32) for number in kept]),
            input_starts=_starts(lengths),
            answer_lengths=np.array([len(answers[number]) for number in kept], np.int32),
            last_ids=np.array([answers[number][-1] for number in kept], np.int32),
            steps=np.concatenate(steps),
            step_starts=_starts([len(step) for step in steps]),
            row_starts=_starts(row_lengths),
            row_tokens=stage.packing or 0,
            left_out=len(drawn) - len(kept),
        )

    @classmethod
    def load(cls, folder: Path) -> TrainingPlan:
        """Read a plan; arrays only, never a pickle."""
        with np.load(folder / PLAN_NAME, allow_pickle=False) as arrays:
            facts = {field.name: arrays[field.name] for field in dataclasses.fields(cls)}
        return cls(**facts | {"row_tokens": int(facts["row_tokens"]), "left_out": int(facts["left_out"])})

    def save(self, folder: Path) -> None:
        """Write the plan, whole or not at all."""
        temporary = folder / f".incoming-{PLAN_NAME}"
        arrays: dict[str, Any] = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        np.savez(temporary, **arrays)
        temporary.replace(folder / PLAN_NAME)

    def __len__(self) -> int:
        return len(self.step_starts) - 1

    @property
    def example_count(self) -> int:
        """Examples in all steps, repetitions counted."""
        return len(self.steps)

    def tokens_until(self) -> Indices:
        """Input tokens seen after 0, 1, 2, ... steps, over all processes."""
        lengths = np.diff(self.input_starts)[self.steps]
        return np.concatenate([[0], np.cumsum(lengths)])[self.step_starts]

    def answer_tokens_until(self) -> Indices:
        """Tokens with a label seen after 0, 1, 2, ... steps, over all processes."""
        return np.concatenate([[0], np.cumsum(self.answer_lengths[self.steps], dtype=np.int64)])[self.step_starts]

    def squared_tokens_until(self) -> Indices:
        """The sum of the examples' squared lengths after 0, 1, 2, ... steps: what attention costs grows with it."""
        lengths = np.diff(self.input_starts)[self.steps]
        return np.concatenate([[0], np.cumsum(lengths * lengths)])[self.step_starts]

    def largest_step(self, processes: int) -> tuple[int, int]:
        """Tokens, padding included, and tokens with a label, that one process computes at most in a step."""
        tokens = self.most_rows() * self.row_tokens if self.row_tokens else np.diff(self.tokens_until()).max()
        return -(-int(tokens) // processes), -(-int(np.diff(self.answer_tokens_until()).max()) // processes)

    def most_rows(self) -> int:
        """Rows of the largest step of a packed plan, over all processes."""
        return int(np.diff(np.searchsorted(self.row_starts, self.step_starts)).max())

    def longest_example(self) -> int:
        """Input tokens of the longest example."""
        return int(np.diff(self.input_starts).max())

    def packed_batch(self, step: int, *, process: int, processes: int, row_count: int, longest: int) -> PackedRows:
        """One process's rows of a step of a packed plan, and empty ones up to `row_count`; no example is longer than `longest`."""
        first, last = np.searchsorted(self.row_starts, self.step_starts[step : step + 2])
        rows = [
            [self._example(example) for example in self.steps[self.row_starts[row] : self.row_starts[row + 1]]]
            for row in range(first + process, last, processes)
        ]
        rows += [[]] * (row_count - len(rows))
        return lay_out_rows(rows, row_tokens=self.row_tokens, longest=longest)

    def _example(self, row: int) -> tuple[Indices, Indices]:
        """Input ids and answer of a row."""
        ids = self.inputs[self.input_starts[row] : self.input_starts[row + 1]].astype(np.int64)
        following = np.append(ids[1:], self.last_ids[row])
        return ids, following[-self.answer_lengths[row] :]

    def batch(self, step: int, *, process: int, processes: int, ignored: int) -> tuple[Indices, Indices]:
        """Input ids [rows, length] and labels [rows, longest answer] of one process's part of a step."""
        rows = self.steps[self.step_starts[step] : self.step_starts[step + 1]][process::processes]
        starts = self.input_starts[rows]
        length = int(self.input_starts[rows[0] + 1] - starts[0])
        ids = self.inputs[starts[:, None] + np.arange(length)].astype(np.int64)
        answer_lengths = self.answer_lengths[rows]
        keep = int(answer_lengths.max())
        following = np.concatenate([ids[:, 1:], self.last_ids[rows, None]], axis=1)[:, -keep:]
        return ids, np.where(np.arange(keep) >= keep - answer_lengths[:, None], following, ignored)


def _kind_of(example: Example, stage: Stage) -> TextKind:
    """Whole notes, where a stage is about them, are asked about as notes."""
    return "note" if isinstance(stage, NotesStage) and example.scenario == "notes" else "phrase"


def _share_out(examples: Sequence[Example], stage: Stage, changed: Set[str]) -> tuple[list[str], dict[str, float]]:
    """The pool that each example is drawn from, and the share of each pool: its scenario; in an update, changed codes apart."""
    scenarios = [example.scenario for example in examples]
    if not isinstance(stage, UpdateStage):
        return scenarios, _shares(stage, scenarios)
    is_changed = [not changed.isdisjoint(example.codes) for example in examples]
    pools = [f"changed {name}" if new else name for name, new in zip(scenarios, is_changed, strict=True)]
    # Fewer changed examples than the recipe wants leave their room to the replay, instead of coming again and again.
    share = min(stage.changed_share, stage.changed_passes * sum(is_changed) / _count(stage, pools))
    present = set(pools)
    shares: dict[str, float] = {}
    for prefix, part in (("changed ", share), ("", 1 - share)):
        mix = {f"{prefix}{name}": weight for name, weight in stage.mix.items() if f"{prefix}{name}" in present}
        total = sum(mix.values())
        shares |= {name: part * weight / total for name, weight in mix.items() if total}
    return pools, shares


def _count(stage: Stage, scenarios: Sequence[str]) -> int:
    if stage.examples is not None:
        return stage.examples
    return round((stage.epochs or 1.0) * sum(stage.mix.get(name, 0) > 0 for name in scenarios))


def _shares(stage: Stage, scenarios: Sequence[str]) -> dict[str, float]:
    """Shares of the mix; a stage of whole passes takes each table by its size."""
    if stage.examples is not None:
        return stage.mix
    return {name: float(scenarios.count(name)) for name, share in stage.mix.items() if share > 0}


def _starts(lengths: Sequence[int]) -> Indices:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
