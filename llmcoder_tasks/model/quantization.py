"""Weights in eight or four bits, by bitsandbytes. A leaf: imports torch; the library is an extra, and is asked for by name.

Eight bits are LLM.int8 (Dettmers et al., NeurIPS 2022), four are NF4 with double quantization (Dettmers et al., NeurIPS 2023). The
matrices of the layers are kept so; embeddings, the head and norms are not.
"""

from __future__ import annotations

import logging
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from llmcoder_tasks.errors import ModelError
from llmcoder_tasks.model.llama import AnswerLlama


def load_quantized(folder: Path, bits: int, *, computing: torch.dtype) -> AnswerLlama:
    """A Llama whose layers stand in `bits` bits, 8 or 4, on this process's GPU or the CPU, and are computed with in `computing`.

    Raises ModelError where bitsandbytes is missing.
    """
    if find_spec("bitsandbytes") is None:
        raise ModelError(f"{folder} in {bits} bits needs bitsandbytes: install llmcoder[gpu], or leave that key out of the recipe")
    from transformers import BitsAndBytesConfig

    # It says at every product that halves of one kind are made halves of the other.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    settings = (
        BitsAndBytesConfig(load_in_8bit=True)
        if bits == 8
        else BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=computing
        )
    )
    device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"
    model: AnswerLlama = AnswerLlama.from_pretrained(
        folder, dtype=computing, use_safetensors=True, quantization_config=settings, device_map={"": device}
    )
    return model


def is_quantized(layer: Any) -> bool:
    """Whether the weights of a layer stand in four bits."""
    return hasattr(getattr(layer, "weight", None), "quant_state")


def read_weights(layer: Any) -> torch.Tensor:
    """The weights of a layer, as what four bits stand for where they stand so."""
    weights: torch.Tensor = layer.weight.data
    if is_quantized(layer):
        from bitsandbytes.functional import dequantize_4bit

        return torch.Tensor(dequantize_4bit(weights, layer.weight.quant_state))
    return weights
