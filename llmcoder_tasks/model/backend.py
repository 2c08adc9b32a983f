"""What a trained model is to the rest of the program, wherever it runs; and how a model folder becomes one.

A folder holds weights, which are loaded into this process (`local`), or the name of a model behind a server (`server_model`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from llmcoder_tasks.prompt import ConditionsPerAnswer
from llmcoder_tasks.settings import CoderServer

SERVER_MODEL_NAME = "server_model.json"


@dataclass(frozen=True, slots=True)
class Answer:
    """The codes that a model gives for a text, and the natural logarithm of the probability that it gives to this answer."""

    codes: tuple[str, ...]
    log_probability: float


class CodingModel(Protocol):
    """A trained model (`LocalModel`, `ServerModel`)."""

    @property
    def conditions_per_answer(self) -> ConditionsPerAnswer:
        """Whether it answers a line of several conditions itself."""

    def allow(self, codes: Iterable[str]) -> Any:
        """The codes that may come out, in the form in which `predict` and `answer` take them as `trie`."""

    def predict(self, texts: Sequence[str], *, trie: Any) -> list[tuple[str, ...]]:
        """The codes of each text, each once, in the order of the answer; without a trie codes that do not exist may come out."""

    def answer(self, texts: Sequence[str], *, trie: Any) -> list[Answer]:
        """What `predict` says, with how sure the model is."""

    def score(self, texts: Sequence[str], candidates: Sequence[Sequence[str]]) -> list[list[float]]:
        """Natural log-probability that the answer to each text begins with each of its candidate codes, or what stands for it."""


@runtime_checkable
class FreeWriter(Protocol):
    """A model that writes its codes freely: each has to be held against the release."""

    def read_codes(self, texts: Sequence[str]) -> list[tuple[str, ...]]:
        """The codes of each text as the model wrote them, whether they exist or not."""


def open_model(folder: Path, server: CoderServer | None) -> CodingModel:
    """The model of a folder. Raises ModelError when the folder holds none, SettingsError when its server is not named."""
    if (folder / SERVER_MODEL_NAME).is_file():
        from llmcoder_tasks.model.server_model import ServerModel

        return ServerModel.open(folder, server)
    from llmcoder_tasks.model.local import LocalModel  # imports torch

    return LocalModel.load(folder)


def open_untrained(folder: Path, server: CoderServer | None) -> CodingModel:
    """What the training of a model folder began with: random weights, or the server's model before it was fine-tuned."""
    if (folder / SERVER_MODEL_NAME).is_file():
        from llmcoder_tasks.model.server_model import ServerModel

        return ServerModel.untrained(folder, server)
    from llmcoder_tasks.model.local import LocalModel  # imports torch

    return LocalModel.untrained(folder)
