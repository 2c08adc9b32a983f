"""What changed between two releases, computed from their billable codes."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

ChangeKind = Literal["added", "deleted", "became_header", "revised"]


class Titles(NamedTuple):
    """Both titles of a code."""

    short_title: str
    long_title: str


class CodeChange(NamedTuple):
    """A change to one billable code.

    `revised` is any difference in the long title or the short one, spacing included. The two titles are long ones; they are short ones
    where only the short title was revised.
    """

    kind: ChangeKind
    old_title: str | None
    new_title: str | None


def compute_changes(
    before: Mapping[str, Titles], after: Mapping[str, Titles], headers: Mapping[str, Titles]
) -> dict[str, CodeChange]:
    """Changes from one release to the next, by code.

    `before` and `after` hold the billable codes, `headers` the headers of the later release. A code that is billable no more became a
    header when codes stand below it now, and is deleted otherwise: that holds for a release without header rows too, where the title
    of the header is taken to be the old one. Short titles are compared only when both releases have some of their own.
    """
    changes = {code: CodeChange("added", None, titles.long_title) for code, titles in after.items() if code not in before}
    compare_short = _has_short_titles(before) and _has_short_titles(after)
    ordered: list[str] | None = None
    for code, old in before.items():
        new = after.get(code)
        if new is None:
            ordered = ordered or sorted(after)
            if _has_codes_below(code, ordered):
                changes[code] = CodeChange("became_header", old.long_title, headers.get(code, old).long_title)
            else:
                changes[code] = CodeChange("deleted", old.long_title, None)
        elif new.long_title != old.long_title:
            changes[code] = CodeChange("revised", old.long_title, new.long_title)
        elif compare_short and new.short_title != old.short_title:
            changes[code] = CodeChange("revised", old.short_title, new.short_title)
    return changes


def count_changes(changes: Iterable[CodeChange]) -> dict[ChangeKind, int]:
    """How many changes there are of each kind, zeros included."""
    counts = Counter(change.kind for change in changes)
    kinds: tuple[ChangeKind, ...] = ("added", "deleted", "became_header", "revised")
    return {kind: counts[kind] for kind in kinds}


def _has_short_titles(codes: Mapping[str, Titles]) -> bool:
    return any(titles.short_title != titles.long_title for titles in codes.values())


def _has_codes_below(code: str, ordered: list[str]) -> bool:
    place = bisect_right(ordered, code)
    return place < len(ordered) and ordered[place].startswith(code)
