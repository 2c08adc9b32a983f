"""Asking a real server on this machine that misbehaves in every way: what is answered is kept, the rest is asked again."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmcoder_tasks.dataset.llm_answers import Guard
from llmcoder_tasks.dataset.llm_asking import Asker, Bill, Work
from llmcoder_tasks.dataset.llm_config import AskingConfig, VariationsConfig
from llmcoder_tasks.dataset.llm_estimate import add_up, cost_of, estimate_scenario, refuse_above_ceiling
from llmcoder_tasks.dataset.llm_kept import KeptAnswers, one_at_a_time
from llmcoder_tasks.dataset.llm_prompts import ANSWER_SCHEMA, load_prompt
from llmcoder_tasks.errors import DatasetError, LanguageModelError, LanguageModelUnreachable
from llmcoder_tasks.language_model import LanguageModelClient
from llmcoder_tasks.settings import LanguageModel
from tests.llm_server import Behaviour, FakeLanguageModel, serve_language_model

TITLES = {f"A0{number}": f"Made-up disease number {number}" for number in range(9)}
KEY = "sk-secret-123"


@pytest.fixture
def server() -> Iterator[FakeLanguageModel]:
    with serve_language_model() as model:
        yield model


def _ask(
    server: FakeLanguageModel,
    folder: Path,
    *,
    titles: dict[str, str] = TITLES,
    count: int = 2,
    retries: int = 1,
    timeout_seconds: float = 5.0,
    prices: tuple[float, float] | None = None,
    **asking: Any,
) -> tuple[Work, Bill]:
    model = LanguageModel(server.url, "fake", KEY, *(prices or ()))
    config = AskingConfig(batch_size=asking.pop("batch_size", 3), **asking)
    bill = Bill(model, config.max_cost)
    work = Work(load_prompt("typos"), titles, count, KeptAnswers(folder / "typos.jsonl"))
    client = LanguageModelClient(model, timeout_seconds=timeout_seconds, retries=retries)
    try:
        Asker(client, Guard(titles, {}), config, bill, seed=7).ask_for(work)
    finally:
        client.close()
    return work, bill


def _is_whole(work: Work) -> bool:
    return all(len(work.kept.variations_of(code)) == work.count for code in work.titles)


def test_every_title_is_asked_once_in_batches_in_the_form_of_the_schema(server: FakeLanguageModel, tmp_path: Path) -> None:
    work, bill = _ask(server, tmp_path)
    assert _is_whole(work)
    assert sorted(server.asked) == sorted(TITLES)
    assert (bill.requests, bill.input_tokens, bill.output_tokens) == (3, 3000, 1500)
    request = server.requests[0]
    assert request["model"] == "fake"
    assert request["response_format"]["json_schema"]["schema"] == ANSWER_SCHEMA
    assert request["messages"][0]["content"] == load_prompt("typos").text
    assert set(server.keys) == {f"Bearer {KEY}"}


def test_only_what_was_missing_or_refused_is_asked_again(server: FakeLanguageModel, tmp_path: Path) -> None:
    server.behave(
        Behaviour(change=lambda items: items[1:]),
        Behaviour(change=lambda items: [{**items[0], "code": "Z99"}, *items[1:], items[1]]),
        Behaviour(change=lambda items: [*items[:2], {**items[2], "variations": [" ", *items[2]["variations"][1:]]}]),
    )
    work, bill = _ask(server, tmp_path, concurrency=1)
    assert _is_whole(work)
    assert server.asked[9:] == ["A00", "A03", "A08"]
    assert {fault: count for fault, count in bill.refused.items() if count} == {
        "code without an answer": 2, "code that was not asked for": 1, "code answered twice": 1, "too short or too long": 1,
    }  # fmt: skip


def test_an_answer_that_is_no_json_is_asked_again_in_smaller_batches(server: FakeLanguageModel, tmp_path: Path) -> None:
    server.behave(Behaviour(text='{"items": [{"code": "A00", "varia'))
    work, bill = _ask(server, tmp_path, concurrency=1, batch_size=9)
    assert _is_whole(work)
    assert len(server.requests) == 1 + 3
    assert bill.refused["answer that is no JSON of the asked form"] == 1


def test_a_server_that_never_answers_well_is_not_asked_for_ever(server: FakeLanguageModel, tmp_path: Path) -> None:
    server.always = Behaviour(text="no")
    work, bill = _ask(server, tmp_path, rounds=2)
    assert not any(work.kept.variations_of(code) for code in TITLES)
    assert bill.requests == 3 + 9


def test_too_many_requests_are_waited_for_as_long_as_the_server_says(server: FakeLanguageModel, tmp_path: Path) -> None:
    server.behave(Behaviour(status=429, headers={"Retry-After": "1"}))
    work, bill = _ask(server, tmp_path, batch_size=9)
    assert _is_whole(work)
    assert server.times[1] - server.times[0] >= 1.0
    assert bill.requests == 1


def test_a_server_error_and_a_slow_answer_are_tried_again(server: FakeLanguageModel, tmp_path: Path) -> None:
    server.behave(Behaviour(status=500), Behaviour(pause_seconds=0.6))
    work, _ = _ask(server, tmp_path, batch_size=9, timeout_seconds=0.3, retries=2)
    assert _is_whole(work)
    assert len(server.requests) == 3


def test_a_failure_keeps_what_was_answered_and_the_next_run_asks_for_the_rest(server: FakeLanguageModel, tmp_path: Path) -> None:
    server.behave(Behaviour(), Behaviour(status=503))
    with pytest.raises(LanguageModelUnreachable, match="status 503 again and again: try again later, what was answered is kept"):
        _ask(server, tmp_path, concurrency=1, retries=0)
    assert len(server.requests) <= 3
    answered = {code for code in TITLES if KeptAnswers(tmp_path / "typos.jsonl").variations_of(code)}
    assert {"A00", "A01", "A02"} <= answered
    server.requests.clear()
    work, _ = _ask(server, tmp_path)
    assert _is_whole(work)
    assert sorted(server.asked) == sorted(TITLES.keys() - answered)
    server.requests.clear()
    _ask(server, tmp_path)
    assert server.requests == []


def test_more_variations_of_the_same_titles_pay_only_for_what_is_new(server: FakeLanguageModel, tmp_path: Path) -> None:
    first, _ = _ask(server, tmp_path, count=1)
    before = first.kept.variations_of("A00")
    server.always = Behaviour(
        change=lambda items: [{**item, "variations": [f"{text} again" for text in item["variations"]]} for item in items]
    )
    more, _ = _ask(server, tmp_path, count=2)
    assert _is_whole(more)
    assert more.kept.variations_of("A00")[:1] == before
    assert '"wanted": 1' in server.requests[-1]["messages"][1]["content"]


def test_no_more_requests_run_at_once_than_allowed(server: FakeLanguageModel, tmp_path: Path) -> None:
    server.always = Behaviour(pause_seconds=0.05)
    _ask(server, tmp_path, batch_size=1, concurrency=3)
    assert server.most_at_once == 3


def test_the_ceiling_stops_a_run_that_becomes_dearer_than_estimated(server: FakeLanguageModel, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="0.40 spent, the ceiling is 0.30: raise --max-cost and run again, answers are kept"):
        _ask(server, tmp_path, concurrency=1, prices=(100.0, 200.0), max_cost=0.3)  # 0.20 a request
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("status", "cure"),
    [(400, "response_format json_schema"), (401, "check LLMCODER_LLM_KEY"), (404, "mostly ends in /v1"), (422, "see what it says")],
)
def test_a_refused_request_is_named_with_its_cure_and_without_the_key(
    status: int, cure: str, server: FakeLanguageModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.always = Behaviour(status=status)
    with caplog.at_level(logging.INFO), pytest.raises(LanguageModelError, match=cure) as caught:
        _ask(server, tmp_path)
    assert not caught.value.retryable
    assert "as told, to Bearer ***" in str(caught.value)
    assert KEY not in str(caught.value) + caplog.text
    assert caught.value.__cause__ is None
    assert KEY not in repr(LanguageModel(server.url, "fake", KEY))


@pytest.mark.parametrize(
    "behaviour",
    [
        Behaviour(body=b'{"id": "chatcmpl-1", "choi'),
        Behaviour(body=b"<html>Welcome</html>", headers={"Content-Type": "text/html"}),
        Behaviour(body=b"[]"),
        Behaviour(leave_out=("choices",)),
    ],
)
def test_a_server_that_answers_something_else_than_a_completion_is_named(
    behaviour: Behaviour, server: FakeLanguageModel, tmp_path: Path
) -> None:
    server.always = behaviour
    with pytest.raises(LanguageModelError, match="answers is no chat completion: check LLMCODER_LLM_URL") as caught:
        _ask(server, tmp_path)
    assert not caught.value.retryable


def test_tokens_that_the_server_does_not_count_are_estimated(server: FakeLanguageModel, tmp_path: Path) -> None:
    server.always = Behaviour(leave_out=("usage",))
    _, bill = _ask(server, tmp_path, batch_size=9)
    assert bill.input_tokens > len(load_prompt("typos").text) / 3.5
    assert bill.output_tokens > 100


def test_a_server_that_is_not_there_is_worth_a_retry(server: FakeLanguageModel, tmp_path: Path) -> None:
    server.url = "http://127.0.0.1:9/v1"
    with pytest.raises(LanguageModelUnreachable, match="no answer from http://127.0.0.1:9/v1.*check LLMCODER_LLM_URL"):
        _ask(server, tmp_path, retries=0)
    assert LanguageModelUnreachable.retryable


def test_a_line_cut_off_by_a_crash_spoils_nothing(tmp_path: Path) -> None:
    path = tmp_path / "kept.jsonl"
    KeptAnswers(path).add({"A00": ["grün"]})
    path.write_bytes(path.read_bytes() + '\n{"code": "A01", "variations": ["gr\u00fc'.encode()[:-1])
    KeptAnswers(path).add({"A02": ["blau"], "A03": []})
    again = KeptAnswers(path)
    assert [again.variations_of(code) for code in ("A00", "A01", "A02", "A03")] == [("grün",), (), ("blau",), ()]


def test_two_runs_never_pay_for_the_same(tmp_path: Path) -> None:
    with one_at_a_time(tmp_path), pytest.raises(DatasetError, match="another run asks for variations"), one_at_a_time(tmp_path):
        pass
    with one_at_a_time(tmp_path):
        pass


def test_an_estimate_counts_requests_tokens_and_cost() -> None:
    model = LanguageModel("http://x", "fake", None, 2.0, 8.0)
    prompt = load_prompt("typos")
    batches = [{"A00": "Cholera"}, {"A01": "Typhoid fever"}]
    one = estimate_scenario(prompt, batches, kept=3, count=2, model=model)
    assert (one.titles, one.kept, one.requests) == (2, 3, 2)
    # Twice the prompt, and two questions of 72 and 78 characters, at 3.5 a token; 150 tokens around each.
    assert one.input_tokens == pytest.approx((2 * len(prompt.text) + 150) / 3.5 + 300, abs=10)
    assert one.output_tokens == 35  # (2 × 7 + 40 + 2 × 13 + 40) / 3.5, rounded up
    assert one.cost == pytest.approx((one.input_tokens * 2 + 35 * 8) / 1e6)
    both = add_up([one, one])
    assert both.cost == pytest.approx(2 * (one.cost or 0))
    assert "to ask: 4 titles (6 more are already answered) in 4 requests" in both.render()
    with pytest.raises(DatasetError, match="above the ceiling of 0.00; raise --max-cost, or ask for less"):
        refuse_above_ceiling(both, 0.001)
    refuse_above_ceiling(both, 1.0)


def test_a_ceiling_without_prices_is_refused_with_the_cure() -> None:
    model = LanguageModel("http://x", "fake")
    estimate = add_up([estimate_scenario(load_prompt("typos"), [{"A00": "Cholera"}], kept=0, count=1, model=model)])
    assert estimate.cost is None
    assert cost_of(model, 1, 1) is None
    assert "unknown price" in estimate.render()
    refuse_above_ceiling(estimate, None)
    with pytest.raises(DatasetError, match="set LLMCODER_LLM_INPUT_PRICE and LLMCODER_LLM_OUTPUT_PRICE"):
        refuse_above_ceiling(estimate, 5.0)


@pytest.mark.parametrize(
    ("config", "values", "message"),
    [
        (VariationsConfig, {"scenarios": ("notes",)}, "no prompt for notes"),
        (VariationsConfig, {"scenarios": ()}, "no prompt for no scenario"),
        (VariationsConfig, {"count": 0}, "count=0"),
        (VariationsConfig, {"limit": 0}, "limit=0"),
        (AskingConfig, {"batch_size": 0}, "batch_size=0"),
        (AskingConfig, {"timeout_seconds": -1.0}, "timeout_seconds=-1.0"),
    ],
)
def test_a_malformed_config_is_named(config: Any, values: dict[str, Any], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        config(**values)


@pytest.mark.parametrize("scenario", VariationsConfig().scenarios)
def test_each_prompt_says_what_clinicians_do_and_that_the_condition_stays_the_same(scenario: str) -> None:
    text = load_prompt(scenario).text
    assert "Clinicians " in text
    assert "The condition stays the same in every detail" in text
    assert "`wanted`" in text
    assert len({load_prompt(name).sha256 for name in VariationsConfig().scenarios}) == 4
