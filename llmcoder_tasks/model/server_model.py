"""A trained model behind a server that speaks the OpenAI API: vLLM in the house, OpenAI outside.

A server tells what a model answers, and mostly not how likely it finds candidates that one names. So a candidate that the model
names has the log-probability of its whole answer, where the server tells that, and 0 else; one that it does not name has a
constant. `fit_coder` finds out what such agreement is worth beside the words, and what confidence it gives.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from llmcoder_tasks.errors import ModelError, SettingsError
from llmcoder_tasks.model.backend import SERVER_MODEL_NAME, Answer
from llmcoder_tasks.model.server_answers import Reply, ServerAnswers
from llmcoder_tasks.prompt import ConditionsPerAnswer
from llmcoder_tasks.settings import CoderServer

UNNAMED_LOG_PROBABILITY = -7.0
"""Of a candidate that the answer does not name: about one in a thousand. The weights that `fit_coder` tries reach from agreement
that decides alone to agreement that decides between equals."""

_SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class ServedName:
    """The names of a model and of the one that it was made from, as its server knows them; no address, and no key."""

    model: str
    base_model: str

    def write(self, folder: Path) -> None:
        """As the file of a model folder."""
        document = {"schema_version": _SCHEMA_VERSION, **asdict(self)}
        (folder / SERVER_MODEL_NAME).write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> ServedName:
        """The inverse of `write`. Raises ModelError."""
        try:
            document = json.loads((folder / SERVER_MODEL_NAME).read_text(encoding="utf-8"))
            if document.pop("schema_version") == _SCHEMA_VERSION:
                return cls(**document)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass
        raise ModelError(f"{folder / SERVER_MODEL_NAME} cannot be read by this program: train the model again")


class ServerModel:
    """A model that is asked over HTTP. It lists the codes of several conditions itself."""

    conditions_per_answer: ConditionsPerAnswer = "several"

    def __init__(self, answers: ServerAnswers) -> None:
        self._answers = answers

    @classmethod
    def open(cls, folder: Path, server: CoderServer | None) -> ServerModel:
        """The model that a folder names. Raises ModelError, and SettingsError when no server is named."""
        name = ServedName.read(folder)
        return cls(ServerAnswers(_require(server, name.model), name.model))

    @classmethod
    def untrained(cls, folder: Path, server: CoderServer | None) -> ServerModel:
        """What it was made from."""
        name = ServedName.read(folder)
        return cls(ServerAnswers(_require(server, name.base_model), name.base_model))

    def allow(self, codes: Iterable[str]) -> frozenset[str]:
        """The codes that may come out."""
        return frozenset(codes)

    def predict(self, texts: Sequence[str], *, trie: Collection[str] | None) -> list[tuple[str, ...]]:
        """The codes of each text, those alone that may come out."""
        return [answer.codes for answer in self.answer(texts, trie=trie)]

    def answer(self, texts: Sequence[str], *, trie: Collection[str] | None) -> list[Answer]:
        """What `predict` says, with the log-probability of the whole answer, 0 where the server does not tell."""
        return [
            Answer(tuple(code for code in reply.codes or () if trie is None or code in trie), reply.log_probability or 0.0)
            for reply in self._answers.ask(texts)
        ]

    def read_codes(self, texts: Sequence[str]) -> list[tuple[str, ...]]:
        """The codes of each text as the model wrote them."""
        return [reply.codes or () for reply in self._answers.ask(texts)]

    def score(self, texts: Sequence[str], candidates: Sequence[Sequence[str]]) -> list[list[float]]:
        """What stands for the log-probability of each candidate: see above."""
        return [[_weigh(reply, code) for code in codes] for reply, codes in zip(self._answers.ask(texts), candidates, strict=True)]


def _weigh(reply: Reply, code: str) -> float:
    if code not in (reply.codes or ()):
        return UNNAMED_LOG_PROBABILITY
    return max(reply.log_probability or 0.0, UNNAMED_LOG_PROBABILITY)


def _require(server: CoderServer | None, model: str) -> CoderServer:
    if server is None:
        raise SettingsError(
            f"this model is {model} behind a server: set LLMCODER_CODER_LLM_URL, and LLMCODER_CODER_LLM_KEY where it wants one"
        )
    return server
