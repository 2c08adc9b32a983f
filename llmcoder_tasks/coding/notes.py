"""A whole note to codes: sections, mentions, context, codes, each with where the note says so.

Which mentions count is learnt from coded notes (`selection`), where the model has such; else: what a final list names, and of the
rest of such a summary the chronic conditions of the history. Where a language model reads whole notes (`note_reader`), that
proposes, and the note has to bear it out (`note_evidence`). What the official guidelines ask of the codes together is the business
of `rules`; what payers check, of `edits`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol
from weakref import WeakKeyDictionary

from llmcoder_tasks.coding.edits import check_edits
from llmcoder_tasks.coding.mentions import SILENT_SECTIONS, Mention, find_mentions
from llmcoder_tasks.coding.note_evidence import weigh_diagnoses
from llmcoder_tasks.coding.note_reader import NoteReader
from llmcoder_tasks.coding.rules import apply_rules
from llmcoder_tasks.coding.rules.draft import Proposed, RuleBook
from llmcoder_tasks.coding.rules.policy import US_INPATIENT, CodingPolicy
from llmcoder_tasks.coding.sections import Section, split_sections
from llmcoder_tasks.coding.selection import Candidate, NoteKind, Selection, Suggestion
from llmcoder_tasks.coding.terminology import Naming, Terminology
from llmcoder_tasks.coding.weighing import HISTORY_CONFIDENCE, is_current, past_code, propose, soften, weigh
from llmcoder_tasks.records import CodedNote, CodePrediction, Finding, Patient, render_code

if TYPE_CHECKING:
    from llmcoder_tasks.icd10cm.code_set import CodeSet


class ScoredCode(Protocol):
    """A code for a phrase with the calibrated probability that it is right."""

    @property
    def code(self) -> str: ...
    @property
    def confidence(self) -> float: ...
    @property
    def invented(self) -> tuple[str, ...]:
        """Codes that a language model gave for the phrase and that the release does not hold."""


class PhraseCoder(Protocol):
    """What coding a note needs of a phrase coder. Must be hashable by identity."""

    @property
    def code_set(self) -> CodeSet: ...
    @property
    def auto_threshold(self) -> float: ...
    @property
    def selection(self) -> Selection | None:
        """What coded notes taught about which codes of a note are coded."""

    @property
    def note_reader(self) -> NoteReader | None:
        """The language model that reads whole notes."""

    def code_phrases(self, texts: Sequence[str]) -> Sequence[Sequence[ScoredCode]]:
        """For each phrase its codes, the best first."""


_HISTORIES = frozenset({"history", "surgical_history", "social"})

_SYMPTOMS = "R"
_CODE = re.compile(r"[A-Z][0-9A-Z]{2,6}")
LEAST_PHRASE_CONFIDENCE = 0.50
"""A phrase whose best code is more likely wrong than right is not coded."""


@dataclass(frozen=True, slots=True)
class ReadNote:
    """A note as it was read: every code that a mention suggests, also of what is denied or stands in a silent section."""

    text: str
    sections: tuple[Section, ...]
    suggestions: tuple[Suggestion, ...]
    findings: tuple[Finding, ...] = ()

    @property
    def kind(self) -> NoteKind:
        """Whether there is a list of final diagnoses."""
        return "list" if any(item.mention.is_listed for item in self.suggestions) else "prose"


_terminologies: WeakKeyDictionary[PhraseCoder, Terminology] = WeakKeyDictionary()
_books: WeakKeyDictionary[PhraseCoder, RuleBook] = WeakKeyDictionary()


def code_note(coder: PhraseCoder, text: str) -> tuple[CodePrediction, ...]:
    """The codes of one note, the proposed principal diagnosis first, each once."""
    return code_notes(coder, [text])[0].codes


def code_notes(
    coder: PhraseCoder,
    texts: Sequence[str],
    patients: Sequence[Patient | None] | None = None,
    *,
    policy: CodingPolicy | None = None,
) -> list[CodedNote]:
    """Several notes, coded; the phrases of all notes go to the phrase coder together, each once.

    `patients` goes with `texts`; without a patient, or without the day of discharge, no payer's edits are run. Where coded notes
    taught the coder what is coded (`coder.selection`), that decides, and the policy that these notes follow; without, what is true
    of most notes and of a stay in a US hospital. Raises UnreadableAnswer and LanguageModelError where a language model reads.
    """
    book = book_of(coder)
    results = []
    for text, patient, draft in zip(texts, patients or [None] * len(texts), _draft_notes(coder, texts), strict=True):
        codes, findings = apply_rules(draft.proposed, text, book, policy=policy or draft.policy)
        edits, grouping = check_edits(codes, patient or Patient())
        results.append(CodedNote(codes, (*draft.findings, *findings, *edits), grouping))
    return results


@dataclass(frozen=True, slots=True)
class _Drafted:
    """What goes to the rules: codes, what was found before, and the policy that the codes' source follows."""

    proposed: Sequence[Proposed]
    findings: tuple[Finding, ...]
    policy: CodingPolicy


