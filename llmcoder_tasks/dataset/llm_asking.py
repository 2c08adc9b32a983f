"""Asks for variations of many titles: in batches, several at once, and again for what was missing or refused."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from threading import Lock
from typing import Protocol

from llmcoder_tasks.dataset.llm_answers import Guard, check_answer
from llmcoder_tasks.dataset.llm_config import AskingConfig
from llmcoder_tasks.dataset.llm_estimate import cost_of
from llmcoder_tasks.dataset.llm_kept import KeptAnswers
from llmcoder_tasks.dataset.llm_prompts import ANSWER_SCHEMA, Prompt, render_question
from llmcoder_tasks.errors import DatasetError
from llmcoder_tasks.language_model import Answer
from llmcoder_tasks.progress import track
from llmcoder_tasks.settings import LanguageModel

logger = logging.getLogger(__name__)


class Client(Protocol):
    """What is needed of `LanguageModelClient`."""

    def ask(self, instructions: str, question: str, schema: Mapping[str, object], *, seed: int) -> Answer:
        """One question, answered in the form of a JSON schema."""


@dataclass
class Bill:
    """What was asked and paid in this run. Raises DatasetError when a request would begin above the ceiling."""

    model: LanguageModel
    max_cost: float | None
    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    refused: Counter[str] = field(default_factory=Counter)

    def open_request(self) -> None:
        """Count a request, or refuse it: requests that run at the same time may still go beyond the ceiling."""
        spent = cost_of(self.model, self.input_tokens, self.output_tokens)
        if self.max_cost is not None and spent is not None and spent >= self.max_cost:
            raise DatasetError(
                f"{spent:,.2f} spent, the ceiling is {self.max_cost:,.2f}: raise --max-cost and run again, answers are kept"
            )
        self.requests += 1

    def close_request(self, answer: Answer, refused: Counter[str]) -> None:
        """Count what came back."""
        self.input_tokens += answer.input_tokens
        self.output_tokens += answer.output_tokens
        self.refused += refused


@dataclass(frozen=True)
class Work:
    """What is to be asked in one scenario: `count` variations of each title; those in `kept` are there already."""

    prompt: Prompt
    titles: Mapping[str, str]
    count: int
    kept: KeptAnswers

    def missing(self, code: str) -> int:
        """How many variations of a code are still wanted."""
        return max(0, self.count - len(self.kept.variations_of(code)))

    def batches(self, size: int) -> list[dict[str, str]]:
        """The titles still to be asked for, cut into requests."""
        open_codes = [code for code in self.titles if self.missing(code)]
        return [{code: self.titles[code] for code in open_codes[start : start + size]} for start in range(0, len(open_codes), size)]


@dataclass
class Asker:
    """Asks one model under one bill."""

    client: Client
    guard: Guard
    asking: AskingConfig
    bill: Bill
    seed: int
    _lock: Lock = field(default_factory=Lock)

    def ask_for(self, work: Work) -> None:
        """Ask until every code has its variations, at most `rounds` times; each round asks in smaller batches than the one before.

        Raises what the client raises, and DatasetError at the ceiling: requests under way still end and are kept, none begins.
        """
        for turn in range(self.asking.rounds):
            batches = work.batches(max(1, self.asking.batch_size >> turn))
            if not batches:
                return
            label = f"asking for {work.prompt.scenario}" + (f", again ({turn})" if turn else "")
            with ThreadPoolExecutor(self.asking.concurrency) as pool:
                futures = [pool.submit(self._ask_once, work, batch, self.seed + turn) for batch in batches]
                self._await(futures, label, pool)

    def _await(self, futures: Sequence[Future[None]], label: str, pool: ThreadPoolExecutor) -> None:
        try:
            for future in track(as_completed(futures), label, total=len(futures), unit="requests"):
                future.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise

    def _ask_once(self, work: Work, batch: Mapping[str, str], seed: int) -> None:
        asked = {code: work.missing(code) for code in batch}
        with self._lock:
            self.bill.open_request()
        answer = self.client.ask(work.prompt.text, render_question(batch, max(asked.values())), ANSWER_SCHEMA, seed=seed)
        checked = check_answer(answer.text, asked, self.guard)
        work.kept.add(checked.variations)
        with self._lock:
            self.bill.close_request(answer, checked.refused)
