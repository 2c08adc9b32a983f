"""The compact vocabulary: reversible answers, short titles, and texts that cannot pose as answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmcoder_tasks.errors import ModelError
from llmcoder_tasks.model.tokenizer import AnswerTokenizer
from llmcoder_tasks.model.trie import CodeTrie


def test_answers_come_back_as_the_codes_they_were_made_from(tokenizer: AnswerTokenizer) -> None:
    for codes in (("E119",), ("S72001A", "I10", "M109"), ("QA01X", "E1121")):
        assert tokenizer.decode_answer(tokenizer.encode_answer(codes)) == codes


def test_a_model_of_one_condition_answers_a_text_of_several_with_nothing() -> None:
    made = AnswerTokenizer.train(
        ["gout", "hip pain"], ["M109"], text_vocabulary=300, context_tokens=64, answer_tokens=8, conditions_per_answer="one"
    )
    assert made.encode_answer(["M109", "M109"]) == [made.end_id]
    assert made.encode_answer(["M109"]) == [*made.encode_code("M109"), made.end_id]


def test_a_known_category_is_one_token_and_an_unknown_one_three(tokenizer: AnswerTokenizer) -> None:
    assert len(tokenizer.encode_code("S72001A")) == 5
    assert len(tokenizer.encode_code("QA01X")) == 5
    assert len(tokenizer.encode_code("I10")) == 1


def test_answer_tokens_stand_in_one_block_with_the_categories_last(tokenizer: AnswerTokenizer) -> None:
    ids = [*tokenizer.encode_code("E119"), tokenizer.separator_id, tokenizer.end_id]
    assert min(ids) > tokenizer.first_answer_id
    assert tokenizer.encode_code("E119")[0] >= tokenizer.first_category_id > tokenizer.encode_code("E119")[1]
    assert tokenizer.encode_prompts(["gout"])[0][0][-1] == tokenizer.first_answer_id
    assert tokenizer.separator_id == tokenizer.first_answer_id + 1


def test_words_of_an_answer_inside_a_text_are_letters_like_others(tokenizer: AnswerTokenizer) -> None:
    prompt = tokenizer.encode_prompts(["gout <|answer|><|E11|><|.9|><|end|>"])[0][0]
    assert all(token < tokenizer.first_answer_id for token in prompt[:-1])


def test_a_comma_and_the_word_behind_it_become_one_token(tokenizer: AnswerTokenizer) -> None:
    alone, behind = (len(tokenizer.encode_prompts([text])[0][0]) for text in ("gout", "gout, initial"))
    assert behind == alone + 1


def test_training_twice_gives_the_same_bytes(tokenizer: AnswerTokenizer, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        made = AnswerTokenizer.train(["gout", "hip pain"], ["M109"], text_vocabulary=300, context_tokens=64, answer_tokens=8)
        made.save(tmp_path / name)
    assert (tmp_path / "a/tokenizer.json").read_bytes() == (tmp_path / "b/tokenizer.json").read_bytes()
    again = AnswerTokenizer.load(tmp_path / "a")
    assert again.encode_prompts(["hip pain, left"]) == made.encode_prompts(["hip pain, left"])


def test_a_text_that_is_too_long_keeps_its_beginning_and_the_mark(tokenizer: AnswerTokenizer) -> None:
    (short, long), cut = tokenizer.encode_prompts(["gout", "gout " * 200])
    assert cut == 1
    assert len(long) == tokenizer.settings.context_tokens - tokenizer.settings.answer_tokens
    assert long[0] == short[0]
    assert long[-1] == tokenizer.first_answer_id


def test_a_folder_without_a_tokenizer_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="prompt.json cannot be read"):
        AnswerTokenizer.load(tmp_path)


def test_a_tree_of_codes_leads_to_its_codes_alone(tokenizer: AnswerTokenizer) -> None:
    trie = CodeTrie.build(["E119", "E1121", "I10"], tokenizer)
    e11, nine = tokenizer.encode_code("E119")
    assert len(trie) == 3
    assert set(trie.allowed(0)) == {e11, tokenizer.encode_code("I10")[0]}
    inside = trie.advance(0, e11)
    assert set(trie.allowed(inside)) == {nine, tokenizer.encode_code("E1121")[1]}
    done = trie.advance(inside, nine)
    assert set(trie.allowed(done)) == {tokenizer.separator_id, tokenizer.end_id}
    assert trie.advance(done, tokenizer.separator_id) == 0
    with pytest.raises(ModelError, match="at least one code"):
        CodeTrie.build([], tokenizer)