def _draft_notes(coder: PhraseCoder, texts: Sequence[str]) -> list[_Drafted]:
    if coder.note_reader is not None:
        return _draft_by_language_model(coder, coder.note_reader, texts)
    selection = coder.selection
    return [
        _Drafted(*_select(note, selection, coder), selection.policy)
        if selection is not None and selection.judges(note.kind)
        else _Drafted(propose_by_constants(note, coder), note.findings, US_INPATIENT)
        for note in read_notes(coder, texts)
    ]


def _draft_by_language_model(coder: PhraseCoder, reader: NoteReader, texts: Sequence[str]) -> list[_Drafted]:
    read = reader.read(texts)
    quotes = list(dict.fromkeys(diagnosis.quote for diagnoses in read for diagnosis in diagnoses if diagnosis.quote))
    answers = zip(quotes, coder.code_phrases(quotes), strict=True) if quotes else ()
    confidences = {quote: {scored.code: scored.confidence for scored in answer} for quote, answer in answers}
    terminology = terminology_of(coder)
    return [
        _Drafted(
            *weigh_diagnoses(text, diagnoses, [confidences.get(item.quote, {}) for item in diagnoses], terminology, coder),
            US_INPATIENT,
        )
        for text, diagnoses in zip(texts, read, strict=True)
    ]


def read_notes(coder: PhraseCoder, texts: Sequence[str]) -> list[ReadNote]:
    """What notes suggest, before anything is chosen among it."""
    terminology = terminology_of(coder)
    sections = [split_sections(text) for text in texts]
    found = [find_mentions(text, parts, terminology) for text, parts in zip(texts, sections, strict=True)]
    words = [[text[mention.start : mention.end] for mention in mentions] for text, mentions in zip(texts, found, strict=True)]
    phrases = list(
        dict.fromkeys(
            phrase
            for mentions, said in zip(found, words, strict=True)
            for mention, phrase in zip(mentions, said, strict=True)
            if _needs_coder(mention)
        )
    )
    answers = dict(zip(phrases, coder.code_phrases(phrases), strict=True)) if phrases else {}
    return [
        ReadNote(
            text,
            parts,
            tuple(
                suggestion
                for mention, phrase in zip(mentions, said, strict=True)
                for suggestion in _suggest(mention, answers.get(phrase, ()), terminology, coder)
            ),
            tuple(
                finding
                for mention, phrase in zip(mentions, said, strict=True)
                for finding in _list_invented(mention, answers.get(phrase, ()), coder)
            ),
        )
        for text, parts, mentions, said in zip(texts, sections, found, words, strict=True)
    ]


def _list_invented(mention: Mention, answer: Sequence[ScoredCode], coder: PhraseCoder) -> Iterator[Finding]:
    """The codes that a language model gave for a mention that counts and that do not exist. What is no code may be anything."""
    for code in answer[0].invented if answer and _counts(mention) else ():
        if _CODE.fullmatch(code):
            reason = f"the language model gave it, and {coder.code_set.release_key} does not hold it: the words alone were coded"
            yield Finding("invented_code", "removed", code, answer[0].code, reason, mention.start, mention.end)


def propose_by_constants(note: ReadNote, coder: PhraseCoder) -> list[Proposed]:
    """What is coded where no coded notes taught the coder."""
    return [
        propose(item.code, item.confidence, (item.mention.start, item.mention.end), item.mention, coder.auto_threshold)
        for item in _settle([item for item in note.suggestions if item.confidence > 0.0])
    ]


