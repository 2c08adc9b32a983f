"""The codes of a note while rules work on them, and the record of what each rule did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from llmcoder_tasks.coding.rules.policy import CodingPolicy
from llmcoder_tasks.icd10cm.tabular_notes import TabularNotes
from llmcoder_tasks.records import Action, Decision, Finding, render_code

if TYPE_CHECKING:
    from llmcoder_tasks.icd10cm.code_set import CodeSet


_SHORTEST = 4  # characters of a code below a category


@dataclass(frozen=True, slots=True)
class Proposed:
    """A code that a note gave: evidence `text[start:end]`; named in the final list or not; said with doubt or not."""

    code: str
    confidence: float
    decision: Decision
    start: int
    end: int
    is_listed: bool = True
    is_uncertain: bool = False


class RuleBook:
    """What rules look up in a release: built once for each coder."""

    def __init__(self, code_set: CodeSet) -> None:
        self.titles: Mapping[str, str] = code_set.titles
        self.headers: Mapping[str, str] = {code.code: code.long_title for code in code_set.codes if not code.is_billable}
        self.notes = TabularNotes(code_set)

    @cached_property
    def codes_by_title(self) -> Mapping[str, str]:
        """Billable code of each title, in small letters."""
        return {title.casefold(): code for code, title in self.titles.items()}

    def is_unspecified(self, code: str) -> bool:
        """Whether the title leaves open what a code beside it says."""
        return _leaves_open(self.titles.get(code, ""))

    def leaves_open(self, code: str, other: str) -> bool:
        """Whether an unspecified code means a condition of which the other says more: both below the header that it leaves open.

        A category such as N39 collects conditions of many kinds: there the other title must hold the words of the unspecified one.
        """
        if len(code) == _SHORTEST and not code.endswith("9"):
            said = set(self.titles[code].casefold().split(",")[0].split())
            return code[:-1] == other[:-1] and said <= set(self.titles[other].casefold().replace(",", " ").split())
        stem = code[:-1]
        while len(stem) >= _SHORTEST and (stem not in self.headers or _leaves_open(self.headers[stem])):
            stem = stem[:-1]
        return other.startswith(stem)

    def is_manifestation(self, code: str) -> bool:
        """Whether the title says that the cause has a code of its own, which goes first (guideline I.A.13)."""
        title = self.titles.get(code, "").casefold()
        return "classified elsewhere" in title and "as the cause of" not in title


def _leaves_open(title: str) -> bool:
    return any(mark in title.casefold() for mark in ("unspecified", "not specified", "without complications"))


class Draft:
    """The codes of one note in order, changed by rules through methods that each leave a finding."""

    def __init__(self, proposed: Sequence[Proposed], text: str, book: RuleBook, policy: CodingPolicy) -> None:
        self.items = list(proposed)
        self.findings: list[Finding] = []
        self.text = text
        self.book = book
        self.policy = policy

    def find(self, *prefixes: str) -> list[Proposed]:
        """The codes that begin with one of the prefixes."""
        return [item for item in self.items if item.code.startswith(prefixes)]

    def words_around(self, item: Proposed) -> str:
        """The line of the note that the evidence stands in, cut at the borders of the sentence, in small letters."""
        start = max(self.text.rfind(mark, 0, item.start) for mark in ("\n", ". ", ";")) + 1
        ends = [end for mark in ("\n", ". ", ";") if (end := self.text.find(mark, item.end)) >= 0]
        return self.text[start : min(ends, default=len(self.text))].casefold()

    def remove(self, item: Proposed, rule: str, reason: str, because: Proposed | None = None) -> None:
        """Take a code out."""
        self.items.remove(item)
        self._record(item, rule, "removed", reason, because.code if because else None)

    def swap(self, item: Proposed, code: str, rule: str, reason: str, because: Proposed | None = None) -> None:
        """Put another code in the place of one; the less sure of the two it rests on says how sure it is.

        A code that the release does not have leaves everything as it is.
        """
        if code not in self.book.titles:
            return
        self._record(item, rule, "replaced", reason, code)
        place = self.items.index(item)
        if any(other.code == code for other in self.items):
            del self.items[place]
        else:
            self.items[place] = _rest_on(item, code, because)

    def add(self, item: Proposed, code: str, rule: str, reason: str, because: Proposed) -> None:
        """Put a code before one from which, together with another, it follows."""
        if code not in self.book.titles or any(other.code == code for other in self.items):
            return
        added = _rest_on(item, code, because)
        self.items.insert(self.items.index(item), added)
        self._record(added, rule, "added", reason, item.code)

    def flag(self, item: Proposed, rule: str, reason: str, because: Proposed | None = None) -> None:
        """Say something about a code that stays."""
        self._record(item, rule, "flagged", reason, because.code if because else None)

    def send_to_review(self, item: Proposed) -> None:
        """A person looks at the code, however sure the model is."""
        self.items[self.items.index(item)] = replace(item, decision="review")

    def move_before(self, item: Proposed, other: Proposed) -> None:
        """Let a code stand right before another one."""
        self.items.remove(item)
        self.items.insert(self.items.index(other), item)

    def _record(self, item: Proposed, rule: str, action: Action, reason: str, related: str | None) -> None:
        self.findings.append(Finding(rule, action, item.code, related, reason, item.start, item.end))


def _rest_on(item: Proposed, code: str, because: Proposed | None) -> Proposed:
    if because is None:
        return replace(item, code=code)
    decision: Decision = "auto" if item.decision == because.decision == "auto" else "review"
    return replace(item, code=code, confidence=min(item.confidence, because.confidence), decision=decision)


def shown(*codes: str) -> str:
    """Codes as people write them, joined by `and`."""
    return " and ".join(render_code(code) for code in codes)
