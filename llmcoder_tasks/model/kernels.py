"""What makes the same computation faster on a GPU: liger-kernel's fused operations, torch's compiler, attention without a mask.

A leaf: imports torch. Each is asked for by a key of the recipe, and refused in words where it cannot be.
"""

from __future__ import annotations

from importlib.util import find_spec

import torch
from torch.nn import functional

from llmcoder_tasks.errors import TrainingError
from llmcoder_tasks.model.llama import APART, AnswerLlama, finish_layer
from llmcoder_tasks.model.recipe import Recipe


def patch_layers(recipe: Recipe) -> None:
    """Put liger-kernel's norms, rotation and feed-forward in the place of transformers' own, before a model is made."""
    if not recipe.fused_kernels:
        return
    _verify_fused()
    from liger_kernel.transformers import apply_liger_kernel_to_llama

    apply_liger_kernel_to_llama(rope=True, rms_norm=True, swiglu=True, cross_entropy=False, fused_linear_cross_entropy=False)


def speed_up(model: AnswerLlama, recipe: Recipe, *, packed: bool) -> None:
    """Give a model the loss, the attention and the compiled layers that a recipe and the device allow."""
    if recipe.fused_kernels:
        from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

        model.fused_loss = LigerFusedLinearCrossEntropyLoss(reduction="sum")
    if packed and recipe.precision == "bf16" and torch.cuda.is_available():
        model.config._attn_implementation = APART
    if recipe.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    if recipe.compiled:
        # Layer by layer: one compilation serves all layers of one shape, and what surrounds them may look at values.
        for layer in model.model.layers:
            layer.compile()
        model.finish = torch.compile(finish_layer)
        if not recipe.fused_kernels:
            model.fused_loss = torch.compile(_sum_cross_entropy, dynamic=True)


def _sum_cross_entropy(weights: torch.Tensor, states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(functional.linear(states, weights).float(), targets, reduction="sum")


def _verify_fused() -> None:
    if not torch.cuda.is_available():
        raise TrainingError("the recipe's fused_kernels need a GPU: set fused_kernels to false on this machine")
    if find_spec("liger_kernel") is None:
        raise TrainingError("the recipe's fused_kernels need liger-kernel: install llmcoder[gpu], or set fused_kernels to false")
