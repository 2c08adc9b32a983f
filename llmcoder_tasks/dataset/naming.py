"""What else a code may be called: the release's other names of it, and shorter ones that leave unsaid what conventions supply.

A condition without encounter is at its first one; a side that nobody names is the unspecified side; a fetus without number is the
fetus "not applicable or unspecified"; and what is not otherwise specified is unspecified.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import replace

from llmcoder_tasks.dataset.titles import Title, normalise_text, parse_title
from llmcoder_tasks.icd10cm.code_set import CodeSet

NAME_KINDS = frozenset({"inclusion_term", "index_term"})
"""Notes and index entries that name a condition."""

_FIRST_ENCOUNTER = "A"
_UNNAMED = ("not applicable or unspecified", "unspecified")
_SIDE = re.compile(r"\bunspecified (?=\w)")
_SIDE_ALONE = re.compile(r", unspecified (?:eye|ear|side|limb|trimester)\b|\bunspecified (?=\w)")
_CROSS_REFERENCE = re.compile(r"\b(?:classifiable|[Cc]onditions in|[A-Z]\d\d)\b")


def names_of(code_set: CodeSet) -> Mapping[str, str | None]:
    """Whose name a normalised text is: titles of all codes, inclusion terms and index terms; None where several codes share it.

    A header's title belongs to nobody: it is not specific enough for a billable code. But where the codes below differ by
    encounter alone it is the first encounter's, and where one of them has the same title it is that code's.
    """
    owners = _first_encounters(code_set)
    names: dict[str, str | None] = {
        normalise_text(code.long_title): owners.get(code.code) for code in code_set.codes if not code.is_billable
    }
    for term in code_set.terms:
        if term.kind in NAME_KINDS:
            name, code = normalise_text(term.term), owners.get(term.code, term.code)
            names[name] = code if names.get(name, code) == code else None
    return names | {normalise_text(title): code for code, title in code_set.titles.items()}


def other_names(code_set: CodeSet, names: Mapping[str, str | None]) -> Mapping[str, tuple[Title, ...]]:
    """By billable code: what the release's terms call it and no other code. The encounter of the title is kept with them."""
    titles = code_set.titles
    encounters: dict[str, list[str]] = {}
    owners = _first_encounters(code_set)
    for code in titles:
        if code[:-1] in owners:
            encounters.setdefault(code[:-1], []).append(code)
    found: dict[str, list[Title]] = {}
    for term in code_set.terms:
        if term.kind not in NAME_KINDS or _CROSS_REFERENCE.search(term.term):
            continue
        if names.get(normalise_text(term.term)) != owners.get(term.code, term.code):
            continue
        for code in [term.code] if term.code in titles else encounters.get(term.code, ()):
            found.setdefault(code, []).append(Title(term.term, (), parse_title(titles[code]).encounter))
    return {code: tuple(dict.fromkeys(terms)) for code, terms in found.items()}


def shorter_names(code: str, title: str, names: Mapping[str, str | None], titles: Collection[str]) -> tuple[Title, ...]:
    """The title without its first encounter, its unnamed side, fetus or kind, where what is left is no other code's name.

    `titles` are the normalised titles of the release: a side is one that has another side beside it.
    """
    parts = parse_title(title)
    shorter = [parts]
    if code[-1] == _FIRST_ENCOUNTER and parts.encounter.startswith("initial encounter"):
        shorter.append(replace(parts, encounter=""))
    unsided = _without_side(title, titles)
    if unsided != title:
        shorter += [replace(parse_title(unsided), encounter=form.encounter) for form in shorter]
    elif parts.qualifiers and parts.qualifiers[-1] in _UNNAMED:
        shorter += [replace(form, qualifiers=parts.qualifiers[:-1]) for form in shorter]
    return tuple(form for form in shorter[1:] if names.get(normalise_text(join_title(form)), code) == code)


def join_title(title: Title) -> str:
    """The parts of a title as the release writes them."""
    return ", ".join(part for part in (title.condition, *title.qualifiers, title.encounter) if part)


def _without_side(title: str, titles: Collection[str]) -> str:
    """The title without the word `unspecified` where other codes have a side, or a trimester, in its place."""
    for match in reversed(list(_SIDE.finditer(title))):
        before, after = title[: match.start()], title[match.end() :]
        other = "first " if after.startswith("trimester") else "right "
        if normalise_text(before + other + after) in titles:
            start = max(0, match.start() - 2)
            return title[:start] + _SIDE_ALONE.sub("", title[start:], count=1)
    return title


def _first_encounters(code_set: CodeSet) -> Mapping[str, str]:
    """Headers whose codes say the same at different encounters, with the code of the first one."""
    titles = code_set.titles
    return {
        code.code: first
        for code in code_set.codes
        if not code.is_billable
        and (first := code.code + _FIRST_ENCOUNTER) in titles
        and titles[first].startswith(f"{code.long_title}, initial encounter")
    }
