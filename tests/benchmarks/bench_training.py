"""What training, decoding and scoring cost, per CPU second: `python tests/benchmarks/bench_training.py [compact]`.

Random weights and the release's own titles: speed does not depend on what a model knows. One thread.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from llmcoder_tasks.icd10cm.code_set import default_code_set
from llmcoder_tasks.model.recipe import read_recipe
from llmcoder_tasks.records import Example


def _rate(label: str, count: int, unit: str, work: Callable[[], object]) -> None:
    started = time.process_time()
    work()
    seconds = time.process_time() - started
    print(f"{label:<42} {count / seconds:>10,.0f} {unit} a CPU second", flush=True)


def main(recipe_name: str) -> None:
    """Print one line for each rate."""
    import torch

    from llmcoder_tasks.model.llama import IGNORED, AnswerLlama, make_config
    from llmcoder_tasks.model.local import LocalModel
    from llmcoder_tasks.model.plan import TrainingPlan
    from llmcoder_tasks.model.tokenizer import AnswerTokenizer
    from llmcoder_tasks.model.trie import CodeTrie

    torch.set_num_threads(1)
    recipe = read_recipe(recipe_name)
    if recipe.architecture is None:
        raise SystemExit(f"{recipe_name} starts from pretrained weights: choose compact or tiny")
    titles = default_code_set().titles
    examples = [Example(code, "base", "train", title, (code,)) for code, title in titles.items()]
    tokenizer = AnswerTokenizer.train(
        titles.values(),
        titles,
        text_vocabulary=recipe.architecture.text_vocabulary,
        context_tokens=recipe.context_tokens,
        answer_tokens=recipe.answer_tokens,
    )
    _rate("encode prompts", len(titles), "texts", lambda: tokenizer.encode_prompts(list(titles.values())))
    stage = recipe.stages["stage_one"]
    plan = TrainingPlan.make(examples, stage, tokenizer, processes=1, seed=1)
    model = AnswerLlama(make_config(recipe.architecture, tokenizer))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)

    def train(first: int, last: int) -> None:
        for step in range(first, last):
            ids, labels = plan.batch(step, process=0, processes=recipe.processes, ignored=IGNORED)
            model(torch.from_numpy(ids), torch.from_numpy(labels))["loss"].backward()
            optimizer.step()
            optimizer.zero_grad()

    train(0, 5)
    count = int(plan.tokens_until()[45] - plan.tokens_until()[5]) // recipe.processes
    _rate("train, one process", count, "tokens", lambda: train(5, 45))

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model.save_pretrained(folder)
        tokenizer.save(folder)
        local = LocalModel.load(folder)
    codes = list(titles)
    texts = random.Random(1).sample(list(titles.values()), 1000)
    trie = CodeTrie.build(codes, tokenizer)
    _rate("predict over the trie", len(texts), "texts", lambda: local.predict(texts, trie=trie))
    candidates = [random.Random(number).sample(codes, 20) for number in range(len(texts))]
    _rate("score 20 unrelated candidates", len(texts), "texts", lambda: local.score(texts, candidates))
    near = [codes[start : start + 20] for start in range(0, 20_000, 20)]
    _rate("score 20 neighbouring candidates", len(texts), "texts", lambda: local.score(texts, near))


if __name__ == "__main__":
    main(*sys.argv[1:] or ["compact"])
