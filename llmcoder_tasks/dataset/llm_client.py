"""The one place that knows `openai`: asks a server that speaks the chat completions API, with structured output.

The library itself asks again, later and later, after 408, 409, 429, 5xx, time-outs and broken connections, and waits as long as
`Retry-After` says. What is still wrong then becomes an error with its cure. The key never leaves this file: not into a log, nor
into a message, even if the server repeats it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmcoder_tasks.dataset.llm_estimate import estimate_tokens
from llmcoder_tasks.errors import LanguageModelError, LanguageModelUnreachable
from llmcoder_tasks.settings import LanguageModel

_MESSAGE_WIDTH = 200
_NO_KEY = "no-key"  # servers in the house often want none, the library always wants one
_RETRYABLE = frozenset({408, 409, 429})
_CURES = {
    400: "the server must know response_format json_schema",
    401: "check LLMCODER_LLM_KEY",
    403: "check LLMCODER_LLM_KEY and what it may use",
    404: "check LLMCODER_LLM_URL (it mostly ends in /v1) and the model's name",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """The text of an answer ("": the model gave none) and the tokens that the server counts, or an estimate where it does not."""

    text: str
    input_tokens: int
    output_tokens: int


class LanguageModelClient:
    """Asks one model. Safe to use from several threads; close it at the end."""

    def __init__(self, model: LanguageModel, *, timeout_seconds: float, retries: int) -> None:
        import openai

        for name in ("httpx", "httpx2"):
            logging.getLogger(name).setLevel(logging.WARNING)  # they log a line for each request at INFO
        self._openai: Any = openai
        self._model = model
        self._client = openai.OpenAI(base_url=model.url, api_key=model.key or _NO_KEY, timeout=timeout_seconds, max_retries=retries)

    def ask(self, instructions: str, question: str, schema: Mapping[str, Any], *, seed: int) -> Answer:
        """One question, answered in the form of a JSON schema. Raises LanguageModelError; LanguageModelUnreachable where a later
        try may help.
        """
        try:
            completion = self._client.chat.completions.create(
                model=self._model.name,
                messages=[{"role": "system", "content": instructions}, {"role": "user", "content": question}],
                response_format={
                    "type": "json_schema",
                    "json_schema": {"name": "variations", "strict": True, "schema": dict(schema)},
                },
                seed=seed,
            )
        except self._openai.APIStatusError as error:
            raise self._refusal(error.status_code, str(error.message)) from None
        except self._openai.OpenAIError as error:
            raise LanguageModelUnreachable(
                f"no answer from {self._model.url} ({type(error).__name__}): check LLMCODER_LLM_URL, or try again later; "
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
            f"what {self._model.url} answers is no chat completion: check LLMCODER_LLM_URL (it mostly ends in /v1); "
            "what was answered before is kept"
        )

    def _refusal(self, status: int, message: str) -> LanguageModelError:
        said = message.replace(self._model.key, "***") if self._model.key else message
        place = f"{self._model.url} refused a request for {self._model.name} with status {status}"
        said = " ".join(said.split())[:_MESSAGE_WIDTH]
        if status in _RETRYABLE or status >= 500:
            return LanguageModelUnreachable(f"{place} again and again: try again later, what was answered is kept ({said})")
        return LanguageModelError(f"{place}: {_CURES.get(status, 'see what it says')} ({said})")
