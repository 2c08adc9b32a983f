"""The one place that knows `openai`: chat completions with structured output; and models, files, fine-tuning jobs and batches.

The library itself asks again, later and later, after 408, 409, 429, 5xx, time-outs and broken connections, and waits as long as
`Retry-After` says. What is still wrong then becomes an error with its cure. The key never leaves this file: not into a log, nor
into a message, even if the server repeats it. Neither does a question that holds patient text (`is_private`), nor what a server
says about it.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from llmcoder_tasks.errors import LanguageModelError, LanguageModelUnreachable, NotOffered, QuestionRefused
from llmcoder_tasks.settings import LanguageModel

_MESSAGE_WIDTH = 200
_NO_KEY = "no-key"  # servers in the house often want none, the library always wants one
_RETRYABLE = frozenset({408, 409, 429})
_NOT_OFFERED = frozenset({403, 404, 405, 501})
_OF_ONE_QUESTION = frozenset({400, 413, 422})
_CURES = {
    400: "the server must know response_format json_schema, and the question must fit the model's context",
    401: "check {prefix}_KEY",
    403: "check {prefix}_KEY and what it may use",
    404: "check {prefix}_URL (it mostly ends in /v1) and the model's name",
}
_UPLOAD_SECONDS = 900.0
_PAGE = 100
_CHARACTERS_A_TOKEN = 3.5  # medical words and JSON are cut finer than plain English


@dataclass(frozen=True, slots=True)
class Answer:
    """The text of an answer ("": the model gave none) and the tokens that the server counts, or an estimate where it does not.

    `log_probability` is the natural one of the whole text, None where it was not asked for, or the server does not tell.
    """

    text: str
    input_tokens: int
    output_tokens: int
    log_probability: float | None = None


class _Connection:
    """A client of one server, and its errors as ours: without a key, and without what may quote a patient."""

    def __init__(self, model: LanguageModel, timeout_seconds: float, retries: int, *, is_private: bool) -> None:
        import openai

        # They log a line for each request at INFO, and whole requests at DEBUG.
        for name in ("httpx", "httpx2", "openai"):
            logging.getLogger(name).setLevel(logging.WARNING)
        self._openai: Any = openai
        self._model = model
        self._is_private = is_private
        self.client = openai.OpenAI(base_url=model.url, api_key=model.key or _NO_KEY, timeout=timeout_seconds, max_retries=retries)

    @contextmanager
    def errors(self, wanted: str, *, is_service: bool = False) -> Iterator[None]:
        """Translate what the library raises. `wanted` is what was asked for; of a service a 404 says that the server has none."""
        try:
            yield
        except self._openai.APIStatusError as error:
            raise self._refusal(error.status_code, str(error.message), wanted, is_service) from None
        except self._openai.OpenAIError as error:
            raise LanguageModelUnreachable(
                f"no answer from {self._model.url} ({type(error).__name__}): check {self._model.prefix}_URL, or try again later; "
                "what was answered is kept"
            ) from None
        except ValueError:
            raise self.stranger(wanted) from None

    def stranger(self, wanted: str) -> LanguageModelError:
        """For an answer of another form."""
        return LanguageModelError(
            f"what {self._model.url} answers is no {wanted}: check {self._model.prefix}_URL (it mostly ends in /v1); "
            "what was answered before is kept"
        )

    def _refusal(self, status: int, message: str, wanted: str, is_service: bool) -> LanguageModelError:
        said = message.replace(self._model.key, "***") if self._model.key else message
        said = "what it says is withheld: it may quote a patient" if self._is_private else " ".join(said.split())[:_MESSAGE_WIDTH]
        place = f"{self._model.url} refused a request for {wanted if is_service else self._model.name} with status {status}"
        if status in _RETRYABLE or (status >= 500 and status not in _NOT_OFFERED):
            return LanguageModelUnreachable(f"{place} again and again: try again later, what was answered is kept ({said})")
        cure = _CURES.get(status, "see what it says").format(prefix=self._model.prefix)
        if is_service:
            cure = "see what it says" if status == 400 else cure
            return (NotOffered if status in _NOT_OFFERED else LanguageModelError)(f"{place}: {cure} ({said})")
        kind = QuestionRefused if status in _OF_ONE_QUESTION else LanguageModelError
        return kind(f"{place}: {cure} ({said})")


class LanguageModelClient:
    """Asks one model. Safe to use from several threads; close it at the end. `is_private`: questions hold patient text."""

    def __init__(self, model: LanguageModel, *, timeout_seconds: float, retries: int, is_private: bool = False) -> None:
        self._model = model
        self._connection = _Connection(model, timeout_seconds, retries, is_private=is_private)

    def ask(
        self, instructions: str, question: str, schema: Mapping[str, Any], *, seed: int, with_log_probability: bool = False
    ) -> Answer:
        """One question, answered in the form of a JSON schema. Raises LanguageModelError; QuestionRefused where another question
        may be answered; LanguageModelUnreachable where a later try may help.
        """
        body = render_request(self._model.name, instructions, question, schema, seed, with_log_probability)
        with self._connection.errors("chat completion"):
            completion = self._connection.client.chat.completions.create(**body)
        try:
            return read_answer(completion, len(instructions) + len(question))
        except (AttributeError, IndexError, TypeError):
            raise self._connection.stranger("chat completion") from None

    def close(self) -> None:
        """Close the connections."""
        self._connection.client.close()


def render_request(
    model: str, instructions: str, question: str, schema: Mapping[str, Any], seed: int, with_log_probability: bool
) -> dict[str, Any]:
    """The body of one question, asked by itself or as a line of a batch."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "system", "content": instructions}, {"role": "user", "content": question}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": dict(schema)}},
        "seed": seed,
    }
    return body | {"logprobs": True} if with_log_probability else body


