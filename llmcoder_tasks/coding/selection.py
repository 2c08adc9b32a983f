"""Which of the codes that a note suggests are coded, as learnt from coded notes: `selection.json`.

Two things are learnt. Habits: which codes coders give when a note affirms a phrase ("smokes a pack" and F17.210), or when the
release's names in it mean a code; every word of a phrase is one that the release itself uses, so that names of people stay out of
the file, but for those that are such words. Weights: small regression trees that tell, from how a code was suggested, how probable
it is that it is coded. Prediction is plain numpy, note by note.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from llmcoder_tasks.coding.context import Assertion, assess_mentions, split_sentences
from llmcoder_tasks.coding.mentions import SILENT_SECTIONS, Mention
from llmcoder_tasks.coding.rules.policy import POLICIES, CodingPolicy
from llmcoder_tasks.coding.sections import Section
from llmcoder_tasks.coding.terminology import WORD, Key, reduce_word
from llmcoder_tasks.errors import ModelError

SELECTION_NAME = "selection.json"
SCHEMA_VERSION = 1

LONGEST_PHRASE_WORDS = 4
AFFIRMED: frozenset[Assertion] = frozenset({"present", "historical", "possible"})

_PRIOR_WEIGHT = 2.0
"""A phrase's share is drawn to how often the code is given at all, as if by so many notes more."""

_LEAST_SHARE = 1e-9

_Place = tuple[int, int, Mention | None, "Habit | None"]

NoteKind = Literal["list", "prose"]
"""Whether a note has a list of final diagnoses."""

FEATURES = (
    "confidence", "mentions", "readings", "complete", "words", "letters", "place", "affirmed", "negated", "historical", "possible",
    "listed", "beside list", "silent section", "history section", "habit", "habit notes", "habit likeness", "habit surprise",
    "second habit", "habits", "likely habit", "likely habit words", "most surprise", "likely surprise", "habit of name",
    "denied habit", "prior", "seen", "siblings", "best sibling", "unspecified", "symptom", "note length",
)  # fmt: skip
"""What is known of a candidate, in the order of the columns."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A code that a mention suggests, with the confidence that the constants give it (0 where they would leave it out)."""

    code: str
    confidence: float
    mention: Mention

    @property
    def is_affirmed(self) -> bool:
        """Whether the note says that the patient has it, had it or may have it."""
        return self.mention.assertion in AFFIRMED


class Phrase(NamedTuple):
    """Words of a note, affirmed or not: character offsets, end exclusive."""

    start: int
    end: int
    is_affirmed: bool


@dataclass(frozen=True, slots=True)
class Habit:
    """How often coders gave a code to notes that affirm a phrase.

    `both` of `notes` had the code; `likeness` is the share of the phrase's words that the release uses for the code's category.
    """

    code: str
    both: int
    notes: int
    likeness: float


@dataclass(frozen=True, slots=True)
class Habits:
    """What coders gave: by phrase, and over all `notes` by code."""

    by_phrase: Mapping[Key, tuple[Habit, ...]]
    given: Mapping[str, int]
    notes: int

    def share(self, habit: Habit) -> float:
        """The share of notes with the phrase that get the code, drawn to the code's share of all notes."""
        prior = self.given.get(habit.code, 0) / self.notes
        return (habit.both + _PRIOR_WEIGHT * prior) / (habit.notes + _PRIOR_WEIGHT)

    def surprise(self, habit: Habit) -> float:
        """How little chance explains the habit: minus the log of the Poisson probability's leading part."""
        return measure_surprise(habit.both, habit.notes * self.given.get(habit.code, 0) / self.notes)


