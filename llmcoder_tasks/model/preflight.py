"""What a training will need, before it takes a device: memory and time by arithmetic, and what to change where it cannot be.

Weights, gradients and AdamW's moments take 16 bytes for each trained weight in whatever mix of precisions (Rajbhandari et al., SC
2020, section 3.1), shared among processes by ZeRO's stages (section 5). What layers keep for their way back was counted on the
graph of this code, bytes for each token and layer (tests/model/test_preflight.py counts again).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from llmcoder_tasks.errors import TrainingError
from llmcoder_tasks.model.devices import Device
from llmcoder_tasks.model.flops import ModelShape, count_training_flops, find_peak
from llmcoder_tasks.model.recipe import Adapter, Recipe

logger = logging.getLogger(__name__)

USABLE_SHARE = 0.94
"""Of a GPU's memory: the rest is the context of CUDA and what lies between blocks."""

EXPECTED_UTILISATION = 0.4
"""Share of its peak that a GPU is expected to give, for estimates of time."""

_GIGABYTE = 1e9
_KEPT = {"fp32": (40, 16), "autocast": (34, 8), "adapter": (28, 8), "halves": (24, 8)}
"""Bytes kept for each token and layer: by hidden size, and by intermediate size."""

_NF4_BYTES = 0.5 + 0.127 / 8
"""Bytes of a weight in four bits, double quantization included (Dettmers et al. 2023, section 3)."""

_BUCKET = 500_000_000
"""Weights that DeepSpeed, by default, gathers or reduces together."""


@dataclass(frozen=True, slots=True)
class Load:
    """What one process computes in its largest step, and all of them in the whole run."""

    tokens: int  # padding included
    answer_tokens: int
    all_tokens: int
    all_answer_tokens: int
    all_squared_tokens: int
    mask_tokens: int = 0  # length of the rows that attention looks at through a mask, which it keeps


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes on each device, and bytes of the machine's memory for all its processes together."""

    weights: float
    gradients: float
    optimizer: float
    buffers: float
    activations: float
    host: float

    @property
    def states(self) -> float:
        """Before activations."""
        return self.weights + self.gradients + self.optimizer

    @property
    def device(self) -> float:
        """All on a device."""
        return self.states + self.buffers + self.activations


def estimate_memory(shape: ModelShape, recipe: Recipe, load: Load, *, processes: int) -> Memory:
    """Memory of a training by shape, recipe and its largest step; `processes` on all machines."""
    if recipe.adapter is not None:
        states = _count_adapter_states(shape, recipe.adapter, recipe.precision)
    elif recipe.deepspeed_zero_stage is None:
        trained = shape.weights
        # Gradients are copied into the buckets of the processes' exchange.
        states = Memory(4 * trained, 4 * trained, 8 * trained, 4 * trained if processes > 1 else 0, 0, 0)
    else:
        states = _count_zero_states(shape, recipe, processes)
    return replace(states, activations=_count_activations(shape, recipe, load), buffers=states.buffers)


def _count_adapter_states(shape: ModelShape, adapter: Adapter, precision: str) -> Memory:
    still = 2 if precision == "bf16" else 4
    layers = _NF4_BYTES if adapter.quantized_base else still
    trained = shape.adapter_weights(adapter)
    weights = layers * shape.layer_matrices + still * (shape.weights - shape.layer_matrices) + 4 * trained
    return Memory(weights, 4 * trained, 8 * trained, 0, 0, 0)


def _count_zero_states(shape: ModelShape, recipe: Recipe, processes: int) -> Memory:
    """ZeRO: stage 1 shares the optimizer's states, with single-precision weights, 2 gradients too, 3 weights too."""
    size = 2 if recipe.precision == "bf16" else 4
    stage, trained = recipe.deepspeed_zero_stage or 0, shape.weights
    weights = size * trained / (processes if stage >= 3 else 1)
    gradients = size * trained / (processes if stage >= 2 else 1)
    optimizer = 12 * trained / processes
    buffers = 2 * size * min(_BUCKET, trained)
    host = 0.0
    if recipe.deepspeed_offload:
        host, optimizer = optimizer * processes, 0.0
    if recipe.deepspeed_offload == "all":
        host, weights, gradients = host + 2 * size * trained, 0.0, 0.0
    return Memory(weights, gradients, optimizer, buffers, 0, host)


def _count_activations(shape: ModelShape, recipe: Recipe, load: Load) -> float:
    if recipe.precision == "fp32":
        kind, half = "fp32", 4
    elif recipe.adapter is not None:
        kind, half = "adapter", 2
    else:
        kind, half = "halves" if recipe.deepspeed_zero_stage else "autocast", 2
    by_hidden, by_inner = _KEPT[kind]
    mask = (4 if kind == "fp32" else 2) * load.mask_tokens
    layer = load.tokens * (by_hidden * shape.hidden_size + by_inner * shape.intermediate_size + mask)
    if kind == "autocast":
        layer += 2 * shape.layer_matrices // shape.layers  # halves of the weights
    between = load.tokens * half * shape.hidden_size  # what is kept where layers are computed again
    kept = shape.layers * between + layer if recipe.gradient_checkpointing else shape.layers * layer
    # Logits, their exponents, and the gradients of both; a fused loss never holds them.
    logits = 0 if recipe.fused_kernels else 14 * load.answer_tokens * shape.vocabulary
    return float(kept + logits)


