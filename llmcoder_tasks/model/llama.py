"""The Llama that answers: `LlamaForCausalLM` with a loss on the answer alone. A leaf: imports torch.

Only answer positions need logits, so the last layer computes queries, output and feed-forward there alone and, elsewhere, only the
keys and values that those positions look at; and only where a code begins are categories among the choices. The numbers are those
of the full computation (a test compares them) for a third of the work in a one-layer model.
"""

from __future__ import annotations

import torch
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from llmcoder_tasks.model.recipe import Architecture
from llmcoder_tasks.model.tokenizer import AnswerTokenizer

IGNORED = -100
"""A label that the loss leaves out."""


class AnswerLlama(LlamaForCausalLM):  # type: ignore[misc]  # transformers has no types here
    """A Llama whose forward pass takes and returns what answers need."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        # Answers of a compact model use a block of the vocabulary: the mark, the separator, the end, characters, then categories.
        # A pretrained model has no such block and answers in its whole vocabulary.
        self.first_answer_id = int(getattr(config, "first_answer_id", 0))
        self.first_category_id = int(getattr(config, "first_category_id", 0))

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Mean cross-entropy of the answers.

        Args:
            input_ids: [batch, length], prompt and answer without its last token, all rows of one length.
            labels: [batch, answer length], the token that follows each of the last positions, or IGNORED.
        """
        states = self.answer_states(input_ids, labels.shape[1])
        known = labels != IGNORED
        targets = labels - self.first_answer_id
        starts = self._code_starts(input_ids[:, -labels.shape[1] :])
        sums = [
            functional.cross_entropy(self._logits(states[chosen], width).float(), targets[chosen], reduction="sum")
            for chosen, width in ((known & starts, None), (known & ~starts, self.first_category_id))
        ]
        return {"loss": (sums[0] + sums[1]) / known.sum()}

    def answer_logits(self, states: torch.Tensor, input_ids: torch.Tensor) -> torch.Tensor:
        """[..., hidden] after the tokens [...] to [..., answer vocabulary]: column i is token id `first_answer_id + i`.

        Only at the beginning of a code can a category stand: elsewhere those columns are minus infinity.
        """
        logits = self._logits(states, None)
        if self.first_category_id:
            inside = ~self._code_starts(input_ids)
            logits[..., self.first_category_id - self.first_answer_id :].masked_fill_(inside[..., None], -torch.inf)
        return logits

    def _logits(self, states: torch.Tensor, stop: int | None) -> torch.Tensor:
        return functional.linear(states, self.lm_head.weight[self.first_answer_id : stop])

    def _code_starts(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Where a code begins next: after the mark and after a separator, the first two ids of the block."""
        if not self.first_category_id:
            return torch.ones_like(input_ids, dtype=torch.bool)
        return (input_ids == self.first_answer_id) | (input_ids == self.first_answer_id + 1)

    def answer_states(
        self, input_ids: torch.Tensor, keep: int, *, position_ids: torch.Tensor | None = None, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Final hidden states, [batch, keep, hidden], of the last `keep` positions of rows without padding.

        Args:
            input_ids: [batch, length].
            keep: how many positions at the end are wanted.
            position_ids: [batch, length] where positions are not 0, 1, 2, ... (a tree of candidates).
            mask: [batch, 1, length, length], True where a row may look; None is causal.
        """
        inner = self.model
        hidden = inner.embed_tokens(input_ids)
        length = input_ids.shape[1]
        if position_ids is None:
            position_ids = torch.arange(length, device=input_ids.device)[None]
        rotary = inner.rotary_emb(hidden, position_ids)
        for layer in inner.layers[:-1]:
            hidden = layer(hidden, attention_mask=mask, position_embeddings=rotary)
        if mask is None:
            mask = torch.ones(keep, length, dtype=torch.bool, device=hidden.device).tril(length - keep)
        else:
            mask = mask[:, :, -keep:]
        return inner.norm(_run_last_layer(inner.layers[-1], hidden, keep, rotary, mask))


def make_config(shape: Architecture, tokenizer: AnswerTokenizer) -> LlamaConfig:
    """The configuration of a Llama that is trained from nothing, with input and output embeddings tied."""
    return LlamaConfig(
        vocab_size=tokenizer.size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.attention_heads,
        num_key_value_heads=shape.key_value_heads,
        max_position_embeddings=tokenizer.settings.context_tokens,
        tie_word_embeddings=True,
        first_answer_id=tokenizer.first_answer_id,
        first_category_id=tokenizer.first_category_id,
        bos_token_id=None,
        eos_token_id=tokenizer.end_id,
    )


def _run_last_layer(
    layer: torch.nn.Module, hidden: torch.Tensor, keep: int, rotary: tuple[torch.Tensor, torch.Tensor], mask: torch.Tensor
) -> torch.Tensor:
    """A decoder layer whose queries and feed-forward run on the last `keep` positions alone."""
    attention = layer.self_attn
    normed = layer.input_layernorm(hidden)
    heads = (hidden.shape[0], -1, attention.head_dim)
    query = attention.q_proj(normed[:, -keep:]).view(heads[0], keep, -1, heads[2]).transpose(1, 2)
    key = attention.k_proj(normed).view(heads[0], hidden.shape[1], -1, heads[2]).transpose(1, 2)
    value = attention.v_proj(normed).view(heads[0], hidden.shape[1], -1, heads[2]).transpose(1, 2)
    cos, sin = rotary
    query, _ = apply_rotary_pos_emb(query, query[:, :1], cos[:, -keep:], sin[:, -keep:])
    _, key = apply_rotary_pos_emb(key[:, :1], key, cos, sin)
    mixed = functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, scale=attention.scaling, enable_gqa=query.shape[1] != key.shape[1]
    )
    mixed = mixed.transpose(1, 2).reshape(heads[0], keep, -1)
    kept = hidden[:, -keep:] + attention.o_proj(mixed)
    return kept + layer.mlp(layer.post_attention_layernorm(kept))
