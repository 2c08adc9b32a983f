"""A large language model that reads whole notes, behind a server or in a folder of weights: diagnoses and the words they rest on.

It is attached to a trained model: `note_model.json` in the model folder says which one, and the settings of this machine say where
it is to be had. What it answers is a proposal and no more: `note_evidence` looks for the quotes, the rules do the rest.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from llmcoder_tasks.errors import ModelError, QuestionRefused
from llmcoder_tasks.language_model import Answer, LanguageModelClient
from llmcoder_tasks.records import parse_code
from llmcoder_tasks.settings import LanguageModel
from llmcoder_tasks.storage import hash_file

logger = logging.getLogger(__name__)

NOTE_MODEL_NAME = "note_model.json"
PROMPT_FILE = Path(__file__).parent / "prompts" / "note.md"

ANSWER_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "diagnoses": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"code": {"type": "string"}, "quote": {"type": "string"}, "uncertain": {"type": "boolean"}},
                "required": ["code", "quote", "uncertain"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["diagnoses"],
    "additionalProperties": False,
}
"""What an answer looks like, as the server is told; it is not trusted."""

SERVER_TIMEOUT_SECONDS = 180.0
SERVER_RETRIES = 4
QUESTIONS_AT_ONCE = 8
"""Servers answer several questions together nearly as fast as one."""

_KEPT_NOTES = 64
"""More than a batch: where one note of a batch cannot be read, the others are not asked, nor paid, again."""

_SCHEMA_VERSION = 1
_SEED = 0
_CODE = re.compile(r"[A-Z][0-9A-Z]{2,6}")
_TRIAL = "DISCHARGE DIAGNOSES:\n1. Pneumonia"
_WEIGHTS = ("*.safetensors", "*.json")


class UnreadableAnswer(Exception):
    """A note to which the model gives no usable answer. Other notes may do better; the message quotes nothing."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """A code, without the dot, and the words of the note that it is said to rest on. Neither is checked."""

    code: str
    quote: str
    is_uncertain: bool = False


class Chat(Protocol):
    """What is needed of a language model (`LanguageModelClient`, `LocalChat`)."""

    def ask(self, instructions: str, question: str, schema: Mapping[str, Any], *, seed: int) -> Answer:
        """One question, answered in the form of a JSON schema. Raises QuestionRefused where another one may be answered."""


@dataclass(frozen=True, slots=True)
class NoteModel:
    """Which language model reads notes: its name, the prompt, and for weights of one's own the sha256 of their files."""

    kind: Literal["server", "folder"]
    name: str
    prompt_sha256: str
    files: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, source: LanguageModel | Path) -> NoteModel:
        """What a setting names. Raises ModelError for a folder without weights."""
        prompt_sha256 = hash_file(PROMPT_FILE)
        if isinstance(source, LanguageModel):
            return cls("server", source.name, prompt_sha256)
        paths = sorted(path for pattern in _WEIGHTS for path in source.glob(pattern))
        if not any(path.suffix == ".safetensors" for path in paths):
            raise ModelError(f"{source} holds no *.safetensors: LLMCODER_NOTE_LLM_MODEL must name a folder of weights, or a server")
        return cls("folder", source.name, prompt_sha256, {path.name: hash_file(path) for path in paths})

    @classmethod
    def parse(cls, data: bytes) -> NoteModel:
        """The inverse of `render`. Raises ModelError."""
        try:
            document = json.loads(data)
            if document.pop("schema_version") == _SCHEMA_VERSION and document["kind"] in ("server", "folder"):
                return cls(**document)
        except (ValueError, TypeError, KeyError, AttributeError):
            pass
        raise ModelError(f"{NOTE_MODEL_NAME} cannot be read by this program: run `llmcoder attach-note-model` again")

    def render(self) -> bytes:
        """As the file of a model folder."""
        return json.dumps({"schema_version": _SCHEMA_VERSION, **asdict(self)}, indent=2, sort_keys=True).encode()

    @property
    def fingerprint(self) -> str:
        """Eight characters that change with the model or its prompt."""
        return hashlib.sha256(self.render()).hexdigest()[:8]


