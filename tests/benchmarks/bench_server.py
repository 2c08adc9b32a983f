"""What a model behind a server takes: tokens of training, tokens of each way to ask, and what our side of the wire can ask.

    python tests/benchmarks/bench_server.py

Everything is counted by the length of texts (3.5 characters a token), on all codes of the installed release. The rate is that of
client and test server together, which share this machine: a model would come on top.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import mean

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from openai_server import Pupil, serve_openai

from llmcoder_tasks.coding.candidates import CandidateIndex
from llmcoder_tasks.coding.short_forms import read_short_forms
from llmcoder_tasks.dataset.config import DatasetConfig
from llmcoder_tasks.dataset.examples import make_examples
from llmcoder_tasks.dataset.lexicon import load_lexicon
from llmcoder_tasks.icd10cm.code_set import CodeSet, default_code_set
from llmcoder_tasks.language_model import estimate_tokens
from llmcoder_tasks.model.recipe import ServerRecipe, read_recipe
from llmcoder_tasks.model.server_answers import ServerAnswers
from llmcoder_tasks.model.server_training import TrainingEstimate, render_lines
from llmcoder_tasks.prompt import INSTRUCTIONS, render_codes_json
from llmcoder_tasks.records import Example, render_code
from llmcoder_tasks.settings import CoderServer

ASKED = 2000
SAMPLE = 300


def main() -> None:
    """Print all of it."""
    code_set = default_code_set()
    tables = {
        name: [made.example for made in rows if made.example.split == "train"]
        for name, rows in make_examples(code_set, DatasetConfig.of_size(1)).items()
    }
    estimate_training(tables)
    compare_ways(code_set, [example.text for example in tables["abbreviations"][:SAMPLE]])
    measure_rate([example.text for example in tables["abbreviations"][:ASKED]])


def estimate_training(tables: dict[str, list[Example]]) -> None:
    """Tokens of both stages of the recipe, at a price of 1 for a million."""
    recipe = read_recipe("openai-gpt-4o-mini")
    assert isinstance(recipe, ServerRecipe)
    for name, stage in recipe.stages.items():
        examples = [example for scenario in stage.scenarios for example in tables[scenario][: stage.examples]]
        lines = render_lines(examples, stage, "release")
        estimate = TrainingEstimate.of(lines, stage.epochs, 1.0)
        size = sum(len(line.encode()) + 1 for line in lines) / 1e6
        print(
            f"{name}: {estimate.render()}; {estimate.tokens / stage.epochs / len(lines):.0f} tokens a line, file of {size:.1f} MB"
        )


def compare_ways(code_set: CodeSet, texts: list[str]) -> None:
    """Input tokens of one phrase, schema included, for three ways to keep a model to codes that exist."""
    sizes = Counter(code[:3] for code in code_set.titles)
    question = estimate_tokens(len(INSTRUCTIONS)) + mean(estimate_tokens(len(text)) for text in texts)
    frame = estimate_tokens(160)  # the schema without its values
    categories = estimate_tokens(sum(len(category) + 3 for category in sizes))
    by_code = mean(estimate_tokens(sum(len(render_code(code)) + 3 for code in codes)) for codes in _siblings(code_set))
    index = CandidateIndex(code_set, read_short_forms(load_lexicon()))
    found = index.search([index.read(text) for text in texts], 20)
    listed = mean(
        estimate_tokens(sum(2 * len(item.code) + 6 + len(code_set.titles[item.code]) + 3 for item in candidates))
        for candidates in found
    )
    print(f"free, one schema for all: {question + frame:.0f} input tokens, 1 request, 1 schema in all")
    print(
        f"category, then code: {2 * (question + frame) + categories + by_code:.0f} input tokens, 2 requests, "
        f"{1 + len(sizes):,} schemas in all; {len(sizes):,} values in the first, {max(sizes.values()):,} at most in the second, "
        f"{sum(size > 1000 for size in sizes.values())} categories above 1,000"
    )
    print(f"20 candidates with titles: {question + frame + listed:.0f} input tokens, 1 request, a schema for each phrase")


def _siblings(code_set: CodeSet) -> list[list[str]]:
    categories: dict[str, list[str]] = {}
    for code in code_set.titles:
        categories.setdefault(code[:3], []).append(code)
    return [categories[code[:3]] for code in code_set.titles]


def measure_rate(texts: list[str]) -> None:
    """Phrases a second through chat completions, and through a batch, of a server that answers at once."""
    with serve_openai() as fake, tempfile.TemporaryDirectory() as folder:
        fake.pupils["coder"] = Pupil(dict.fromkeys((" ".join(text.split()) for text in texts), render_codes_json(["E119"])))
        for label, batch_from in (("one by one, 8 at once", None), ("a batch", 100)):
            answers = ServerAnswers(CoderServer(fake.url, covers_patients=True, batch_from=batch_from), "coder")
            started, cpu = time.monotonic(), time.process_time()
            if batch_from is None:
                answers.ask(texts)
            else:
                _ask_by_batch(answers, texts, Path(folder))
            seconds = time.monotonic() - started
            print(f"{label}: {len(texts)} phrases in {seconds:.1f} s, {len(texts) / seconds:.0f} a second, both sides "
                  f"{1000 * (time.process_time() - cpu) / len(texts):.1f} ms of processor a phrase")  # fmt: skip


def _ask_by_batch(answers: ServerAnswers, texts: list[str], folder: Path) -> None:
    from llmcoder_tasks.model import server_batches
    from llmcoder_tasks.model.server_answers import made_up_texts

    server_batches.POLL_SECONDS = 0.1
    with made_up_texts(folder):
        answers.ask(texts)


if __name__ == "__main__":
    main()
