"""A model that knows nothing, small enough to make in a moment; and a real, tiny vocabulary."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmcoder_tasks.model.tokenizer import AnswerTokenizer

TITLES = {
    "E119": "Type 2 diabetes mellitus without complications",
    "E1121": "Type 2 diabetes mellitus with diabetic nephropathy",
    "I10": "Essential (primary) hypertension",
    "M109": "Gout, unspecified",
    "S72001A": "Fracture of unspecified part of neck of right femur, initial encounter for closed fracture",
    "S72001D": "Fracture of unspecified part of neck of right femur, subsequent encounter for closed fracture with routine healing",
}


@pytest.fixture(scope="session")
def tokenizer() -> AnswerTokenizer:
    return AnswerTokenizer.train(TITLES.values(), TITLES, text_vocabulary=400, context_tokens=96, answer_tokens=24)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A folder as the hub has it: a Llama of random weights with its tokenizer."""
    from llama_folder import make_llama_folder

    return make_llama_folder(tmp_path / "tiny-llama")


@pytest.fixture(scope="session")
def untrained_folder(tokenizer: AnswerTokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer model folder with random weights."""
    import torch

    from llmcoder_tasks.model.llama import AnswerLlama, make_config
    from llmcoder_tasks.model.recipe import Architecture

    shape = Architecture(
        layers=2,
        hidden_size=32,
        intermediate_size=64,
        attention_heads=4,
        key_value_heads=2,
        text_vocabulary=400,
        vocabulary_scenarios=("base",),
        vocabulary_examples=100,
    )
    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("untrained")
    model = AnswerLlama(make_config(shape, tokenizer))
    # Random weights of the usual size give nearly equal chances: larger ones make answers differ.
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(12)
    model.save_pretrained(folder)
    tokenizer.save(folder)
    return folder
