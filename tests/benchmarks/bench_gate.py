"""How often the gate is wrong: on models that differ by their seed alone, and on faults planted into their answers.

    python tests/benchmarks/bench_gate.py --before FY2026 --dataset DATASET --base MODEL --recipe compact-short --models 20

Brings MODEL up to date with the release of DATASET once for each seed and fits each as a coder (in `LLMCODER_HOME`, as `llmcoder`
does); what is trained and answered already is taken as it is. Each answers what the gate asks of a candidate: the suites of the
dataset, 1,000 items a scenario, and the suite of breadth.

- False alarms: each model is judged against each other one. They are equal, so every decision but PROMOTE is one. The pairs share
  their models, so that they are less than so many independent trials.
- Catches: a fault of `--points` is planted into a candidate's answers to one slice at a time, in whole codes (one that is never
  found) or texts. It is caught where the slice does not pass, and counts where the power check does not say "not enough data".
"""

from __future__ import annotations

import argparse
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import permutations
from pathlib import Path

from llmcoder_tasks.coding.candidates import CandidateIndex
from llmcoder_tasks.coding.coder import Coder
from llmcoder_tasks.coding.coder_fit import CODER_NAME, CoderFit
from llmcoder_tasks.coding.notes import code_notes
from llmcoder_tasks.coding.short_forms import read_short_forms
from llmcoder_tasks.connections import Connections, connect
from llmcoder_tasks.dataset.corrections import read_successors
from llmcoder_tasks.dataset.lexicon import load_lexicon
from llmcoder_tasks.dataset.store import fetch_dataset, find_taught_texts, read_manifest
from llmcoder_tasks.evaluation.against_service import TOO_FEW, Finding, judge_slices
from llmcoder_tasks.evaluation.breadth import CodeGroups, make_breadth_suite
from llmcoder_tasks.evaluation.comparison import SliceName, compare_outcomes, find_members, score_of
from llmcoder_tasks.evaluation.gate import Gate, load_gate
from llmcoder_tasks.evaluation.outcomes import NOTES_SCENARIO, Outcome, read_outcomes, score_suite, write_outcomes
from llmcoder_tasks.evaluation.suites import Suite, read_suites
from llmcoder_tasks.icd10cm.code_set import CodeSet, read_code_set
from llmcoder_tasks.model.local import LocalModel
from llmcoder_tasks.model.manifest import fetch_model
from llmcoder_tasks.model.recipe import UPDATE, read_recipe
from llmcoder_tasks.progress import track
from llmcoder_tasks.records import DatasetRef, ModelRef
from llmcoder_tasks.steps.fit_coder import fit_coder
from llmcoder_tasks.steps.train_model import train_model

ITEMS_OF_A_SCENARIO = 1000
Pair = tuple[list[Outcome], list[Outcome]]
"""The answers of a candidate and of a model in service."""


@dataclass(frozen=True)
class Items:
    """What is asked, under one release."""

    code_set: CodeSet
    groups: CodeGroups
    suites: list[Suite]


def read_items(stores: Connections, before: str, dataset: DatasetRef) -> Items:
    """The items of the gate for a model of the release of a dataset, beside one in service that learnt `before`."""
    manifest = read_manifest(stores.storage, dataset.uri)
    code_set = read_code_set(stores.database, manifest.release_key)
    old = read_code_set(stores.database, before).titles
    groups = CodeGroups.of_releases(old, code_set, read_successors(stores.database, code_set))
    folder = fetch_dataset(stores.storage, dataset, stores.settings.home / "cache")
    breadth = make_breadth_suite(code_set, groups, seed=manifest.seed, find_taught=partial(find_taught_texts, folder))
    return Items(code_set, groups, [*read_suites(folder, manifest.tables, limit=ITEMS_OF_A_SCENARIO), breadth])


def train_with_seed(stores: Connections, dataset: DatasetRef, base: ModelRef, recipe_name: str, seed: int) -> ModelRef:
    """One update of the base, fitted as a coder."""
    where = {"storage": stores.storage, "database": stores.database}
    recipe = replace(read_recipe(recipe_name), seed=seed)
    work_folder = stores.settings.home / "work"
    model = train_model(dataset, recipe=recipe, stage=UPDATE, base=base, work_folder=work_folder, processes=1, **where)
    return fit_coder(model, dataset, cache_folder=stores.settings.home / "cache", **where)


def answer(stores: Connections, model: ModelRef, items: Items, index: CandidateIndex) -> list[Outcome]:
    """The whole coder's answers to all items."""
    kept: Path = stores.settings.home / "cache" / "bench_gate" / f"{model.model_id}.parquet"
    if kept.is_file():
        return read_outcomes(kept)
    folder = fetch_model(stores.storage, model.uri, stores.settings.home / "cache")
    fit = CoderFit.parse(stores.storage.read_bytes(f"coders/{model.model_id}/{CODER_NAME}"))
    coder = Coder(items.code_set, index=index, model=LocalModel.load(folder), fit=fit)
    known = frozenset(code.code for code in items.code_set.codes)
    outcomes = []
    for suite in items.suites:
        predict = partial(_read_notes, coder) if suite.scenario == NOTES_SCENARIO else coder.predict_together
        outcomes += score_suite("together", predict, suite, known_codes=known)
    kept.parent.mkdir(parents=True, exist_ok=True)
    write_outcomes(outcomes, kept)
    return outcomes


