"""Answers of a model behind a server: asked one by one or by its Batch API, each text once, kept as they come.

What is asked may be a patient's words, unless the caller says otherwise: within `made_up_texts` texts are our own, may go to any
server, and answers are kept on disk. Everything else stays in memory, and goes only where an agreement covers it.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from llmcoder_tasks.errors import LanguageModelError, NotOffered, QuestionRefused, SettingsError
from llmcoder_tasks.kept_lines import KeptLines
from llmcoder_tasks.language_model import Answer, LanguageModelClient, render_request
from llmcoder_tasks.progress import track
from llmcoder_tasks.prompt import CODES_SCHEMA, INSTRUCTIONS, parse_codes_json, render_question
from llmcoder_tasks.settings import CoderServer

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS = 60.0
RETRIES = 5
AT_ONCE = 8
"""Servers answer several questions together nearly as fast as one."""

SEED = 0
_SEEDS = (SEED, SEED + 1)
"""An answer of another form is asked for once more."""

_REMEMBERED = 100_000
_TRIAL = "Gout"
_FEW = 100  # of fewer questions no progress is shown

_answers_folder: ContextVar[Path | None] = ContextVar("answers_folder", default=None)


@contextmanager
def made_up_texts(folder: Path) -> Iterator[None]:
    """Say that whatever is asked within the block is no patient's: its answers are kept in `folder`."""
    token = _answers_folder.set(folder)
    try:
        yield
    finally:
        _answers_folder.reset(token)


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model wrote of a text: its codes, None where no usable answer is to be had; and how likely it found them."""

    codes: tuple[str, ...] | None
    log_probability: float | None


def key_of(text: str) -> str:
    """The name of a question in files of answers and in batches."""
    return hashlib.sha256(render_question(text).encode("utf-8", "surrogatepass")).hexdigest()


def read_reply(answer: Answer) -> Reply | None:
    """An answer, None where it has another form than asked for."""
    codes = parse_codes_json(answer.text)
    return None if codes is None else Reply(codes, answer.log_probability)


class KeptReplies:
    """Replies of one model in one file, and the batches that were read into it."""

    def __init__(self, folder: Path, set_id: str) -> None:
        self._lines = KeptLines(folder / f"{set_id}.jsonl")
        self._replies: dict[str, Reply] = {}
        self.read_batches: set[str] = set()
        for row in self._lines.read():
            if "batch" in row:
                self.read_batches.add(row["batch"])
            else:
                self._replies[row["key"]] = Reply(None if row["codes"] is None else tuple(row["codes"]), row["log_probability"])

    @property
    def lock_path(self) -> Path:
        """Held while batches are begun or read, so that no two processes pay for the same."""
        return self._lines.path.with_suffix(".lock")

    def find(self, key: str) -> Reply | None:
        """What is kept under a key."""
        return self._replies.get(key)

    def add(self, key: str, reply: Reply) -> None:
        """Keep a reply: whoever ends this process, it is paid for once."""
        row = {"key": key, "codes": reply.codes, "log_probability": reply.log_probability}
        self._lines.append([row], is_synced=False)
        self._replies[key] = reply

    def close_batch(self, batch_id: str) -> None:
        """Remember that everything in a batch is kept."""
        self._lines.append([{"batch": batch_id}])
        self.read_batches.add(batch_id)


class ServerAnswers:
    """Asks one model of a server. Threads are its own business; call it from one."""

    def __init__(self, server: CoderServer, model: str) -> None:
        self._server = server
        self.model = server.model(model)
        self._client = LanguageModelClient(self.model, timeout_seconds=TIMEOUT_SECONDS, retries=RETRIES, is_private=True)
        self._remembered: OrderedDict[str, Reply] = OrderedDict()
        self._kept: dict[Path, KeptReplies] = {}
        self._with_log_probability: bool | None = None

    @property
    def set_id(self) -> str:
        """Sixteen characters that change with the model and with how it is asked."""
        asked = json.dumps([self.model.name, INSTRUCTIONS, CODES_SCHEMA], sort_keys=True)
        return hashlib.sha256(asked.encode()).hexdigest()[:16]

    def ask(self, texts: Sequence[str]) -> list[Reply]:
        """The reply to each text, each distinct one asked for once.

        Raises SettingsError where a text may be a patient's and no agreement covers the server, LanguageModelError where it cannot
        be asked at all, WorkPending while a batch is under way and the server is not waited for.
        """
        folder = _answers_folder.get()
        kept = self._open_kept(folder) if folder is not None else None
        if kept is None and not self._server.covers_patients:
            raise SettingsError(
                f"phrases of patients would be sent to {self._server.host}, to {self.model.name}: where an agreement covers that, "
                f"say so by LLMCODER_CODER_LLM_AGREEMENT={self._server.host}; else put a model into service that runs in the house"
            )
        missing = {key_of(text): text for text in texts if self._find(key_of(text), kept) is None}
        if kept is not None and self._server.batch_from is not None and len(missing) >= self._server.batch_from:
            self._find_form()
            self._ask_by_batch(missing, kept)
            missing = {key: text for key, text in missing.items() if self._find(key, kept) is None}
        self._ask_each(missing, kept)
        found = [self._find(key_of(text), kept) for text in texts]
        while len(self._remembered) > _REMEMBERED:
            self._remembered.popitem(last=False)
        return [reply or Reply(None, None) for reply in found]

    def _find(self, key: str, kept: KeptReplies | None) -> Reply | None:
        return self._remembered.get(key) or (kept.find(key) if kept is not None else None)

    def _open_kept(self, folder: Path) -> KeptReplies:
        if folder not in self._kept:
            self._kept[folder] = KeptReplies(folder, self.set_id)
        return self._kept[folder]

    def _ask_by_batch(self, questions: dict[str, str], kept: KeptReplies) -> None:
        from llmcoder_tasks.model.server_batches import ask_by_batches

        try:
            render = partial(self._render, SEED)
            ask_by_batches(questions, server=self._server, model=self.model, set_id=self.set_id, kept=kept, render=render)
        except NotOffered as error:
            logger.warning("%s: the questions are asked one by one", error)

    def _ask_each(self, questions: dict[str, str], kept: KeptReplies | None) -> None:
        if not questions:
            return
        self._find_form()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            futures = {pool.submit(self._ask_one, text): key for key, text in questions.items()}
            try:
                for future in self._show(futures):
                    reply = future.result()
                    self._remember(futures[future], reply, kept)
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                self._keep_rest(futures, kept)
                raise

    def _show(self, futures: dict[Future[Reply], str]) -> Iterator[Future[Reply]]:
        done = as_completed(futures)
        return iter(done) if len(futures) < _FEW else track(done, f"asking {self.model.name}", total=len(futures), unit="texts")

    def _remember(self, key: str, reply: Reply, kept: KeptReplies | None) -> None:
        self._remembered[key] = reply
        if kept is not None and kept.find(key) is None and reply.codes is not None:
            kept.add(key, reply)

    def _keep_rest(self, futures: dict[Future[Reply], str], kept: KeptReplies | None) -> None:
        """What was answered beside the question that failed is paid for too."""
        for future, key in futures.items():
            if future.done() and not future.cancelled() and future.exception() is None:
                self._remember(key, future.result(), kept)

    def _ask_one(self, text: str) -> Reply:
        for seed in _SEEDS:
            try:
                reply = read_reply(self._ask(text, seed, with_log_probability=bool(self._with_log_probability)))
            except QuestionRefused:
                return Reply(None, None)
            if reply is not None:
                return reply
        return Reply(None, None)

    def _render(self, seed: int, text: str) -> dict[str, Any]:
        """The body of a question, as a line of a batch has it."""
        return render_request(
            self.model.name, INSTRUCTIONS, render_question(text), CODES_SCHEMA, seed, bool(self._with_log_probability)
        )

    def _ask(self, text: str, seed: int, *, with_log_probability: bool) -> Answer:
        return self._client.ask(
            INSTRUCTIONS, render_question(text), CODES_SCHEMA, seed=seed, with_log_probability=with_log_probability
        )

    def _find_form(self) -> None:
        """Ask what no server has a reason to refuse: it may tell no probabilities, or refuse everything. Replies are alike then."""
        if self._with_log_probability is not None:
            return
        try:
            self._ask(_TRIAL, SEED, with_log_probability=True)
            self._with_log_probability = True
        except QuestionRefused:
            try:
                self._ask(_TRIAL, SEED, with_log_probability=False)
            except QuestionRefused as error:
                raise LanguageModelError(str(error)) from None
            self._with_log_probability = False
