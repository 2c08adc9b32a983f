"""What the pages of models show of scorecards: read once, kept by their id, and prepared for templates.

A scorecard never changes once it is written, so that what is kept is never out of date. The worst answers in it are on texts that
LLMCoder made or that are public; of a hospital's notes and corrections a scorecard holds figures alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, islice, zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory

from llmcoder_tasks.coding.coder_fit import CODER_NAME, CoderFit
from llmcoder_tasks.connections import Connections
from llmcoder_tasks.database import Database, Row
from llmcoder_tasks.dataset.example_frames import chapter_of
from llmcoder_tasks.errors import EvaluationError, ModelError, StorageError
from llmcoder_tasks.evaluation.comparison import SliceFigures, compare_outcomes
from llmcoder_tasks.evaluation.error_kinds import ERROR_KINDS
from llmcoder_tasks.evaluation.non_inferiority import estimate_interval
from llmcoder_tasks.evaluation.outcomes import Outcome, read_outcomes
from llmcoder_tasks.evaluation.scorecard import CODERS, Cell, Mistake, Scorecard, parse_scorecard
from llmcoder_tasks.records import SCENARIOS
from llmcoder_tasks.storage import Storage

SHIPPED = CODERS[-1]
MISTAKES_SHOWN = 3
"""Of each coder and kind of error."""

_KEPT = 32
_MOST_BYTES = 64 * 1024**2
"""Of a table of outcomes: twenty times that of an evaluation of a thousand items a scenario."""


@dataclass(frozen=True, slots=True)
class Slice:
    """A slice with the 90 % interval of the difference that the gate's test stands on."""

    figures: SliceFigures
    low: float
    high: float

    @property
    def difference(self) -> float:
        """Ours less theirs by units, the middle of the interval."""
        return self.figures.pairs.difference


@dataclass(frozen=True, slots=True)
class CoderErrors:
    """Wrong answers of one coder over all scenarios: counts by kind, and the worst of each kind with their scenario."""

    coder: str
    n: int
    counts: Mapping[str, int]
    worst: Sequence[tuple[str, Mistake]]


@dataclass(frozen=True, slots=True)
class ScorecardView:
    """A scorecard with what templates need of it."""

    card: Scorecard
    coders: Sequence[str]
    errors: Sequence[CoderErrors]
    slices: Sequence[Slice]

    @property
    def scenarios(self) -> list[str]:
        """Those that somebody answered, in the order of datasets; the database does not keep that of the scorecard."""
        order = {name: place for place, name in enumerate(SCENARIOS)}
        return sorted({cell.scenario for cell in self.card.cells}, key=lambda name: (order.get(name, len(order)), name))

    @property
    def best(self) -> set[tuple[str, str]]:
        """(coder, scenario) of the highest exact match of each scenario."""
        tops = {name: max(cell.exact.value for cell in self.card.cells if cell.scenario == name) for name in self.scenarios}
        return {(cell.coder, cell.scenario) for cell in self.card.cells if cell.exact.value == tops[cell.scenario]}

    @property
    def codes(self) -> list[str]:
        """Every code of the worst answers that are shown, to look its title up."""
        return sorted({code for one in self.errors for _, mistake in one.worst for code in (*mistake.true, *mistake.predicted)})

    def shipped(self, scenario: str) -> Cell | None:
        """How the coder that goes into service did."""
        return self.card.find_cell(SHIPPED, scenario)


@lru_cache(maxsize=_KEPT)
def read_scorecard(database: Database, evaluation_id: str) -> ScorecardView:
    """The scorecard of an evaluation. Raises EvaluationError when it is unknown, or of another version of this program."""
    row = database.fetch_one("fetch_scorecard", evaluation_id=evaluation_id)
    if row is None:
        raise EvaluationError(f"the table scorecards does not know {evaluation_id}")
    card = parse_scorecard(row["scorecard"])
    coders = [coder for coder in CODERS if any(cell.coder == coder for cell in card.cells)]
    slices = measure_intervals(card.comparison.slices) if card.comparison else []
    return ScorecardView(card, coders, [_sum_errors(card, coder) for coder in coders], slices)


def measure_intervals(slices: Sequence[SliceFigures]) -> list[Slice]:
    """Slices with their intervals."""
    return [Slice(figures, *estimate_interval(figures.pairs)) for figures in slices]


def _sum_errors(card: Scorecard, coder: str) -> CoderErrors:
    cells = [cell for cell in card.cells if cell.coder == coder]
    counts = {kind: sum(cell.errors[kind] for cell in cells) for kind in ERROR_KINDS}
    worst: list[tuple[str, Mistake]] = []
    for kind in ERROR_KINDS:
        of_scenario = [[(cell.scenario, mistake) for mistake in cell.worst if mistake.kind == kind] for cell in cells]
        # The worst of each scenario before the second worst of any, so that they are not all of one.
        turns = chain.from_iterable(zip_longest(*of_scenario))
        worst += list(islice((one for one in turns if one is not None), MISTAKES_SHOWN))
    return CoderErrors(coder, sum(cell.n for cell in cells), counts, worst)


