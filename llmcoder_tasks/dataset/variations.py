"""Every way of writing one condition, by scenario: pure functions of release, seed, code and ordinal.

A variation keeps its label: one that reads like the title of another code is thrown away, and another one is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llmcoder_tasks.dataset.abbreviating import Abbreviator
from llmcoder_tasks.dataset.chance import Chance
from llmcoder_tasks.dataset.lexicon import Lexicon
from llmcoder_tasks.dataset.misspelling import Misspeller
from llmcoder_tasks.dataset.reordering import move_encounter, reorder_title
from llmcoder_tasks.dataset.sentences import Narrator
from llmcoder_tasks.dataset.titles import Title, Vocabulary, normalise_text, parse_title
from llmcoder_tasks.icd10cm.code_set import CodeSet

VARIED_SCENARIOS = ("reordered", "abbreviations", "typos", "sentences")
"""Scenarios of one condition whose text differs from the title."""

_ATTEMPTS = 4
_STACKED = 0.12  # share of training variations that get a second kind on top
_BRITISH = 0.06
_OFFICIAL_SHORT_TITLE = 0.15
_INCLUSION_TERM = 0.3


@dataclass(frozen=True, slots=True)
class Source:
    """A billable code with what the release calls it."""

    code: str
    title: str
    short_title: str
    other_names: tuple[str, ...]
    parts: Title
    read: str  # the title as `normalise_text` reads it


@dataclass(frozen=True)
class Variations:
    """Makes variations of the codes of one release."""

    sources: Mapping[str, Source]
    vocabulary: Vocabulary
    abbreviator: Abbreviator
    misspeller: Misspeller
    narrator: Narrator
    code_by_name: Mapping[str, str | None]
    seed: int

    @classmethod
    def of_release(cls, code_set: CodeSet, lexicon: Lexicon, *, seed: int) -> Variations:
        """Prepare for the billable codes of a release."""
        names: dict[str, list[str]] = {}
        for term in code_set.terms:
            if term.kind == "inclusion_term" and term.code in code_set.titles:
                names.setdefault(term.code, []).append(term.term)
        sources = {
            code.code: Source(
                code=code.code,
                title=code.long_title,
                short_title=code.short_title,
                other_names=tuple(names.get(code.code, ())),
                parts=parse_title(code.long_title),
                read=normalise_text(code.long_title),
            )
            for code in code_set.billable
        }
        vocabulary = Vocabulary.of_titles(code_set.titles.values())
        return cls(
            sources=sources,
            vocabulary=vocabulary,
            abbreviator=Abbreviator.of_lexicon(lexicon),
            misspeller=Misspeller.of_lexicon(lexicon, vocabulary),
            narrator=Narrator.of_lexicon(lexicon, vocabulary),
            code_by_name=names_of(code_set),
            seed=seed,
        )

    def vary(self, scenario: str, code: str, ordinal: int, *, taught: bool) -> str:
        """One variation of a code's title, or "" when none was found that differs from it.

        `taught` variations, those of the train split, may stack two kinds and may use the release's short title or another of its
        names; held-out ones show one kind each.
        """
        source = self.sources[code]
        for attempt in range(_ATTEMPTS):
            chance = Chance(self.seed, scenario, code, ordinal, attempt)
            text = self._write(scenario, source, chance, taught=taught)
            written = normalise_text(text)
            if written != source.read and self.code_by_name.get(written, code) == code:
                return text
        return ""

    def mention(self, code: str, chance: Chance) -> str:
        """A condition as it stands in a list or inside a sentence, with its encounter: the title or a variation of any kind.

        Falls back to the title where the variation drawn reads like another code's name.
        """
        source = self.sources[code]
        kind = chance.pick(("title", "title", "title", "plain", "plain", "reordered", "abbreviations", "typos"))
        if kind == "title":
            text = source.title
        elif kind == "plain":
            text = self._plain(source, chance)
        else:
            text = self._write(kind, source, chance, taught=False)
        if self.code_by_name.get(normalise_text(text), code) != code:
            text = source.title
        return self.vocabulary.lower_first(text) if chance.happens(0.5) else text

    def _plain(self, source: Source, chance: Chance) -> str:
        person = self.narrator.cast(source.code, source.parts.condition, chance)
        words = self.narrator.say_condition(source.parts, person, chance)
        if not source.parts.encounter:
            return words
        visit = source.parts.encounter.partition(" for ")[0]
        return f"{words}, {visit}" if chance.happens(0.5) else move_encounter(words, visit, self.vocabulary, chance)

    def _write(self, scenario: str, source: Source, chance: Chance, *, taught: bool) -> str:
        stacked = taught and chance.happens(_STACKED)
        text = self._write_once(scenario, source, chance, taught=taught)
        if stacked:
            text = self.misspeller.misspell(text, chance) if chance.happens(0.5) else self.abbreviator.abbreviate(text, chance)
        return self.misspeller.respell(text) if chance.happens(_BRITISH) else text

    def _write_once(self, scenario: str, source: Source, chance: Chance, *, taught: bool) -> str:
        if scenario == "reordered":
            return reorder_title(source.parts, self.vocabulary, chance)
        if scenario == "abbreviations":
            if taught and source.short_title != source.title and chance.happens(_OFFICIAL_SHORT_TITLE):
                return source.short_title
            return self.abbreviator.abbreviate(source.title, chance)
        if scenario == "typos":
            return self.misspeller.misspell(source.title, chance)
        parts = source.parts
        if taught and source.other_names and chance.happens(_INCLUSION_TERM):
            name = chance.pick(source.other_names)
            if self.code_by_name.get(normalise_text(name)) == source.code:
                parts = Title(name, (), parts.encounter)
        return self.narrator.tell(source.code, parts, chance)


def names_of(code_set: CodeSet) -> Mapping[str, str | None]:
    """Whose name a normalised text is: titles of all codes and inclusion terms; None where several codes share it.

    A header's title belongs to nobody: it is not specific enough for a billable code, unless that code has the same title.
    """
    names: dict[str, str | None] = {normalise_text(code.long_title): None for code in code_set.codes if not code.is_billable}
    for term in code_set.terms:
        if term.kind == "inclusion_term":
            name = normalise_text(term.term)
            names[name] = term.code if names.get(name, term.code) == term.code else None
    return names | {normalise_text(title): code for code, title in code_set.titles.items()}
