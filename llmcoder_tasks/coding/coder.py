"""The phrase coder: a text to codes with confidence, alternatives and evidence offsets.

Lexical candidates (`candidates`) are weighed by a language model (`combination`), and one calibrated confidence says what may pass
without a person (`calibration`). Every text is coded on its own: neither its neighbours nor the batch size change its codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from llmcoder_tasks.coding.candidates import Candidate, CandidateIndex, Query
from llmcoder_tasks.coding.phrases import CUT_PRICE, Span, WrittenCode, choose_cuts, find_written_codes, list_spans, split_pieces
from llmcoder_tasks.dataset.lexicon import load_lexicon
from llmcoder_tasks.records import CodePrediction, Decision

if TYPE_CHECKING:
    from llmcoder_tasks.icd10cm.code_set import CodeSet

TextKind = Literal["phrase", "note"]

CANDIDATES = 20
CLEAR_SIMILARITY = 0.97
"""A whole text that is so like one title is one condition: nothing is cut."""

LEAST_SIMILARITY = 0.3
"""A text less like every title names no condition of the release."""

NO_AUTO_ACCEPT = 1.01
"""The threshold of a coder without calibration: no confidence reaches it, so a person sees every code."""


class CodeScorer(Protocol):
    """What the coder needs of a language model (`LocalModel`)."""

    def score(self, texts: Sequence[str], candidates: Sequence[Sequence[str]]) -> list[list[float]]:
        """Natural log-probability of each candidate code as the whole answer to its text."""


@dataclass(frozen=True, slots=True)
class ScoredCode:
    """A billable code for a phrase: how sure it is, in [0, 1], and why.

    `similarity` is that of `matched`, the nearest title or term; `log_probability` the language model's, where one was asked.
    """

    code: str
    confidence: float
    similarity: float
    matched: str
    log_probability: float | None = None


class Coder:
    """Codes texts under one release."""

    def __init__(self, code_set: CodeSet, *, index: CandidateIndex | None = None) -> None:
        self.code_set = code_set
        self.index = index or CandidateIndex(code_set, load_lexicon().terms_by_form)
        self.auto_threshold = NO_AUTO_ACCEPT

    @classmethod
    def open(cls, model_folder: Path, code_set: CodeSet) -> Coder:
        """The coder of a model folder with its `coder.json`, under a release. Raises ModelError."""
        return cls(code_set)

    def code_phrases(self, texts: Sequence[str]) -> list[tuple[ScoredCode, ...]]:
        """For each text, taken as one condition, its likeliest codes, best first; nothing where it names no condition."""
        return [self._score(candidates) for candidates in self._search(texts)]

    def code_text(self, text: str, kind: TextKind = "phrase") -> tuple[CodePrediction, ...]:
        """The codes of a phrase (one or several conditions) or of a whole note, with evidence offsets into `text`."""
        if kind == "note":
            from llmcoder_tasks.coding.notes import code_note

            return code_note(self, text)
        return self._code_texts([text])[0]

    def predict_lexical(self, texts: Sequence[str]) -> list[tuple[str, ...]]:
        """The codes of each text by its words alone, without a language model, in order of mention."""
        return [tuple(prediction.code for prediction in predictions) for predictions in self._code_texts(texts)]

    def _score(self, candidates: Sequence[Candidate]) -> tuple[ScoredCode, ...]:
        return tuple(
            ScoredCode(candidate.code, candidate.similarity, candidate.similarity, candidate.matched) for candidate in candidates
        )

    def _search(self, texts: Sequence[str]) -> list[list[Candidate]]:
        found = self.index.search([self.index.read(text) for text in texts], CANDIDATES)
        return [candidates if candidates and candidates[0].similarity >= LEAST_SIMILARITY else [] for candidates in found]

    def _code_texts(self, texts: Sequence[str]) -> list[tuple[CodePrediction, ...]]:
        conditions = self._find_conditions(texts)
        phrases = [text[span.start : span.end] for text, spans in zip(texts, conditions, strict=True) for span in spans]
        answers = iter(self.code_phrases(phrases))
        results = []
        for text, spans in zip(texts, conditions, strict=True):
            written = find_written_codes(text, self.code_set.titles)
            found: dict[str, CodePrediction] = {}
            for span in spans:
                for prediction in self._predict(
                    span, next(answers), [code for code in written if span.start <= code.start < span.end]
                ):
                    found.setdefault(prediction.code, prediction)
            results.append(tuple(found.values()))
        return results

    def _predict(self, span: Span, answer: Sequence[ScoredCode], written: Sequence[WrittenCode]) -> list[CodePrediction]:
        """The predictions of one condition: the codes it names itself, else the best of its words."""
        if written:
            return [self._prediction(code.code, 1.0, Span(code.start, code.end)) for code in written]
        return [self._prediction(answer[0].code, answer[0].confidence, span)] if answer else []

    def _prediction(self, code: str, confidence: float, span: Span) -> CodePrediction:
        decision: Decision = "auto" if confidence >= self.auto_threshold else "review"
        return CodePrediction(code, self.code_set.titles[code], round(confidence, 4), decision, span.start, span.end)

    def _find_conditions(self, texts: Sequence[str]) -> list[list[Span]]:
        """Where each text names a condition, in order."""
        groups = [split_pieces(text) for text in texts]
        wholes = [Span(group[0].start, group[-1].end) for pieces in groups for group in pieces]
        owners = [text for text, pieces in zip(texts, groups, strict=True) for _ in pieces]
        clear = self._measure([text[whole.start : whole.end] for text, whole in zip(owners, wholes, strict=True)])
        flat = [group for pieces in groups for group in pieces]
        open_spans = [
            list_spans(group) if len(group) > 1 and similarity < CLEAR_SIMILARITY else []
            for group, (similarity, _) in zip(flat, clear, strict=True)
        ]
        phrases = [text[span.start : span.end] for text, spans in zip(owners, open_spans, strict=True) for span in spans]
        measured = iter(self._measure(phrases))
        chosen = iter(
            [
                self._cut(group, {span: next(measured) for span in spans}) if spans else [whole]
                for group, spans, whole in zip(flat, open_spans, wholes, strict=True)
            ]
        )
        return [[span for _ in pieces for span in next(chosen)] for pieces in groups]

    def _cut(self, pieces: Sequence[Span], measured: dict[Span, tuple[float, float]]) -> list[Span]:
        return choose_cuts(pieces, lambda span: measured[span][0] * measured[span][1], CUT_PRICE * self.index.mean_weight)

    def _measure(self, phrases: Sequence[str]) -> list[tuple[float, float]]:
        """Similarity of the nearest title, and weight of the words, of each phrase."""
        queries: list[Query] = [self.index.read(phrase) for phrase in phrases]
        return [
            (candidates[0].similarity if candidates else 0.0, self.index.weigh(query))
            for query, candidates in zip(queries, self.index.search(queries, CANDIDATES), strict=True)
        ]
