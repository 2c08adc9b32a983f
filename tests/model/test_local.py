"""Decoding and scoring on a model with random weights: the short cuts give what the plain computation gives, for any batch."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from llmcoder_tasks.errors import ModelError
from llmcoder_tasks.model.decoding import MOST_TOKENS, batch_by_length, decode_greedy
from llmcoder_tasks.model.llama import IGNORED, AnswerLlama
from llmcoder_tasks.model.local import LocalModel
from llmcoder_tasks.model.tokenizer import AnswerTokenizer
from llmcoder_tasks.model.trie import CodeTrie

TEXTS = [
    "Type 2 diabetes mellitus without complications",
    "Type 2 diabetes mellitus with diabetic nephropathy",
    "Essential (primary) hypertension",
    "Gout, unspecified",
    "Fracture of unspecified part of neck of right femur, initial encounter for closed fracture",
    "gout",
    "dm 2, htn",
    "fx neck of femur R, init",
    "hypertension; gout; diabetes",
]
CODES = ["E119", "E1121", "I10", "M109", "S72001A", "S72001D"]


@pytest.fixture(scope="module")
def model(untrained_folder: Path) -> LocalModel:
    return LocalModel.load(untrained_folder)


@pytest.fixture(scope="module")
def plain(untrained_folder: Path) -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(untrained_folder).eval()


def _chances(plain: LlamaForCausalLM, tokenizer: AnswerTokenizer, prompt: list[int], answer: list[int]) -> torch.Tensor:
    """Log-probabilities of the answer tokens after the prompt and after each token of the answer, by the library's own pass.

    A category can only stand where a code begins: first, and after a separator.
    """
    with torch.no_grad():
        logits = plain(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 :, tokenizer.first_answer_id :].clone()
    for position, token in enumerate(answer, start=1):
        if token != tokenizer.separator_id:
            logits[position, tokenizer.first_category_id - tokenizer.first_answer_id :] = -torch.inf
    return logits.log_softmax(-1)


def test_the_short_forward_pass_gives_the_loss_of_the_plain_one(
    untrained_folder: Path, plain: LlamaForCausalLM, tokenizer: AnswerTokenizer
) -> None:
    short = AnswerLlama.from_pretrained(untrained_folder).eval()
    prompt = tokenizer.encode_prompts([TEXTS[0]])[0][0]
    answer = tokenizer.encode_answer(["E119", "M109"])
    labels = torch.tensor([[IGNORED, *answer]])
    loss = short(torch.tensor([[*prompt, *answer[:-1]]]), labels)["loss"]
    expected = [
        -row[token - tokenizer.first_answer_id]
        for row, token in zip(_chances(plain, tokenizer, prompt, answer), answer, strict=False)
    ]
    assert loss.item() == pytest.approx(float(torch.stack(expected).mean()), rel=1e-5)


def test_greedy_answers_are_those_of_the_plain_computation(
    model: LocalModel, plain: LlamaForCausalLM, tokenizer: AnswerTokenizer
) -> None:
    found = model.predict(TEXTS, trie=None)
    for text, codes in zip(TEXTS, found, strict=True):
        prompt, answer = tokenizer.encode_prompts([text])[0][0], []
        while len(answer) < tokenizer.settings.answer_tokens and (not answer or answer[-1] != tokenizer.end_id):
            answer.append(int(_chances(plain, tokenizer, prompt, answer)[-1].argmax()) + tokenizer.first_answer_id)
        if answer[-1] != tokenizer.end_id:
            while answer and answer[-1] != tokenizer.separator_id:
                answer.pop()
        assert codes == tokenizer.decode_answer(answer)


def test_predictions_and_scores_do_not_depend_on_batch_size_or_order(model: LocalModel) -> None:
    trie = CodeTrie.build(CODES, model.tokenizer)
    shuffled = random.Random(5).sample(range(len(TEXTS)), len(TEXTS))
    candidates = [CODES[: 1 + number % len(CODES)] for number in range(len(TEXTS))]
    predicted, scored = model.predict(TEXTS, trie=trie, batch_size=64), model.score(TEXTS, candidates)
    for size in (1, 3):
        assert model.predict(TEXTS, trie=trie, batch_size=size) == predicted
        again = model.predict([TEXTS[i] for i in shuffled], trie=trie, batch_size=size)
        assert again == [predicted[i] for i in shuffled]
        for start in range(0, len(shuffled), size):
            rows = shuffled[start : start + size]
            # To the last bit: the shape of the computation follows from each text alone.
            assert model.score([TEXTS[i] for i in rows], [candidates[i] for i in rows]) == [scored[i] for i in rows]


def test_with_a_trie_only_its_codes_come_out(model: LocalModel) -> None:
    assert {code for codes in model.predict(TEXTS, trie=CodeTrie.build(["E119", "M109"], model.tokenizer)) for code in codes} <= {
        "E119",
        "M109",
    }
    assert any(set(codes) - set(CODES) for codes in model.predict(TEXTS, trie=None)), "without a trie this model writes anything"


def test_scores_are_the_log_probabilities_that_answers_begin_with_a_code(
    model: LocalModel, plain: LlamaForCausalLM, tokenizer: AnswerTokenizer
) -> None:
    scores = model.score([TEXTS[0], "gout"], [CODES, ["M109"]])
    for text, candidates, found in zip([TEXTS[0], "gout"], [CODES, ["M109"]], scores, strict=True):
        prompt = tokenizer.encode_prompts([text])[0][0]
        for code, score in zip(candidates, found, strict=True):
            answer = list(tokenizer.encode_code(code))
            chances = _chances(plain, tokenizer, prompt, answer)
            expected = sum(float(chances[i, token - tokenizer.first_answer_id]) for i, token in enumerate(answer))
            assert score == pytest.approx(expected, abs=1e-4)


def test_a_text_without_candidates_has_no_scores(model: LocalModel) -> None:
    assert model.score(["gout", "gout"], [[], ["M109"]])[0] == []


def test_a_text_longer_than_the_context_is_cut_and_the_log_says_so_without_the_text(
    model: LocalModel, caplog: pytest.LogCaptureFixture
) -> None:
    trie = CodeTrie.build(CODES, model.tokenizer)
    long_text = "gout " * 500
    assert len(model.predict([long_text], trie=trie)) == 1
    assert "1 of 1 texts are longer" in caplog.text
    assert "gout" not in caplog.text


def test_a_folder_without_weights_is_refused_with_its_name(untrained_folder: Path, tmp_path: Path) -> None:
    for name in ("tokenizer.json", "prompt.json", "config.json"):
        (tmp_path / name).write_bytes((untrained_folder / name).read_bytes())
    with pytest.raises(ModelError, match=str(tmp_path)):
        LocalModel.load(tmp_path)


def test_prompts_of_other_lengths_are_padded_together_and_answered_as_alone(model: LocalModel) -> None:
    prompts = model.tokenizer.encode_prompts(TEXTS)[0]
    assert len({len(prompt) for prompt in prompts}) > 3
    trie = model.allow(CODES)

    def decode(some: list[list[int]]) -> tuple[list[list[int]], list[float]]:
        with torch.inference_mode():
            return decode_greedy(model._model, some, trie=trie, end_id=model.tokenizer.end_id, max_answer_tokens=12)

    answers, chances = decode(prompts)
    for prompt, answer, chance in zip(prompts, answers, chances, strict=True):
        (alone,), (its_chance,) = decode([prompt])
        assert answer == alone
        assert chance == pytest.approx(its_chance, abs=1e-4)


def test_a_gpu_takes_prompts_of_about_one_length_together_and_no_more_than_it_holds() -> None:
    lengths = [400, 390, 417, 30, 31, 400]
    assert list(batch_by_length(lengths, 8)) == [[3], [4], [1], [0, 5], [2]]
    assert list(batch_by_length(lengths, 8, about=True)) == [[3], [4], [0, 1, 5], [2]]
    assert [len(rows) for rows in batch_by_length([MOST_TOKENS // 2 - 1] * 5, 8)] == [2, 2, 1]
