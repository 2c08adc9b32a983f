"""The rows of a scorecard: each coder, opened when its turn comes, so that one language model is in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llmcoder_tasks.evaluation.outcomes import Predictor

if TYPE_CHECKING:
    from llmcoder_tasks.coding.coder import Coder
    from llmcoder_tasks.icd10cm.code_set import CodeSet
    from llmcoder_tasks.model.local import LocalModel
    from llmcoder_tasks.model.trie import CodeTrie

NOTES_SCENARIO = "notes"
UNTRAINED_LIMIT = 100
"""Items a scenario for the untrained row: it writes until its room ends, and a hundred items show that it knows nothing."""


@dataclass(frozen=True, slots=True)
class CoderRow:
    """One row: a predictor for phrases, one for whole notes, and how many items of a scenario it answers at most."""

    coder: str
    phrases: Predictor
    notes: Predictor
    limit: int

    def predictor(self, scenario: str) -> Predictor:
        """The predictor for a scenario's texts."""
        return self.notes if scenario == NOTES_SCENARIO else self.phrases


@dataclass(frozen=True, slots=True)
class ModelFolders:
    """Local folders: the model as trained, a copy with its `coder.json`, and the model of stage one if that is another."""

    model: Path
    coder: Path
    stage: str
    stage_one: Path | None


def open_rows(folders: ModelFolders, code_set: CodeSet, *, limit: int) -> Iterator[CoderRow]:
    """All rows of a scorecard, in the order of `scorecard.CODERS`. Raises ModelError when a folder is no model."""
    # Lazily: these import torch and build the lexical index.
    from llmcoder_tasks.coding.coder import Coder
    from llmcoder_tasks.model.local import LocalModel
    from llmcoder_tasks.model.trie import CodeTrie

    untrained = LocalModel.untrained(folders.model)
    yield _model_row("untrained", untrained, None, min(limit, UNTRAINED_LIMIT))
    del untrained

    coder = Coder.open(folders.coder, code_set)
    yield CoderRow("lexical", coder.predict_lexical, _note_predictor(Coder(code_set, index=coder.index)), limit)

    stages = {"stage_one": folders.stage_one, folders.stage: folders.model}
    for stage, folder in stages.items():
        if folder is None:
            continue
        model = LocalModel.load(folder)
        trie = CodeTrie.build((code.code for code in code_set.billable), model.tokenizer)
        yield _model_row(stage, model, trie, limit)
        del model, trie
    yield CoderRow("together", coder.predict_together, _note_predictor(coder), limit)


def _model_row(coder: str, model: LocalModel, trie: CodeTrie | None, limit: int) -> CoderRow:
    """A language model alone: it answers a note as it answers a phrase, from the note's beginning."""

    def predict(texts: Sequence[str]) -> list[tuple[str, ...]]:
        return model.predict(texts, trie=trie)

    return CoderRow(coder, predict, predict, limit)


def _note_predictor(coder: Coder) -> Predictor:
    """Whole notes through sections, mentions and context; all codes count, also those that a person would review."""
    from llmcoder_tasks.coding.notes import code_notes

    return lambda texts: [tuple(prediction.code for prediction in predictions) for predictions in code_notes(coder, texts)]
