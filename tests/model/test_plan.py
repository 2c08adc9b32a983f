"""The plan of a run: what is drawn, what stands together, and what each process gets."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llmcoder_tasks.errors import TrainingError
from llmcoder_tasks.model.batches import draw_examples, plan_steps
from llmcoder_tasks.model.plan import TrainingPlan
from llmcoder_tasks.model.recipe import Stage, UpdateStage, read_recipe
from llmcoder_tasks.model.tokenizer import AnswerTokenizer
from llmcoder_tasks.records import Example

TEXTS = ["gout, unspecified", "essential (primary) hypertension", "gout", "type 2 diabetes mellitus without complications; gout"]
CODES = [("M109",), ("I10",), ("M109",), ("E119", "M109")]
EXAMPLES = [
    Example(f"x{number}", "multiple" if len(codes) > 1 else "base", "train", text, codes)
    for number, (text, codes) in enumerate(zip(TEXTS, CODES, strict=True))
]


@pytest.fixture
def stage() -> Stage:
    one = read_recipe("tiny").stages["stage_one"]
    return replace(one, mix={"base": 0.75, "multiple": 0.25}, examples=40, tokens_per_step=30)


def test_every_scenario_comes_by_its_share_and_each_of_its_examples_equally_often() -> None:
    scenarios = ["base"] * 30 + ["typos"] * 10
    order = draw_examples(scenarios, {"base": 0.5, "typos": 0.5, "notes": 3.0}, 60, seed=1)
    counts = Counter(order.tolist())
    assert {counts[number] for number in range(30)} == {1}
    assert {counts[number] for number in range(30, 40)} == {3}
    halves = [sum(number < 30 for number in order[part]) for part in (slice(0, 30), slice(30, 60))]
    assert halves[0] == pytest.approx(15, abs=2), "scenarios are not spread over the run"


def test_rows_of_a_step_have_one_length_and_one_code_or_several_each() -> None:
    random = np.random.default_rng(3)
    lengths, code_counts = random.integers(5, 9, 500).tolist(), random.integers(1, 4, 500).tolist()
    order = random.permutation(500)
    steps = plan_steps(lengths, code_counts, order, tokens_per_step=64, processes=2, seed=3)
    for rows in steps:
        assert len({(lengths[row], code_counts[row] > 1) for row in rows}) == 1
        assert sum(lengths[row] for row in rows) <= 64
        assert len(rows) >= 2
    assert Counter(int(row) for rows in steps for row in rows) >= Counter(range(500))


def test_short_steps_of_rare_lengths_are_spread_over_the_run() -> None:
    lengths = [8] * 1000 + list(range(20, 60))
    steps = plan_steps(lengths, [1] * 1040, np.arange(1040), tokens_per_step=80, processes=1, seed=4)
    places = [number for number, rows in enumerate(steps) if lengths[rows[0]] >= 20]
    assert len(places) == 40
    assert sum(place < len(steps) / 2 for place in places) == pytest.approx(20, abs=8)


def test_batches_of_two_processes_are_together_those_of_one(tokenizer: AnswerTokenizer, stage: Stage) -> None:
    plan = TrainingPlan.make(EXAMPLES, stage, tokenizer, processes=2, seed=5)
    for step in range(len(plan)):
        whole = plan.batch(step, process=0, processes=1, ignored=-100)[0]
        parts = [plan.batch(step, process=number, processes=2, ignored=-100)[0] for number in range(2)]
        assert sorted(map(tuple, whole)) == sorted(map(tuple, np.concatenate(parts)))


def test_a_row_is_prompt_and_answer_and_its_labels_are_the_answer_alone(tokenizer: AnswerTokenizer, stage: Stage) -> None:
    plan = TrainingPlan.make(EXAMPLES[3:], stage, tokenizer, processes=1, seed=5)
    ids, labels = plan.batch(0, process=0, processes=1, ignored=-100)
    prompt = tokenizer.encode_prompts([TEXTS[3]])[0][0]
    answer = tokenizer.encode_answer(["E119", "M109"])
    assert ids[0].tolist() == prompt + answer[:-1]
    assert labels[0].tolist() == answer


def test_a_shorter_answer_in_a_step_is_filled_with_ignored_labels(tokenizer: AnswerTokenizer, stage: Stage) -> None:
    prompts = {name: len(tokenizer.encode_prompts([name])[0][0]) for name in ("gout", "gout x")}
    assert prompts["gout x"] > prompts["gout"]
    surplus = prompts["gout x"] - prompts["gout"]
    examples = [
        Example("a", "base", "train", "gout x", ("I10",)),
        Example("b", "base", "train", "gout", ("E1121"[: 3 + surplus],)),
    ]
    plan = TrainingPlan.make(examples, replace(stage, mix={"base": 1.0}, tokens_per_step=1000), tokenizer, processes=1, seed=5)
    labels = plan.batch(0, process=0, processes=1, ignored=-100)[1]
    short = tokenizer.encode_answer(["I10"])
    rows = [row.tolist() for row in labels if row.tolist()[-len(short) :] == short]
    assert rows
    assert set(rows[0][: -len(short)]) == {-100}
    assert len(rows[0]) == len(short) + surplus


def test_the_same_inputs_give_the_same_plan_and_it_survives_the_disk(
    tokenizer: AnswerTokenizer, stage: Stage, tmp_path: Path
) -> None:
    plan = TrainingPlan.make(EXAMPLES, stage, tokenizer, processes=1, seed=5)
    plan.save(tmp_path)
    for other in (TrainingPlan.make(EXAMPLES, stage, tokenizer, processes=1, seed=5), TrainingPlan.load(tmp_path)):
        assert np.array_equal(plan.inputs, other.inputs)
        assert np.array_equal(plan.steps, other.steps)
    assert plan.example_count == 40
    assert plan.tokens_until()[-1] == sum(plan.batch(step, process=0, processes=1, ignored=0)[0].size for step in range(len(plan)))
    other = TrainingPlan.make(EXAMPLES, stage, tokenizer, processes=1, seed=6)
    assert not np.array_equal(plan.steps, other.steps)


def test_epochs_are_whole_passes_over_the_tables_of_the_mix(tokenizer: AnswerTokenizer, stage: Stage) -> None:
    passes = replace(stage, examples=None, epochs=3.0, mix={"base": 1.0, "multiple": 0.0})
    plan = TrainingPlan.make(EXAMPLES, passes, tokenizer, processes=1, seed=5)
    assert plan.example_count == 9


def test_examples_that_are_too_long_are_left_out_and_counted(tokenizer: AnswerTokenizer, stage: Stage) -> None:
    limit = len(tokenizer.encode_prompts([TEXTS[1]])[0][0]) + 2
    plan = TrainingPlan.make(EXAMPLES, replace(stage, max_tokens=limit), tokenizer, processes=1, seed=5)
    assert plan.left_out >= 1
    with pytest.raises(TrainingError, match="none of 4 examples fits 3 tokens"):
        TrainingPlan.make(EXAMPLES, replace(stage, max_tokens=3), tokenizer, processes=1, seed=5)


@pytest.mark.parametrize(("share", "passes", "expected"), [(0.5, 100, 50), (0.5, 7, 14), (0.0, 7, 0)])
def test_an_update_draws_changed_codes_by_their_share_and_none_of_them_too_often(
    tokenizer: AnswerTokenizer, share: float, passes: int, expected: int
) -> None:
    """Of 100 examples, two of them about the changed code: 50 by share, or 2 examples x 7 passes."""
    update = read_recipe("tiny").stages["update"]
    assert isinstance(update, UpdateStage)
    update = replace(update, mix={"base": 0.5, "multiple": 0.5}, examples=100, changed_share=share, changed_passes=passes)
    plan = TrainingPlan.make(EXAMPLES, update, tokenizer, processes=1, seed=5, changed={"E119", "I10"})
    drawn = [plan.inputs[plan.input_starts[row] : plan.input_starts[row + 1]].tolist() for row in plan.steps]
    changed = [tokenizer.encode_prompts([TEXTS[number]])[0][0] for number in (1, 3)]
    counts = [sum(row[: len(prompt)] == prompt for row in drawn) for prompt in changed]
    assert counts == [expected // 2] * 2
    assert len(drawn) == 100


def test_an_update_without_a_changed_code_is_all_replay(tokenizer: AnswerTokenizer) -> None:
    update = read_recipe("tiny").stages["update"]
    plan = TrainingPlan.make(EXAMPLES, update, tokenizer, processes=1, seed=5)
    assert plan.example_count == update.examples
