"""Every way of writing one condition, by scenario: pure functions of release, seed, code and ordinal.

A variation keeps its label: one that reads like the title of another code is thrown away, and another one is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from llmcoder_tasks.dataset.abbreviating import Abbreviator
from llmcoder_tasks.dataset.chance import Chance
from llmcoder_tasks.dataset.lexicon import Lexicon
from llmcoder_tasks.dataset.misspelling import Misspeller
from llmcoder_tasks.dataset.naming import join_title, names_of, other_names, shorter_names
from llmcoder_tasks.dataset.reordering import move_encounter, reorder_title, turn_condition
from llmcoder_tasks.dataset.restyling import restyle
from llmcoder_tasks.dataset.sentences import Narrator
from llmcoder_tasks.dataset.titles import Title, Vocabulary, normalise_text, parse_title
from llmcoder_tasks.icd10cm.code_set import CodeSet

VARIED_SCENARIOS = ("reordered", "abbreviations", "typos", "sentences")
"""Scenarios of one condition whose text differs from the title."""

_ATTEMPTS = 4
_STACKED = (0.5, 0.82)  # of the training variations half show one kind, a third two, the others three
_STACKABLE = ("reordered", "abbreviations", "typos")
_RESTYLED = 0.2
_BRITISH = 0.06
_OFFICIAL_SHORT_TITLE = 0.15
_OTHER_NAME = {"sentences": 0.25}  # share of training variations built on another name than the title, where there is one
_OTHER_NAME_ELSEWHERE = 0.12
_SHORTER_NAME = 0.12


@dataclass(frozen=True, slots=True)
class Source:
    """A billable code with what the release calls it."""

    code: str
    title: str
    short_title: str
    other_names: tuple[Title, ...]
    shorter_names: tuple[Title, ...]  # what conventions supply left out
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
        names = names_of(code_set)
        others = other_names(code_set, names)
        titles = frozenset(normalise_text(title) for title in code_set.titles.values())
        sources = {
            code.code: Source(
                code=code.code,
                title=code.long_title,
                short_title=code.short_title,
                other_names=others.get(code.code, ()),
                shorter_names=shorter_names(code.code, code.long_title, names, titles),
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
            code_by_name=names,
            seed=seed,
        )

    def vary(self, scenario: str, code: str, ordinal: int, *, taught: bool) -> str:
        """One variation of a code's title, or "" when none was found that differs from it.

        `taught` variations, those of the train split, may stack two or three kinds, and may use the release's short title, another
        of its names, or a name that leaves out what conventions supply; held-out ones show one kind each.
        """
        source = self.sources[code]
        for attempt in range(_ATTEMPTS):
            chance = Chance(self.seed, scenario, code, ordinal, attempt)
            text = self._write(scenario, source, chance, taught=taught)
            written = normalise_text(text)
            if written and written != source.read and self.code_by_name.get(written, code) == code:
                return text
        return ""

    def mention(self, code: str, chance: Chance) -> str:
        """A condition as it stands in a list or inside a sentence, with its encounter: the title or a variation of any kind.

        Falls back to the title where the variation drawn reads like another code's name, or where there is none of its kind.
        """
        source = self.sources[code]
        kind = chance.pick(("title", "title", "title", "plain", "plain", "reordered", "abbreviations", "typos"))
        if kind == "title":
            text = source.title
        elif kind == "plain":
            text = self._plain(source, chance)
        else:
            text = self._write(kind, source, chance, taught=False)
        if not text or self.code_by_name.get(normalise_text(text), code) != code:
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
        kinds = (scenario, *_more_kinds(scenario, chance)) if taught else (scenario,)
        text = self._write_kinds(kinds, source, chance, taught=taught)
        if scenario != "typos" and chance.happens(_RESTYLED):
            text = restyle(text, chance)
        return self.misspeller.respell(text) if chance.happens(_BRITISH) else text

    def _write_kinds(self, kinds: Sequence[str], source: Source, chance: Chance, *, taught: bool) -> str:
        """Order first, then the sentence around it, then short forms, then slips, as a person writes; "" where the first fails."""
        scenario = kinds[0]
        name = _choose_name(scenario, source, chance) if taught else source.parts
        if scenario == "sentences":
            if "reordered" in kinds:
                name = replace(name, condition=turn_condition(name, self.vocabulary, chance))
            text = self.narrator.tell(source.code, name, chance)
        elif "reordered" in kinds:
            text = reorder_title(name, self.vocabulary, chance)
            if len(kinds) == 1 and text == join_title(name):
                return ""
        else:
            text = join_title(name)
        if taught and scenario == "abbreviations" and source.short_title != source.title and chance.happens(_OFFICIAL_SHORT_TITLE):
            text = source.short_title
        elif "abbreviations" in kinds:
            plain, text = text, self.abbreviator.abbreviate(text, chance)
            if scenario == "abbreviations" and text == plain:
                return ""
        return self.misspeller.misspell(text, chance, lightly=scenario != "typos") if "typos" in kinds else text


def _more_kinds(scenario: str, chance: Chance) -> tuple[str, ...]:
    """The kinds that a training variation shows beside its own: none, one or two."""
    draw = chance.share(0, 1)
    others = [kind for kind in _STACKABLE if kind != scenario]
    if draw < _STACKED[0]:
        return ()
    return (chance.pick(others),) if draw < _STACKED[1] else tuple(chance.shuffled(others)[:2])


def _choose_name(scenario: str, source: Source, chance: Chance) -> Title:
    """What a training variation calls its code before it varies it: mostly the title."""
    if source.other_names and chance.happens(_OTHER_NAME.get(scenario, _OTHER_NAME_ELSEWHERE)):
        return chance.pick(source.other_names)
    if source.shorter_names and chance.happens(_SHORTER_NAME):
        return chance.pick(source.shorter_names)
    return source.parts
