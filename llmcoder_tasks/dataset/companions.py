"""Which conditions may stand in one made-up note: those that one person can have, and that a coder reports side by side.

A note's gold is what it asserts, so it asserts nothing that the classification or the guidelines join, exclude or drop. These are
facts of the release and of the guidelines; how the coder in service decides such cases is its own business.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from llmcoder_tasks.dataset.chance import Chance
from llmcoder_tasks.dataset.config import CONDITION_COUNTS
from llmcoder_tasks.dataset.multiple import SIZES
from llmcoder_tasks.dataset.sentences import Patient, find_patient
from llmcoder_tasks.dataset.variations import Source
from llmcoder_tasks.icd10cm.code_set import CodeSet
from llmcoder_tasks.icd10cm.tabular_notes import TabularNotes

_CATEGORY = 3
_SYMPTOMS = "R"
_STATUS = "Z"
_INJURIES = ("S", "T")
_EXTERNAL_CAUSES = ("V", "W", "X", "Y")
_NEWBORN_CHAPTERS = ("P", "Q", "Z")
_JOINED = (
    (("I10", "I11", "I12", "I13", "I15", "I1A"), ("I50", "I51", "N18", "N19")),  # guideline I.C.9.a
    (("E08", "E09", "E10", "E11", "E13"), ("N18", "N19", "G5", "G6", "G99", "H28", "H35", "H36", "H42", "I7", "K31", "L97", "L98",
      "M14", "M86", "E16")),  # I.A.15, I.C.4.a; index, `Diabetes, with`
    (("J44",), ("J0", "J1", "J20", "J21", "J22", "J4")),  # I.C.10.a
)  # fmt: skip
"""Conditions of which the classification has a combination code, or presumes that one comes from the other."""
_LOOKED_THROUGH = 2_000
"""Conditions that are tried for a note before it stays smaller than wanted."""


@dataclass(frozen=True)
class Companions:
    """Decides for the codes of one release."""

    sources: Mapping[str, Source]
    notes: TabularNotes

    @classmethod
    def of_release(cls, code_set: CodeSet, sources: Mapping[str, Source]) -> Companions:
        """Prepare for a release; one without a tabular list excludes nothing."""
        return cls(sources, TabularNotes(code_set))

    def deal(self, codes: Sequence[str], chance: Chance) -> Iterator[list[str]]:
        """Groups of two to five conditions for notes, no code twice, no external cause first. What finds no company is left out."""
        rest = iter(chance.shuffled(codes))
        waiting = list(islice(rest, _LOOKED_THROUGH))
        while (first := next((code for code in waiting if not code.startswith(_EXTERNAL_CAUSES)), None)) is not None:
            group = [first]
            size = chance.pick(SIZES)
            for code in waiting:
                if len(group) == size:
                    break
                if self.fits(code, group):
                    group.append(code)
            waiting = [code for code in waiting if code not in group] + list(islice(rest, len(group)))
            if len(group) >= CONDITION_COUNTS[0]:
                yield group

    def fits(self, code: str, group: Sequence[str]) -> bool:
        """Whether a note that asserts a group of conditions may assert one more. An external cause needs its injury there."""
        if code.startswith(_EXTERNAL_CAUSES) and not any(self._causes(code, other) for other in group):
            return False
        return all(self.agree(code, other) for other in group)

    def agree(self, one: str, other: str) -> bool:
        """Whether one person can have both conditions, and a coder reports both.

        A category stands once (guideline I.B.8, and I.B.18 for its unspecified codes), a symptom beside no diagnosis that might
        explain it (I.B.4, I.B.5), one external cause beside no other, and nothing beside what the tabular list excludes
        (Excludes1, I.A.12.a) or joins to it.
        """
        if one[:_CATEGORY] == other[:_CATEGORY] or not self._is_one_person(one, other):
            return False
        if one.startswith(_EXTERNAL_CAUSES) and other.startswith(_EXTERNAL_CAUSES):
            return False
        for code, beside in ((one, other), (other, one)):
            if code.startswith(_SYMPTOMS) and not beside.startswith((_SYMPTOMS, _STATUS)):
                return False
            if any(code.startswith(parts) and beside.startswith(others) for parts, others in _JOINED):
                return False
            if self.notes.names(code, "excludes1", beside):
                return False
        return True

    def _is_one_person(self, one: str, other: str) -> bool:
        first, second = self._patient(one), self._patient(other)
        if first.sex and second.sex and first.sex != second.sex:
            return False
        return all(
            patient.is_newborn or code.startswith(_NEWBORN_CHAPTERS)
            for patient, code in ((first, one), (second, other))
            if first.is_newborn or second.is_newborn
        )

    def _patient(self, code: str) -> Patient:
        return find_patient(code, self.sources[code].parts.condition)

    def _causes(self, cause: str, injury: str) -> bool:
        """Whether an external cause can belong to an injury: both of the same encounter (guideline I.C.20.a.2)."""
        encounters = {self.sources[code].parts.encounter.partition(" ")[0] for code in (cause, injury)} - {""}
        return injury.startswith(_INJURIES) and len(encounters) <= 1
