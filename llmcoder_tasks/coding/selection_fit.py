"""Coded notes to a `Selection`: habits counted, trees fitted, both proven by cross-validation over patients."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from llmcoder_tasks.coding.notes import (
    PhraseCoder,
    ReadNote,
    book_of,
    propose_by_constants,
    propose_candidates,
    read_notes,
    terminology_of,
)
from llmcoder_tasks.coding.rules import apply_rules
from llmcoder_tasks.coding.rules.draft import Proposed
from llmcoder_tasks.coding.rules.policy import POLICIES, US_INPATIENT, CodingPolicy
from llmcoder_tasks.coding.selection import (
    FEATURES,
    SCHEMA_VERSION,
    Candidate,
    Habit,
    Habits,
    Phrase,
    Selection,
    Trees,
    find_phrases,
    list_candidates,
    measure_surprise,
    name_key,
)
from llmcoder_tasks.coding.terminology import Key, Terminology, content_words, default_codes

if TYPE_CHECKING:
    from sklearn.ensemble import GradientBoostingClassifier

    from llmcoder_tasks.icd10cm.code_set import CodeSet

FIT_VERSION = 1
"""Raise it with every change that alters what is fitted: it is part of the fingerprint."""

LEAST_NOTES = 200
"""Of fewer coded notes nothing is learnt that would hold."""

LEAST_NOTES_OF_A_KIND = 50
"""Of fewer notes with, or without, a list of diagnoses the constants know more."""

FOLDS = 10

# Chosen by cross-validation over 500 published case reports.
_LEAST_SHARE = 0.25
_LEAST_SURPRISE = 3.0
_LEAST_LIKENESS = 0.5
_MOST_NOTES = 0.3
"""A phrase of more than so much of all notes says nothing."""

_TREES = 120
_DEPTH = 4
_LEARNING_RATE = 0.08
_LEAST_LEAF = 30
_THRESHOLDS = tuple(round(0.20 + 0.05 * step, 2) for step in range(9))


@dataclass(frozen=True, slots=True)
class CodedText:
    """A note with the codes that people gave it (with or without dots), and whose it is, so that folds part no patient."""

    text: str
    codes: tuple[str, ...]
    patient: str


@dataclass(frozen=True, slots=True)
class Score:
    """Precision, recall and their harmonic mean over all codes of all notes. A header is met by any code below it."""

    precision: float
    recall: float

    @property
    def f1(self) -> float:
        """0 where neither is above 0."""
        total = self.precision + self.recall
        return 2.0 * self.precision * self.recall / total if total else 0.0


@dataclass(frozen=True, slots=True)
class _Note:
    """A coded note, read: `gold` as given, `billable` as the codes of this release that it means."""

    read: ReadNote
    phrases: Mapping[Key, Phrase]
    gold: frozenset[str]
    billable: frozenset[str]
    fold: int


def fingerprint_notes(notes: Iterable[CodedText], release_key: str) -> str:
    """Names a fit by what it is made from, in any order."""
    digests = sorted(hashlib.sha256(json.dumps([note.text, sorted(note.codes)]).encode()).hexdigest() for note in notes)
    return hashlib.sha256(json.dumps([SCHEMA_VERSION, FIT_VERSION, release_key, digests]).encode()).hexdigest()[:16]


def learn_selection(notes: Sequence[CodedText], coder: PhraseCoder) -> Selection:
    """Learn from coded notes; the evidence compares with the constants on the same notes.

    Deterministic, whatever the order. Raises ValueError for fewer than 200 notes.
    """
    if len(notes) < LEAST_NOTES:
        raise ValueError(f"{len(notes)} coded notes are too few: {LEAST_NOTES} are needed")
    notes = sorted(notes, key=lambda note: (note.patient, note.text))
    release_key = coder.code_set.release_key
    vocabulary = _Vocabulary(coder.code_set)
    read = _read(notes, coder)
    titles = coder.code_set.titles
    rows: list[tuple[int, Candidate]] = []
    for fold in range(FOLDS):
        habits = count_habits([note for note in read if note.fold != fold], vocabulary)
        for place, note in enumerate(read):
            if note.fold == fold:
                rows += [
                    (place, item) for item in list_candidates(note.read.text, note.read.suggestions, note.phrases, habits, titles)
                ]
    features = np.asarray([item.features for _, item in rows], dtype=np.float32).reshape(len(rows), len(FEATURES))
    labels = np.asarray([_is_right(item.code, read[place].gold, titles) for place, item in rows], dtype=bool)
    folds = np.asarray([read[place].fold for place, _ in rows], dtype=int)
    estimates = np.zeros(len(rows))
    for fold in range(FOLDS):
        is_held_out = folds == fold
        if is_held_out.any():
            trees = _fit_trees(features[~is_held_out], labels[~is_held_out])
            estimates[is_held_out] = trees.estimate(features[is_held_out])
    judged: list[list[tuple[Candidate, float]]] = [[] for _ in read]
    for (place, item), estimate in zip(rows, estimates.tolist(), strict=True):
        judged[place].append((item, estimate))
    policy_name, threshold, score = _choose(read, judged, coder)
    before = _score([propose_by_constants(note.read, coder) for note in read], read, US_INPATIENT, coder)
    kinds = Counter(note.read.kind for note in read)
    evidence = {
        "notes": float(len(read)),
        "notes_with_list": float(kinds["list"]),
        "precision": score.precision,
        "recall": score.recall,
        "f1": score.f1,
        "constants_precision": before.precision,
        "constants_recall": before.recall,
        "constants_f1": before.f1,
        "calibration_error": _measure_calibration(estimates, labels),
    }
    return Selection(
        fingerprint=fingerprint_notes(notes, release_key),
        release_key=release_key,
        kinds=frozenset(kind for kind, count in kinds.items() if count >= LEAST_NOTES_OF_A_KIND),
        policy_name=policy_name,
        threshold=threshold,
        habits=count_habits(read, vocabulary),
        trees=_fit_trees(features, labels),
        evidence={name: round(value, 4) for name, value in evidence.items()},
    )


def _choose(
    read: Sequence[_Note], judged: Sequence[Sequence[tuple[Candidate, float]]], coder: PhraseCoder
) -> tuple[str, float, Score]:
    """The policy and the threshold with the best F1 on held-out folds, after the rules, and that score."""
    tried = [
        (name, threshold, _score([propose_candidates(note, threshold, coder) for note in judged], read, policy, coder))
        for name, policy in POLICIES.items()
        for threshold in _THRESHOLDS
    ]
    return max(tried, key=lambda choice: choice[2].f1)


def _score(proposed: Sequence[Sequence[Proposed]], read: Sequence[_Note], policy: CodingPolicy, coder: PhraseCoder) -> Score:
    """How well proposals do after the rules."""
    book = book_of(coder)
    codes = [
        [code.code for code in apply_rules(of_note, note.read.text, book, policy=policy)[0]]
        for of_note, note in zip(proposed, read, strict=True)
    ]
    return score_codes(codes, [note.gold for note in read], coder.code_set.titles)


def score_codes(predicted: Sequence[Collection[str]], gold: Sequence[Collection[str]], titles: Mapping[str, str]) -> Score:
    """Micro-averaged score. `titles` are the billable codes: a gold code outside them is met by any code below it."""
    right = wrong = missed = 0
    for codes, wanted in zip(predicted, gold, strict=True):
        hits = sum(_is_right(code, wanted, titles) for code in codes)
        right += hits
        wrong += len(codes) - hits
        missed += sum(not _is_met(code, codes, titles) for code in wanted)
    return Score(right / max(right + wrong, 1), right / max(right + missed, 1))


def _is_right(code: str, gold: Collection[str], titles: Mapping[str, str]) -> bool:
    return code in gold or any(code.startswith(wanted) and wanted not in titles for wanted in gold)


def _is_met(wanted: str, codes: Collection[str], titles: Mapping[str, str]) -> bool:
    return wanted in codes or (wanted not in titles and any(code.startswith(wanted) for code in codes))


def _read(notes: Sequence[CodedText], coder: PhraseCoder) -> list[_Note]:
    terminology: Terminology = terminology_of(coder)
    defaults = default_codes(coder.code_set)
    read = []
    for note, seen in zip(notes, read_notes(coder, [note.text for note in notes]), strict=True):
        gold = frozenset(code.replace(".", "").upper() for code in note.codes)
        phrases = find_phrases(note.text, seen.sections, terminology.words, None)
        billable = frozenset(defaults[code] for code in gold if code in defaults)
        fold = int.from_bytes(hashlib.sha256(note.patient.encode()).digest()[:4], "big") % FOLDS
        read.append(_Note(seen, phrases, gold, billable, fold))
    return read


class _Vocabulary:
    """The words that a release uses for a code, its category and its subcategory."""

    def __init__(self, code_set: CodeSet) -> None:
        self._own: dict[str, set[str]] = defaultdict(set)
        for code in code_set.codes:
            self._own[code.code].update(content_words(code.long_title))
        for term in code_set.terms:
            self._own[term.code].update(content_words(term.term))
        self._whole: dict[str, frozenset[str]] = {}

    def liken(self, key: Key, code: str) -> float:
        """The share of a phrase's words that the release uses for a code; 1 for a name of the release."""
        if key[0].startswith("@"):
            return 1.0
        if code not in self._whole:
            self._whole[code] = frozenset().union(*(self._own.get(part, ()) for part in (code, code[:4], code[:3])))
        return sum(word in self._whole[code] for word in key) / len(key)


