"""A phrase coder that knows the titles of a release word for word and nothing else: for tests, and for a night without a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from llmcoder_tasks.coding.notes import code_note
from llmcoder_tasks.records import CodePrediction

if TYPE_CHECKING:
    from llmcoder_tasks.icd10cm.code_set import CodeSet


class TitleMatch(NamedTuple):
    """A code whose title a phrase repeats; certain."""

    code: str
    confidence: float
    invented: tuple[str, ...] = ()


class TitleCoder:
    """Codes a phrase that equals a title, in any case; every other phrase has no code."""

    auto_threshold = 0.9
    selection = None
    note_reader = None

    def __init__(self, code_set: CodeSet) -> None:
        self.code_set = code_set
        self._codes = {title.casefold(): code for code, title in code_set.titles.items()}

    @classmethod
    def open(cls, model_folder: Path, code_set: CodeSet) -> TitleCoder:
        """The same for every model folder."""
        return cls(code_set)

    def code_phrases(self, texts: Sequence[str]) -> list[tuple[TitleMatch, ...]]:
        """For each phrase its one code, or none."""
        found = (self._codes.get(text.strip().casefold()) for text in texts)
        return [(TitleMatch(code, 1.0),) if code else () for code in found]

    def code_text(self, text: str, kind: Literal["phrase", "note"] = "phrase") -> tuple[CodePrediction, ...]:
        """The code of a phrase, or the codes of a note."""
        if kind == "note":
            return code_note(self, text)
        return tuple(
            CodePrediction(match.code, self.code_set.titles[match.code], match.confidence, "auto", 0, len(text))
            for match in self.code_phrases([text])[0]
        )
