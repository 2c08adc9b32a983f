"""The one place that knows `openai`: asks a server that speaks the chat completions API, with structured output.

The library itself asks again, later and later, after 408, 409, 429, 5xx, time-outs and broken connections, and waits as long as
`Retry-After` says. What is still wrong then becomes an error with its cure. The key never leaves this file: not into a log, nor
into a message, even if the server repeats it. Neither does a question that holds patient text (`is_private`), nor what a server
says about it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmcoder_tasks.errors import LanguageModelError, LanguageModelUnreachable, QuestionRefused
from llmcoder_tasks.settings import LanguageModel

_MESSAGE_WIDTH = 200
_NO_KEY = "no-key"  # servers in the house often want none, the library always wants one
_RETRYABLE = frozenset({408, 409, 429})
_OF_ONE_QUESTION = frozenset({400, 413, 422})
_CURES = {
    400: "the server must know response_format json_schema, and the question must fit the model's context",
    401: "check {prefix}_KEY",
    403: "check {prefix}_KEY and what it may use",
    404: "check {prefix}_URL (it mostly ends in /v1) and the model's name",
}
_CHARACTERS_A_TOKEN = 3.5  # medical words and JSON are cut finer than plain English


@dataclass(frozen=True, slots=True)
class Answer:
    """The text of an answer ("": the model gave none) and the tokens that the server counts, or an estimate where it does not."""

    text: str
    input_tokens: int
    output_tokens: int


class LanguageModelClient:
    """Asks one model. Safe to use from several threads; close it at the end. `is_private`: questions hold patient text."""

    def __init__(self, model: LanguageModel, *, timeout_seconds: float, retries: int, is_private: bool = False) -> None:
        import openai

        # They log a line for each request at INFO, and whole requests at DEBUG.
        for name in ("httpx", "httpx2", "openai"):
            logging.getLogger(name).setLevel(logging.WARNING)
        self._is_private = is_private
        self._openai: Any = openai
        self._model = model
        self._client = openai.OpenAI(base_url=model.url, api_key=model.key or _NO_KEY, timeout=timeout_seconds, max_retries=retries)

    def ask(self, instructions: str, question: str, schema: Mapping[str, Any], *, seed: int) -> Answer:
        """One question, answered in the form of a JSON schema. Raises LanguageModelError; QuestionRefused where another question
        may be answered; LanguageModelUnreachable where a later try may help.
        """
        try:
            completion = self._client.chat.completions.create(
                model=self._model.name,
                messages=[{"role": "system", "content": instructions}, {"role": "user", "content": question}],
                response_format={
                    "type": "json_schema",
                    "json_schema": {"name": "answer", "strict": True, "schema": dict(schema)},
                },
                seed=seed,
            )
        except self._openai.APIStatusError as error:
            raise self._refusal(error.status_code, str(error.message)) from None
        except self._openai.OpenAIError as error:
            raise LanguageModelUnreachable(
                f"no answer from {self._model.url} ({type(error).__name__}): check {self._model.prefix}_URL, or try again later; "
                "what was answered is kept"
            ) from None
        except ValueError:
            raise self._stranger() from None
        try:
            text, usage = completion.choices[0].message.content or "", completion.usage
        except (AttributeError, IndexError, TypeError):
            raise self._stranger() from None
        asked = len(instructions) + len(question)
        return Answer(
            text=text,
            input_tokens=getattr(usage, "prompt_tokens", None) or estimate_tokens(asked),
            output_tokens=getattr(usage, "completion_tokens", None) or estimate_tokens(len(text)),
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _stranger(self) -> LanguageModelError:
        return LanguageModelError(
            f"what {self._model.url} answers is no chat completion: check {self._model.prefix}_URL (it mostly ends in /v1); "
            "what was answered before is kept"
        )

    def _refusal(self, status: int, message: str) -> LanguageModelError:
        said = message.replace(self._model.key, "***") if self._model.key else message
        said = "what it says is withheld: it may quote a patient" if self._is_private else " ".join(said.split())[:_MESSAGE_WIDTH]
        place = f"{self._model.url} refused a request for {self._model.name} with status {status}"
        if status in _RETRYABLE or status >= 500:
            return LanguageModelUnreachable(f"{place} again and again: try again later, what was answered is kept ({said})")
        cure = _CURES.get(status, "see what it says").format(prefix=self._model.prefix)
        kind = QuestionRefused if status in _OF_ONE_QUESTION else LanguageModelError
        return kind(f"{place}: {cure} ({said})")


def estimate_tokens(characters: float) -> int:
    """About how many tokens a text of some length is."""
    return math.ceil(characters / _CHARACTERS_A_TOKEN)
