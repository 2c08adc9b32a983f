"""Rules that make a code say exactly what the note supports."""

from __future__ import annotations

import re

from llmcoder_tasks.coding.rules.draft import Draft, Proposed, shown

_LENGTH = 7
_INJURIES = ("S", "T", "V", "W", "X", "Y")
_LATER = re.compile(
    r"\b(subsequent|subs|subseq|follow[- ]?up|f/?u|aftercare|heal|heals|healing|nonun(?:ion)?|malun(?:ion)?|sequelae?|seq"
    r"|late effects?|lasting effects?|after-?effects?|long-term consequences|residual|old|healed)\b"
)
_LATER_WORDS = ("subsequent", "sequela", "nonunion", "malunion")
_LIKE_ENOUGH = 73
"""How alike (0 to 100) a mistyped word and the one meant are: `subskwent` and `subsequent` are 74, `consequent` 70, `bunion` 71."""
_SIDES = ("bilateral", "right", "left")
_STAGE = re.compile(r"\bstage\s+([1-5][ab]?|iv|iii|ii|i|v)\b")
_ROMAN = {"i": "1", "ii": "2", "iii": "3", "iv": "4", "v": "5"}
_SITES = ("S", "T", "C", "D", "M", "Z")

_CONFIRMED_ONLY = ("B20", "J09", "J10", "U071", "A925")
_HELD_BY = {"E11": ("E08", "E10", "E13", "O24"), "J45": ("J44",), "I50": ("I0981",)}
"""Codes that the classification has inside others: diabetes of another kind, asthma with chronic obstructive disease."""


def complete_code(draft: Draft) -> None:
    """A code too short for a claim gets its seventh character, over placeholders X; for injuries `A`: active treatment during
    the stay. What no character completes is removed. Guidelines I.A.4, I.A.5, I.B.2 and I.C.19.a.
    """
    for item in list(draft.items):
        if item.code in draft.book.titles:
            continue
        completed = item.code.ljust(_LENGTH - 1, "X") + "A"
        if item.code.startswith(_INJURIES) and completed in draft.book.titles:
            draft.swap(item, completed, "seventh_character", "the code needs a seventh character: A, initial encounter")
        else:
            draft.remove(item, "not_billable", "the release has no such code, or only as a header of more exact codes")


def set_initial_encounter(draft: Draft) -> None:
    """During a stay an injury is coded as an initial encounter unless the note speaks of later care or of a sequela.
    Guideline I.C.19.a.
    """
    for item in draft.find(*_INJURIES):
        initial = item.code[:-1] + "A"
        is_later = len(item.code) == _LENGTH and item.code[-1] in "DGKPS"
        if is_later and initial in draft.book.titles and not _speaks_of_later(draft.words_around(item)):
            draft.swap(item, initial, "initial_encounter", "nothing in the note speaks of a subsequent encounter or a sequela")


def _speaks_of_later(words: str) -> bool:
    """Whether the words say so, whole, short or mistyped; the phrase coder reads them however they are written."""
    from rapidfuzz import fuzz

    if _LATER.search(words):
        return True
    return any(
        fuzz.ratio(word, meant) >= _LIKE_ENOUGH
        for word in re.findall(r"[a-z]{6,}", words)
        if not word.endswith("ly")  # subsequently
        for meant in _LATER_WORDS
    )


def require_confirmation(draft: Draft) -> None:
    """HIV, influenza of identified type, COVID-19 and Zika are coded only when confirmed. Guidelines I.C.1.a, I.C.1.f, I.C.1.g
    and I.C.10.c, exceptions from II.H.
    """
    for item in draft.find(*_CONFIRMED_ONLY):
        if item.is_uncertain:
            draft.remove(item, "confirmed_only", "this diagnosis is coded only when it is confirmed, and the note is not sure")