def _read_notes(coder: Coder, texts: Sequence[str]) -> list[tuple[str, ...]]:
    return [tuple(prediction.code for prediction in note.codes) for note in code_notes(coder, texts)]


def judge(gate: Gate, items: Items, ours: Sequence[Outcome], theirs: Sequence[Outcome]) -> dict[SliceName, Finding]:
    """What the gate says of a candidate beside a model in service, slice by slice."""
    if gate.in_service is None:
        raise SystemExit(f"gate {gate.name} has no rules on the model in service")
    comparison = compare_outcomes(ours, theirs, against_model_id="theirs", label=items.groups.label, seconds={})
    findings = judge_slices(gate.in_service, comparison.slices, minimum_items=gate.minimum_items)
    return {(figures.kind, figures.name): finding for figures, finding in findings.items()}


def plant(outcomes: Sequence[Outcome], places: Sequence[int], points: float, chance: random.Random) -> list[Outcome]:
    """Answers in which codes of a slice, or texts of several codes, are always wrong, until its score is so much lower."""
    units: dict[str, list[int]] = defaultdict(list)
    for place in places:
        outcome = outcomes[place]
        units[outcome.true[0] if len(outcome.true) == 1 else outcome.example_id].append(place)
    broken, lost = list(outcomes), 0.0
    for unit in chance.sample(sorted(units), len(units)):
        if lost >= points * len(places):
            break
        for place in units[unit]:
            lost += score_of(broken[place])
            broken[place] = replace(broken[place], predicted=(), exact=False, category=False, f1=0.0, error_kind="quantity")
    return broken


def plant_everywhere(
    gate: Gate, items: Items, pairs: Sequence[Pair], *, points: float, repeats: int
) -> Iterator[tuple[SliceName, str]]:
    """For each planted fault its slice and what became of it: caught, missed, or too few data."""
    chance = random.Random(0)
    for ours, theirs in track(pairs, "planting faults", total=len(pairs), unit="models"):
        for name, places in find_members(ours, items.groups.label).items():
            for _ in range(repeats):
                finding = judge(gate, items, plant(ours, places, points, chance), theirs)[name]
                yield name, "too few" if TOO_FEW in finding.text else "missed" if finding.decision == "PROMOTE" else "caught"


def report_false_alarms(gate: Gate, items: Items, pairs: Sequence[Pair]) -> None:
    """Print each verdict on an equal model that is none to promote, and their share."""
    alarms = 0
    for number, pair in enumerate(pairs):
        bad = [finding for finding in judge(gate, items, *pair).values() if finding.decision != "PROMOTE"]
        alarms += bool(bad)
        for finding in bad:
            print(f"pair {number}: {finding.decision}: {finding.text}")
    print(f"false alarms: {alarms} of {len(pairs)} pairs of equal models")


def report_catches(gate: Gate, items: Items, pairs: Sequence[Pair], *, points: float, repeats: int) -> None:
    """Print, by kind of slice, how many planted faults were caught."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for (kind, name), fate in plant_everywhere(gate, items, pairs, points=points, repeats=repeats):
        for row in (f"{kind} {name}" if kind != "chapter" else kind, "every slice"):
            counts[row][fate] += 1
    print(
        f"\n| faults of {100 * points:g} points in | planted | too few data | enough data | of them caught |\n|---|---|---|---|---|"
    )
    for row, fates in sorted(counts.items()):
        enough = fates["caught"] + fates["missed"]
        share = f"{fates['caught']:,} ({fates['caught'] / enough:.1%})" if enough else "-"
        print(f"| {row} | {fates.total():,} | {fates['too few']:,} | {enough:,} | {share} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", required=True, help="The release that the base was trained on.")
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--base", required=True)
    parser.add_argument("--recipe", default="compact-short")
    parser.add_argument("--models", type=int, default=20)
    parser.add_argument("--points", type=float, default=0.02)
    parser.add_argument("--repeats", type=int, default=1, help="Faults planted into each slice of each model.")
    options = parser.parse_args()
    stores = connect()
    dataset = DatasetRef(options.dataset, stores.storage.uri_of(f"datasets/{options.dataset}"))
    base = ModelRef(options.base, stores.storage.uri_of(f"training/{options.base}"))
    items = read_items(stores, options.before, dataset)
    index = CandidateIndex(items.code_set, read_short_forms(load_lexicon()))
    answered = []
    for seed in track(range(1, options.models + 1), "training, fitting, answering", total=options.models, unit="models"):
        model = train_with_seed(stores, dataset, base, options.recipe, seed)
        answered.append(answer(stores, model, items, index))
    gate = load_gate()
    report_false_alarms(gate, items, list(permutations(answered, 2)))
    ring = list(zip(answered, [*answered[1:], answered[0]], strict=True))
    report_catches(gate, items, ring, points=options.points, repeats=options.repeats)


if __name__ == "__main__":
    main()
