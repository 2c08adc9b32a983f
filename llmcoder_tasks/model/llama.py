"""The Llama that answers: `LlamaForCausalLM` with a loss on the answer alone. A leaf: imports torch.

Only answer positions need logits, so the last layer computes queries, output and feed-forward there alone and, elsewhere, only the
keys and values that those positions look at; and only where a code begins are categories among the choices. The numbers are those
of the full computation (a test compares them) for a third of the work in a one-layer model.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional
from transformers import AttentionInterface, LlamaConfig, LlamaForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward
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
        self.fused_loss: Any = None  # a faster cross-entropy, summed, that takes (weights, states, targets)
        self.finish: Any = finish_layer

    def forward(
        self,
        input_ids: torch.Tensor,
        labels: torch.Tensor,
        positions: torch.Tensor | None = None,
        places: torch.Tensor | None = None,
        starts: torch.Tensor | None = None,
        longest: int = 0,
        divisor: float = 1.0,
    ) -> dict[str, torch.Tensor]:
        """Mean cross-entropy of the answers.

        Args:
            input_ids: [batch, length], prompt and answer without its last token, all rows of one length; with `positions`, rows of
                several examples (`PackedRows`).
            labels: [batch, answer length], the token that follows each of the last positions, or IGNORED; with `positions`
                [answer tokens] of all rows behind each other.
            positions: [batch, length], of each token in its own example.
            places, starts, longest, divisor: with `positions`, as `packed_loss` wants them.
        """
        if positions is not None and places is not None:
            loss = self.packed_loss(input_ids, labels, positions, places=places, starts=starts, longest=longest, divisor=divisor)
            return {"loss": loss}
        states = self.answer_states(input_ids, labels.shape[1])
        known = labels != IGNORED
        targets = labels - self.first_answer_id
        starts = self._code_starts(input_ids[:, -labels.shape[1] :])
        sums = [
            self._sum_losses(states[chosen], targets[chosen], width)
            for chosen, width in ((known & starts, None), (known & ~starts, self.first_category_id))
        ]
        return {"loss": (sums[0] + sums[1]) / known.sum()}

    def packed_loss(
        self,
        input_ids: torch.Tensor,
        labels: torch.Tensor,
        positions: torch.Tensor,
        *,
        places: torch.Tensor,
        starts: torch.Tensor | None,
        longest: int,
        divisor: float,
    ) -> torch.Tensor:
        """The cross-entropy of rows of several examples, by a divisor. Nothing here waits for a GPU to say a number.

        Args:
            input_ids, positions: [rows, length].
            labels, places: [answer tokens], and the places in all rows behind each other that they follow.
            starts: [examples + 1], where examples begin in all rows behind each other, and where they end.
            longest: no example has more tokens.
            divisor: the answer tokens of the whole step by the processes, so that processes with fewer of them count for less.
        """
        inner = self.model
        bounds: dict[str, Any] = {}
        if reads_examples_apart(self.config):
            input_ids, positions, mask = input_ids.reshape(1, -1), positions.reshape(1, -1), None
            bounds = {"example_starts": starts, "longest": longest}
            torch._dynamo.maybe_mark_dynamic(starts, 0)
        else:
            mask = _mask_of_examples(positions)
        hidden = _as_computed(inner.embed_tokens(input_ids))
        rotary = inner.rotary_emb(hidden, positions)
        given = {"attention_mask": mask, "position_embeddings": rotary} | bounds
        for layer in inner.layers[:-1]:
            hidden = layer(hidden, **given)
        # Every step has another number of answers: compile for any, at once.
        torch._dynamo.maybe_mark_dynamic(places, 0)
        states = inner.norm(self.finish(inner.layers[-1], hidden, places, **given))
        return self._sum_losses(states, labels, None) / divisor

    def _sum_losses(self, states: torch.Tensor, targets: torch.Tensor, width: int | None) -> torch.Tensor:
        if self.fused_loss is not None and width is None:
            weights, states = _as_computed(self.lm_head.weight[self.first_answer_id :]), _as_computed(states)
            return torch.as_tensor(self.fused_loss(weights, states.to(weights.dtype), targets))
        return functional.cross_entropy(self._logits(states, width).float(), targets, reduction="sum")

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


def _as_computed(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor in the halves of autocast, where it is on: what layers hand on stays in them too, as in a model of halves."""
    kind = tensor.device.type
    return tensor.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else tensor


def finish_layer(layer: torch.nn.Module, hidden: torch.Tensor, places: torch.Tensor, **given: Any) -> torch.Tensor:
    """What a decoder layer makes of the tokens at `places`, [places, hidden]: its feed-forward runs on them alone."""
    mixed, _ = layer.self_attn(hidden_states=layer.input_layernorm(hidden), **given)
    kept = (hidden + mixed).reshape(-1, hidden.shape[-1]).index_select(0, places)
    return torch.as_tensor(kept + layer.mlp(layer.post_attention_layernorm(kept)))


APART = "llmcoder_apart"
"""The name of `attend_apart` in a configuration's `_attn_implementation`."""


def reads_examples_apart(config: LlamaConfig) -> bool:
    """Whether a model's attention takes each example of a row for itself (`attend_apart`), so that no mask is needed."""
    return bool(config._attn_implementation == APART)


def attend_apart(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **given: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention inside each example by torch's own variable-length kernel, for GPUs; in the form that transformers wants.

    Args:
        module: unused.
        query: [1, heads, tokens, head size] of all rows behind each other; key and value with fewer heads.
        attention_mask: unused.
        scaling: of the products.
        given: `example_starts`, int32 [examples + 1], and `longest`; without them it is plain attention.
    """
    starts = given.get("example_starts")
    if starts is None:
        plain, _ = sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **given)
        return plain, None
    from torch.nn.attention.varlen import varlen_attn

    # Rotation may have brought single precision back; the kernel knows halves alone.
    tensors = (tensor[0].transpose(0, 1).to(value.dtype) for tensor in (query, key, value))
    mixed = varlen_attn(
        *tensors, starts, starts, given["longest"], given["longest"], scale=scaling, window_size=(-1, 0), enable_gqa=True
    )
    return mixed[None], None


AttentionInterface.register(APART, attend_apart)


def _mask_of_examples(positions: torch.Tensor) -> torch.Tensor:
    """[rows, 1, length, length] from positions [rows, length]: True from a token back to the beginning of its example."""
    examples = (positions == 0).cumsum(-1)
    length = positions.shape[1]
    earlier = torch.ones(length, length, dtype=torch.bool, device=positions.device).tril()
    return ((examples[:, :, None] == examples[:, None, :]) & earlier)[:, None]


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
