"""What changed between two releases, computed from their billable codes."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

ChangeKind = Literal["added", "deleted", "became_header", "revised"]


class CodeChange(NamedTuple):
    """A change to one billable code. `revised` is any difference in the long title, spacing included."""

    kind: ChangeKind
    old_title: str | None
    new_title: str | None


def compute_changes(before: Mapping[str, str], after: Mapping[str, str], headers: Mapping[str, str]) -> dict[str, CodeChange]:
    """Changes from one release to the next, by code.

    `before` and `after` map billable codes to long titles, `headers` maps the headers of the later release to theirs. A code that is
    billable no more became a header when codes stand below it now, and is deleted otherwise: that holds for a release without
    header rows too, where the title of the code it became stays the old one.
    """
    changes = {code: CodeChange("added", None, title) for code, title in after.items() if code not in before}
    ordered: list[str] | None = None
    for code, title in before.items():
        new_title = after.get(code)
        if new_title is None:
            ordered = ordered or sorted(after)
            if _has_codes_below(code, ordered):
                changes[code] = CodeChange("became_header", title, headers.get(code, title))
            else:
                changes[code] = CodeChange("deleted", title, None)
        elif new_title != title:
            changes[code] = CodeChange("revised", title, new_title)
    return changes


def count_changes(changes: Iterable[CodeChange]) -> dict[ChangeKind, int]:
    """How many changes there are of each kind, zeros included."""
    counts = Counter(change.kind for change in changes)
    kinds: tuple[ChangeKind, ...] = ("added", "deleted", "became_header", "revised")
    return {kind: counts[kind] for kind in kinds}


def _has_codes_below(code: str, ordered: list[str]) -> bool:
    place = bisect_right(ordered, code)
    return place < len(ordered) and ordered[place].startswith(code)