def _select(note: ReadNote, selection: Selection, coder: PhraseCoder) -> tuple[list[Proposed], tuple[Finding, ...]]:
    """What coders of coded notes would code, and for each code that no name in the note gave, from what it was inferred."""
    candidates = selection.judge(note.text, note.sections, note.suggestions, terminology_of(coder).words, coder.code_set.titles)
    return propose_candidates(candidates, selection.threshold, coder), note.findings + tuple(
        Finding(
            rule="habit",
            action="added",
            code=item.code,
            related_code=None,
            reason=f"coders gave {render_code(item.code)} to {item.habit.both} of {item.habit.notes} notes with these words",
            start=item.start,
            end=item.end,
        )
        for item, estimate in candidates
        if estimate >= selection.threshold and item.mention is None and item.habit is not None
    )


def propose_candidates(candidates: Sequence[tuple[Candidate, float]], threshold: float, coder: PhraseCoder) -> list[Proposed]:
    """Candidates at or above a threshold: those of the final list first, then by place."""
    kept = [(item, estimate) for item, estimate in candidates if estimate >= threshold]
    kept.sort(key=lambda pair: (pair[0].mention is None or not pair[0].mention.is_listed, pair[0].start, pair[0].code))
    return [propose(item.code, estimate, (item.start, item.end), item.mention, coder.auto_threshold) for item, estimate in kept]


def book_of(coder: PhraseCoder) -> RuleBook:
    """What rules look up, built once for each coder."""
    if coder not in _books:
        _books[coder] = RuleBook(coder.code_set)
    return _books[coder]


def terminology_of(coder: PhraseCoder) -> Terminology:
    """Built once for each coder: it takes seconds."""
    if coder not in _terminologies:
        _terminologies[coder] = Terminology.build(coder.code_set)
    return _terminologies[coder]


def _needs_coder(mention: Mention) -> bool:
    return mention.is_listed and (mention.naming is None or len(mention.naming.codes) > 1)


def _counts(mention: Mention) -> bool:
    """Whether the note says of a mention, in a section that is coded from, that the patient has, had, or finally may have it."""
    if mention.section in SILENT_SECTIONS:
        return False
    return mention.assertion in {"present", "historical"} or (mention.assertion == "possible" and mention.is_listed)


def _suggest(mention: Mention, answer: Sequence[ScoredCode], terminology: Terminology, coder: PhraseCoder) -> Iterator[Suggestion]:
    """The codes that a mention may mean: with a confidence where they count, else with 0."""
    given = list(_code_mention(mention, answer, terminology, coder)) if _counts(mention) else []
    yield from given
    for code in mention.naming.codes if mention.naming else ():
        if all(code != item.code for item in given):
            yield Suggestion(code, 0.0, mention)


def _code_mention(
    mention: Mention, answer: Sequence[ScoredCode], terminology: Terminology, coder: PhraseCoder
) -> Iterator[Suggestion]:
    if mention.naming is None or len(mention.naming.codes) > 1:
        code = _choose(mention.naming, answer)
        if code is not None and code.confidence >= LEAST_PHRASE_CONFIDENCE and is_current(mention, code.code):
            yield Suggestion(code.code, soften(mention, code.confidence), mention)
        return
    code_named = mention.naming.codes[0]
    if is_current(mention, code_named):
        yield Suggestion(code_named, soften(mention, weigh(mention, code_named)), mention)
    elif (past := past_code(coder.code_set.titles[code_named], terminology)) is not None:
        yield Suggestion(past, soften(mention, HISTORY_CONFIDENCE), mention)


def _choose(naming: Naming | None, answer: Sequence[ScoredCode]) -> ScoredCode | None:
    """The phrase coder's best code, among the names' codes where the terminology is only undecided."""
    allowed = [scored for scored in answer if naming is None or scored.code in naming.codes]
    return allowed[0] if allowed else None


def _settle(found: Sequence[Suggestion]) -> list[Suggestion]:
    """Each code once, by its surest mention; what the final list says goes before what prose says, and mostly instead of it."""
    best: dict[str, Suggestion] = {}
    for item in found:
        if item.code not in best or item.confidence > best[item.code].confidence:
            best[item.code] = item
    has_list = any(item.mention.is_listed for item in best.values())
    kept = [item for item in best.values() if item.mention.is_listed or not has_list or _is_lasting(item)]
    return sorted(kept, key=lambda item: (not item.mention.is_listed, item.mention.start))


def _is_lasting(item: Suggestion) -> bool:
    """Whether a code from prose counts beside a final list: a condition of the history, no symptom."""
    return item.mention.section in _HISTORIES and not item.code.startswith(_SYMPTOMS)