def estimate_inference_memory(shape: ModelShape, bits: int | None, *, batch: int, tokens: int) -> float:
    """Bytes that tensors take when `batch` texts of `tokens` tokens, answer included, are coded together on a GPU, in bf16.

    Weights; keys and values of all tokens; and, of the texts' last tokens, logits in three copies. What one layer computes at a
    time is counted for all tokens of the batch; CUDA's own context comes on top.
    """
    by_weight = {None: 2.0, 8: 1.0, 4: _NF4_BYTES}[bits]
    weights = by_weight * shape.layer_matrices + 2 * (shape.weights - shape.layer_matrices)
    cache = 2 * 2 * shape.layers * shape.key_value_heads * shape.head_size * batch * tokens
    logits = (2 + 4 + 4) * batch * shape.vocabulary
    layer = 2 * batch * tokens * (4 * shape.hidden_size + 3 * shape.intermediate_size)
    return weights + cache + logits + layer


def estimate_seconds(shape: ModelShape, recipe: Recipe, load: Load, devices: Sequence[Device], *, nodes: int) -> float | None:
    """How long a training takes at 40 % of its devices' peak; None where that is not known."""
    peaks = [find_peak(device.name) if device.is_gpu else None for device in devices]
    known = [peak for peak in peaks if peak is not None]
    if len(known) < len(peaks) or recipe.precision != "bf16":
        return None
    flops = count_training_flops(
        shape,
        recipe.adapter,
        tokens=load.all_tokens,
        answer_tokens=load.all_answer_tokens,
        squared_tokens=load.all_squared_tokens,
    )
    return flops / (nodes * sum(known) * EXPECTED_UTILISATION)


def verify_fits(
    shape: ModelShape, recipe: Recipe, load: Load, devices: Sequence[Device], *, processes: int, nodes: int, host_bytes: int
) -> Memory:
    """Say what a training needs, and refuse it where its devices have not that much.

    Args:
        processes: on this machine.
        nodes: machines.
        host_bytes: this machine's memory.

    Raises TrainingError with figures and with what would fit.
    """
    memory = estimate_memory(shape, recipe, load, processes=processes * nodes)
    seconds = estimate_seconds(shape, recipe, load, devices, nodes=nodes)
    time = "no estimate of time for this device" if seconds is None else f"about {seconds / 60:,.0f} min at 40 % of the peak"
    logger.info("%s on %s; %s", _render(shape, recipe, memory), ", ".join(device.name for device in devices), time)
    smallest = min(devices, key=lambda device: device.memory_bytes or float("inf"))
    if smallest.memory_bytes is None:
        return memory
    room = _room_of(smallest, processes)
    if memory.device <= room and memory.host / nodes <= host_bytes:
        return memory
    cures = list(_find_cures(shape, recipe, load, room, processes * nodes, host_bytes))
    raise TrainingError(
        f"{_render(shape, recipe, memory)}; {smallest.name} has room for {room / _GIGABYTE:,.1f} GB a process: "
        + (f"use {', or '.join(cures[:3])}" if cures else "take a larger device, or a smaller model")
    )


def _room_of(device: Device, processes: int) -> float:
    total = device.memory_bytes or 0
    return total * USABLE_SHARE if device.is_gpu else total / processes


def _render(shape: ModelShape, recipe: Recipe, memory: Memory) -> str:
    what = "an adapter trained" if recipe.adapter else "all trained"
    count = f"{shape.weights / 1e9:,.1f} billion" if shape.weights >= 1e8 else f"{shape.weights / 1e6:,.1f} million"
    host = f", and {memory.host / _GIGABYTE:,.0f} GB of the machine's memory" if memory.host else ""
    return (
        f"{count} weights, {what}, need {memory.states / _GIGABYTE:,.1f} GB before activations and "
        f"{memory.device / _GIGABYTE:,.1f} GB with them on each device{host}"
    )


def _find_cures(shape: ModelShape, recipe: Recipe, load: Load, room: float, processes: int, host_bytes: int) -> Iterator[str]:
    """Changes of the recipe with which it would fit, the smallest first."""
    for words, changed, among in _list_changes(recipe, processes):
        shared = replace(
            load, tokens=-(-load.tokens * processes // among), answer_tokens=-(-load.answer_tokens * processes // among)
        )
        memory = estimate_memory(shape, changed, shared, processes=among)
        if memory.device <= room and memory.host <= host_bytes:
            host = f" and {memory.host / _GIGABYTE:,.0f} GB of the machine's memory" if memory.host else ""
            yield f"{words} ({memory.device / _GIGABYTE:,.1f} GB{host})"


def _list_changes(recipe: Recipe, processes: int) -> Iterator[tuple[str, Recipe, int]]:
    """(words, recipe, processes)."""
    less = replace(recipe, gradient_checkpointing=True)
    if not recipe.gradient_checkpointing:
        yield "gradient_checkpointing: true", less, processes
    if recipe.base_weights is None:
        return
    alone = replace(less, deepspeed_zero_stage=None, deepspeed_offload=None)
    adapter = recipe.adapter or Adapter(rank=16, alpha=32.0)
    if recipe.adapter is None:
        yield "an adapter (LoRA)", replace(alone, adapter=adapter), processes
    if not adapter.quantized_base:
        yield "an adapter with quantized_base (QLoRA)", replace(alone, adapter=replace(adapter, quantized_base=True)), processes
    if recipe.adapter is None:
        shared = replace(less, deepspeed_zero_stage=3, deepspeed_offload=None)
        for among in (2, 4, 8, 16, 32):
            if among > processes:
                yield f"deepspeed_zero_stage: 3 with {among} processes", shared, among
        yield "deepspeed_zero_stage: 3 with deepspeed_offload: all", replace(shared, deepspeed_offload="all"), processes
