"""How many examples of which kind: the knobs of a dataset."""

from __future__ import annotations

from dataclasses import dataclass

from llmcoder_tasks.errors import DatasetError

CONDITION_COUNTS = (2, 5)
"""Fewest and most conditions in a text of the scenario `multiple`."""


@dataclass(frozen=True, slots=True)
class DatasetConfig:
    """The knobs, with the defaults of the demo.

    `reordered`, `abbreviations`, `typos` and `sentences` are variations for each code that is trained on (held-out codes have one
    each, so that suites do not depend on how much is learnt); `multiple` is in how many texts of several
    conditions each code appears; `notes` is the number of made-up discharge notes in all. `held_out_share` of the codes keep their
    variations for validation, as many for test: no variation of theirs is trained on.
    """

    seed: int = 0
    reordered: int = 1
    abbreviations: int = 1
    typos: int = 1
    sentences: int = 1
    multiple: int = 2
    notes: int = 3000
    held_out_share: float = 0.03

    @classmethod
    def of_size(cls, variations_per_code: int, *, seed: int = 0) -> DatasetConfig:
        """So many variations of each code in each scenario of one condition."""
        count = variations_per_code
        return cls(seed=seed, reordered=count, abbreviations=count, typos=count, sentences=count)

    def __post_init__(self) -> None:
        for name in ("reordered", "abbreviations", "typos", "sentences", "multiple", "notes"):
            if getattr(self, name) < 1:
                raise DatasetError(f"{name}={getattr(self, name)}: every scenario needs at least 1, its suite is judged later")
        if not 0 < self.held_out_share < 0.5:
            raise DatasetError(f"held_out_share={self.held_out_share} is not between 0 and 0.5: two such shares are held out")
