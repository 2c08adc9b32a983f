"""What changed between two releases, computed from their billable codes."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Literal, NamedTuple

ChangeKind = Literal["added", "deleted", "became_header", "revised"]


Titles = tuple[str, str]
"""Short and long title of a code."""


class CodeChange(NamedTuple):
    """A change to one billable code.

    `revised` is any difference in the long title or the short one, spacing included. The two titles are long ones; they are short
    ones where only the short title was revised.
    """

    kind: ChangeKind
    old_title: str | None
    new_title: str | None


def compute_changes(
    before: Mapping[str, Titles], after: Mapping[str, Titles], headers: Mapping[str, Titles]
) -> dict[str, CodeChange]:
    """Changes from one release to the next, by code.

    `before` and `after` hold the billable codes, `headers` the headers of the later release. A code that is billable no more
    became a header when codes stand below it now, and is deleted otherwise: that holds for a release without header rows too,
    where the title of the header is taken to be the old one. Short titles are compared only when both releases have some of their
    own.
    """
    changes = {code: CodeChange("added", None, long) for code, (_, long) in after.items() if code not in before}
    compare_short = _has_short_titles(before) and _has_short_titles(after)
    ordered: list[str] | None = None
    for code, (old_short, old_long) in before.items():
        new = after.get(code)
        if new is None:
            ordered = ordered or sorted(after)
            if _has_codes_below(code, ordered):
                changes[code] = CodeChange("became_header", old_long, headers.get(code, ("", old_long))[1])
            else:
                changes[code] = CodeChange("deleted", old_long, None)
        elif new[1] != old_long:
            changes[code] = CodeChange("revised", old_long, new[1])
        elif compare_short and new[0] != old_short:
            changes[code] = CodeChange("revised", old_short, new[0])
    return changes


@dataclass(frozen=True, slots=True)
class ChangedCodes:
    """The billable codes that a coder of an earlier release has to learn anew, or to give up.

    `followers` are the codes that took over from each code that is billable no more: by a conversion table, and below a code that
    became a header. `successors` are those of them that are new.
    """

    added: frozenset[str]
    revised: frozenset[str]
    successors: frozenset[str]
    followers: Mapping[str, frozenset[str]]

    @property
    def to_learn(self) -> frozenset[str]:
        """Codes that are new or have another title."""
        return self.added | self.revised


def find_changed_codes(before: Mapping[str, str], after: Mapping[str, str], conversions: Mapping[str, Set[str]]) -> ChangedCodes:
    """What changed between any two releases, neighbours or not, from the long titles of their billable codes.

    `conversions` are the codes that took over from a code, by the tables up to the later release.
    """
    ordered = sorted(after)
    added = frozenset(after.keys() - before.keys())
    followers = {}
    for code in sorted(before.keys() - after.keys()):
        place = bisect_right(ordered, code)
        below = [name for name in ordered[place : bisect_right(ordered, f"{code}~")] if name.startswith(code)]
        followers[code] = frozenset(below) | {name for name in conversions.get(code, ()) if name in after}
    successors = frozenset(name for names in followers.values() for name in names) & added
    revised = frozenset(code for code, title in before.items() if code in after and after[code] != title)
    return ChangedCodes(added, revised, successors, followers)


def count_changes(changes: Iterable[CodeChange]) -> dict[ChangeKind, int]:
    """How many changes there are of each kind, zeros included."""
    counts = Counter(change.kind for change in changes)
    kinds: tuple[ChangeKind, ...] = ("added", "deleted", "became_header", "revised")
    return {kind: counts[kind] for kind in kinds}


def _has_short_titles(codes: Mapping[str, Titles]) -> bool:
    return any(short != long for short, long in codes.values())


def _has_codes_below(code: str, ordered: list[str]) -> bool:
    place = bisect_right(ordered, code)
    return place < len(ordered) and ordered[place].startswith(code)
