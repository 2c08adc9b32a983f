"""The phrase coder: a text to codes with confidence, alternatives and evidence offsets.

Lexical candidates (`candidates`) are weighed by a language model (`combination`), and one calibrated confidence says what may pass
without a person (`calibration`). Every text is coded on its own: neither its neighbours nor the batch size change its codes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from llmcoder_tasks.coding.calibration import NO_AUTO_ACCEPT
from llmcoder_tasks.coding.candidates import Candidate, CandidateIndex
from llmcoder_tasks.coding.coder_fit import CODER_NAME, CoderFit
from llmcoder_tasks.coding.combination import LEAST_LOG_PROBABILITY, Judged, describe, give_neutral, rank, score, share_confidence
from llmcoder_tasks.coding.note_reader import NOTE_MODEL_NAME, NoteModel, NoteReader, open_note_reader
from llmcoder_tasks.coding.phrases import ConditionFinder, Cut, Span, WrittenCode
from llmcoder_tasks.coding.selection import SELECTION_NAME, Selection
from llmcoder_tasks.coding.short_forms import read_short_forms
from llmcoder_tasks.coding.written_codes import find_codes, weigh_written_codes
from llmcoder_tasks.dataset.lexicon import load_lexicon
from llmcoder_tasks.errors import ModelError
from llmcoder_tasks.model.backend import FreeWriter, open_model
from llmcoder_tasks.records import CodePrediction, Decision
from llmcoder_tasks.settings import CoderServer, LanguageModel

if TYPE_CHECKING:
    from llmcoder_tasks.icd10cm.code_set import CodeSet

TextKind = Literal["phrase", "note"]

CANDIDATES = 20

LEAST_CONFIDENCE = 0.3
"""A part of a line that is less sure than this names no condition, where another part does."""

CLEAR_CONFIDENCE = 0.9
"""Where all parts of a cut are surer than this, no other cut is tried: on validation lines that changes nothing."""

CUT_WEIGHT = 2.0
"""What a line's cut explains of it counts so much, against the logarithms of the confidences of its parts."""

DOUBT = 0.05
"""Confidences below this are as good as none: it keeps one hopeless part from deciding alone how a line is cut."""

LEAST_SIMILARITY = 0.3
"""A text less like every title names no condition of the release."""

LITERAL_LOG_PROBABILITIES = (0.0,) + (LEAST_LOG_PROBABILITY,) * (CANDIDATES - 1)
"""Stands for the language model's opinion on a text that is a title word for word: nobody need ask."""

ASKED_REACH = 0.07
"""The language model is asked about candidates at most so much less similar than the nearest: of others it changes nothing."""

LEXICAL_WEIGHT = 100.0
"""How sharply similarity alone tells alternatives apart, before a weight is fitted."""


class CodeScorer(Protocol):
    """What the coder needs of a language model (a `CodingModel`, but the tests' own too)."""

    def score(self, texts: Sequence[str], candidates: Sequence[Sequence[str]]) -> list[list[float]]:
        """Natural log-probability that the answer to each text begins with each of its candidate codes."""


@dataclass(frozen=True, slots=True)
class ScoredCode:
    """A billable code for a phrase: how sure it is, in [0, 1], and why.

    `similarity` is that of `matched`, the nearest title or term; `log_probability` the language model's, where the
    coder has one (0 for a text that is a title word for word: nobody need ask).
    Without a `coder.json` the confidence is the similarity, which is no probability, and nothing is accepted without a person.
    `invented` are codes that the language model gave for the phrase and that the release does not hold.
    """

    code: str
    confidence: float
    similarity: float
    matched: str
    log_probability: float | None = None
    invented: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CoderOpener:
    """Opens published models on a machine that has certain servers and weights, or none. Equal ones open the same."""

    note_model: LanguageModel | Path | None = None
    server: CoderServer | None = None

    def __call__(self, model_folder: Path, code_set: CodeSet) -> Coder:
        """The coder of a model folder under a release; `Coder.open` says what it raises."""
        return Coder.open(model_folder, code_set, note_model=self.note_model, server=self.server)


