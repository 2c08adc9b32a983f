"""What an update gains and costs beside full training: one release after another, by slice.

    python tests/benchmarks/bench_update.py --before FY2024 --dataset DATASET MODEL [MODEL ...]

Models are ids of the artifact store (`LLMCODER_HOME`, as for `llmcoder`), trained and fitted. Each answers the same items under the
release of the dataset, the scenarios' suites without the notes and the suite of breadth, alone and as a whole coder: exact match by
slice, in a Markdown table, and what its training took. A model of an earlier release answers with the new codes as candidates.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from llmcoder_tasks.coding.coder import Coder
from llmcoder_tasks.coding.coder_fit import CODER_NAME, CoderFit
from llmcoder_tasks.coding.model_alone import ModelAlone
from llmcoder_tasks.connections import Connections, connect
from llmcoder_tasks.dataset.corrections import read_successors
from llmcoder_tasks.dataset.store import fetch_dataset, find_taught_texts, read_manifest
from llmcoder_tasks.evaluation.breadth import CodeGroups, make_breadth_suite
from llmcoder_tasks.evaluation.outcomes import Predictor
from llmcoder_tasks.evaluation.suites import read_suites
from llmcoder_tasks.icd10cm.code_set import CodeSet, read_code_set
from llmcoder_tasks.model.local import LocalModel
from llmcoder_tasks.model.manifest import fetch_model, read_stored_manifest
from llmcoder_tasks.model.trie import CodeTrie
from llmcoder_tasks.records import SCENARIOS, DatasetRef, Example

Slice = tuple[str, str]
Shares = dict[Slice, float]
ITEMS_OF_A_SCENARIO = 1000


def make_items(stores: Connections, before: str, dataset: DatasetRef) -> tuple[CodeSet, dict[Slice, list[Example]]]:
    """The release of a dataset, and the items of each slice. Slices of scenarios and of codes overlap."""
    manifest = read_manifest(stores.storage, dataset.uri)
    code_set = read_code_set(stores.database, manifest.release_key)
    groups = CodeGroups.of_releases(
        read_code_set(stores.database, before).titles, code_set, read_successors(stores.database, code_set)
    )
    folder = fetch_dataset(stores.storage, dataset, stores.settings.home / "cache")
    breadth = make_breadth_suite(code_set, groups, seed=manifest.seed, find_taught=partial(find_taught_texts, folder))
    scenarios = [name for name in SCENARIOS if name != "notes"]
    slices: dict[Slice, list[Example]] = defaultdict(list)
    for suite in [*read_suites(folder, scenarios, limit=ITEMS_OF_A_SCENARIO), breadth]:
        slices["all", "items"] += suite.examples
        if suite is not breadth:
            slices["scenario", suite.scenario] += suite.examples
        for example in suite.examples:
            for name in {name for code in example.codes for name in groups.label(code)}:
                slices[name].append(example)
    return code_set, dict(sorted(slices.items()))


def score(answers: Mapping[str, tuple[str, ...]], slices: Mapping[Slice, Sequence[Example]]) -> Shares:
    """Exact match of each slice."""
    return {name: sum(set(answers[item.text]) == set(item.codes) for item in items) / len(items) for name, items in slices.items()}


def answer(predict: Predictor, slices: Mapping[Slice, Sequence[Example]]) -> tuple[dict[str, tuple[str, ...]], float]:
    """The answer to every text, and the CPU seconds that they took."""
    texts = list(dict.fromkeys(item.text for items in slices.values() for item in items))
    started = time.process_time()
    return dict(zip(texts, predict(texts), strict=True)), time.process_time() - started


def open_coders(stores: Connections, model_id: str, code_set: CodeSet) -> dict[str, Predictor]:
    uri = stores.storage.uri_of(f"training/{model_id}")
    model = LocalModel.load(fetch_model(stores.storage, uri, stores.settings.home / "cache"))
    trie = CodeTrie.build(code_set.titles, model.tokenizer)
    coders: dict[str, Predictor] = {"alone": ModelAlone(model, trie).predict}
    if stores.storage.exists(f"coders/{model_id}/{CODER_NAME}"):
        fit = CoderFit.parse(stores.storage.read_bytes(f"coders/{model_id}/{CODER_NAME}"))
        coders["together"] = Coder(code_set, model=model, fit=fit).predict_together
    return coders


def add_up_cost(stores: Connections, model_id: str) -> dict[str, float]:
    """Examples, tokens and seconds of a model, with those of its stage one."""
    manifest: dict[str, Any] = read_stored_manifest(stores.storage, stores.storage.uri_of(f"training/{model_id}"))
    cost = {name: float(manifest["figures"][name]) for name in ("examples", "tokens", "seconds")}
    if manifest["stage"] == "stage_two":
        first = add_up_cost(stores, manifest["base_model_id"])
        cost = {name: value + first[name] for name, value in cost.items()}
    return cost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", required=True, help="The release that the first model was trained on.")
    parser.add_argument("--dataset", required=True)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--alone", action="store_true", help="Score the models alone only.")
    parser.add_argument("--chapters", action="store_true", help="Print the chapters' slices too.")
    options = parser.parse_args()
    stores = connect()
    dataset = DatasetRef(options.dataset, stores.storage.uri_of(f"datasets/{options.dataset}"))
    code_set, slices = make_items(stores, options.before, dataset)
    columns: dict[tuple[str, str], Shares] = {}
    for model_id in options.models:
        cost = add_up_cost(stores, model_id)
        print(f"{model_id}: {cost['examples']:,.0f} examples, {cost['tokens']:,.0f} tokens, {cost['seconds']:.1f} s")
        for kind, predict in open_coders(stores, model_id, code_set).items():
            if kind == "alone" or not options.alone:
                answers, seconds = answer(predict, slices)
                columns[kind, model_id] = score(answers, slices)
                print(f"    {kind}: answered in {seconds:.1f} CPU-s", flush=True)
    for kind in dict.fromkeys(kind for kind, _ in columns):
        shown = [shares for (of, _), shares in columns.items() if of == kind]
        print(f"\n| {kind}: slice | n | " + " | ".join(options.models[: len(shown)]) + " |\n|---|" + "---|" * (len(shown) + 1))
        for name, items in slices.items():
            if name[0] != "chapter" or options.chapters:
                print(f"| {' '.join(name)} | {len(items):,} | " + " | ".join(f"{100 * one[name]:.1f}" for one in shown) + " |")


if __name__ == "__main__":
    main()