def count_habits(notes: Sequence[_Note], vocabulary: _Vocabulary) -> Habits:
    """The phrases that speak for a code: in two notes at least, or in one when the release uses all its words for the code."""
    given = Counter(code for note in notes for code in note.billable)
    affirmed = [_affirmed(note) for note in notes]
    seen = Counter(key for keys in affirmed for key in keys)
    together: dict[Key, Counter[str]] = defaultdict(Counter)
    for note, keys in zip(notes, affirmed, strict=True):
        for key in keys:
            if seen[key] <= _MOST_NOTES * len(notes):
                together[key].update(note.billable)
    by_phrase: dict[Key, tuple[Habit, ...]] = {}
    for key in sorted(together):
        habits = []
        for code, both in sorted(together[key].items()):
            if both < _LEAST_SHARE * seen[key]:
                continue
            likeness = vocabulary.liken(key, code)
            expected = seen[key] * given[code] / len(notes)
            surprise = measure_surprise(both, expected)
            is_repeated = both >= 2 and both >= 2 * expected and (surprise >= _LEAST_SURPRISE or likeness >= _LEAST_LIKENESS)
            if is_repeated or (both == 1 and likeness == 1.0):
                habits.append(Habit(code, both, seen[key], round(likeness, 3)))
        if habits:
            by_phrase[key] = tuple(habits)
    return Habits(by_phrase, dict(sorted(given.items())), len(notes))


