"""How each coder answered each item. Kept beside the scorecard, so that a later model can be compared item by item."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, fields
from pathlib import Path

from llmcoder_tasks.errors import EvaluationError
from llmcoder_tasks.evaluation.error_kinds import ErrorKind, find_error_kind
from llmcoder_tasks.evaluation.metrics import calculate_item_f1, is_category_match, is_exact_match
from llmcoder_tasks.evaluation.suites import Suite, hash_item

Predictor = Callable[[Sequence[str]], list[tuple[str, ...]]]
"""Texts in, the codes of each text out, without dots, in the same order."""


NOTES_SCENARIO = "notes"


@dataclass(frozen=True, slots=True)
class CoderRow:
    """One row of a scorecard: a predictor for phrases, one for whole notes, and how many items of a scenario it answers at most.

    `ask_ahead` takes the texts of all suites at once, where the row's model is behind a server that likes that better.
    """

    coder: str
    phrases: Predictor
    notes: Predictor
    limit: int
    ask_ahead: Predictor | None = None

    def prepare(self, suites: Sequence[Suite]) -> None:
        """Do at once what can be done at once."""
        if self.ask_ahead is not None:
            self.ask_ahead([example.text for suite in suites for example in suite.head(self.limit).examples])

    def score(self, suite: Suite, *, known_codes: Set[str]) -> list[Outcome]:
        """The outcomes of this row on a suite, or on as much of it as the row's limit allows."""
        predictor = self.notes if suite.scenario == NOTES_SCENARIO else self.phrases
        return score_suite(self.coder, predictor, suite.head(self.limit), known_codes=known_codes)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One coder's answer on one item. `item_sha256` is over text and true codes."""

    coder: str
    scenario: str
    example_id: str
    item_sha256: str
    true: tuple[str, ...]
    predicted: tuple[str, ...]
    exact: bool
    category: bool
    f1: float
    error_kind: ErrorKind | None


_COLUMNS = [column.name for column in fields(Outcome)]


def score_suite(coder: str, predictor: Predictor, suite: Suite, *, known_codes: Set[str]) -> list[Outcome]:
    """Let a predictor answer a suite. Raises EvaluationError when it gives more or fewer answers than there are items."""
    answers = predictor([example.text for example in suite.examples])
    if len(answers) != len(suite.examples):
        raise EvaluationError(
            f"{coder} gave {len(answers)} answers to the {len(suite.examples)} items of {suite.scenario}: mend its predictor"
        )
    outcomes = []
    for example, predicted in zip(suite.examples, answers, strict=True):
        true_set, predicted_set = frozenset(example.codes), frozenset(predicted)
        outcomes.append(
            Outcome(
                coder=coder,
                scenario=suite.scenario,
                example_id=example.example_id,
                item_sha256=hash_item(example),
                true=example.codes,
                predicted=tuple(predicted),
                exact=is_exact_match(true_set, predicted_set),
                category=is_category_match(true_set, predicted_set),
                f1=calculate_item_f1(true_set, predicted_set),
                error_kind=find_error_kind(true_set, predicted_set, known_codes=known_codes),
            )
        )
    return outcomes


def write_outcomes(outcomes: Sequence[Outcome], path: Path) -> None:
    """Write outcomes as Parquet, one row an answer, columns named like the fields."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    codes = pa.list_(pa.string())
    types = {"exact": pa.bool_(), "category": pa.bool_(), "f1": pa.float64(), "true": codes, "predicted": codes}
    schema = pa.schema([(name, types.get(name, pa.string())) for name in _COLUMNS])
    columns = {name: [getattr(outcome, name) for outcome in outcomes] for name in _COLUMNS}
    pq.write_table(pa.table(columns, schema=schema), path)


def read_outcomes(path: Path, *, coder: str | None = None) -> list[Outcome]:
    """The inverse of `write_outcomes`, or the outcomes of one coder. Raises EvaluationError when the file is none of that kind."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        filters = [("coder", "==", coder)] if coder else None
        rows = pq.read_table(path, columns=_COLUMNS, filters=filters).to_pylist()
        return [Outcome(**{**row, "true": tuple(row["true"]), "predicted": tuple(row["predicted"])}) for row in rows]
    except (pa.ArrowException, TypeError, KeyError, OSError) as error:
        raise EvaluationError(f"{path.name} holds no outcomes ({type(error).__name__}): evaluate the model again") from error
