"""How fast the phrase coder is on the whole embedded release, part by part; its memory; and how it compares with the seed's way.

    python tests/benchmarks/bench_coder.py [--model FOLDER] [FILE.jsonl ...]

Files hold rows {"text", "codes"}; without any, titles in disorder are coded, no two alike. Without --model the language model has
the compact recipe's shape and random weights: it is as fast as a trained one, and knows nothing. One thread, CPU seconds.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmcoder_tasks.coding.calibration import Calibration, Threshold
from llmcoder_tasks.coding.coder import CANDIDATES, Coder
from llmcoder_tasks.coding.coder_fit import CODER_NAME, CoderFit
from llmcoder_tasks.coding.combination import LEXICAL_FEATURES, TOGETHER_FEATURES
from llmcoder_tasks.icd10cm.code_set import CodeSet, default_code_set
from llmcoder_tasks.model.recipe import read_recipe
from llmcoder_tasks.model.tokenizer import AnswerTokenizer
from llmcoder_tasks.model.trie import CodeTrie

if TYPE_CHECKING:
    from llmcoder_tasks.model.local import LocalModel

PHRASES = 1000
SEED_PHRASES = 10
"""The seed's way is slow: so many are enough."""

SEED_LENGTH = 512


@dataclass(frozen=True, slots=True)
class Row:
    """A phrase with its codes."""

    text: str
    codes: frozenset[str]


def read_rows(path: Path) -> list[Row]:
    """The rows of a file."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [Row(row["text"], frozenset(row["codes"])) for row in rows]


def disorder_titles(code_set: CodeSet, seed: int) -> list[Row]:
    """Titles with their words in another order: no text is a title word for word, so each is put to the model."""
    chance = random.Random(seed)
    chosen = chance.sample(list(code_set.titles.items()), PHRASES)
    return [Row(" ".join(chance.sample(words := title.split(), len(words))), frozenset([code])) for code, title in chosen]


def make_model_folder(code_set: CodeSet, folder: Path) -> None:
    """A model of the compact recipe's shape with random weights."""
    from llmcoder_tasks.model.llama import AnswerLlama, make_config

    recipe = read_recipe("compact")
    if recipe.architecture is None:
        raise SystemExit("the compact recipe has no architecture of its own: name a model with --model")
    titles = code_set.titles
    tokenizer = AnswerTokenizer.train(
        titles.values(),
        titles,
        text_vocabulary=recipe.architecture.text_vocabulary,
        context_tokens=recipe.context_tokens,
        answer_tokens=recipe.answer_tokens,
    )
    AnswerLlama(make_config(recipe.architecture, tokenizer)).save_pretrained(folder)
    tokenizer.save(folder)


def open_fit(folder: Path) -> CoderFit:
    """The folder's `coder.json`, else one of the same form that knows nothing."""
    path = folder / CODER_NAME
    if path.is_file():
        return CoderFit.parse(path.read_bytes())

    def blank(names: tuple[str, ...]) -> Calibration:
        return Calibration(names, (0.0,) * len(names), 0.0, 0, 0.0, (), Threshold(1.01, 0, 0, 0, 1.0, 0.0))

    return CoderFit("", "", "", "", 226.0, blank(LEXICAL_FEATURES), blank(TOGETHER_FEATURES))


def rate(label: str, count: int, work: Callable[[], Any]) -> float:
    """Print and return phrases a CPU-second."""
    started = time.process_time()
    work()
    found = count / (time.process_time() - started)
    print(f"  {label:<44} {found:>9,.0f} phrases a CPU-second", flush=True)
    return found


def measure_parts(coder: Coder, model: LocalModel, rows: list[Row]) -> None:
    """Each part on its own, on what the part before it gives."""
    texts = [row.text for row in rows]
    queries = [coder.index.read(text) for text in texts]
    found = coder.index.search(queries, CANDIDATES)
    coder.index.forget()
    rate("read (normalise)", len(texts), lambda: [coder.index.read(text) for text in texts])
    rate(f"search, {CANDIDATES} candidates", len(texts), lambda: coder.index.search(queries, CANDIDATES))
    codes = [[item.code for item in candidates] for candidates in found]
    rate(f"language model, all {CANDIDATES} candidates", len(texts), lambda: model.score(texts, codes))
    rate("language model, near candidates", len(texts), lambda: coder._ask(model, texts, found))
    judged = coder.judge(texts, model)
    rate("combination and confidence", len(texts), lambda: [coder._answer(item) for item in judged])


