"""LoRA and packed rows through the whole trainer, in this process, on a Llama small enough to make here."""

from __future__ import annotations

import shutil
from dataclasses import fields, replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from llama_folder import TEXTS, make_llama_folder
from safetensors.torch import load_file

from llmcoder_tasks.errors import ModelError, TrainingError
from llmcoder_tasks.model import adapters, quantization
from llmcoder_tasks.model.base_weights import start_from_pretrained
from llmcoder_tasks.model.kernels import patch_layers
from llmcoder_tasks.model.llama import AnswerLlama
from llmcoder_tasks.model.local import LocalModel
from llmcoder_tasks.model.plan import TrainingPlan
from llmcoder_tasks.model.recipe import NotesStage, Recipe, read_recipe
from llmcoder_tasks.model.training_process import main
from llmcoder_tasks.model.training_run import Job, RunFolder
from llmcoder_tasks.records import Example
from llmcoder_tasks.storage import FolderStorage


def _recipe(weights: Path) -> Recipe:
    """The shipped recipe with an adapter, for a small model that knows nothing."""
    recipe = read_recipe("llama-3.2-1b-lora")
    stage = replace(
        recipe.stages["stage_one"], epochs=200.0, learning_rate=1e-2, tokens_per_step=128, packing=64, warmup_steps=5,
        checkpoint_every_steps=50,
    )  # fmt: skip
    stages = {"stage_one": stage, "stage_two": recipe.stages["stage_two"]}
    return replace(recipe, base_weights=str(weights), stages=stages, precision="fp32", context_tokens=256, answer_tokens=64)


def _lay_out(recipe: Recipe, path: Path) -> RunFolder:
    folder = RunFolder(path)
    folder.start.mkdir(parents=True)
    tokenizer = start_from_pretrained(recipe, folder.start, cache_folder=path / "cache", storage=FolderStorage(path))
    examples = [Example(code, "base", "train", text, (code,)) for code, text in TEXTS.items()]
    TrainingPlan.make(examples, recipe.stages["stage_one"], tokenizer, processes=1, seed=1).save(path)
    Job("llama-lora", "stage_one", recipe, True, 1).write(folder)
    return folder


def test_a_packed_run_with_an_adapter_learns_is_merged_and_goes_on_from_its_checkpoint_bit_for_bit(
    weights: Path, tmp_path: Path
) -> None:
    folder = _lay_out(_recipe(weights), tmp_path / "run")
    main(folder)
    model = LocalModel.load(folder.model)
    assert model.predict(list(TEXTS.values()), trie=None) == [(code,) for code in TEXTS]

    before, after = load_file(weights / "model.safetensors"), load_file(folder.model / "model.safetensors")
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if name.endswith("_proj.weight")}

    checkpoints = sorted(folder.checkpoints.iterdir(), key=lambda path: int(path.name.rpartition("-")[2]))
    kept = load_file(checkpoints[0] / "adapter.safetensors")
    assert all(".lora_" in name for name in kept), "a checkpoint holds weights that stand still"
    shutil.rmtree(checkpoints[-1])
    undisturbed = (folder.model / "model.safetensors").read_bytes()
    shutil.rmtree(folder.model)
    main(folder)
    assert (folder.model / "model.safetensors").read_bytes() == undisturbed


def test_a_model_that_converses_is_asked_and_answers_in_turns(tmp_path: Path) -> None:
    """The whole trainer on all weights, packed, with the prompt form `instruct`."""
    weights = make_llama_folder(tmp_path / "instruct", end="<|eot_id|>")
    recipe = replace(_recipe(weights), adapter=None, prompt_form="instruct", gradient_checkpointing=False)
    stage = replace(recipe.stages["stage_one"], learning_rate=3e-3)
    folder = _lay_out(replace(recipe, stages=recipe.stages | {"stage_one": stage}), tmp_path / "run")
    main(folder)
    assert LocalModel.load(folder.model).predict(list(TEXTS.values()), trie=None) == [(code,) for code in TEXTS]