def review_uncertain(draft: Draft) -> None:
    """An uncertain diagnosis at discharge is coded as if it existed; here never without a person. Guideline II.H."""
    for item in list(draft.items):
        if item.is_uncertain:
            draft.flag(item, "uncertain_diagnosis", "the note is not sure of it: coded as if it existed, to be reviewed")
            draft.send_to_review(item)


def set_side_and_stage(draft: Draft) -> None:
    """An unspecified side or stage gives way to the one that stands beside the condition. Guidelines I.B.2 and I.B.13."""
    for item in list(draft.items):
        better = _find_side(draft, item) or _find_stage(draft, item)
        if better:
            draft.swap(item, better, "side_and_stage", "the note names the side or the stage beside the condition")


def _find_side(draft: Draft, item: Proposed) -> str | None:
    title = draft.book.titles[item.code].casefold()
    words = draft.words_around(item)
    sides = [side for side in _SIDES if re.search(rf"\b{side}\b", words)]
    if "unspecified" not in title or len(sides) != 1:
        return None
    code = draft.book.codes_by_title.get(title.replace("unspecified", sides[0], 1))
    return code if code and code[:4] == item.code[:4] else None


def _find_stage(draft: Draft, item: Proposed) -> str | None:
    title = draft.book.titles[item.code].casefold()
    stages = {_ROMAN.get(stage, stage) for stage in _STAGE.findall(draft.words_around(item))}
    if len(stages) != 1 or not title.endswith((", unspecified", ", unspecified stage")):
        return None
    wanted = f"{title.rsplit(',', 1)[0]}, stage {stages.pop()}"
    near = [
        code
        for code, other in draft.book.titles.items()
        if code[:3] == item.code[:3] and re.match(rf"{re.escape(wanted)}(?![0-9a-z])", other.casefold())
    ]
    return near[0] if len(near) == 1 else None


def drop_unspecified(draft: Draft) -> None:
    """An unspecified code gives way to one that says more of the same condition. Guidelines I.B.2 and I.B.18.

    Where a category holds sites (injuries, neoplasms, joints) two items of the final list may mean two places: both stay. A policy
    can keep all.
    """
    if draft.policy.keep_unspecified:
        return
    for item in list(draft.items):
        if not draft.book.is_unspecified(item.code) or (item.is_listed and item.code.startswith(_SITES)):
            continue
        for other in draft.find(item.code[:3]):
            if not draft.book.is_unspecified(other.code) and draft.book.leaves_open(item.code, other.code):
                draft.remove(item, "unspecified", f"{shown(other.code)} says the same more exactly", other)
                break


def _says_more(draft: Draft, item: Proposed, other: Proposed) -> bool:
    """Whether a code says of the same condition what another one, unspecified, leaves open. Sites may be two places."""
    book = draft.book
    return (
        not other.code.startswith(_SITES)
        and other.code[:3] == item.code[:3]
        and book.is_unspecified(other.code)
        and not book.is_unspecified(item.code)
        and book.leaves_open(other.code, item.code)
    )


def drop_repeated_history(draft: Draft) -> None:
    """What the history names gives way to the final list when that names the category, or a code that holds it: each condition is
    reported once. Where the list leaves open what the history says, its code becomes the exact one. Guidelines I.B.2 and I.B.8.
    """
    listed = [item for item in draft.items if item.is_listed]
    for item in [item for item in draft.items if not item.is_listed]:
        holders = next((codes for part, codes in _HELD_BY.items() if item.code.startswith(part)), ())
        for other in listed:
            if _says_more(draft, item, other):
                draft.items.remove(item)  # it stays, in the place of the other
                draft.swap(other, item.code, "unspecified", "the history says the same more exactly", item)
                break
            if other.code[:3] == item.code[:3] or other.code.startswith(holders):
                draft.remove(
                    item,
                    "repeated_history",
                    f"the final list has {shown(other.code)} in its place, and is the newer statement",
                    other,
                )
                break