@dataclass(frozen=True, slots=True)
class Trees:
    """Regression trees of equal size as arrays of (tree, node); a leaf leads to itself. Log-odds: `base` plus each tree's value."""

    base: float
    depth: int
    feature: npt.NDArray[np.int64]
    threshold: npt.NDArray[np.float64]
    left: npt.NDArray[np.int64]
    right: npt.NDArray[np.int64]
    value: npt.NDArray[np.float64]

    def estimate(self, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """The probability of each row of features."""
        tree = np.arange(len(self.value))
        node = np.zeros((len(rows), len(tree)), dtype=np.int64)
        line = np.arange(len(rows))[:, None]
        for _ in range(self.depth):
            is_left = rows[line, self.feature[tree, node]] <= self.threshold[tree, node]
            node = np.where(is_left, self.left[tree, node], self.right[tree, node])
        logits = self.base + self.value[tree, node].sum(axis=1)
        return np.asarray(1.0 / (1.0 + np.exp(-logits)), dtype=np.float64)

    def to_document(self) -> dict[str, Any]:
        """JSON-ready; the inverse of `from_document`."""
        arrays = {name: getattr(self, name).tolist() for name in ("feature", "threshold", "left", "right", "value")}
        return {"base": self.base, "depth": self.depth, **arrays}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Trees:
        """Raises KeyError or ValueError on a document of another form."""
        whole = {name: np.asarray(document[name], dtype=np.int64) for name in ("feature", "left", "right")}
        real = {name: np.asarray(document[name], dtype=np.float64) for name in ("threshold", "value")}
        shapes = {array.shape for array in (*whole.values(), *real.values())}
        if len(shapes) != 1 or len(next(iter(shapes))) != 2:
            raise ValueError("the arrays of the trees differ in shape")
        size = next(iter(shapes))[1]
        if any(array.min() < 0 or array.max() >= limit for array, limit in _limits(whole, size)):
            raise ValueError("a tree leads out of itself")
        return cls(
            base=float(document["base"]),
            depth=int(document["depth"]),
            feature=whole["feature"],
            threshold=real["threshold"],
            left=whole["left"],
            right=whole["right"],
            value=real["value"],
        )


def _limits(arrays: Mapping[str, npt.NDArray[np.int64]], size: int) -> list[tuple[npt.NDArray[np.int64], int]]:
    return [(arrays["feature"], len(FEATURES)), (arrays["left"], size), (arrays["right"], size)]


@dataclass(frozen=True, slots=True)
class Selection:
    """What was learnt from coded notes, with its evidence.

    `kinds` are the kinds of notes there were enough of; notes of another kind are judged by the constants. A candidate is coded
    from `threshold` on.
    """

    fingerprint: str
    release_key: str
    kinds: frozenset[str]
    policy_name: str
    threshold: float
    habits: Habits
    trees: Trees
    evidence: Mapping[str, float] = field(default_factory=dict)

    def judges(self, kind: NoteKind) -> bool:
        """Whether enough notes of a kind were learnt from."""
        return kind in self.kinds

    @property
    def policy(self) -> CodingPolicy:
        """The policy that the coded notes follow best."""
        return POLICIES[self.policy_name]

    def judge(
        self,
        text: str,
        sections: Sequence[Section],
        suggestions: Sequence[Suggestion],
        words: Collection[str],
        titles: Mapping[str, str],
    ) -> list[tuple[Candidate, float]]:
        """Every candidate of a note with the probability that it is coded. `words` are those that the release uses."""
        phrases = find_phrases(text, sections, words, self.habits.by_phrase)
        candidates = list_candidates(text, suggestions, phrases, self.habits, titles)
        if not candidates:
            return []
        estimates = self.trees.estimate(np.asarray([item.features for item in candidates], dtype=np.float32))
        return list(zip(candidates, estimates.tolist(), strict=True))

    def render(self) -> bytes:
        """The bytes of `selection.json`: the same fit gives the same bytes."""
        document = {
            "schema_version": SCHEMA_VERSION,
            "fingerprint": self.fingerprint,
            "release_key": self.release_key,
            "kinds": sorted(self.kinds),
            "policy": self.policy_name,
            "threshold": self.threshold,
            "evidence": dict(self.evidence),
            "features": list(FEATURES),
            "notes": self.habits.notes,
            "given": dict(self.habits.given),
            "habits": {
                " ".join(key): [[habit.code, habit.both, habit.notes, habit.likeness] for habit in habits]
                for key, habits in self.habits.by_phrase.items()
            },
            "trees": self.trees.to_document(),
        }
        return (json.dumps(document, sort_keys=True) + "\n").encode()

    @classmethod
    def parse(cls, data: bytes) -> Selection:
        """The inverse of `render`. Raises ModelError."""
        try:
            document = json.loads(data)
            if document["schema_version"] != SCHEMA_VERSION or tuple(document["features"]) != FEATURES:
                raise ModelError(f"{SELECTION_NAME} was written by another version: run `llmcoder fit-selection` again")
            by_phrase = {
                tuple(words.split(" ")): tuple(
                    Habit(str(code), int(both), int(notes), float(like)) for code, both, notes, like in rows
                )
                for words, rows in document["habits"].items()
            }
            return cls(
                fingerprint=str(document["fingerprint"]),
                release_key=str(document["release_key"]),
                kinds=frozenset(document["kinds"]),
                policy_name=_known_policy(document["policy"]),
                threshold=float(document["threshold"]),
                habits=Habits(by_phrase, {code: int(count) for code, count in document["given"].items()}, int(document["notes"])),
                trees=Trees.from_document(document["trees"]),
                evidence={name: float(value) for name, value in document["evidence"].items()},
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(
                f"{SELECTION_NAME} is malformed ({type(error).__name__}): run `llmcoder fit-selection` again"
            ) from None


def _known_policy(name: object) -> str:
    if name not in POLICIES:
        raise ValueError("an unknown policy")
    return str(name)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A code that a note suggests, with its evidence: a mention, or a phrase with which coders give it (`habit`)."""

    code: str
    features: tuple[float, ...]
    start: int
    end: int
    mention: Mention | None
    habit: Habit | None


def measure_surprise(both: int, expected: float) -> float:
    """How unlikely so many notes with phrase and code are when so many are expected by chance (natural log, 0: no surprise)."""
    expected = max(expected, _LEAST_SHARE)
    return both * math.log(both / expected) - (both - expected)


def find_phrases(
    text: str, sections: Sequence[Section], words: Collection[str], wanted: Collection[Key] | None
) -> dict[Key, Phrase]:
    """The phrases of a note of up to four content words, all of them among `words`; all, or the `wanted` ones.

    A phrase is its sorted words; of several places the first affirmed one counts.
    """
    found: dict[Key, Phrase] = {}
    for section in sections:
        for sentence in split_sentences(text, section.start, section.end):
            places = [
                place for place in _find_keys(text, sentence.start, sentence.end, words) if wanted is None or place[0] in wanted
            ]
            spans = list(dict.fromkeys((start, end) for _, start, end in places))
            said = dict(zip(spans, assess_mentions(text, sentence, spans), strict=True))
            for key, start, end in places:
                is_affirmed = said[start, end] in AFFIRMED
                if key not in found or (is_affirmed and not found[key].is_affirmed):
                    found[key] = Phrase(start, end, is_affirmed)
    return found


def _find_keys(text: str, start: int, end: int, known: Collection[str]) -> Iterator[tuple[Key, int, int]]:
    """(sorted words, start, end) of every run of up to four known content words; empty words between them do not count."""
    run: list[tuple[str, int, int]] = []
    for match in WORD.finditer(text, start, end):
        word = reduce_word(match[0])
        if not word:
            continue
        if word not in known:
            run = []
            continue
        if run and not set(text[run[-1][2] : match.start()]).isdisjoint(".;:!?"):
            run = []
        run = [*run[1 - LONGEST_PHRASE_WORDS :], (word, *match.span())]
        for first in range(len(run)):
            parts = {part for part, _, _ in run[first:]}
            if len(parts) == len(run) - first:
                yield tuple(sorted(parts)), run[first][1], match.end()


def name_key(code: str) -> Key:
    """The phrase that stands for all names of a code in the release."""
    return (f"@{code}",)


def list_candidates(
    text: str, suggestions: Sequence[Suggestion], phrases: Mapping[Key, Phrase], habits: Habits, titles: Mapping[str, str]
) -> list[Candidate]:
    """Every billable code that a mention or a habit suggests, in order of code."""
    named: dict[str, list[Suggestion]] = {}
    for suggestion in suggestions:
        named.setdefault(suggestion.code, []).append(suggestion)
    given: dict[str, list[tuple[Key, Phrase, Habit]]] = {}
    for key, phrase in (*phrases.items(), *_name_phrases(named)):
        for habit in habits.by_phrase.get(key, ()):
            given.setdefault(habit.code, []).append((key, phrase, habit))
    has_list = any(suggestion.mention.is_listed for suggestion in suggestions)
    raw = {
        code: _describe(code, text, named.get(code, ()), given.get(code, ()), habits, titles[code], has_list=has_list)
        for code in sorted({*named, *given})
        if code in titles
    }
    strength = {code: max(features["likely habit"], features["confidence"]) for code, (features, _) in raw.items()}
    by_category: dict[str, list[str]] = {}
    for code in raw:
        by_category.setdefault(code[:3], []).append(code)
    candidates = []
    for code, (features, place) in raw.items():
        family = by_category[code[:3]]
        features["siblings"] = float(len(family))
        features["best sibling"] = max((strength[other] for other in family if other != code), default=0.0)
        candidates.append(Candidate(code, tuple(features[name] for name in FEATURES), *place))
    return candidates


def _name_phrases(named: Mapping[str, Sequence[Suggestion]]) -> Iterable[tuple[Key, Phrase]]:
    for code, suggestions in named.items():
        best = _choose_mention(suggestions)
        yield name_key(code), Phrase(best.start, best.end, best.assertion in AFFIRMED)


def _choose_mention(suggestions: Sequence[Suggestion]) -> Mention:
    """The surest mention; of equals the affirmed, then the first."""
    return min(suggestions, key=lambda item: (-item.confidence, item.mention.assertion not in AFFIRMED, item.mention.start)).mention


def _describe(
    code: str,
    text: str,
    named: Sequence[Suggestion],
    given: Sequence[tuple[Key, Phrase, Habit]],
    habits: Habits,
    title: str,
    *,
    has_list: bool,
) -> tuple[dict[str, float], _Place]:
    """The features of a candidate, save those about its siblings, and its evidence (start, end, mention)."""
    features = dict.fromkeys(FEATURES, 0.0)
    features["place"] = 1.0
    place: _Place | None = None
    if named:
        mention = _choose_mention(named)
        place = (mention.start, mention.end, mention, None)
        features |= _describe_mentions(text, named)
    if given:
        features |= _describe_habits(given, habits)
        if place is None:
            _, phrase, habit = max(
                given,
                key=lambda item: (item[1].is_affirmed, habits.share(item[2]) * item[2].likeness, len(item[0]), -item[1].start),
            )
            place = (phrase.start, phrase.end, None, habit)
    if place is None:
        raise ValueError(f"{code} is suggested by nothing")
    features["beside list"] = float(has_list and not features["listed"])
    features["prior"] = math.log(habits.given.get(code, 0) / habits.notes + 0.001)
    features["seen"] = float(habits.given.get(code, 0))
    features["unspecified"] = float("unspecified" in title)
    features["symptom"] = float(code.startswith("R"))
    features["note length"] = min(len(text) / 5000, 2.0)
    return features, place


def _describe_mentions(text: str, named: Sequence[Suggestion]) -> dict[str, float]:
    mentions = [item.mention for item in named]
    return {
        "confidence": max(item.confidence for item in named),
        "mentions": float(min(len(mentions), 4)),
        "readings": float(min(len(mention.naming.codes) if mention.naming else 0 for mention in mentions)),
        "complete": float(any(mention.naming is not None and mention.naming.is_complete for mention in mentions)),
        "words": float(max(len(WORD.findall(text, mention.start, mention.end)) for mention in mentions)),
        "letters": float(max(mention.end - mention.start for mention in mentions)),
        "place": min(mention.start for mention in mentions) / len(text),
        "affirmed": float(any(mention.assertion in AFFIRMED for mention in mentions)),
        "negated": float(any(mention.assertion == "negated" for mention in mentions)),
        "historical": float(any(mention.assertion == "historical" for mention in mentions)),
        "possible": float(any(mention.assertion == "possible" for mention in mentions)),
        "listed": float(any(mention.is_listed for mention in mentions)),
        "silent section": float(all(mention.section in SILENT_SECTIONS for mention in mentions)),
        "history section": float(any(mention.section == "history" for mention in mentions)),
    }


def _describe_habits(given: Sequence[tuple[Key, Phrase, Habit]], habits: Habits) -> dict[str, float]:
    denied = [habits.share(habit) for _, phrase, habit in given if not phrase.is_affirmed]
    affirmed = [(key, habit) for key, phrase, habit in given if phrase.is_affirmed]
    features = {"denied habit": max(denied, default=0.0)}
    if not affirmed:
        return features
    shares = sorted(
        ((habits.share(habit), habits.surprise(habit), key, habit) for key, habit in affirmed), key=_order, reverse=True
    )
    share, surprise, _, habit = shares[0]
    likely = max(shares, key=lambda item: (_weigh_likeness(item[0], item[3]), *_order(item)))
    features |= {
        "habit": share,
        "habit notes": float(habit.notes),
        "habit likeness": habit.likeness,
        "habit surprise": surprise,
        "second habit": shares[1][0] if len(shares) > 1 else 0.0,
        "habits": float(min(len(shares), 20)),
        "likely habit": _weigh_likeness(likely[0], likely[3]),
        "likely habit words": float(len(likely[2])),
        "most surprise": max(item[1] for item in shares),
        "likely surprise": max(item[1] * item[3].likeness for item in shares),
        "habit of name": max((item[0] for item in shares if item[2][0].startswith("@")), default=0.0),
    }
    return features


def _order(item: tuple[float, float, Key, Habit]) -> tuple[float, float, Key]:
    return item[:3]


def _weigh_likeness(share: float, habit: Habit) -> float:
    return share * (0.2 + 0.8 * habit.likeness)
