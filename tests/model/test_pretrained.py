"""The recipe for pretrained weights, on a Llama small enough to make here: same trainer, answers in plain text."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch.utils.cpp_extension import get_default_build_root
from transformers import LlamaConfig, LlamaForCausalLM

from llmcoder_tasks.errors import TrainingError
from llmcoder_tasks.model.base_weights import find_base_weights, start_from_pretrained
from llmcoder_tasks.model.local import LocalModel
from llmcoder_tasks.model.plan import TrainingPlan
from llmcoder_tasks.model.recipe import Recipe, read_recipe
from llmcoder_tasks.model.training_run import Job, RunFolder, launch_training
from llmcoder_tasks.model.trie import CodeTrie
from llmcoder_tasks.records import Example

TEXTS = {"M109": "Gout, unspecified", "I10": "Essential (primary) hypertension", "E119": "Type 2 diabetes mellitus"}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A folder as the hub has it: a Llama of random weights with a byte-level tokenizer that begins every prompt."""
    folder = tmp_path / "tiny-llama"
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|begin_of_text|>", "<|end_of_text|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, show_progress=False, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())
    )
    tokenizer.train_from_iterator([*TEXTS.values(), "Diagnosis: ICD-10-CM codes: E11.9, M10.9, I10"], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<|begin_of_text|> $A", special_tokens=[(special[0], 0)])
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
    )
    torch.manual_seed(2)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "<|end_of_text|>"}}))
    return folder


def _recipe(weights: Path) -> Recipe:
    """The shipped recipe with other weights, a learning rate for a small model and more passes."""
    recipe = read_recipe("llama-3.2-1b")
    stage = replace(recipe.stages["stage_one"], epochs=150.0, learning_rate=3e-3, tokens_per_step=100, warmup_steps=5)
    return replace(recipe, base_weights=str(weights), stages=recipe.stages | {"stage_one": stage}, precision="fp32")


def _train(recipe: Recipe, folder: RunFolder) -> list[int]:
    """Run stage one through torchrun; the steps that were reported."""
    folder.start.mkdir(parents=True)
    tokenizer = start_from_pretrained(recipe, folder.start)
    examples = [Example(code, "base", "train", text, (code,)) for code, text in TEXTS.items()]
    TrainingPlan.make(examples, recipe.stages["stage_one"], tokenizer, processes=1, seed=1).save(folder.path)
    job = Job("llama-test", "stage_one", recipe, True, 1)
    job.write(folder)
    steps: list[int] = []
    with folder.lock() as lock:
        launch_training(folder, job, lock=lock, report=lambda line: steps.append(line["step"]))
    return steps


def _has_compiled_operator() -> bool:
    """DeepSpeed compiles an operator for CPUs at its first run, which takes minutes on a busy machine; later runs find it."""
    return any(Path(get_default_build_root()).glob("*/deepspeed_shm_comm/*.so"))


@pytest.mark.parametrize(
    "zero_stage",
    [None, pytest.param(2, marks=pytest.mark.skipif(not _has_compiled_operator(), reason="DeepSpeed's operator is not compiled"))],
)
def test_a_pretrained_llama_learns_to_answer_in_plain_text(weights: Path, tmp_path: Path, zero_stage: int | None) -> None:
    recipe = replace(_recipe(weights), deepspeed_zero_stage=zero_stage)
    folder = RunFolder(tmp_path / "run")
    steps = _train(recipe, folder)
    assert steps == sorted(set(steps))
    model = LocalModel.load(folder.model)
    assert model.predict(list(TEXTS.values()), trie=None) == [(code,) for code in TEXTS]
    assert model.predict(["Gout"], trie=CodeTrie.build(["I10"], model.tokenizer))[0] == ("I10",)
    scores = model.score(["Gout, unspecified"], [list(TEXTS)])[0]
    assert scores[0] == max(scores)


def test_the_chat_prompt_begins_and_ends_as_the_model_expects(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "start").mkdir()
    tokenizer = start_from_pretrained(_recipe(weights), tmp_path / "start")
    (ids, long), cut = tokenizer.encode_prompts(["Gout", "Gout " * 300])
    plain = Tokenizer.from_file(str(weights / "tokenizer.json"))
    assert plain.decode(ids, skip_special_tokens=False) == "<|begin_of_text|>Diagnosis: Gout\nICD-10-CM codes:"
    assert cut == 1
    assert plain.decode(long).endswith("\nICD-10-CM codes:")
    assert len(long) == 256 - 64
    assert plain.decode(tokenizer.encode_answer(["E119", "I10"]), skip_special_tokens=False) == " E11.9, I10<|end_of_text|>"
    assert tokenizer.decode_answer(tokenizer.encode_answer(["E119", "I10"])) == ("E119", "I10")


def test_a_folder_with_pickled_weights_alone_is_refused(weights: Path) -> None:
    (weights / "model.safetensors").rename(weights / "pytorch_model.bin")
    with pytest.raises(TrainingError, match="has no \\*.safetensors; only safetensors are read"):
        find_base_weights(str(weights))
