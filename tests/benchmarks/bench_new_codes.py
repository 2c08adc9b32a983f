"""Codes that a release brings, before anything is trained on them: a model of the release before, with the new release loaded.

    python tests/benchmarks/bench_new_codes.py --old FY2025_FOLDER --new FY2026_FOLDER --model MODEL_FOLDER --fit coder.json

The model folder and its `coder.json` are made under the old release. Prints exact match on the titles of the new codes and on
variations of them that no training saw, by words alone (the baseline) and together with the model; on as many codes that stayed;
and how often a deleted code comes out, under the new release and under the old one.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from llmcoder_tasks.coding.coder import Coder
from llmcoder_tasks.coding.coder_fit import CoderFit
from llmcoder_tasks.dataset.lexicon import load_lexicon
from llmcoder_tasks.dataset.variations import VARIED_SCENARIOS, Variations
from llmcoder_tasks.icd10cm.code_set import CodeSet
from llmcoder_tasks.icd10cm.release_reader import read_release
from llmcoder_tasks.icd10cm.source import read_source
from llmcoder_tasks.model.local import LocalModel

Item = tuple[str, str]
"""Code and text."""


def read_code_set(folder: Path) -> CodeSet:
    release = read_release(read_source(str(folder)), release_key=folder.name)
    return CodeSet(release.release_key, release.effective_from, release.codes, release.terms)


def make_items(code_set: CodeSet, codes: Sequence[str]) -> Iterator[tuple[str, list[Item]]]:
    """Titles, then the variations of each scenario."""
    yield "titles", [(code, code_set.titles[code]) for code in codes]
    variations = Variations.of_release(code_set, load_lexicon(), seed=0)
    for scenario in VARIED_SCENARIOS:
        texts = ((code, variations.vary(scenario, code, 0, taught=False)) for code in codes)
        yield scenario, [(code, text) for code, text in texts if text]


def print_rows(name: str, coder: Coder, suites: Mapping[str, Sequence[Item]]) -> None:
    """Exact match by words alone and together, a scenario a row, all variations below."""
    counts: dict[str, tuple[int, int, int]] = {}
    for scenario, items in suites.items():
        texts = [text for _, text in items]
        right = [
            sum(answer == (code,) for answer, (code, _) in zip(predict(texts), items, strict=True))
            for predict in (coder.predict_lexical, coder.predict_together)
        ]
        counts[scenario] = (len(items), right[0], right[1])
    varied = [count for scenario, count in counts.items() if scenario != "titles"]
    counts["all variations"] = tuple(map(sum, zip(*varied, strict=True)))  # type: ignore[assignment]
    for scenario, (n, words, together) in counts.items():
        print(f"{name:12} {scenario:15} n {n:5}  words alone {100 * words / n:5.1f} %  together {100 * together / n:5.1f} %")


def count_named(coder: Coder, items: Sequence[Item]) -> int:
    """How many texts get their own code, perhaps among others."""
    answers = coder.predict_together([text for _, text in items])
    return sum(code in answer for answer, (code, _) in zip(answers, items, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("old", "new", "model", "fit"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    options = parser.parse_args()
    old, new = read_code_set(options.old), read_code_set(options.new)
    model, fit = LocalModel.load(options.model), CoderFit.parse(options.fit.read_bytes())
    made_under = json.loads((options.model / "manifest.json").read_text())["release_key"]
    print(f"{options.model.name}, trained on {made_under}; {old.release_key} -> {new.release_key}")
    coder = Coder(new, model=model, fit=fit)

    added = [code for code in new.titles if code not in old.titles]
    stayed = [code for code in new.titles if old.titles.get(code) == new.titles[code]]
    random.Random(0).shuffle(stayed)
    print_rows("new codes", coder, dict(make_items(new, added)))
    print_rows("same codes", coder, dict(make_items(new, stayed[: len(added)])))

    deleted = [(code, title) for code, title in old.titles.items() if code not in new.titles]
    after, before = count_named(coder, deleted), count_named(Coder(old, model=model, fit=fit), deleted)
    print(
        f"{len(deleted)} deleted codes, asked by title: {after} come out under {new.release_key}, {before} under {old.release_key}"
    )


if __name__ == "__main__":
    main()
