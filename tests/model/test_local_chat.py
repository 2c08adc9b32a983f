"""A language model of one's own reads a note: real weights, small enough to learn one answer in a moment."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from llmcoder_tasks.coding.note_reader import PROMPT_FILE, Diagnosis, NoteModel, UnreadableAnswer, open_note_reader
from llmcoder_tasks.errors import ModelError
from llmcoder_tasks.model.local_chat import LocalChat

NOTE = "DISCHARGE DIAGNOSES: 1. Gout, unspecified"
ANSWER = json.dumps({"diagnoses": [{"code": "M10.9", "quote": "Gout, unspecified", "uncertain": False}]})
TEMPLATE = "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}{% endfor %}<|assistant|>"


@pytest.fixture(scope="module", params=[TEMPLATE, None], ids=["chat template", "plain prompt"])
def weights(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A one-layer Llama that knows one answer."""
    folder: Path = tmp_path_factory.mktemp("weights")
    instructions = PROMPT_FILE.read_text(encoding="utf-8")
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator([instructions, NOTE, ANSWER], vocab_size=1500, special_tokens=["<eos>"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=trained._tokenizer, eos_token="<eos>")
    tokenizer.chat_template = request.param
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=1, num_attention_heads=4,
        max_position_embeddings=2048, eos_token_id=tokenizer.eos_token_id, bos_token_id=None,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    chat = LocalChat(model, tokenizer)
    prompt = chat._encode(instructions, NOTE)
    answer = torch.tensor([[*tokenizer(ANSWER)["input_ids"], tokenizer.eos_token_id]])
    row = torch.cat([prompt, answer], dim=1)
    labels = torch.cat([torch.full_like(prompt, -100), answer], dim=1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    model.train()
    for _ in range(120):
        optimizer.zero_grad()
        loss = model(row, labels=labels).loss
        loss.backward()
        optimizer.step()
    assert loss < 0.1
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_weights_of_a_folder_read_a_note(weights: Path) -> None:
    reader = open_note_reader(NoteModel.of(weights), weights)
    assert reader.read([NOTE]) == [(Diagnosis("M109", "Gout, unspecified"),)]


def test_a_note_longer_than_the_context_is_unreadable_and_others_are_read(weights: Path) -> None:
    reader = open_note_reader(NoteModel.of(weights), weights)
    with pytest.raises(UnreadableAnswer, match="refused"):
        reader.read(["gout, " * 3000, NOTE])
    assert reader.read([NOTE]) == [(Diagnosis("M109", "Gout, unspecified"),)]


def test_a_folder_that_is_no_language_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="cannot be loaded as a language model"):
        LocalChat.load(tmp_path)
