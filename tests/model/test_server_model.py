"""A model behind a server: what is asked, what is kept, what stays in the house, and what a server's bad days cost."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from openai_server import FakeOpenAI, Fault, Pupil, serve_openai

from llmcoder_tasks.errors import LanguageModelError, LanguageModelUnreachable, ModelError, SettingsError, WorkPending
from llmcoder_tasks.model.backend import FreeWriter, open_model, open_untrained
from llmcoder_tasks.model.server_answers import ServerAnswers, made_up_texts
from llmcoder_tasks.model.server_model import UNNAMED_LOG_PROBABILITY, ServedName, ServerModel
from llmcoder_tasks.prompt import render_codes_json, render_training_line
from llmcoder_tasks.settings import CoderServer

ASK = "POST /chat/completions"
CODES = {f"condition {number}": f"E{number:02}9" for number in range(40)}
TEXTS = list(CODES)


@pytest.fixture(autouse=True)
def _in_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmcoder_tasks.model.server_batches.POLL_SECONDS", 0.01)
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)


@pytest.fixture
def fake() -> Iterator[FakeOpenAI]:
    with serve_openai() as fake:
        fake.pupils["coder"] = Pupil({text: render_codes_json([code]) for text, code in CODES.items()})
        yield fake


@pytest.fixture
def server(fake: FakeOpenAI) -> CoderServer:
    """As if it stood elsewhere, and an agreement covered it."""
    return CoderServer(fake.url, "sk-secret", covers_patients=True)


def _model(server: CoderServer) -> ServerModel:
    return ServerModel(ServerAnswers(server, "coder"))


def _asked(fake: FakeOpenAI) -> list[str]:
    return [text for text in fake.asked if text != "Gout"]


def test_a_model_is_asked_what_it_was_trained_on_and_answers_with_its_probability(
    fake: FakeOpenAI, server: CoderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    bodies: list[Any] = []
    complete = fake.complete
    monkeypatch.setattr(fake, "complete", lambda body: (bodies.append(body), complete(body))[1])
    (answer,) = _model(server).answer(["condition  1\n"], trie={"E019"})
    assert (answer.codes, answer.log_probability) == (("E019",), -0.01)
    trained = json.loads(render_training_line("condition 1", ["E019"]))["messages"]
    assert bodies[-1]["messages"] == trained[:2]
    assert fake.pupils["coder"].answer("condition 1") == trained[2]["content"]


def test_codes_that_may_not_come_out_do_not_and_are_told_to_who_asks(server: CoderServer) -> None:
    model = _model(server)
    assert model.predict(TEXTS[:2], trie=model.allow(["E009"])) == [("E009",), ()]
    assert model.predict(["strange"], trie=None) == [("Z99999",)]
    assert isinstance(model, FreeWriter)
    assert model.read_codes([TEXTS[1], "strange"]) == [("E019",), ("Z99999",)]


def test_a_candidate_scores_by_whether_the_answer_names_it(server: CoderServer) -> None:
    scores = _model(server).score(["condition 3", "strange"], [["E039", "E049"], ["E039"]])
    assert scores == [[-0.01, UNNAMED_LOG_PROBABILITY], [UNNAMED_LOG_PROBABILITY]]


def test_each_text_is_asked_once_however_often_it_comes(fake: FakeOpenAI, server: CoderServer) -> None:
    model = _model(server)
    model.predict([*TEXTS, *TEXTS], trie=None)
    model.score(TEXTS, [["E009"]] * len(TEXTS))
    assert sorted(_asked(fake)) == sorted(TEXTS)


def test_what_may_be_a_patients_goes_nowhere_without_an_agreement_and_is_never_kept(
    fake: FakeOpenAI, server: CoderServer, tmp_path: Path
) -> None:
    outside = replace(server, covers_patients=False)
    with pytest.raises(SettingsError, match="LLMCODER_CODER_LLM_AGREEMENT=127.0.0.1; else put a model into service that runs in"):
        _model(outside).predict(["condition 1"], trie=None)
    assert not fake.asked
    with made_up_texts(tmp_path):
        assert _model(outside).predict(["condition 1"], trie=None) == [("E019",)]
    kept = [path.read_text() for path in tmp_path.iterdir()]
    assert len(kept) == 1
    _model(server).predict(["condition 2"], trie=None)
    assert [path.read_text() for path in tmp_path.iterdir()] == kept


def test_answers_are_kept_as_they_come_and_a_later_run_asks_for_the_rest(
    fake: FakeOpenAI, server: CoderServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmcoder_tasks.model.server_answers.RETRIES", 0)
    fake.fail(ASK, *[Fault()] * 20, Fault(status=503))
    with made_up_texts(tmp_path), pytest.raises(LanguageModelUnreachable):
        _model(server).predict(TEXTS, trie=None)
    first = set(_asked(fake))
    assert 19 <= len(first) < len(TEXTS)
    with made_up_texts(tmp_path):
        assert _model(server).predict(TEXTS, trie=None) == [(code,) for code in CODES.values()]
    assert sorted(_asked(fake)) == sorted(TEXTS), "none is asked, nor paid, twice"


def test_a_line_that_a_crash_cut_off_costs_one_question(fake: FakeOpenAI, server: CoderServer, tmp_path: Path) -> None:
    with made_up_texts(tmp_path):
        _model(server).predict(TEXTS[:5], trie=None)
    (path,) = tmp_path.glob("*.jsonl")
    path.write_text(path.read_text()[:-10])
    with made_up_texts(tmp_path):
        _model(server).predict(TEXTS[:5], trie=None)
    assert len(_asked(fake)) == 6


def test_too_many_requests_are_waited_for_as_long_as_the_server_says(fake: FakeOpenAI, server: CoderServer) -> None:
    fake.fail(ASK, Fault(status=429, headers={"Retry-After": "1"}))
    started = time.monotonic()
    assert _model(server).predict(["condition 1"], trie=None) == [("E019",)]
    assert time.monotonic() - started >= 1


@pytest.mark.parametrize("fault", [Fault(status=500), Fault(cut=True), Fault(hang_up=True), Fault(pause_seconds=1.0)])
def test_a_bad_moment_is_tried_again(fake: FakeOpenAI, server: CoderServer, fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmcoder_tasks.model.server_answers.TIMEOUT_SECONDS", 0.5)
    fake.fail(ASK, fault)
    assert _model(server).predict(["condition 1"], trie=None) == [("E019",)]


def test_a_server_that_tells_no_probabilities_is_not_asked_for_them(fake: FakeOpenAI, server: CoderServer) -> None:
    fake.tells_log_probabilities = False
    assert _model(server).score(["condition 3"], [["E039", "E049"]]) == [[0.0, UNNAMED_LOG_PROBABILITY]]


def test_one_refused_text_has_no_answer_and_a_server_that_refuses_everything_is_an_error(
    fake: FakeOpenAI, server: CoderServer
) -> None:
    fake.refuses = lambda text: text == "condition 2"
    model = _model(server)
    assert model.predict(TEXTS[1:4], trie=None) == [("E019",), (), ("E039",)]
    assert model.score(["condition 2"], [["E029"]]) == [[UNNAMED_LOG_PROBABILITY]]
    fake.refuses = lambda text: True
    with pytest.raises(LanguageModelError, match="refused a request for coder with status 400") as refused:
        _model(server).predict(TEXTS[:1], trie=None)
    assert "withheld" in str(refused.value)


def test_an_answer_of_another_form_is_asked_for_once_more(fake: FakeOpenAI, server: CoderServer, tmp_path: Path) -> None:
    turns = iter(["no JSON", '{"codes": ["E01.9"]}', '{"codes": 3}', '["E01.9"]'])
    fake.rewrites = lambda text, answer: answer if text == "Gout" else next(turns)
    with made_up_texts(tmp_path):
        assert _model(server).predict(["condition 1"], trie=None) == [("E019",)]
        assert _model(server).predict(["condition 5"], trie=None) == [()], "twice another form: no opinion"
    assert len(_asked(fake)) == 4


def test_a_folder_says_which_model_it_is(fake: FakeOpenAI, server: CoderServer, tmp_path: Path) -> None:
    ServedName("coder", "gpt-4o-mini-2024-07-18").write(tmp_path)
    assert open_model(tmp_path, server).predict(["condition 1"], trie=None) == [("E019",)]
    assert open_untrained(tmp_path, server).predict(["condition 1"], trie=None) == [("Z99999",)]
    with pytest.raises(SettingsError, match="this model is coder behind a server: set LLMCODER_CODER_LLM_URL"):
        open_model(tmp_path, None)
    (tmp_path / "server_model.json").write_text('{"schema_version": 9}')
    with pytest.raises(ModelError, match="train the model again"):
        open_model(tmp_path, server)


# Batches ---------------------------------------------------------------------------------------------------------------


def _ask_by_batch(server: CoderServer, folder: Path) -> list[tuple[str, ...]]:
    with made_up_texts(folder):
        return _model(replace(server, batch_from=10)).predict(TEXTS, trie=None)


RIGHT = [(code,) for code in CODES.values()]


def test_many_questions_are_one_batch_and_few_are_none(fake: FakeOpenAI, server: CoderServer, tmp_path: Path) -> None:
    assert _ask_by_batch(server, tmp_path) == RIGHT
    assert (len(fake.batches), fake.calls[ASK]) == (1, 1), "one question alone, to find the form"
    with made_up_texts(tmp_path):
        _model(replace(server, batch_from=10)).predict(["another text"], trie=None)
    assert len(fake.batches) == 1


def test_patients_words_are_never_put_into_a_batch(fake: FakeOpenAI, server: CoderServer) -> None:
    _model(replace(server, batch_from=10)).predict(TEXTS, trie=None)
    assert not fake.batches


def test_half_a_batch_is_kept_and_the_rest_is_asked_one_by_one(fake: FakeOpenAI, server: CoderServer, tmp_path: Path) -> None:
    fake.batch_share = 0.5
    fake.refuses = lambda text: text == "condition 3" and fake.calls[ASK] < 2
    assert _ask_by_batch(server, tmp_path) == RIGHT
    assert len(fake.batches) == 1
    assert sorted(fake.asked[-21:]) == sorted([TEXTS[3], *TEXTS[20:]])


def test_a_run_that_was_cut_off_finds_its_batch_at_the_server(
    fake: FakeOpenAI, server: CoderServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def die(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("llmcoder_tasks.model.server_batches._await", die)
        with pytest.raises(Killed):
            _ask_by_batch(server, tmp_path)
    assert _ask_by_batch(server, tmp_path) == RIGHT
    assert len(fake.batches) == 1
    # Cut off while the output is read: some answers are kept, and the batch is not marked as read.
    (path,) = tmp_path.glob("*.jsonl")
    path.write_text("\n".join(path.read_text().split("\n")[:12]))
    assert _ask_by_batch(server, tmp_path) == RIGHT
    assert (len(fake.batches), sorted(_asked(fake))) == (1, sorted(TEXTS))


def test_a_batch_whose_beginning_nobody_saw_answered_is_found(fake: FakeOpenAI, server: CoderServer, tmp_path: Path) -> None:
    fake.fail("POST /batches", Fault(hang_up=True))
    with pytest.raises(LanguageModelUnreachable):
        _ask_by_batch(server, tmp_path)
    assert _ask_by_batch(server, tmp_path) == RIGHT
    assert (fake.calls["POST /batches"], len(fake.batches)) == (1, 1)


def test_without_waiting_a_batch_is_left_and_found_again(fake: FakeOpenAI, server: CoderServer, tmp_path: Path) -> None:
    with pytest.raises(WorkPending, match="batch_1 is under way") as pending:
        _ask_by_batch(replace(server, waits=False), tmp_path)
    assert (pending.value.kind, pending.value.work_id) == ("batch", "batch_1")
    assert _ask_by_batch(server, tmp_path) == RIGHT
    assert len(fake.batches) == 1


def test_a_batch_that_failed_is_an_error_with_its_reason_once(fake: FakeOpenAI, server: CoderServer, tmp_path: Path) -> None:
    fake.batch_failure = "token limit reached"
    with pytest.raises(LanguageModelError, match="batch_1 failed at the server: token limit reached"):
        _ask_by_batch(server, tmp_path)
    fake.batch_failure = None
    assert _ask_by_batch(server, tmp_path) == RIGHT
    assert len(fake.batches) == 2


def test_a_server_without_batches_is_asked_one_by_one(
    fake: FakeOpenAI, server: CoderServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fake.does_batches = False
    assert _ask_by_batch(server, tmp_path) == RIGHT
    assert "the questions are asked one by one" in caplog.text


def test_a_stream_of_results_that_is_cut_is_read_again(fake: FakeOpenAI, server: CoderServer, tmp_path: Path) -> None:
    fake.fail("GET /files/ID/content", Fault(cut=True))
    assert _ask_by_batch(server, tmp_path) == RIGHT
    assert len(_asked(fake)) == len(TEXTS)


def test_the_test_server_refuses_what_the_vendor_would() -> None:
    """A fake that takes anything proves nothing."""
    from openai_server import Refusal

    fake = FakeOpenAI()
    fake.add_file("x.jsonl", "fine-tune", b'{"messages": [{"role": "user", "content": "a"}]}\n' * 10)
    job = {"model": "gpt-4o-mini-2024-07-18", "training_file": "file-1", "seed": 1, "method": {"type": "supervised"}}
    for change in ({"epochs": 3}, {"seed": "one"}, {"model": "gpt-4o-mini"}, {"suffix": "no spaces"}, {}):
        with pytest.raises(Refusal):
            fake.create_job(job | change)
    schema = {"type": "object", "properties": {"codes": {"type": "array"}}, "required": [], "additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}
    question = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "x"}], "response_format": form}
    for change in ({}, {"guided_regex": "x"}, {"messages": "x"}):
        with pytest.raises(Refusal):
            fake.complete(question | change)
