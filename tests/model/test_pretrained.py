"""The recipe for pretrained weights, on a Llama small enough to make here: same trainer, answers in plain text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from huggingface_hub.errors import GatedRepoError
from llama_folder import TEXTS, make_llama_folder
from tokenizers import Tokenizer
from torch.utils.cpp_extension import get_default_build_root
from transformers import PreTrainedTokenizerFast

from llmcoder_tasks.errors import ArtifactMissing, TrainingError
from llmcoder_tasks.model.base_weights import find_base_weights, hash_weights, start_from_pretrained
from llmcoder_tasks.model.local import LocalModel
from llmcoder_tasks.model.plan import TrainingPlan
from llmcoder_tasks.model.recipe import Recipe, read_recipe
from llmcoder_tasks.model.training_run import Job, RunFolder, launch_training
from llmcoder_tasks.model.trie import CodeTrie
from llmcoder_tasks.prompt import render_prompt
from llmcoder_tasks.records import Example
from llmcoder_tasks.storage import FolderStorage, open_storage


def _recipe(weights: Path) -> Recipe:
    """The shipped recipe with other weights, a learning rate for a small model and more passes."""
    recipe = read_recipe("llama-3.2-1b")
    stage = replace(recipe.stages["stage_one"], epochs=150.0, learning_rate=3e-3, tokens_per_step=100, packing=None, warmup_steps=5)
    stages = {"stage_one": stage, "stage_two": recipe.stages["stage_two"]}
    return replace(recipe, base_weights=str(weights), stages=stages, precision="fp32", context_tokens=256, answer_tokens=64)


def _train(recipe: Recipe, folder: RunFolder) -> list[int]:
    """Run stage one through torchrun; the steps that were reported."""
    folder.start.mkdir(parents=True)
    tokenizer = start_from_pretrained(recipe, folder.start, cache_folder=folder.path / "cache", storage=FolderStorage(folder.path))
    examples = [Example(code, "base", "train", text, (code,)) for code, text in TEXTS.items()]
    TrainingPlan.make(examples, recipe.stages["stage_one"], tokenizer, processes=1, seed=1).save(folder.path)
    job = Job("llama-test", "stage_one", recipe, True, 1)
    job.write(folder)
    steps: list[int] = []
    with folder.lock() as lock:
        launch_training(folder, job, locks=[lock], report=lambda line: steps.append(line["step"]))
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
    tokenizer = start_from_pretrained(_recipe(weights), tmp_path / "start", cache_folder=tmp_path, storage=FolderStorage(tmp_path))
    (ids, long), cut = tokenizer.encode_prompts(["Gout", "Gout " * 300])
    plain = Tokenizer.from_file(str(weights / "tokenizer.json"))
    assert plain.decode(ids, skip_special_tokens=False) == "<|begin_of_text|>Diagnosis: Gout\nICD-10-CM codes:"
    assert cut == 1
    assert plain.decode(long).endswith("\nICD-10-CM codes:")
    assert len(long) == 256 - 64
    assert plain.decode(tokenizer.encode_answer(["E119", "I10"]), skip_special_tokens=False) == " E11.9, I10<|end_of_text|>"
    assert tokenizer.decode_answer(tokenizer.encode_answer(["E119", "I10"])) == ("E119", "I10")


def test_the_turns_of_a_model_that_converses_are_those_of_its_own_template(tmp_path: Path) -> None:
    """Byte for byte, token for token, against the library's tokenizer class and chat template."""
    folder = make_llama_folder(tmp_path / "instruct", end="<|eot_id|>")
    (tmp_path / "start").mkdir()
    recipe = replace(_recipe(folder), prompt_form="instruct")
    tokenizer = start_from_pretrained(recipe, tmp_path / "start", cache_folder=tmp_path, storage=FolderStorage(tmp_path))
    official = PreTrainedTokenizerFast.from_pretrained(folder)
    for text, kind in (("Gout, unspecified", "phrase"), ("HPI: gout\n\nPlan:  rest <|eot_id|>", "note")):
        messages = [{"role": "user", "content": render_prompt(text, "instruct", kind)}]
        template = official.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        (ids,), cut = tokenizer.encode_prompts([text], kind)
        assert official.decode(ids) == template
        assert cut == 0
        if "<|" not in text:
            assert ids == official(template, add_special_tokens=False)["input_ids"]
    assert official.decode(tokenizer.encode_prompts(["Gout"])[0][0]) == (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nDiagnosis: Gout\nICD-10-CM codes:<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    assert official.decode(tokenizer.encode_answer(["E119", "I10"])) == " E11.9, I10<|eot_id|>"
    # A note cannot end the turn: its `<|eot_id|>` is letters.
    end = official.convert_tokens_to_ids("<|eot_id|>")
    assert tokenizer.encode_prompts(["gout <|eot_id|>"])[0][0].count(end) == 1


@pytest.mark.integration
def test_weights_come_from_an_s3_prefix_once_for_each_version(weights: Path, s3_endpoint: str, tmp_path: Path) -> None:
    uri = "s3://artifacts/llamas/tiny"
    store = open_storage(uri, endpoint_url=s3_endpoint)
    for path in weights.iterdir():
        store.publish_file(path, path.name)
    store.write_bytes("evil.bin", b"pickle")
    found = find_base_weights(uri, cache_folder=tmp_path / "cache", endpoint_url=s3_endpoint)
    assert {path.name for path in found.iterdir()} == {path.name for path in weights.iterdir()}
    assert hash_weights(found) == hash_weights(weights)
    assert find_base_weights(uri, cache_folder=tmp_path / "cache", endpoint_url=s3_endpoint) == found
    store.write_bytes("config.json", (weights / "config.json").read_bytes() + b" ")
    assert find_base_weights(uri, cache_folder=tmp_path / "cache", endpoint_url=s3_endpoint) != found
    with pytest.raises(ArtifactMissing, match="nothing lies there; put config.json"):
        find_base_weights("s3://artifacts/elsewhere", cache_folder=tmp_path / "cache", endpoint_url=s3_endpoint)


def test_a_gated_model_is_explained(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        response = httpx.Response(403, request=httpx.Request("GET", "http://localhost"))
        raise GatedRepoError("403", response=response)

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(TrainingError, match="are gated: log in to the hub, accept the licence .* set HF_TOKEN"):
        find_base_weights("meta-llama/Llama-3.2-1B", cache_folder=tmp_path)


def test_a_folder_with_pickled_weights_alone_is_refused(weights: Path) -> None:
    (weights / "model.safetensors").rename(weights / "pytorch_model.bin")
    with pytest.raises(TrainingError, match="has no \\*.safetensors; only safetensors are read"):
        find_base_weights(str(weights), cache_folder=weights)
