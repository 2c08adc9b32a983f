"""Several conditions in one text, joined as people join them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from llmcoder_tasks.dataset.chance import Chance
from llmcoder_tasks.dataset.config import CONDITION_COUNTS
from llmcoder_tasks.dataset.sentences import Person
from llmcoder_tasks.dataset.titles import upper_first

T = TypeVar("T")

SIZES = (2, 2, 2, 2, 3, 3, 3, 4, 4, 5)
"""How many conditions stand together, drawn from these."""
_LEADS = ("", "", "", "Diagnoses: ", "Dx: ", "Discharge diagnoses: ", "Problem list: ", "Impression: ", "Assessment: ")
_SENTENCES = (
    "{who} has {all}.",
    "{who} was admitted with {all}.",
    "{who} was diagnosed with {all}.",
    "{who} suffers from {all}.",
    "{who} presents with {all}.",
    "{who} is being treated for {all}",
    "The diagnoses are {all}.",
    "pt w/ {all}",
    "Discharged with the diagnoses {all}.",
    "Follow-up of {all}.",
)


def group_items(items: Sequence[T], chance: Chance) -> list[list[T]]:
    """Deal all items into groups of two to five, each item once. A rest of one joins the last group."""
    order = chance.shuffled(items)
    fewest, most = CONDITION_COUNTS
    groups: list[list[T]] = []
    start = 0
    while start < len(order):
        size = chance.pick(SIZES)
        groups.append(order[start : start + size])
        start += size
    if len(groups) > 1 and len(groups[-1]) < fewest:
        rest = groups.pop()
        target = next(group for group in reversed(groups) if len(group) < most)
        target.extend(rest)
    return [group for group in groups if len(group) >= fewest]


def join_conditions(conditions: Sequence[str], person: Person, chance: Chance) -> str:
    """One text that names all conditions in this order: a list, a line, or a sentence."""
    text = chance.pick(_STYLES)(conditions, person, chance)
    return text.lower() if chance.happens(0.15) else text


def _on_lines(conditions: Sequence[str], person: Person, chance: Chance) -> str:
    return _lead(chance, "\n") + "\n".join(conditions)


def _numbered(conditions: Sequence[str], person: Person, chance: Chance) -> str:
    mark = chance.pick(("{}. ", "{}) ", "#{} ", "{}.", "({}) "))
    between = "\n" if chance.happens(0.7) else " "
    return _lead(chance, between) + between.join(f"{mark.format(i)}{text}" for i, text in enumerate(conditions, start=1))


def _bulleted(conditions: Sequence[str], person: Person, chance: Chance) -> str:
    mark = chance.pick(("- ", "* ", "• ", "-"))
    return _lead(chance, "\n") + "\n".join(mark + text for text in conditions)


def _with_semicolons(conditions: Sequence[str], person: Person, chance: Chance) -> str:
    return _lead(chance, " ") + "; ".join(conditions) + chance.pick(("", "", "."))


def _with_commas(conditions: Sequence[str], person: Person, chance: Chance) -> str:
    return _lead(chance, " ") + ", ".join(conditions) + chance.pick(("", "", "."))


def _with_and(conditions: Sequence[str], person: Person, chance: Chance) -> str:
    return _lead(chance, " ") + _enumerate(conditions, chance)


def _with_slashes(conditions: Sequence[str], person: Person, chance: Chance) -> str:
    return _lead(chance, " ") + " / ".join(conditions)


def _in_a_sentence(conditions: Sequence[str], person: Person, chance: Chance) -> str:
    subject = chance.pick((person.name, "the patient", "This patient"))
    return upper_first(chance.pick(_SENTENCES).format(who=subject, all=_enumerate(conditions, chance)))


def _in_sentences(conditions: Sequence[str], person: Person, chance: Chance) -> str:
    first = f"{person.name} {chance.pick(('has', 'was treated for', 'presents with'))} {conditions[0]}."
    openings = ("In addition", "Also", "Further diagnosis:", "There is also", "Moreover", "Another problem is")
    return " ".join([first, *(f"{chance.pick(openings)} {text}." for text in conditions[1:])])


def _enumerate(conditions: Sequence[str], chance: Chance) -> str:
    between = chance.pick((", ", "; ", ", "))
    last = chance.pick((" and ", ", and ", " as well as ", " & ", " along with ", " plus "))
    return between.join(conditions[:-1]) + last + conditions[-1]


def _lead(chance: Chance, between: str) -> str:
    lead = chance.pick(_LEADS)
    return lead.rstrip() + between if lead else ""


_STYLES: tuple[Callable[[Sequence[str], Person, Chance], str], ...] = (
    _on_lines, _on_lines, _numbered, _numbered, _bulleted, _with_semicolons, _with_semicolons, _with_semicolons, _with_commas,
    _with_commas, _with_and, _with_and, _with_slashes, _in_a_sentence, _in_a_sentence, _in_sentences,
)  # fmt: skip
