"""Memory, time and operations of a training, worked by hand; and what is said where it cannot be."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from llmcoder_tasks.errors import ModelError, TrainingError
from llmcoder_tasks.model.adapters import add_adapter
from llmcoder_tasks.model.devices import Device
from llmcoder_tasks.model.flops import ModelShape, count_training_flops, find_peak
from llmcoder_tasks.model.llama import AnswerLlama
from llmcoder_tasks.model.preflight import (
    Load,
    estimate_inference_memory,
    estimate_memory,
    estimate_seconds,
    verify_fits,
)
from llmcoder_tasks.model.recipe import Adapter, read_recipe

ONE = ModelShape(16, 2048, 8192, 32, 8, 64, 128_256, embeddings_tied=True)
EIGHT = ModelShape(32, 4096, 14336, 32, 8, 128, 128_256, embeddings_tied=False)
LOAD = Load(4096, 1024, 1_000_000, 250_000, 25_000_000)
H100 = Device("NVIDIA H100 80GB HBM3", "GPU-1", 80 * 2**30, is_gpu=True)
L4 = Device("NVIDIA L4", "GPU-2", 24 * 10**9, is_gpu=True)


def test_the_weights_of_the_published_shapes_are_those_that_are_published() -> None:
    assert ONE.weights == 1_235_814_400
    assert EIGHT.weights == 8_030_261_248
    # Rank 16: q 16 x (2048 + 2048), k and v 16 x (2048 + 512), o as q, three times 16 x (2048 + 8192); 16 layers.
    assert ONE.adapter_weights(Adapter(rank=16, alpha=32.0)) == 16 * 16 * (2 * 4096 + 2 * 2560 + 3 * 10240)


def test_operations_are_counted_for_what_is_asked_alone() -> None:
    layers = 16 * (2 * 2048 * 2048 + 2 * 2048 * 512 + 3 * 2048 * 8192)
    assert ONE.layer_matrices == layers == 973_078_528
    found = count_training_flops(ONE, None, tokens=100, answer_tokens=20, squared_tokens=2500)
    last = 3 * 2048 * 8192  # the feed-forward of the last layer, not needed for 80 tokens
    assert found == 6 * (layers * 100 - last * 80) + 6 * 128_256 * 2048 * 20 + 6 * 16 * 2048 * 2500
    adapted = count_training_flops(
        ONE, Adapter(rank=1, alpha=1, layers=("q_proj",)), tokens=100, answer_tokens=100, squared_tokens=0
    )
    assert adapted == 4 * (layers + 128_256 * 2048) * 100 + 6 * 16 * 4096 * 100


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L4", 121e12),
        ("Tesla V100-SXM2-16GB", None),
    ],
)
def test_the_peak_of_a_device_is_known_by_its_name_or_not_at_all(name: str, peak: float | None) -> None:
    assert find_peak(name) == peak


def test_eight_billion_weights_need_128_gb_before_activations_and_the_cure_is_named() -> None:
    recipe = replace(read_recipe("llama-3.1-8b"), deepspeed_zero_stage=None)
    assert estimate_memory(EIGHT, recipe, LOAD, processes=1).states == 16 * 8_030_261_248
    with pytest.raises(TrainingError) as caught:
        verify_fits(EIGHT, recipe, LOAD, [H100], processes=1, nodes=1, host_bytes=10**12)
    message = str(caught.value)
    assert "8.0 billion weights, all trained, need 128.5 GB before activations" in message
    assert "NVIDIA H100 80GB HBM3 has room for 80.7 GB a process: use an adapter (LoRA) (" in message
    with pytest.raises(TrainingError, match="use an adapter with quantized_base .QLoRA."):
        verify_fits(EIGHT, recipe, LOAD, [replace(L4, memory_bytes=16 * 10**9)], processes=1, nodes=1, host_bytes=10**9)


@pytest.mark.parametrize(
    ("stage", "offload", "bytes_a_weight", "host"),
    [
        (1, None, 2 + 2 + 12 / 4, 0),
        (2, None, 2 + 2 / 4 + 12 / 4, 0),
        (3, None, 16 / 4, 0),
        (2, "optimizer", 2 + 2 / 4, 12),
        (3, "all", 0, 16),
    ],
)
def test_zero_shares_more_with_each_stage(stage: int, offload: str | None, bytes_a_weight: float, host: int) -> None:
    recipe = replace(read_recipe("llama-3.1-8b"), deepspeed_zero_stage=stage, deepspeed_offload=offload)
    memory = estimate_memory(EIGHT, recipe, LOAD, processes=4)
    assert memory.states == pytest.approx(bytes_a_weight * EIGHT.weights)
    assert memory.host == pytest.approx(host * EIGHT.weights)
    assert memory.buffers == 2 * 2 * 500_000_000


def test_an_adapter_needs_its_base_once_and_in_four_bits_a_quarter_of_it() -> None:
    recipe = read_recipe("llama-3.1-8b-lora")
    assert recipe.adapter is not None
    trained = EIGHT.adapter_weights(recipe.adapter)
    assert estimate_memory(EIGHT, recipe, LOAD, processes=1).states == 2 * EIGHT.weights + 16 * trained
    still = EIGHT.weights - EIGHT.layer_matrices
    four = estimate_memory(EIGHT, read_recipe("llama-3.1-8b-qlora"), LOAD, processes=1).states
    assert four == pytest.approx(0.515875 * EIGHT.layer_matrices + 2 * still + 16 * trained)


def test_time_is_estimated_for_known_devices_alone() -> None:
    """6 x 973 M x 1 M tokens, less 6 x 50 M x 0.75 M of the last feed-forward, 6 x 263 M x 0.25 M answer tokens, and attention:
    6.01e15 operations at 0.4 x 989.4e12 a second.
    """
    recipe = read_recipe("llama-3.2-1b")
    assert estimate_seconds(ONE, recipe, LOAD, [H100], nodes=1) == pytest.approx(6.010e15 / (0.4 * 989.4e12), rel=1e-3)
    assert estimate_seconds(ONE, recipe, LOAD, [H100, H100], nodes=2) == pytest.approx(6.010e15 / (4 * 0.4 * 989.4e12), rel=1e-3)
    assert estimate_seconds(ONE, recipe, LOAD, [replace(H100, name="another")], nodes=1) is None


def test_what_fits_is_said_and_passes(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    verify_fits(ONE, read_recipe("llama-3.2-1b"), LOAD, [H100], processes=1, nodes=1, host_bytes=10**11)
    assert "1.2 billion weights, all trained, need 19.8 GB before activations" in caplog.text
    assert "min at 40 % of the peak" in caplog.text


def test_small_models_are_counted_in_millions(caplog: pytest.LogCaptureFixture) -> None:
    """16,000 x 256 embeddings and a layer of 4 x 256 x 256 + 3 x 256 x 768 weights, and three norms."""
    caplog.set_level("INFO")
    shape = ModelShape(1, 256, 768, 8, 8, 32, 16_000, True)
    verify_fits(shape, read_recipe("compact"), LOAD, [H100], processes=1, nodes=1, host_bytes=10**11)
    assert "4.9 million weights, all trained" in caplog.text


def test_a_model_of_a_billion_codes_within_two_gigabytes_in_four_bits_or_eight() -> None:
    """973 M weights of layers by 1 or 0.516 bytes, 263 M others by 2; 32 KiB of keys and values a token; 16 texts of 128 tokens."""
    in_eight = estimate_inference_memory(ONE, 8, batch=16, tokens=128)
    in_four = estimate_inference_memory(ONE, 4, batch=16, tokens=128)
    others = 2 * (1_235_814_400 - 973_078_528)
    rest = 32_768 * 16 * 128 + 10 * 16 * 128_256 + 2 * 16 * 128 * (4 * 2048 + 3 * 8192)
    assert in_eight == 973_078_528 + others + rest
    assert in_four == pytest.approx(0.515875 * 973_078_528 + others + rest)
    assert in_four < in_eight < 2e9 < estimate_inference_memory(ONE, None, batch=16, tokens=128)


@pytest.mark.parametrize("kind", ["fp32", "autocast", "adapter", "halves"])
@pytest.mark.parametrize("is_recomputed", [False, True])
def test_what_layers_keep_is_what_the_graph_of_this_code_holds(kind: str, is_recomputed: bool) -> None:
    """Three layers against two, so that the difference is one layer; estimates may be off by a fifth."""
    tokens, hidden, inner = 512, 64, 192
    counted = (_count_kept(3, kind, is_recomputed, tokens) - _count_kept(2, kind, is_recomputed, tokens)) / tokens
    adapter = Adapter(rank=1, alpha=1.0) if kind == "adapter" else None
    recipe = replace(
        read_recipe("llama-3.2-1b"),
        precision="fp32" if kind == "fp32" else "bf16",
        deepspeed_zero_stage=2 if kind == "halves" else None,
        adapter=adapter,
        gradient_checkpointing=is_recomputed,
    )
    load = Load(tokens, 0, 0, 0, 0, mask_tokens=tokens)
    three, two = (
        estimate_memory(ModelShape(layers, hidden, inner, 4, 4, 16, 32, True), recipe, load, processes=1).activations
        for layers in (3, 2)
    )
    assert (three - two) / tokens == pytest.approx(counted, rel=0.2)


def _count_kept(layers: int, kind: str, is_recomputed: bool, tokens: int) -> int:
    """Bytes of all tensors that the way back needs, weights left out."""
    config = AnswerLlama.config_class(
        vocab_size=32, hidden_size=64, intermediate_size=192, num_hidden_layers=layers, num_attention_heads=4,
        num_key_value_heads=4,
    )  # fmt: skip
    model = AnswerLlama(config).train()
    if kind in {"halves", "adapter"}:
        model.to(torch.bfloat16)
    if kind == "adapter":
        add_adapter(model, Adapter(rank=1, alpha=1.0))
    if is_recomputed:
        model.activation_checkpointing_enable({"use_reentrant": False})
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    ids, labels, places = torch.ones(1, tokens, dtype=torch.long), torch.tensor([1]), torch.tensor([tokens - 1])
    starts = torch.tensor([0, tokens], dtype=torch.int32)
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=kind in {"autocast", "adapter"}),
    ):
        model(ids, labels, positions=torch.arange(tokens)[None], places=places, starts=starts, longest=tokens, divisor=1.0)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def test_a_configuration_is_read_and_a_broken_one_named(tmp_path: Path) -> None:
    facts = {
        "num_hidden_layers": 16, "hidden_size": 2048, "intermediate_size": 8192, "num_attention_heads": 32,
        "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 128_256, "tie_word_embeddings": True,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(facts))
    assert ModelShape.read(tmp_path) == ONE
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="is no configuration of a Llama"):
        ModelShape.read(tmp_path)
