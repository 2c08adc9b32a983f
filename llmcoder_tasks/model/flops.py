"""How much a Llama computes when it is trained, and how much a device could. Pure arithmetic.

A product with a matrix of P weights takes 2 P floating point operations a token forwards, 2 P for the gradient of its input and 2 P
for that of its weights (Kaplan et al. 2020, section 2.1; Chowdhery et al. 2022, appendix B). Counted is what the training asks for:
logits of answer tokens, and the last layer's feed-forward on them, alone; attention inside each example, no gradient of weights
that stand still, and nothing twice that is only computed twice to save memory. The look-up of embeddings is no product.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from llmcoder_tasks.errors import ModelError
from llmcoder_tasks.model.recipe import Adapter, Architecture

PEAKS = (
    ("B200", 2250e12), ("GH200", 989.4e12), ("H200", 989.4e12), ("H100 PCIe", 756e12), ("H100 NVL", 835e12), ("H100", 989.4e12),
    ("A100", 312e12), ("A30", 165e12), ("A40", 149.7e12), ("A10", 125e12), ("L40S", 362e12), ("L40", 181e12), ("L4", 121e12),
    ("RTX 4090", 165.2e12),
)  # fmt: skip
"""Dense bf16 operations a second of NVIDIA's data sheets, the first whose words are all in a device's name."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What the size of a Llama follows from. `head_size` is of one attention head."""

    layers: int
    hidden_size: int
    intermediate_size: int
    attention_heads: int
    key_value_heads: int
    head_size: int
    vocabulary: int
    embeddings_tied: bool

    @classmethod
    def read(cls, folder: Path) -> ModelShape:
        """From the `config.json` of a folder. Raises ModelError."""
        try:
            facts = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            heads = int(facts["num_attention_heads"])
            return cls(
                layers=int(facts["num_hidden_layers"]),
                hidden_size=int(facts["hidden_size"]),
                intermediate_size=int(facts["intermediate_size"]),
                attention_heads=heads,
                key_value_heads=int(facts.get("num_key_value_heads") or heads),
                head_size=int(facts.get("head_dim") or int(facts["hidden_size"]) // heads),
                vocabulary=int(facts["vocab_size"]),
                embeddings_tied=bool(facts.get("tie_word_embeddings", False)),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelError(f"{folder / 'config.json'} is no configuration of a Llama ({type(error).__name__})") from None

    @classmethod
    def of(cls, architecture: Architecture, vocabulary: int) -> ModelShape:
        """The shape of a model that is trained from nothing."""
        return cls(
            layers=architecture.layers,
            hidden_size=architecture.hidden_size,
            intermediate_size=architecture.intermediate_size,
            attention_heads=architecture.attention_heads,
            key_value_heads=architecture.key_value_heads,
            head_size=architecture.hidden_size // architecture.attention_heads,
            vocabulary=vocabulary,
            embeddings_tied=True,
        )

    @property
    def layer_matrices(self) -> int:
        """Weights of the matrices of all layers."""
        return self.layers * sum(inputs * outputs for inputs, outputs in self.matrices().values())

    @property
    def embeddings(self) -> int:
        """Weights of the tables of tokens, one or two."""
        return self.vocabulary * self.hidden_size * (1 if self.embeddings_tied else 2)

    @property
    def weights(self) -> int:
        """All weights, the norms' included."""
        return self.layer_matrices + self.embeddings + self.hidden_size * (2 * self.layers + 1)

    def matrices(self) -> dict[str, tuple[int, int]]:
        """The matrices of a layer by name: numbers of inputs and outputs."""
        hidden, inner = self.hidden_size, self.intermediate_size
        queries, keys = self.attention_heads * self.head_size, self.key_value_heads * self.head_size
        return {
            "q_proj": (hidden, queries), "k_proj": (hidden, keys), "v_proj": (hidden, keys), "o_proj": (queries, hidden),
            "gate_proj": (hidden, inner), "up_proj": (hidden, inner), "down_proj": (inner, hidden),
        }  # fmt: skip

    @property
    def feed_forward(self) -> int:
        """Weights of the matrices of one layer's feed-forward."""
        return 3 * self.hidden_size * self.intermediate_size

    def adapter_weights(self, adapter: Adapter) -> int:
        """Weights of an adapter: rank x (inputs + outputs) beside each matrix."""
        return self.layers * sum(adapter.rank * sum(self.matrices()[name]) for name in adapter.layers)


def count_training_flops(
    shape: ModelShape, adapter: Adapter | None, *, tokens: float, answer_tokens: float, squared_tokens: float
) -> float:
    """Operations of training on `tokens`, of which `answer_tokens` have a label.

    `squared_tokens` is the sum of the squared lengths of the examples: queries times keys, and chances times values, are 2
    operations each for every pair of a token and an earlier one, half of all pairs; and twice that backwards.
    """
    passes = 6 if adapter is None else 4
    needed = shape.layer_matrices * tokens - shape.feed_forward * (tokens - answer_tokens)
    flops = passes * (needed + shape.vocabulary * shape.hidden_size * answer_tokens)
    flops += 6 * shape.layers * shape.attention_heads * shape.head_size * squared_tokens
    if adapter is not None:
        flops += 6 * shape.adapter_weights(adapter) * tokens
    return float(flops)


def find_peak(device_name: str) -> float | None:
    """bf16 operations a second of a device by its name, like `NVIDIA H100 80GB HBM3`; None where it is not known."""
    words = set(re.split(r"[\s\-]+", device_name))
    return next((peak for name, peak in PEAKS if set(name.split()) <= words), None)