class Coder:
    """Codes texts under one release: by words alone, or together with a language model."""

    def __init__(
        self,
        code_set: CodeSet,
        *,
        index: CandidateIndex | None = None,
        model: CodeScorer | None = None,
        fit: CoderFit | None = None,
        selection: Selection | None = None,
        note_reader: NoteReader | None = None,
    ) -> None:
        """Building the index takes seconds; pass one where several coders share a release."""
        self.code_set = code_set
        self.index = index or CandidateIndex(code_set, read_short_forms(load_lexicon()))
        self.model = model
        self.fit = fit
        self.selection = selection
        self.note_reader = note_reader
        self._conditions = ConditionFinder(self.index)

    @classmethod
    def open(
        cls,
        model_folder: Path,
        code_set: CodeSet,
        *,
        fit: CoderFit | None = None,
        selection: Selection | None = None,
        note_model: LanguageModel | Path | None = None,
        server: CoderServer | None = None,
    ) -> Coder:
        """The coder of a model folder, under a release, with what it learnt from coded notes where the folder has that.

        `fit` and `selection` stand in for the folder's `coder.json` and `selection.json` where the model is not published yet;
        `note_model` says where the language model is to be had that reads notes, where one is attached; `server` where the model is
        that a folder only names. Raises ModelError when the folder holds no usable model, neither fit is there, or the attached
        language model is another one; SettingsError when the server is not named.
        """
        if fit is None:
            path = model_folder / CODER_NAME
            if not path.is_file():
                raise ModelError(f"{model_folder} has no {CODER_NAME}: run `llmcoder fit-coder` before this model codes")
            fit = CoderFit.parse(path.read_bytes())
        learnt = model_folder / SELECTION_NAME
        if selection is None and learnt.is_file():
            selection = Selection.parse(learnt.read_bytes())
        attached = model_folder / NOTE_MODEL_NAME
        reader = open_note_reader(NoteModel.parse(attached.read_bytes()), note_model) if attached.is_file() else None
        return cls(code_set, model=open_model(model_folder, server), fit=fit, selection=selection, note_reader=reader)

    @property
    def auto_threshold(self) -> float:
        """The confidence from which a code passes without a person."""
        if self.fit is None:
            return NO_AUTO_ACCEPT
        return (self.fit.lexical if self.model is None else self.fit.together).threshold.value

    def code_phrases(self, texts: Sequence[str]) -> list[tuple[ScoredCode, ...]]:
        """For each text, taken as one condition, its likeliest codes, best first; nothing where it names no condition."""
        return self._code_phrases(texts, self.model)

    def code_text(self, text: str, kind: TextKind = "phrase") -> tuple[CodePrediction, ...]:
        """The codes of a phrase (one or several conditions) or of a whole note, with evidence offsets into `text`."""
        if kind == "note":
            from llmcoder_tasks.coding.notes import code_note

            return code_note(self, text)
        return self.code_texts([text])[0]

    def code_texts(self, texts: Sequence[str]) -> list[tuple[CodePrediction, ...]]:
        """For each text, of one or several conditions, its codes in order of mention, each once."""
        return self._code_texts(texts, self.model)

    def predict_lexical(self, texts: Sequence[str]) -> list[tuple[str, ...]]:
        """The codes of each text by its words alone, in order of mention."""
        return _list_codes(self._code_texts(texts, None))

    def predict_together(self, texts: Sequence[str]) -> list[tuple[str, ...]]:
        """The codes of each text by its words and the language model, in order of mention. Raises ModelError without a model."""
        if self.model is None:
            raise ModelError("this coder has no language model: open it with Coder.open")
        return _list_codes(self._code_texts(texts, self.model))

    def judge(self, texts: Sequence[str], model: CodeScorer | None) -> list[Judged]:
        """The candidates of each text with what speaks for each; a text that is a title word for word is not put to the model."""
        queries = [self.index.read(text) for text in texts]
        found = [
            candidates if candidates and candidates[0].similarity >= LEAST_SIMILARITY else []
            for candidates in self.index.search(queries, CANDIDATES)
        ]
        values = self._ask(model, texts, found)
        invented = self._list_invented(model, texts, found)
        return [
            Judged(candidates, value, self.index.share_known(query), query.words, codes)
            for query, candidates, value, codes in zip(queries, found, values, invented, strict=True)
        ]

    def _ask(
        self, model: CodeScorer | None, texts: Sequence[str], found: Sequence[Sequence[Candidate]]
    ) -> list[Sequence[float] | None]:
        if model is None:
            return [None] * len(texts)
        values: list[Sequence[float] | None] = [LITERAL_LOG_PROBABILITIES[: len(candidates)] for candidates in found]
        rows = _list_asked(found)
        if rows:
            near = [_list_near(found[row]) for row in rows]
            for row, answer in zip(rows, model.score([texts[row] for row in rows], near), strict=True):
                # Of those that it was not asked about, nothing better is believed than of the least likely one.
                padded = [*answer, *[min(LEAST_LOG_PROBABILITY, *answer)] * (len(found[row]) - len(answer))]
                values[row] = give_neutral(padded, [self._is_known(item.code) for item in found[row]])
        return values

    def _list_invented(
        self, model: CodeScorer | None, texts: Sequence[str], found: Sequence[Sequence[Candidate]]
    ) -> list[tuple[str, ...]]:
        """For each text the codes that the model gave for it and that the release does not hold."""
        invented: list[tuple[str, ...]] = [()] * len(texts)
        if isinstance(model, FreeWriter) and (rows := _list_asked(found)):
            for row, codes in zip(rows, model.read_codes([texts[row] for row in rows]), strict=True):
                invented[row] = tuple(code for code in codes if code not in self.code_set.titles)
        return invented

    def _is_known(self, code: str) -> bool:
        return self.fit is None or self.fit.knows(code)

    def _code_phrases(self, texts: Sequence[str], model: CodeScorer | None) -> list[tuple[ScoredCode, ...]]:
        distinct = list(dict.fromkeys(texts))
        answers = dict(zip(distinct, map(self._answer, self.judge(distinct, model)), strict=True))
        return [answers[text] for text in texts]

    def _answer(self, judged: Judged) -> tuple[ScoredCode, ...]:
        if not judged.candidates:
            return ()
        weight = self.fit.weight if self.fit else LEXICAL_WEIGHT
        order = rank(judged, weight)
        scores = score(judged, weight)
        best = self._estimate(judged, order[0])
        if judged.invented:
            best = min(best, math.nextafter(self.auto_threshold, 0.0))  # words alone speak for it: a person looks
        confidences = share_confidence(best, [scores[position] for position in order])
        return tuple(
            ScoredCode(
                judged.candidates[position].code,
                confidence,
                judged.candidates[position].similarity,
                judged.candidates[position].matched,
                judged.log_probabilities[position] if judged.log_probabilities is not None else None,
                judged.invented,
            )
            for position, confidence in zip(order, confidences, strict=True)
        )

    def _estimate(self, judged: Judged, chosen: int) -> float:
        if self.fit is None:
            return judged.candidates[chosen].similarity
        code = judged.candidates[chosen].code
        if not self._is_known(code):
            judged = replace(judged, log_probabilities=None)
        calibration = self.fit.lexical if judged.log_probabilities is None else self.fit.together
        return calibration.estimate(describe(judged, chosen, self.code_set.titles[code]))

    def _code_texts(self, texts: Sequence[str], model: CodeScorer | None) -> list[tuple[CodePrediction, ...]]:
        written = [find_codes(text, self.code_set.titles) for text in texts]
        conditions = self._conditions.find(texts, written)
        every = [(text, cuts) for text, lines in zip(texts, conditions, strict=True) for cuts in lines]
        answers = self._answer_parts([(text, cuts[0]) for text, cuts in every], model)
        unsure = [(text, cut) for text, cuts in every if not self._is_clear(text, cuts, answers) for cut in cuts[1:]]
        answers |= self._answer_parts(unsure, model)
        results = []
        for text, lines, codes in zip(texts, conditions, written, strict=True):
            found: dict[str, CodePrediction] = {}
            for span in (span for cuts in lines for span in self._settle(text, cuts, answers)):
                inside = [code for code in codes if span.start <= code.start < span.end]
                for prediction in self._predict(text, span, answers[text[span.start : span.end]], inside):
                    found.setdefault(prediction.code, prediction)
            results.append(tuple(found.values()))
        return results

    def _answer_parts(self, cuts: Sequence[tuple[str, Cut]], model: CodeScorer | None) -> dict[str, Sequence[ScoredCode]]:
        """The codes of each part of some texts, by its words."""
        phrases = list(dict.fromkeys(text[span.start : span.end] for text, cut in cuts for span in cut.spans))
        return dict(zip(phrases, self._code_phrases(phrases, model), strict=True))

    def _is_clear(self, text: str, cuts: Sequence[Cut], answers: Mapping[str, Sequence[ScoredCode]]) -> bool:
        """Whether the first way to cut a line stands without asking for others."""
        if self.fit is None or len(cuts) == 1:
            return True
        return all(_sureness(text, span, answers) >= CLEAR_CONFIDENCE for span in cuts[0].spans)

    def _settle(self, text: str, cuts: Sequence[Cut], answers: Mapping[str, Sequence[ScoredCode]]) -> Sequence[Span]:
        """The parts of a line that name conditions: by the cut that explains most of it and has the surest codes.

        A part of prose that names nothing (`the chart was updated`) stays out where another part names something.
        """
        if self._is_clear(text, cuts, answers):
            return cuts[0].spans
        sureness = {span: _sureness(text, span, answers) for cut in cuts for span in cut.spans}
        best = max(cuts, key=lambda cut: CUT_WEIGHT * cut.worth + sum(math.log(sureness[span] + DOUBT) for span in cut.spans))
        sure = [span for span in best.spans if sureness[span] >= LEAST_CONFIDENCE]
        return sure or best.spans

    def _predict(self, text: str, span: Span, answer: Sequence[ScoredCode], written: Sequence[WrittenCode]) -> list[CodePrediction]:
        """The predictions of one condition: the codes that it names itself, else the best code for its words."""
        if written:
            trust = weigh_written_codes(text, span, written, [item.code for item in answer])
            return [
                self._prediction(code.code, confidence, Span(code.start, code.end))
                for code, confidence in zip(written, trust, strict=True)
            ]
        return [self._prediction(answer[0].code, answer[0].confidence, span)] if answer else []

    def _prediction(self, code: str, confidence: float, span: Span) -> CodePrediction:
        threshold = self.auto_threshold
        if self.fit is not None and not self._is_known(code):
            threshold = max(threshold, self.fit.lexical.threshold.value)
        decision: Decision = "auto" if confidence >= threshold else "review"
        return CodePrediction(code, self.code_set.titles[code], round(confidence, 4), decision, span.start, span.end)


def _list_asked(found: Sequence[Sequence[Candidate]]) -> list[int]:
    """Positions of the texts that a model is asked about."""
    return [row for row, candidates in enumerate(found) if candidates and not is_literal(candidates)]


def is_literal(candidates: Sequence[Candidate]) -> bool:
    """Whether the text is one title or term word for word, and no other: no model need be asked."""
    return candidates[0].similarity > 1.0 - 1e-6 and (len(candidates) == 1 or candidates[1].similarity < 1.0 - 1e-6)


def _sureness(text: str, span: Span, answers: Mapping[str, Sequence[ScoredCode]]) -> float:
    """The confidence of the best code of a part, 0 where it has none."""
    return max((code.confidence for code in answers[text[span.start : span.end]][:1]), default=0.0)


def _list_near(candidates: Sequence[Candidate]) -> list[str]:
    """The codes of the candidates that the language model may bring to the front. Candidates stand by similarity."""
    return [item.code for item in candidates if item.similarity >= candidates[0].similarity - ASKED_REACH]


def _list_codes(results: Sequence[Sequence[CodePrediction]]) -> list[tuple[str, ...]]:
    return [tuple(prediction.code for prediction in predictions) for predictions in results]