def test_a_model_that_learnt_whole_notes_is_asked_about_them_as_notes_ever_after(weights: Path, tmp_path: Path) -> None:
    recipe = replace(_recipe(weights), adapter=None, gradient_checkpointing=False)
    settings = {field.name: getattr(recipe.stages["stage_one"], field.name) for field in fields(recipe.stages["stage_one"])}
    settings |= {"mix": {"notes": 1.0}, "max_tokens": 64, "learning_rate": 3e-3}
    notes = NotesStage(**settings, max_words=100)
    recipe = replace(recipe, stages=recipe.stages | {"notes": notes})
    folder = RunFolder(tmp_path / "run")
    folder.start.mkdir(parents=True)
    tokenizer = start_from_pretrained(recipe, folder.start, cache_folder=tmp_path, storage=FolderStorage(tmp_path))
    texts = {code: f"Dx:\n{text}" for code, text in TEXTS.items()}
    examples = [Example(code, "notes", "train", text, (code,)) for code, text in texts.items()]
    plan = TrainingPlan.make(examples, notes, tokenizer, processes=1, seed=1)
    plan.save(folder.path)
    Job("llama-notes", "notes", recipe, True, 1).write(folder)
    main(folder)
    prompt = tokenizer.encode_prompts([texts["M109"]], "note")[0][0]
    assert prompt in [plan.inputs[start : start + len(prompt)].tolist() for start in plan.input_starts[:-1]]
    model = LocalModel.load(folder.model)
    assert model.predict(list(texts.values()), trie=None) == [(code,) for code in TEXTS]
    assert [model.tokenizer.kind_of(text) for text in ("Gout", "Dx:\nGout")] == ["phrase", "note"]
    assert tokenizer.kind_of("Dx:\nGout") == "phrase", "a model that learnt none takes everything for a phrase"


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes, of the extra gpu, is not installed")
def test_a_model_that_codes_in_few_bits_says_nearly_what_it_says_in_many(weights: Path, bits: int) -> None:
    plain = AnswerLlama.from_pretrained(weights).eval()
    small = quantization.load_quantized(weights, bits, computing=torch.float32).eval()
    ids = torch.arange(10, 40)[None]
    with torch.no_grad():
        expected, found = (model.answer_states(ids, 1)[0, -1] for model in (plain, small))
    assert torch.nn.functional.cosine_similarity(expected, found, dim=0) > 0.98
    assert not torch.equal(expected, found)


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes, of the extra gpu, is not installed")
def test_a_base_in_four_bits_is_published_as_what_the_adapter_was_trained_beside(weights: Path, tmp_path: Path) -> None:
    recipe = _recipe(weights)
    assert recipe.adapter is not None
    folder = _lay_out(replace(recipe, adapter=replace(recipe.adapter, quantized_base=True)), tmp_path / "run")
    main(folder)
    assert LocalModel.load(folder.model).predict(list(TEXTS.values()), trie=None) == [(code,) for code in TEXTS]


def test_an_adapter_of_some_layers_leaves_the_others_as_they_are(weights: Path) -> None:
    model = AnswerLlama.from_pretrained(weights)
    settings = read_recipe("llama-3.2-1b-lora").adapter
    assert settings is not None
    adapters.add_adapter(model, replace(settings, rank=2, alpha=4.0, layers=("q_proj",)))
    names = list(adapters.trained_weights(model))
    assert len(names) == 4, "two layers with two thin matrices each"
    first = model.model.layers[0].self_attn.q_proj
    first.lora_B["default"].weight.data.fill_(0.5)
    product = first.lora_B["default"].weight @ first.lora_A["default"].weight
    merged = adapters.merge_adapter(model)
    torch.testing.assert_close(merged["model.layers.0.self_attn.q_proj.weight"], first.base_layer.weight + 2 * product)
    assert not any("lora" in name or "base_layer" in name for name in merged)


def test_a_missing_library_and_a_missing_gpu_are_named_with_the_cure(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapters, "find_spec", lambda _: None)
    monkeypatch.setattr(quantization, "find_spec", lambda _: None)
    recipe = read_recipe("llama-3.1-8b-qlora")
    with pytest.raises(ModelError, match="in 4 bits needs bitsandbytes: install llmcoder.gpu., or leave that key out"):
        quantization.load_quantized(weights, 4, computing=torch.float32)
    assert recipe.adapter is not None
    with pytest.raises(TrainingError, match="adapter needs peft: install llmcoder.gpu., or leave adapter out"):
        adapters.add_adapter(AnswerLlama.from_pretrained(weights), recipe.adapter)
    with pytest.raises(TrainingError, match="fused_kernels need a GPU: set fused_kernels to false"):
        patch_layers(replace(recipe, fused_kernels=True))
