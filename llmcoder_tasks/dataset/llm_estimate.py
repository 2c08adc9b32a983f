"""What asking will cost, before anything is asked; and what it has cost so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llmcoder_tasks.dataset.llm_prompts import Prompt, render_question
from llmcoder_tasks.errors import DatasetError
from llmcoder_tasks.language_model import estimate_tokens
from llmcoder_tasks.settings import LanguageModel

_FRAME_TOKENS = 150  # the answer's schema, and the marks around messages
_ITEM_CHARACTERS = 40  # code, names of the fields, brackets
_LENGTHENING = {"sentences": 2.0}  # of a variation, against the title


@dataclass(frozen=True, slots=True)
class Estimate:
    """Requests, tokens and cost still to come; codes that have to be asked again come on top. `cost` is None without prices."""

    titles: int
    kept: int
    requests: int
    input_tokens: int
    output_tokens: int
    cost: float | None

    def render(self) -> str:
        """One line for people."""
        price = "unknown price" if self.cost is None else f"about {self.cost:,.2f} in the currency of your prices"
        kept = f" ({self.kept:,} more are already answered)" if self.kept else ""
        return (
            f"to ask: {self.titles:,} titles{kept} in {self.requests:,} requests, about {self.input_tokens:,} input and "
            f"{self.output_tokens:,} output tokens, {price}"
        )


def estimate_scenario(
    prompt: Prompt, batches: Sequence[Mapping[str, str]], *, kept: int, count: int, model: LanguageModel
) -> Estimate:
    """The estimate for one scenario; `batches` are code to title, `kept` is how many titles need no question."""
    titles = [title for batch in batches for title in batch.values()]
    asked = sum(len(render_question(batch, count)) + len(prompt.text) for batch in batches)
    said = sum(len(title) * _LENGTHENING.get(prompt.scenario, 1.0) * count + _ITEM_CHARACTERS for title in titles)
    input_tokens = estimate_tokens(asked) + _FRAME_TOKENS * len(batches)
    output_tokens = estimate_tokens(said)
    return Estimate(len(titles), kept, len(batches), input_tokens, output_tokens, cost_of(model, input_tokens, output_tokens))


def add_up(estimates: Sequence[Estimate]) -> Estimate:
    """All scenarios together."""
    costs = [estimate.cost for estimate in estimates]
    return Estimate(
        titles=sum(estimate.titles for estimate in estimates),
        kept=sum(estimate.kept for estimate in estimates),
        requests=sum(estimate.requests for estimate in estimates),
        input_tokens=sum(estimate.input_tokens for estimate in estimates),
        output_tokens=sum(estimate.output_tokens for estimate in estimates),
        cost=None if None in costs else sum(cost for cost in costs if cost is not None),
    )


def cost_of(model: LanguageModel, input_tokens: int, output_tokens: int) -> float | None:
    """The price of some tokens, None where a price is not set."""
    if model.input_price is None or model.output_price is None:
        return None
    return (input_tokens * model.input_price + output_tokens * model.output_price) / 1_000_000


def refuse_above_ceiling(estimate: Estimate, max_cost: float | None) -> None:
    """Raise DatasetError when the estimate is above the ceiling, or cannot be held against it."""
    if max_cost is None:
        return
    if estimate.cost is None:
        raise DatasetError(
            "a ceiling needs prices: set LLMCODER_LLM_INPUT_PRICE and LLMCODER_LLM_OUTPUT_PRICE, for a million tokens"
        )
    if estimate.cost > max_cost:
        raise DatasetError(
            f"{estimate.render()}: above the ceiling of {max_cost:,.2f}; raise --max-cost, or ask for less with --limit, "
            "--scenario or --count"
        )