def open_note_reader(attached: NoteModel, source: LanguageModel | Path | None) -> NoteReader:
    """The reader of a model folder. Raises ModelError where the settings name no language model, another one, or other weights."""
    if source is None:
        raise ModelError(
            f"this model reads notes by {attached.name}: set LLMCODER_NOTE_LLM_MODEL, and LLMCODER_NOTE_LLM_URL for a server"
        )
    given = NoteModel.of(source)
    if given != attached:
        same_name = (given.kind, given.name) == (attached.kind, attached.name)
        differs = "whose files or prompt have changed since" if same_name else f"and the settings name {given.name} ({given.kind})"
        raise ModelError(
            f"this model reads notes by {attached.name} ({attached.kind}), {differs}: set LLMCODER_NOTE_LLM_MODEL, or run "
            "`llmcoder attach-note-model` and have the new model judged"
        )
    if isinstance(source, LanguageModel):
        client = LanguageModelClient(source, timeout_seconds=SERVER_TIMEOUT_SECONDS, retries=SERVER_RETRIES, is_private=True)
        return NoteReader(client, at_once=QUESTIONS_AT_ONCE)
    from llmcoder_tasks.model.local_chat import LocalChat  # imports torch

    return NoteReader(LocalChat.load(source), at_once=1)


class NoteReader:
    """Asks a language model for the diagnoses of notes."""

    def __init__(self, chat: Chat, *, at_once: int = 1) -> None:
        self._chat = chat
        self._at_once = at_once
        self._instructions = PROMPT_FILE.read_text(encoding="utf-8")
        self._kept: OrderedDict[str, tuple[Diagnosis, ...]] = OrderedDict()
        self._has_answered = False

    def read(self, texts: Sequence[str]) -> list[tuple[Diagnosis, ...]]:
        """For each note its diagnoses, in the model's order.

        Raises UnreadableAnswer where one of them cannot be read (the others are remembered, for another try one by one), and
        LanguageModelError where the model cannot be asked at all.
        """
        missing = [text for text in dict.fromkeys(texts) if _digest(text) not in self._kept]
        with ThreadPoolExecutor(max_workers=self._at_once) as pool:
            asked = [pool.submit(self._ask, text) for text in missing]
        errors = [error for future in asked if (error := future.exception()) is not None]
        for text, future in zip(missing, asked, strict=True):
            if future.exception() is None:
                self._kept[_digest(text)] = future.result()
        # What stops everything goes before what stops one note.
        for error in sorted(errors, key=lambda error: isinstance(error, UnreadableAnswer)):
            raise error
        found = [self._kept[_digest(text)] for text in texts]
        while len(self._kept) > _KEPT_NOTES:
            self._kept.popitem(last=False)
        return found

    def _ask(self, text: str) -> tuple[Diagnosis, ...]:
        try:
            answer = self._chat.ask(self._instructions, text, ANSWER_SCHEMA, seed=_SEED)
        except QuestionRefused:
            self._verify_answers()
            raise UnreadableAnswer("the language model refused the note") from None
        self._has_answered = True
        return parse_diagnoses(answer.text)

    def _verify_answers(self) -> None:
        """Tell a note that is refused from a server that refuses everything: of the latter no note may be called bad."""
        if not self._has_answered:
            self._chat.ask(self._instructions, _TRIAL, ANSWER_SCHEMA, seed=_SEED)
            self._has_answered = True


def parse_diagnoses(answer: str) -> tuple[Diagnosis, ...]:
    """The diagnoses of an answer, which may have words around its JSON; what has not the form of a code is left out.

    Raises UnreadableAnswer.
    """
    start = answer.find("{")
    try:
        document, _ = json.JSONDecoder().raw_decode(answer, max(start, 0))
        rows = [(parse_code(row["code"]), row["quote"].strip(), row.get("uncertain") is True) for row in document["diagnoses"]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UnreadableAnswer("the language model's answer has another form than asked for") from None
    found = [Diagnosis(*row) for row in rows if _CODE.fullmatch(row[0])]
    if len(found) < len(rows):
        logger.warning("%d of %d codes of an answer have not the form of a code", len(rows) - len(found), len(rows))
    return tuple(found)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