def read_answer(completion: Any, asked_characters: int) -> Answer:
    """What a completion says. Raises AttributeError, IndexError or TypeError where it has another form."""
    choice, usage = completion.choices[0], completion.usage
    text = choice.message.content or ""
    tokens = getattr(getattr(choice, "logprobs", None), "content", None)
    return Answer(
        text=text,
        input_tokens=getattr(usage, "prompt_tokens", None) or estimate_tokens(asked_characters),
        output_tokens=getattr(usage, "completion_tokens", None) or estimate_tokens(len(text)),
        log_probability=sum(float(token.logprob) for token in tokens) if tokens else None,
    )


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model that a server lists. `shutdown` is the day on which it ends, None where none is announced."""

    name: str
    shutdown: date | None


@dataclass(frozen=True, slots=True)
class TuningJob:
    """A fine-tuning job. `model` is what it made, `failure` the server's reason where it made none."""

    job_id: str
    status: str
    file_id: str
    metadata: dict[str, str]
    model: str | None = None
    failure: str | None = None
    trained_tokens: int | None = None
    finishes_at: datetime | None = None

    @property
    def is_over(self) -> bool:
        """Whether the server has done with it, well or badly."""
        return self.status in {"succeeded", "failed", "cancelled"}


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch of questions. `files` hold what was answered and what was not; both may be there where a batch expired half-way."""

    batch_id: str
    status: str
    metadata: dict[str, str]
    files: tuple[str, ...] = ()
    failure: str | None = None
    done: int = 0
    total: int = 0

    @property
    def is_over(self) -> bool:
        """Whether the server has done with it, well or badly."""
        return self.status in {"completed", "failed", "expired", "cancelled"}


@dataclass(frozen=True, slots=True)
class BatchedAnswer:
    """A line of a batch's output: the answer, or None with the status that this question met."""

    custom_id: str
    answer: Answer | None
    status: int


