"""Items that no scenario has enough of: what a release changed, every chapter, rare codes. They show whether a new model is as good
everywhere as the one in service.

Texts are made like those of held-out codes and stand in no training table, so that nobody has seen them; the codes may have been
trained on, as all codes are in service.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import count, islice

from llmcoder_tasks.dataset.example_frames import chapter_of
from llmcoder_tasks.dataset.lexicon import load_lexicon
from llmcoder_tasks.dataset.splits import sampling_order
from llmcoder_tasks.dataset.titles import normalise_text
from llmcoder_tasks.dataset.variations import VARIED_SCENARIOS, Variations
from llmcoder_tasks.evaluation.comparison import BREADTH_SCENARIO, SliceName
from llmcoder_tasks.evaluation.suites import Suite
from llmcoder_tasks.icd10cm.changes import find_changed_codes
from llmcoder_tasks.icd10cm.code_set import CodeSet
from llmcoder_tasks.records import Example

CODES_OF_CHAPTER = 500
RARE_CODES = 1000
TEXTS_OF_CHANGED = 3000
"""About so many texts of changed codes, shared among them, ..."""
MOST_TEXTS_OF_CODE = 8
"""... but never more of one: they are answered alike."""

RARE_WORD_TITLES = 3
"""A code is rare when a word of its title stands in so many titles of the release, or fewer: no coder saw that word often."""

_FIRST_ORDINAL = 1000  # far above what a dataset trains on
"""Ordinals of variations from here on are drawn for judging alone."""

FindTaught = Callable[[Sequence[str]], Set[str]]
"""Texts in; those among them that some training table holds out."""


@dataclass(frozen=True)
class CodeGroups:
    """What is known of the codes of a release beside their titles.

    `new`, `revised` and `successors` are against the release that the model in service was trained on; a successor is a new code
    that took over from a deleted one, or stands below one that became a header.
    """

    new: frozenset[str]
    revised: frozenset[str]
    successors: frozenset[str]
    rare: frozenset[str]

    @classmethod
    def of_releases(cls, before: Mapping[str, str], code_set: CodeSet, conversions: Mapping[str, Set[str]]) -> CodeGroups:
        """Compare a release with the long titles of an earlier one, both by billable code.

        Args:
            before: long titles of the earlier release.
            code_set: the later release.
            conversions: the codes that took over from a code, by the conversion tables up to the later release.
        """
        changed = find_changed_codes(before, code_set.titles, conversions)
        return cls(changed.added, changed.revised, changed.successors, find_rare_codes(code_set.titles))

    def label(self, code: str) -> Iterator[SliceName]:
        """The slices that a code belongs to."""
        if code in self.new:
            yield "change", "new"
        if code in self.revised:
            yield "change", "revised"
        if code in self.successors:
            yield "change", "successor"
        if code not in self.new and code not in self.revised:
            yield "change", "unchanged"
        if code in self.rare:
            yield "rare", "rare codes"
        yield "chapter", chapter_of(code)


def find_rare_codes(titles: Mapping[str, str]) -> frozenset[str]:
    """The codes whose title has a word that few titles have."""
    words = {code: set(normalise_text(title).split()) for code, title in titles.items()}
    titles_with = Counter(word for found in words.values() for word in found)
    return frozenset(code for code, found in words.items() if min(titles_with[word] for word in found) <= RARE_WORD_TITLES)


def make_breadth_suite(code_set: CodeSet, groups: CodeGroups, *, seed: int, find_taught: FindTaught) -> Suite:
    """Texts of changed codes, of codes of every chapter and of rare codes.

    The same arguments give the same items. `seed` is that of the dataset.
    """
    variations = Variations.of_release(code_set, load_lexicon(), seed=seed)
    wanted = _count_texts(code_set, groups)
    drafts = [draft for code, texts in wanted.items() for draft in _write(variations, code, texts)]
    meanings: dict[str, set[str]] = defaultdict(set)
    for draft in drafts:
        meanings[draft.text].add(draft.codes[0])
    taught = find_taught([draft.text for draft in drafts])
    kept = {draft.text: draft for draft in drafts if len(meanings[draft.text]) == 1 and draft.text not in taught}
    return Suite(BREADTH_SCENARIO, tuple(sorted(kept.values(), key=lambda draft: sampling_order(draft.example_id))))


def _count_texts(code_set: CodeSet, groups: CodeGroups) -> dict[str, int]:
    """How many texts to write of which code."""
    changed = [code for code in code_set.titles if code in groups.new or code in groups.revised]
    each = max(1, min(MOST_TEXTS_OF_CODE, TEXTS_OF_CHANGED // max(1, len(changed))))
    chapters: dict[str, list[str]] = defaultdict(list)
    for code in _in_sampling_order(set(code_set.titles).difference(changed)):
        chapters[chapter_of(code)].append(code)
    wanted = {code: 1 for codes in chapters.values() for code in codes[:CODES_OF_CHAPTER]}
    wanted |= {code: 1 for code in islice(_in_sampling_order(groups.rare.difference(changed)), RARE_CODES)}
    return wanted | dict.fromkeys(changed, each)


def _in_sampling_order(codes: Iterable[str]) -> Iterator[str]:
    yield from sorted(codes, key=lambda code: sampling_order(f"{BREADTH_SCENARIO}-{code}"))


def _write(variations: Variations, code: str, texts: int) -> Iterator[Example]:
    """So many texts of a code, of one scenario after the other; fewer where a scenario has no variation for it."""
    first = sampling_order(code)[0]
    for number in islice(count(), texts):
        scenario = VARIED_SCENARIOS[(first + number) % len(VARIED_SCENARIOS)]
        ordinal = _FIRST_ORDINAL + number // len(VARIED_SCENARIOS)
        text = variations.vary(scenario, code, ordinal, taught=False) or variations.vary("typos", code, ordinal, taught=False)
        if text:
            yield Example(f"{BREADTH_SCENARIO}-{code}-{scenario}-{ordinal}", BREADTH_SCENARIO, "test", text, (code,))
