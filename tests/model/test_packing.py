"""Several examples in one row: where they go, and that none of them sees, or changes, another."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.nn import functional

from llmcoder_tasks.model import llama
from llmcoder_tasks.model.kernels import speed_up
from llmcoder_tasks.model.llama import AnswerLlama
from llmcoder_tasks.model.packing import PackedRows, lay_out_rows, pack_examples, plan_packed_steps
from llmcoder_tasks.model.recipe import read_recipe

EXAMPLES = [
    (np.array([5, 6, 7, 8, 9]), np.array([9, 3])),
    (np.array([11, 12, 13]), np.array([4])),
    (np.array([21, 22, 23, 24, 25, 26, 27]), np.array([25, 26, 3])),
    (np.array([31]), np.array([2])),
]
"""(input ids, answer) of examples of 5, 3, 7 and 1 tokens."""


@pytest.fixture
def model() -> AnswerLlama:
    """A pretrained-like Llama of two layers: answers in its whole vocabulary, fewer heads for keys and values."""
    torch.manual_seed(4)
    config = AnswerLlama.config_class(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2
    )
    made = AnswerLlama(config)
    for weights in made.parameters():
        if weights.dim() > 1:
            weights.data.mul_(8)  # attention that attends to something
    return made


def _rows() -> PackedRows:
    """5 + 3 tokens and 2 free ones; 7 + 1 and 2 free ones."""
    return lay_out_rows([EXAMPLES[:2], EXAMPLES[2:]], row_tokens=10, longest=7)


def _packed(model: AnswerLlama, rows: PackedRows, divisor: float) -> torch.Tensor:
    tensors = {
        "input_ids": torch.from_numpy(rows.ids),
        "labels": torch.from_numpy(rows.answers),
        "positions": torch.from_numpy(rows.positions),
        "places": torch.from_numpy(rows.places),
    }
    loss: torch.Tensor = model(**tensors, starts=torch.from_numpy(rows.starts), longest=7, divisor=divisor)["loss"]
    return loss


def _alone(model: AnswerLlama) -> torch.Tensor:
    """The mean loss of all answer tokens, each example computed in a row of its own by the library's full pass."""
    total = torch.zeros(())
    for inputs, answer in EXAMPLES:
        states = model.model(input_ids=torch.from_numpy(inputs)[None]).last_hidden_state[0, -len(answer) :]
        total = total + functional.cross_entropy(model.lm_head(states), torch.from_numpy(answer), reduction="sum")
    return total / sum(len(answer) for _, answer in EXAMPLES)


def _gradients(model: AnswerLlama, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: weights.grad.clone() for name, weights in model.named_parameters() if weights.grad is not None}


def test_a_row_restarts_positions_with_each_example_and_labels_its_answer_alone() -> None:
    rows = _rows()
    assert rows.ids[0].tolist() == [5, 6, 7, 8, 9, 11, 12, 13, 0, 0]
    assert rows.positions.tolist() == [[0, 1, 2, 3, 4, 0, 1, 2, 0, 1], [0, 1, 2, 3, 4, 5, 6, 0, 0, 1]]
    assert rows.places.tolist() == [3, 4, 7, 14, 15, 16, 17]
    assert rows.answers.tolist() == [9, 3, 4, 25, 26, 3, 2]
    assert rows.starts.tolist() == [0, 5, 8, 10, 17, 18, 20]


def test_an_empty_row_is_examples_without_a_label_none_longer_than_the_longest() -> None:
    rows = lay_out_rows([EXAMPLES[:2], []], row_tokens=10, longest=4)
    assert rows.positions[1].tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    assert rows.starts.tolist() == [0, 5, 8, 10, 14, 18, 20]
    assert rows.places.tolist() == [3, 4, 7]


def test_loss_and_gradients_of_packed_rows_are_those_of_rows_of_their_own(model: AnswerLlama) -> None:
    answers = sum(len(answer) for _, answer in EXAMPLES)
    packed, alone = _packed(model, _rows(), answers), _alone(model)
    assert packed.item() == pytest.approx(alone.item(), rel=1e-6)
    expected = _gradients(model, alone)
    found = _gradients(model, _packed(model, _rows(), answers))
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def test_another_neighbour_changes_nothing_of_an_example(model: AnswerLlama) -> None:
    losses = []
    for neighbour in (EXAMPLES[0], (np.array([40, 41, 42, 43, 44]), np.array([45]))):
        rows = lay_out_rows([[neighbour, EXAMPLES[1]]], row_tokens=9, longest=5)
        of_the_last = replace(rows, places=rows.places[-1:], answers=rows.answers[-1:])
        losses.append(_packed(model, of_the_last, 1.0).item())
    assert losses[0] == losses[1]


def test_the_variable_length_kernel_gets_what_gives_the_same_loss(model: AnswerLlama, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel is for GPUs alone: here a plain computation stands in, which takes and gives the same shapes."""
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", _attend_one_by_one)
    expected = _packed(model, _rows(), 7.0).item()
    model.config._attn_implementation = llama.APART
    assert _packed(model, _rows(), 7.0).item() == pytest.approx(expected, rel=1e-6)


def _attend_one_by_one(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, starts: torch.Tensor, other_starts: torch.Tensor,
    longest: int, other_longest: int, *, scale: float, window_size: tuple[int, int], enable_gqa: bool,
) -> torch.Tensor:  # fmt: skip
    """[tokens, heads, head size], each example for itself."""
    assert window_size == (-1, 0)
    assert longest == other_longest == 7
    assert starts.dtype == torch.int32
    parts = []
    for begin, end in pairwise(starts.tolist()):
        inside = [tensor[begin:end].transpose(0, 1)[None] for tensor in (query, key, value)]
        mixed = functional.scaled_dot_product_attention(*inside, is_causal=True, scale=scale, enable_gqa=enable_gqa)
        parts.append(mixed[0].transpose(0, 1))
    return torch.cat(parts)


def test_rows_are_full_each_example_stands_once_and_the_order_is_roughly_kept() -> None:
    random = np.random.default_rng(1)
    lengths = random.integers(5, 60, 4000).tolist()
    rows = pack_examples(lengths, random.permutation(4000), 256)
    assert Counter(int(example) for row in rows for example in row) == Counter(range(4000))
    sizes = [sum(lengths[example] for example in row) for row in rows]
    assert max(sizes) <= 256
    assert sum(sizes) / (256 * len(rows)) > 0.97, "too much of the rows is empty"


def test_the_last_step_has_a_row_for_each_process() -> None:
    rows = [np.array([number]) for number in range(5)]
    steps = plan_packed_steps(rows, rows_per_step=4, processes=2)
    assert [[int(row[0]) for row in step] for step in steps] == [[0, 1, 2, 3], [4, 4]]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def test_gradients_through_recomputed_layers_are_the_same(model: AnswerLlama) -> None:
    expected = _gradients(model, _packed(model, _rows(), 7.0))
    model.train()
    model.activation_checkpointing_enable()
    found = _gradients(model, _packed(model, _rows(), 7.0))
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=1e-7, msg=name)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # dynamo looks at states between layers
def test_compiled_layers_and_loss_give_the_same_gradients(model: AnswerLlama, monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced as on a GPU, and run without a compiler of C."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    expected = _gradients(model, _packed(model, _rows(), 7.0))
    speed_up(model, replace(read_recipe("llama-3.2-1b"), compiled=True, gradient_checkpointing=False), packed=True)
    assert model.fused_loss is not None
    found = _gradients(model, _packed(model, _rows(), 7.0))
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=1e-7, msg=name)
