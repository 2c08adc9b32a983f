"""Neither the neighbours of a text nor its place among them change a byte of its answer."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import asdict

import pytest

from llmcoder_tasks.coding.coder import Coder

SIZES = (1, 7, 64)


@pytest.fixture(scope="module")
def together(coder: Coder, tmp_path_factory: pytest.TempPathFactory) -> Coder:
    """The whole release's words, and a language model with random weights."""
    import torch

    from llmcoder_tasks.model.llama import AnswerLlama, make_config
    from llmcoder_tasks.model.local import LocalModel
    from llmcoder_tasks.model.recipe import Architecture
    from llmcoder_tasks.model.tokenizer import AnswerTokenizer

    titles = coder.code_set.titles
    tokenizer = AnswerTokenizer.train(
        list(titles.values())[::50], titles, text_vocabulary=800, context_tokens=192, answer_tokens=48
    )
    shape = Architecture(
        layers=1,
        hidden_size=64,
        intermediate_size=128,
        attention_heads=4,
        key_value_heads=4,
        text_vocabulary=800,
        vocabulary_scenarios=("base",),
        vocabulary_examples=100,
    )
    torch.manual_seed(5)
    folder = tmp_path_factory.mktemp("random")
    AnswerLlama(make_config(shape, tokenizer)).save_pretrained(folder)
    tokenizer.save(folder)
    return Coder(coder.code_set, index=coder.index, model=LocalModel.load(folder))


def _disorder(titles: Sequence[str], count: int) -> list[str]:
    chance = random.Random(11)
    return [" ".join(chance.sample(words, len(words))) for words in map(str.split, chance.sample(titles, count))]


def test_answers_do_not_depend_on_batch_size_or_order_byte_for_byte(together: Coder) -> None:
    texts = _disorder(list(together.code_set.titles.values()), 200)
    expected = {text: _render(answer) for text, answer in zip(texts, together.code_phrases(texts), strict=True)}
    assert sum("log_probability" in answer for answer in expected.values()) > 190
    for size in SIZES:
        together.index.forget()
        random.Random(size).shuffle(texts)
        for start in range(0, len(texts), size):
            batch = texts[start : start + size]
            for text, answer in zip(batch, together.code_phrases(batch), strict=True):
                assert _render(answer) == expected[text]


def _render(answer: Sequence[object]) -> str:
    return json.dumps([asdict(scored) for scored in answer])  # type: ignore[call-overload]
