"""What a release changes for a hospital: the report of `steps/report_release.py`, built from what was read, without database."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

from llmcoder_tasks.icd10cm.changes import ChangedCodes, ChangeKind, find_changed_codes

KINDS: tuple[ChangeKind, ...] = ("added", "deleted", "became_header", "revised")


@dataclass(frozen=True, slots=True)
class ReleaseTitles:
    """A release, the day it takes effect, and the long titles of its billable codes."""

    release_key: str
    effective_from: date
    titles: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Usage:
    """In how many encounters each code is final, over discharges of these days, both included. None: nothing is coded yet."""

    first: date | None
    last: date | None
    codes: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class OutdatedEncounter:
    """An encounter that the release concerns and that an older or a withdrawn one coded.

    `is_reviewed`: a person had finished its review.
    """

    encounter_id: str
    discharge_date: date
    is_reviewed: bool


@dataclass(frozen=True, slots=True)
class DeadCorrection:
    """A correction of a reviewer whose code is dead; `successor` is what it trains instead, None where that is not one code."""

    action_id: int
    code: str
    successor: str | None


@dataclass(frozen=True, slots=True)
class Pace:
    """What was measured here: seconds to code a note, median minutes of a review, minutes of a full training. None: never."""

    seconds_a_note: float | None = None
    minutes_a_review: float | None = None
    training_minutes: float | None = None


@dataclass(frozen=True, slots=True)
class ReportedChange:
    """A change of one billable code. `used` counts encounters of the last twelve months; `followers` took over from it."""

    code: str
    kind: ChangeKind
    chapter: str
    old_title: str | None
    new_title: str | None
    followers: tuple[str, ...]
    used: int


@dataclass(frozen=True, slots=True)
class ReleaseReport:
    """All of it. `previous` is None for the first loaded release, which is compared with nothing.

    `withdrawn` is the release whose place this one took because its publisher corrected it, and `corrections` what that changed;
    None and empty for others.
    """

    release_key: str
    effective_from: date
    previous: str | None
    changes: tuple[ReportedChange, ...]
    used_from: date | None
    used_until: date | None
    outdated: tuple[OutdatedEncounter, ...]
    dead_corrections: tuple[DeadCorrection, ...]
    pace: Pace
    withdrawn: str | None = None
    corrections: tuple[ReportedChange, ...] = ()

    @property
    def report_id(self) -> str:
        """The release and a fingerprint of everything that is reported."""
        return f"{self.release_key}-{hashlib.sha256(self.render_json().encode()).hexdigest()[:8]}"

    @property
    def by_chapter(self) -> dict[str, dict[ChangeKind, int]]:
        """Changes of each kind, for chapters that have any, in order."""
        counts = Counter((change.chapter, change.kind) for change in self.changes)
        chapters = sorted({change.chapter for change in self.changes}, key=int)
        return {chapter: {kind: counts[chapter, kind] for kind in KINDS} for chapter in chapters}

    @property
    def used(self) -> tuple[ReportedChange, ...]:
        """Changed codes that the hospital used, the most frequent first."""
        return _sort_used(self.changes)

    @property
    def used_corrections(self) -> tuple[ReportedChange, ...]:
        """The same of what the correction changed."""
        return _sort_used(self.corrections)

    @property
    def by_month(self) -> dict[str, int]:
        """Encounters to code again, by month of discharge."""
        return dict(sorted(Counter(f"{one.discharge_date:%Y-%m}" for one in self.outdated).items()))

    @property
    def counts(self) -> dict[str, int]:
        """The figures that a table shows."""
        kinds = Counter(change.kind for change in self.changes)
        return {
            **{kind: kinds[kind] for kind in KINDS},
            "to_learn": kinds["added"] + kinds["revised"],
            "used": len(self.used),
            "to_recode": len(self.outdated),
            "reviews_to_reopen": sum(one.is_reviewed for one in self.outdated),
            "dead_corrections": len(self.dead_corrections),
            "corrected": len(self.corrections),
            "corrected_used": len(self.used_corrections),
        }

    @property
    def minutes(self) -> dict[str, float | None]:
        """Expected minutes of coding again, of reviews that open again, and of a full training, from what was measured here."""
        seconds, review = self.pace.seconds_a_note, self.pace.minutes_a_review
        return {
            "recode": round(len(self.outdated) * seconds / 60, 1) if seconds is not None else None,
            "review": round(self.counts["reviews_to_reopen"] * review, 1) if review is not None else None,
            "full_training": round(self.pace.training_minutes, 1) if self.pace.training_minutes is not None else None,
        }

    def render_json(self) -> str:
        """The whole report; of encounters it holds ids and dates."""
        derived: dict[str, Any] = {name: getattr(self, name) for name in ("counts", "by_chapter", "by_month", "minutes")}
        return json.dumps(asdict(self) | derived, indent=1, default=str)


def build_report(
    release: ReleaseTitles,
    previous: ReleaseTitles | None,
    *,
    conversions: Mapping[str, Set[str]],
    chapter_of: Callable[[str], str],
    usage: Usage,
    outdated: Sequence[OutdatedEncounter],
    dead_corrections: Sequence[DeadCorrection],
    pace: Pace,
    withdrawn: ReleaseTitles | None = None,
) -> ReleaseReport:
    """The report of a release against the loaded one before it, and against the one whose correction it is, where there is one.

    `conversions` are followers of codes by the tables up to it.
    """

    def compare(before: ReleaseTitles | None) -> tuple[ReportedChange, ...]:
        return _list_changes(before.titles, release.titles, conversions, chapter_of, usage) if before else ()

    return ReleaseReport(
        release.release_key,
        release.effective_from,
        previous.release_key if previous else None,
        compare(previous),
        usage.first,
        usage.last,
        tuple(outdated),
        tuple(dead_corrections),
        pace,
        withdrawn.release_key if withdrawn else None,
        compare(withdrawn),
    )


def _list_changes(
    before: Mapping[str, str],
    after: Mapping[str, str],
    conversions: Mapping[str, Set[str]],
    chapter_of: Callable[[str], str],
    usage: Usage,
) -> tuple[ReportedChange, ...]:
    """Changes between the long titles of the billable codes of two releases, by code."""
    changed = find_changed_codes(before, after, conversions)
    return tuple(
        ReportedChange(
            code,
            kind,
            chapter_of(code),
            before.get(code),
            after.get(code),
            tuple(sorted(changed.followers.get(code, ()))),
            usage.codes.get(code, 0),
        )
        for code, kind in sorted(_kinds_of(changed).items())
    )


def _sort_used(changes: Sequence[ReportedChange]) -> tuple[ReportedChange, ...]:
    return tuple(sorted((change for change in changes if change.used), key=lambda change: (-change.used, change.code)))


def _kinds_of(changed: ChangedCodes) -> dict[str, ChangeKind]:
    kinds: dict[str, ChangeKind] = {code: "added" for code in changed.added}
    kinds |= {code: "revised" for code in changed.revised}
    for code, followers in changed.followers.items():
        kinds[code] = "became_header" if any(name.startswith(code) for name in followers) else "deleted"
    return kinds