@lru_cache(maxsize=_KEPT)
def read_fit(storage: Storage, model_id: str) -> CoderFit:
    """What was fitted after training: reliability and threshold. Raises StorageError when it is not there, ModelError otherwise."""
    return CoderFit.parse(storage.read_bytes(f"coders/{model_id}/{CODER_NAME}"))


def find_fit(stores: Connections, model_id: str) -> tuple[CoderFit | None, str]:
    """`read_fit`, or None and what to say in its place."""
    try:
        return read_fit(stores.storage, model_id), ""
    except ModelError as error:
        return None, str(error)
    except StorageError:
        return None, f"coders/{model_id}/{CODER_NAME} cannot be read from the artifact store: fit the coder, or restore the file."


@lru_cache(maxsize=_KEPT)
def _read_answers(storage: Storage, uri: str) -> tuple[Outcome, ...]:
    """What the coder that goes into service answered, item by item. Raises StorageError and EvaluationError."""
    data = storage.read_bytes(f"{storage.key_of(uri)}/outcomes.parquet")
    if len(data) > _MOST_BYTES:
        raise EvaluationError(f"{uri}/outcomes.parquet is too large for a page ({len(data):,} bytes)")
    with TemporaryDirectory() as folder:
        path = Path(folder) / "outcomes.parquet"
        path.write_bytes(data)
        return tuple(read_outcomes(path, coder=SHIPPED))


@dataclass(frozen=True, slots=True)
class SideBySide:
    """Two models on the same items, ours less theirs; without `slices` the message says why there are none."""

    slices: Sequence[Slice]
    basis: str
    errors: Mapping[str, Mapping[str, int]] | None = None

    def of_scenario(self, scenario: str) -> Slice | None:
        """The slice of a scenario."""
        return next((one for one in self.slices if (one.figures.kind, one.figures.name) == ("scenario", scenario)), None)


def compare_scorecards(stores: Connections, ours: ScorecardView, theirs: ScorecardView, uris: tuple[str, str]) -> SideBySide:
    """Both on the same items: as one was evaluated beside the other, or item by item where both answered the same suites."""
    for first, second, turned in ((ours, theirs, False), (theirs, ours, True)):
        comparison = first.card.comparison
        if comparison and comparison.against_model_id == second.card.model_id:
            slices = measure_intervals([_turn(one) for one in comparison.slices]) if turned else first.slices
            sides = ("theirs", "ours") if turned else ("ours", "theirs")
            errors = {"ours": comparison.errors[sides[0]], "theirs": comparison.errors[sides[1]]}
            basis = (
                f"{first.card.model_id} was evaluated while {second.card.model_id} was in service: both answered the same items."
            )
            return SideBySide(slices, basis, errors)
    if ours.card.suites_sha256 != theirs.card.suites_sha256:
        return SideBySide(
            (),
            "The two models answered different suites. Their figures stand beside each other, but a difference would also be one "
            "between items: none is shown. To compare them, evaluate one model while the other is in service.",
        )
    try:
        return _pair(stores.storage, ours.card.evaluation_id, theirs.card.evaluation_id, theirs.card.model_id, uris)
    except (EvaluationError, StorageError) as error:
        return SideBySide((), f"Both answered the same suites, but their answers cannot be put side by side: {error}.")


@lru_cache(maxsize=_KEPT)
def _pair(storage: Storage, ours: str, theirs: str, their_model_id: str, uris: tuple[str, str]) -> SideBySide:
    answers = [_read_answers(storage, uri) for uri in uris]
    comparison = compare_outcomes(
        *answers, against_model_id=their_model_id, label=lambda code: [("chapter", chapter_of(code))], seconds={}
    )
    basis = "Both models answered the same suites; they are compared item by item."
    return SideBySide(measure_intervals(comparison.slices), basis, comparison.errors)


def _turn(figures: SliceFigures) -> SliceFigures:
    """The same slice seen from the other model."""
    return SliceFigures(
        figures.kind, figures.name, figures.n, figures.theirs, figures.ours, figures.worse, figures.better,
        figures.pairs_n, figures.pairs_worse, figures.pairs_better,
    )  # fmt: skip


def group_verdicts(rows: Sequence[Row]) -> list[Row]:
    """Verdicts in the order of the rows, each with the answers of people as `approvals`."""
    verdicts: dict[str, Row] = {}
    for row in rows:
        verdict = verdicts.setdefault(row["verdict_id"], {**row, "approvals": []})
        if row["approval_id"] is not None:
            verdict["approvals"].append(row)
    return list(verdicts.values())