def _affirmed(note: _Note) -> set[Key]:
    keys = {key for key, phrase in note.phrases.items() if phrase.is_affirmed}
    return keys | {name_key(item.code) for item in note.read.suggestions if item.is_affirmed}


def _fit_trees(features: npt.NDArray[np.float32], labels: npt.NDArray[np.bool_]) -> Trees:
    from sklearn.ensemble import GradientBoostingClassifier

    if labels.all() or not labels.any():  # every candidate is coded, or none: there is nothing to tell apart
        leaf = np.zeros((1, 1), dtype=np.int64)
        share = (labels.sum() + 0.5) / (len(labels) + 1.0)
        return Trees(float(np.log(share / (1.0 - share))), 0, leaf, leaf.astype(float), leaf, leaf, leaf.astype(float))
    model = GradientBoostingClassifier(
        n_estimators=_TREES,
        learning_rate=_LEARNING_RATE,
        max_depth=_DEPTH,
        min_samples_leaf=_LEAST_LEAF,
        subsample=0.5,
        max_features=0.5,
        random_state=0,
    ).fit(features, labels)
    return _export(model, float(labels.mean()))


def _export(model: GradientBoostingClassifier, share: float) -> Trees:
    """The trees as arrays. A classifier of two classes begins at the log-odds of the share of right candidates."""
    fitted = [estimator.tree_ for estimator in model.estimators_[:, 0]]
    shape = (len(fitted), max(tree.node_count for tree in fitted))
    itself = np.broadcast_to(np.arange(shape[1]), shape)
    feature, threshold, value = np.zeros(shape, dtype=np.int64), np.zeros(shape), np.zeros(shape)
    left, right = itself.copy(), itself.copy()
    for place, tree in enumerate(fitted):
        inner = np.flatnonzero(tree.children_left >= 0)
        feature[place, inner] = tree.feature[inner]
        threshold[place, inner] = tree.threshold[inner]
        left[place, inner] = tree.children_left[inner]
        right[place, inner] = tree.children_right[inner]
        value[place, : tree.node_count] = np.round(_LEARNING_RATE * tree.value[:, 0, 0], 7)
    return Trees(float(np.log(share / (1.0 - share))), _DEPTH, feature, threshold, left, right, value)


def _measure_calibration(estimates: npt.NDArray[np.float64], labels: npt.NDArray[np.bool_]) -> float:
    """Expected calibration error in ten equal bins of confidence."""
    bins = np.minimum((estimates * 10).astype(int), 9)
    gaps = [abs(float(estimates[bins == one].sum() - labels[bins == one].sum())) for one in range(10)]
    return sum(gaps) / max(len(estimates), 1)