def measure_whole(coder: Coder, name: str, rows: list[Row]) -> float:
    """The whole path on phrases it has not met; and how often it is right."""
    coder.index.forget()
    texts = [row.text for row in rows]
    answers: list[Any] = []
    found = rate(f"WHOLE PATH, {name}", len(texts), lambda: answers.extend(coder.code_phrases(texts)))
    right = sum({answer[0].code} == row.codes for answer, row in zip(answers, rows, strict=True) if answer)
    print(f"  {'':<44} {100 * right / len(rows):9.2f} % exact of {len(rows)}")
    return found


def measure_trie(model: LocalModel, code_set: CodeSet, rows: list[Row]) -> None:
    """What the tree of codes costs in greedy decoding. In turns, the quickest of three: answers differ in length with a trie."""
    texts = [row.text for row in rows]
    trie = CodeTrie.build(code_set.titles, model.tokenizer)
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(3):
        for use in (False, True):
            started = time.process_time()
            model.predict(texts, trie=trie if use else None)
            seconds[use].append(time.process_time() - started)
    bare, held = min(seconds[False]), min(seconds[True])
    print(f"  {'greedy decoding':<44} {len(texts) / bare:>9,.0f} phrases a CPU-second")
    overhead = f"({100 * (held / bare - 1):+.1f} % time)"
    print(f"  {'greedy decoding over the trie':<44} {len(texts) / held:>9,.0f} phrases a CPU-second {overhead}")


def measure_seed(folder: Path, model: LocalModel, rows: list[Row]) -> float:
    """One prompt at a time through `generate`, greedily, without a trie.

    A compact model never learns to keep from tokens of text in its answer: those are forbidden, or it would not come to an end.
    """
    import torch
    from transformers import LlamaForCausalLM

    plain = LlamaForCausalLM.from_pretrained(folder).eval()
    prompts, _ = model.tokenizer.encode_prompts([row.text for row in rows[:SEED_PHRASES]])

    def generate() -> None:
        for prompt in prompts:
            ids = torch.tensor([prompt])
            plain.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_length=SEED_LENGTH,
                do_sample=False,
                suppress_tokens=list(range(model.tokenizer.first_answer_id)) or None,
                eos_token_id=model.tokenizer.end_id,
                pad_token_id=model.tokenizer.end_id,
            )

    return rate(f"the seed's way, max_length={SEED_LENGTH}", len(prompts), generate)


def main() -> None:
    """Build once, measure everything in one run."""
    from llmcoder_tasks.model.local import LocalModel

    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--model", type=Path, help="a model folder (default: random weights of the compact recipe's shape)")
    arguments.add_argument("files", nargs="*", type=Path, help='JSON lines {"text", "codes"}')
    chosen = arguments.parse_args()
    code_set = default_code_set()
    with tempfile.TemporaryDirectory() as name:
        folder = chosen.model or Path(name)
        if chosen.model is None:
            make_model_folder(code_set, folder)
        model = LocalModel.load(folder)
        started = time.process_time()
        coder = Coder(code_set, model=model, fit=open_fit(folder))
        print(f"index of {len(code_set.billable):,} codes built in {time.process_time() - started:.1f} CPU-s")
        suites = {path.stem: read_rows(path) for path in chosen.files} or {"titles in disorder": disorder_titles(code_set, 0)}
        coder.code_phrases([row.text for row in disorder_titles(code_set, 1)[:100]])
        rows = next(iter(suites.values()))
        measure_parts(coder, model, rows)
        whole = [measure_whole(coder, suite, of_suite) for suite, of_suite in suites.items()]
        print(f"  {'peak memory':<44} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:>9,.0f} MiB")
        measure_trie(model, code_set, rows)
        print(f"  {'whole path / seed':<44} {whole[0] / measure_seed(folder, model, rows):>9,.0f} times")


if __name__ == "__main__":
    main()
