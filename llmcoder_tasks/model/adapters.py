"""LoRA by peft. A leaf: imports torch; the library is an extra, and is asked for by name.

An adapter never leaves the run: it is merged when the stage ends, so that the manifest, the decoder and the registry see plain
weights.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from llmcoder_tasks.errors import TrainingError
from llmcoder_tasks.model.llama import AnswerLlama
from llmcoder_tasks.model.quantization import is_quantized, read_weights
from llmcoder_tasks.model.recipe import Adapter

_BASE = ".base_layer"
_NAME = "adapter.safetensors"


def add_adapter(model: AnswerLlama, adapter: Adapter) -> None:
    """Put an adapter beside the layers of a model and let nothing else learn. Raises TrainingError where peft is missing."""
    if find_spec("peft") is None:
        raise TrainingError("the recipe's adapter needs peft: install llmcoder[gpu], or leave adapter out of the recipe")
    from peft import LoraConfig

    model.add_adapter(LoraConfig(r=adapter.rank, lora_alpha=adapter.alpha, target_modules=list(adapter.layers)))
    for weights in trained_weights(model).values():
        weights.data = weights.data.float()  # the optimizer's steps are too small for bf16


def trained_weights(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The weights that learn, by name: all that a checkpoint of a run with an adapter has to hold."""
    return {name: weights for name, weights in model.named_parameters() if weights.requires_grad}


def save_trained(model: torch.nn.Module, folder: Path) -> None:
    """Write the weights that learn into a checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: weights.detach().cpu().contiguous() for name, weights in trained_weights(model).items()}, folder / _NAME)


def load_trained(model: torch.nn.Module, folder: Path) -> None:
    """Read them back. Raises TrainingError when a checkpoint is of another adapter."""
    kept, found = trained_weights(model), load_file(folder / _NAME)
    if kept.keys() != found.keys():
        raise TrainingError(f"{folder} holds another adapter than the recipe's: remove the folder of the run")
    for name, weights in kept.items():
        weights.data.copy_(found[name])


def merge_adapter(model: AnswerLlama) -> dict[str, torch.Tensor]:
    """The plain weights of a model with its adapter added to them, by the names they have without one; fp32, on the CPU.

    A base in four bits is written out as what it stands for: that is what the adapter was trained beside.
    """
    state: dict[str, torch.Tensor] = {}
    for name, module in model.named_modules():
        if hasattr(module, "lora_A"):
            added = module.get_delta_weight("default").float()
            state[f"{name}.weight"] = (read_weights(module.base_layer).float() + added).cpu()
        elif is_quantized(module) and not name.endswith(_BASE):
            state[f"{name}.weight"] = read_weights(module).float().cpu()
    for name, weights in model.state_dict().items():
        plain = name.partition(".weight")[0] + ".weight"
        if plain not in state and ".lora_" not in name and f"{_BASE}." not in name:
            state[name] = weights.float().cpu()
    return state
