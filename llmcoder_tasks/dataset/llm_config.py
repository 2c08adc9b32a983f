"""What is asked of a language model that writes variations, and how: the knobs of `generate_variations`."""

from __future__ import annotations

from dataclasses import dataclass

from llmcoder_tasks.dataset.config import DatasetConfig
from llmcoder_tasks.errors import DatasetError

LLM_SCENARIOS = ("reordered", "abbreviations", "typos", "sentences")
"""Scenarios with a prompt in `prompts/`."""


@dataclass(frozen=True, slots=True)
class VariationsConfig:
    """What the set is to hold; part of its id.

    `count` variations of each code in each scenario, of the first `limit` codes (a fair sample; None: all). `seed` and
    `held_out_share` are those of the dataset it is meant for: variations of held-out codes could not be trained on, so that
    nobody is asked for them.
    """

    seed: int = 0
    scenarios: tuple[str, ...] = LLM_SCENARIOS
    count: int = 2
    limit: int | None = None
    held_out_share: float = DatasetConfig().held_out_share

    def __post_init__(self) -> None:
        unknown = sorted(set(self.scenarios) - set(LLM_SCENARIOS))
        if unknown or not self.scenarios:
            raise DatasetError(f"no prompt for {', '.join(unknown) or 'no scenario'}: there are {', '.join(LLM_SCENARIOS)}")
        if not 1 <= self.count <= 20:
            raise DatasetError(f"count={self.count} is not between 1 and 20: ask for fewer variations of a title at once")
        if self.limit is not None and self.limit < 1:
            raise DatasetError(f"limit={self.limit} leaves no code: give 1 or more, or none for all codes")


@dataclass(frozen=True, slots=True)
class AskingConfig:
    """How the questions are asked; not part of the set's id.

    `retries` are those of one request (each later than the one before, or when `Retry-After` says); `rounds` is how often a code is
    asked for whose answer was missing or refused, each time with fewer beside it. `max_cost` is in the currency of the prices.
    """

    batch_size: int = 20
    concurrency: int = 4
    timeout_seconds: float = 120.0
    retries: int = 5
    rounds: int = 3
    max_cost: float | None = None

    def __post_init__(self) -> None:
        for name in ("batch_size", "concurrency", "rounds", "timeout_seconds"):
            if getattr(self, name) <= 0:
                raise DatasetError(f"{name}={getattr(self, name)} is not positive")
