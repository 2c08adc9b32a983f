"""Titles in another order: the same words, as people put them when they do not copy the book.

Abscess of lung                            Lung abscess
Pain in knee, right knee                   Right knee pain
Sprain of ankle, left, initial encounter   Initial encounter for sprain of left ankle
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from llmcoder_tasks.dataset.chance import Chance
from llmcoder_tasks.dataset.titles import Title, Vocabulary, upper_first

# Where the part of a condition ends that can be turned round.
_TAIL = re.compile(
    r",| \(| \[| (?:with|without|due|by|in|following|after|at|from|to|for|during|on|involving|complicating|associated|caused"
    r"|causing|affecting|injured|struck|limited|as|that|which|per|than|into|against|while|except|resulting|secondary|not|nor|between|through)\b"
)
_LEADING = re.compile(r"(Other specified|Other and unspecified|Other|Unspecified|Multiple|Displaced|Nondisplaced) (?=\w)")
_INVERSION = re.compile(r"(?P<head>[A-Z][\w' -]{2,40}), (?P<adjective>(?:[\w'-]+ ?){1,3})")
_SITE = re.compile(r"(?:right|left|unspecified|other|multiple|upper|lower) \S")
_BEFORE = ("{q} {x}",)
_MANNER = ("{q} by {x}", "{q}, {x}")
_FORMS = {
    **dict.fromkeys(
        (
            "unspecified", "bilateral", "uncomplicated", "recurrent", "intractable", "primary", "secondary", "mild", "moderate",
            "severe", "acute", "chronic", "undetermined", "accidental (unintentional)", "right", "left",
        ),
        _BEFORE,
    ),
    "assault": _MANNER,
    "intentional self-harm": _MANNER,
    "not elsewhere classified": ("{x} not classified elsewhere", "{x}, not classified elsewhere"),
}  # fmt: skip
_FORMS_BY_WORD = {
    "trimester": ("{q} {x}", "{x} in {q}", "{x} during {q}"),
    "fetus": ("{q}, {x}", "{x} for {q}"),
    "with": ("{x} {q}",),
    "without": ("{x} {q}",),
    "stage": _BEFORE,
}
_HEALING = re.compile(
    r"(?P<type>(?:open|closed) fracture(?: type I or II| type IIIA, IIIB, or IIIC)?|fracture)(?P<healing> with .+)?"
)


def reorder_title(title: Title, vocabulary: Vocabulary, chance: Chance) -> str:
    """The parts of a title in another order; equal to the title where its words allow no other order."""
    condition = title.condition
    if chance.happens(0.6):
        condition = turn_condition(title, vocabulary, chance)
    remaining: list[str] = []
    for qualifier in title.qualifiers:
        if chance.happens(0.75):
            condition = attach_qualifier(condition, qualifier, vocabulary, chance)
        else:
            remaining.append(qualifier)
    text = ", ".join([condition, *remaining])
    if not title.encounter:
        return upper_first(text)
    moved = move_encounter(text, title.encounter, vocabulary, chance) if chance.happens(0.8) else f"{text}, {title.encounter}"
    return upper_first(moved)


def turn_condition(title: Title, vocabulary: Vocabulary, chance: Chance) -> str:
    """Turn `A of B` into `B A`, undo or make a comma inversion, or put the cause first, whichever fits."""
    return chance.pick(_turns_of(title.condition, not title.encounter and not title.qualifiers, vocabulary))


@lru_cache(1024)
def _turns_of(condition: str, is_bare: bool, vocabulary: Vocabulary) -> tuple[str, ...]:
    """The other orders of a condition, `is_bare` when nothing stands behind it; the condition itself where there is none."""
    turned = [_turn_of(condition, vocabulary), _undo_inversion(condition, vocabulary)]
    if is_bare:
        turned.append(_cause_first(condition, vocabulary))
    return tuple(text for text in turned if text) or (_invert(condition, vocabulary),)


def _turn_of(condition: str, vocabulary: Vocabulary) -> str:
    tail = _TAIL.search(condition)
    head, rest = (condition[: tail.start()], condition[tail.start() :]) if tail else (condition, "")
    if rest.startswith((" (", " [", ",")):  # a remark or a list in the middle: what it belongs to must stay beside it
        return ""
    parts = head.split(" of ")
    twice_unspecified = parts[0].startswith("Unspecified ") and any(part.startswith("unspecified ") for part in parts)
    if twice_unspecified or not 2 <= len(parts) <= 3 or any(not part or part.count(" ") > 3 for part in parts):
        return ""
    leading = _LEADING.match(parts[0])
    prefix = leading[0] if leading else ""
    parts[0] = parts[0][len(prefix) :]
    body = [part.removeprefix("the ") for part in reversed(parts)]
    body[-1] = vocabulary.lower_first(body[-1])
    if prefix in ("Displaced ", "Nondisplaced "):  # these belong to the fracture, the others to the whole
        body[-1] = prefix.lower() + body[-1]
        prefix = ""
    return upper_first(prefix + " ".join(body) + rest)


def _undo_inversion(condition: str, vocabulary: Vocabulary) -> str:
    match = _INVERSION.fullmatch(condition)
    if match is None or re.search(r"\b(?:and|or|of|with|to|by|in|for|not|due|any)\b", match["adjective"]):
        return ""
    return upper_first(f"{match['adjective'].strip()} {vocabulary.lower_first(match['head'])}")


def _cause_first(condition: str, vocabulary: Vocabulary) -> str:
    effect, due, cause = condition.partition(" due to ")
    if not due or "," in effect or " due to " in cause:
        return ""
    return upper_first(f"due to {vocabulary.lower_first(cause)}, {vocabulary.lower_first(effect)}")


def _invert(condition: str, vocabulary: Vocabulary) -> str:
    words = condition.split(" ")
    has_plain_head = words[-1].isalpha() and words[-1].islower()
    if not 2 <= len(words) <= 4 or not has_plain_head or {"and", "or", "of"} & set(words) or _TAIL.search(condition):
        return condition
    adjective = vocabulary.lower_first(" ".join(words[:-1]))
    return f"{upper_first(words[-1])}, {adjective}"


def attach_qualifier(condition: str, qualifier: str, vocabulary: Vocabulary, chance: Chance) -> str:
    """Put a qualifier that stood behind a comma where speech puts it."""
    plain = vocabulary.lower_first(condition)
    return chance.pick(_forms_for(condition, qualifier)).format(x=plain, q=qualifier)


def _forms_for(condition: str, qualifier: str) -> tuple[str, ...]:
    """Where this kind of qualifier may stand: `{q}` beside the condition `{x}`."""
    if qualifier in _FORMS:
        return _FORMS[qualifier]
    kind = "trimester" if qualifier.endswith("trimester") else qualifier.partition(" ")[0]
    if kind in _FORMS_BY_WORD:
        return _FORMS_BY_WORD[kind]
    if not _SITE.match(qualifier):
        return ("{q}, {x}",)
    if " of " in condition or " in " in condition:
        return ("{q} {x}", "{q}, {x}", "{x} ({q})")
    return ("{q} {x}", "{x} of {q}", "{x} in {q}", "{q}: {x}")


def move_encounter(text: str, encounter: str, vocabulary: Vocabulary, chance: Chance) -> str:
    """Say the encounter first. Raises nothing: an encounter without a known form keeps its words."""
    plain = vocabulary.lower_first(text)
    if encounter == "sequela":
        return chance.pick((f"sequela of {plain}", f"sequela of {plain}", f"sequelae of {plain}", f"sequela, {plain}"))
    visit, _, reason = encounter.partition(" for ")
    match = _HEALING.fullmatch(reason)
    if match is None:
        return f"{encounter}{chance.pick((' for', ' for', ',', ':'))} {plain}"
    kind, healing = match["type"], match["healing"] or ""
    forms: list[Callable[[], str]] = [
        lambda: f"{encounter}, {plain}",
        lambda: f"{visit} for {plain}, {kind}{healing}" if kind != "fracture" else f"{visit} for {plain}{healing}",
        lambda: f"{visit} for {kind}{healing} of {plain}" if kind != "fracture" else f"{visit} for {plain}{healing}",
    ]
    if " type " not in kind and kind != "fracture" and "fracture" in plain:
        forms.append(lambda: f"{visit} for {kind.split()[0]} {plain}{healing}")
    return chance.pick(forms)()