class ModelServer:
    """What a server offers beside answers: its models, files, fine-tuning jobs and batches. None of it may hold patient text.

    Every method raises LanguageModelError; NotOffered where the server has no such service; LanguageModelUnreachable where a later
    try may help. What costs money is asked for once and never repeated by itself: after an error nobody knows whether it was begun.
    """

    def __init__(self, model: LanguageModel, *, timeout_seconds: float = 60.0, retries: int = 3) -> None:
        self._connection = _Connection(model, timeout_seconds, retries, is_private=False)
        self._client = self._connection.client
        self._once = self._client.with_options(max_retries=0)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def list_models(self) -> list[ServedModel]:
        """Every model that this key may use."""
        with self._connection.errors("list of models", is_service=True):
            return [ServedModel(model.id, _read_day(model)) for model in self._client.models.list()]

    def find_file(self, name: str, size: int) -> str | None:
        """The id of a file for training that was uploaded before under this name with so many bytes."""
        with self._connection.errors("list of files", is_service=True):
            found = (file for file in self._client.files.list(purpose="fine-tune", limit=10_000))
            return next((file.id for file in found if (file.filename, file.bytes) == (name, size)), None)

    def upload_file(self, path: Path, purpose: Any) -> str:
        """Upload a file and return its id."""
        with self._connection.errors("upload of a file", is_service=True), path.open("rb") as stream:
            return str(self._client.files.create(file=(path.name, stream), purpose=purpose, timeout=_UPLOAD_SECONDS).id)

    def read_file(self, file_id: str) -> list[str]:
        """The lines of a file."""
        with self._connection.errors("content of a file", is_service=True):
            return self._client.files.content(file_id, timeout=_UPLOAD_SECONDS).text.splitlines()

    def list_jobs(self) -> list[TuningJob]:
        """Every fine-tuning job, the newest first."""
        with self._connection.errors("fine-tuning jobs", is_service=True):
            return [_read_job(job) for job in self._client.fine_tuning.jobs.list(limit=_PAGE)]

    def read_job(self, job_id: str) -> TuningJob:
        """One fine-tuning job."""
        with self._connection.errors(f"fine-tuning job {job_id}", is_service=True):
            return _read_job(self._client.fine_tuning.jobs.retrieve(job_id))

    def read_losses(self, job_id: str) -> list[tuple[int, float]]:
        """(step, training loss) of a job, as far as the server tells them, in order."""
        with self._connection.errors(f"events of fine-tuning job {job_id}", is_service=True):
            events = [event.data for event in self._client.fine_tuning.jobs.list_events(job_id, limit=_PAGE)]
        rows = [(data.get("step"), data.get("train_loss")) for data in events if isinstance(data, dict)]
        return sorted({int(step): float(loss) for step, loss in rows if step is not None and loss is not None}.items())

    def create_job(
        self, *, model: str, file_id: str, hyperparameters: Any, seed: int, suffix: str, metadata: dict[str, str]
    ) -> TuningJob:
        """Begin a fine-tuning job, which costs money. After LanguageModelUnreachable look for it before asking again."""
        with self._connection.errors("a new fine-tuning job", is_service=True):
            job = self._once.fine_tuning.jobs.create(
                model=model,
                training_file=file_id,
                method={"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},
                seed=seed,
                suffix=suffix,
                metadata=metadata,
            )
            return _read_job(job)

    def list_batches(self) -> list[Batch]:
        """Every batch, the newest first."""
        with self._connection.errors("batches", is_service=True):
            return [_read_batch(batch) for batch in self._client.batches.list(limit=_PAGE)]

    def read_batch(self, batch_id: str) -> Batch:
        """One batch."""
        with self._connection.errors(f"batch {batch_id}", is_service=True):
            return _read_batch(self._client.batches.retrieve(batch_id))

    def create_batch(self, file_id: str, metadata: dict[str, str]) -> Batch:
        """Begin a batch of chat completions, which costs money. Asked once, like `create_job`."""
        with self._connection.errors("a new batch", is_service=True):
            return _read_batch(
                self._once.batches.create(
                    input_file_id=file_id, endpoint="/v1/chat/completions", completion_window="24h", metadata=metadata
                )
            )


def read_batched_line(line: str) -> BatchedAnswer | None:
    """A line of a batch's output or error file; None for one that is none, or is cut off."""
    from openai.types.chat import ChatCompletion

    try:
        row = json.loads(line)
        response = row.get("response") or {}
        status = int(response.get("status_code") or 500)
        answer = read_answer(ChatCompletion.construct(**response["body"]), 0) if status == 200 else None
        return BatchedAnswer(str(row["custom_id"]), answer, status)
    except (ValueError, KeyError, AttributeError, IndexError, TypeError):
        return None


def _read_day(model: Any) -> date | None:
    """The day on which a model ends; servers tell it in one field or another."""
    for name in ("shutdown_date", "deprecation_date"):
        value = getattr(model, name, None)
        if isinstance(value, str):
            try:
                return date.fromisoformat(value[:10])
            except ValueError:
                continue
    return None


def _read_job(job: Any) -> TuningJob:
    failure = job.error.message if job.error is not None and job.error.message else None
    return TuningJob(
        job_id=job.id,
        status=job.status,
        file_id=job.training_file,
        metadata=dict(job.metadata or {}),
        model=job.fine_tuned_model,
        failure=" ".join(str(failure).split())[:_MESSAGE_WIDTH] if failure else None,
        trained_tokens=job.trained_tokens,
        finishes_at=datetime.fromtimestamp(job.estimated_finish, UTC) if job.estimated_finish else None,
    )


def _read_batch(batch: Any) -> Batch:
    faults = [fault.message for fault in (batch.errors.data if batch.errors else None) or [] if fault.message]
    counts = batch.request_counts
    return Batch(
        batch_id=batch.id,
        status=batch.status,
        metadata=dict(batch.metadata or {}),
        files=tuple(name for name in (batch.output_file_id, batch.error_file_id) if name),
        failure=" ".join(faults[0].split())[:_MESSAGE_WIDTH] if faults else None,
        done=counts.completed + counts.failed if counts else 0,
        total=counts.total if counts else 0,
    )


def estimate_tokens(characters: float) -> int:
    """About how many tokens a text of some length is."""
    return math.ceil(characters / _CHARACTERS_A_TOKEN)
