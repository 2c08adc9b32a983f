"""What a Llama of a billion weights codes on this machine's GPU: `python tests/benchmarks/bench_gpu_inference.py [--small]`.

100,000 phrases and 1,000 whole notes, in batches over the tree of all codes, against a loop that asks for one text at a time
through `generate`; in bf16, and in eight and four bits where bitsandbytes is installed. Random weights: a real model ends its
answers sooner, so these rates are a floor. `--small` runs a tiny shape over a few texts, to see that all of it works.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from gpu_setup import make_weights

from llmcoder_tasks.icd10cm.code_set import default_code_set
from llmcoder_tasks.model.base_weights import start_from_pretrained
from llmcoder_tasks.model.devices import list_devices
from llmcoder_tasks.model.recipe import read_recipe
from llmcoder_tasks.prompt import TextKind
from llmcoder_tasks.storage import FolderStorage


def write_notes(titles: Sequence[str], count: int) -> list[str]:
    """Notes of twelve diagnoses, one a line, and some prose: about 300 words."""
    chance = random.Random(2)
    prose = "Hospital course was otherwise uneventful. Vital signs remained stable. Diet was advanced as tolerated. " * 10
    return ["Discharge diagnoses:\n" + "\n".join(chance.sample(titles, 12)) + f"\n\nCourse:\n{prose}" for _ in range(count)]


def report(label: str, count: int, work: Callable[[], object]) -> float:
    """Print and return texts a second."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    started = time.monotonic()
    work()
    seconds = time.monotonic() - started
    memory = f", at most {torch.cuda.max_memory_allocated() / 1e9:.2f} GB" if torch.cuda.is_available() else ""
    print(f"{label:<48} {count / seconds:>9,.1f} a second ({count:,} in {seconds:,.1f} s){memory}", flush=True)
    return count / seconds


def main() -> None:
    """Print a line for each rate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--batch-size", type=int, default=512)
    options = parser.parse_args()
    import torch

    from llmcoder_tasks.model.local import LocalModel
    from llmcoder_tasks.model.trie import CodeTrie

    shape = "small" if options.small else "llama-3.2-1b"
    titles = default_code_set().titles
    chance = random.Random(1)
    phrases = chance.choices(list(titles.values()), k=500 if options.small else 100_000)
    notes = write_notes(list(titles.values()), 10 if options.small else 1000)
    print(f"{shape} on {list_devices(1)[0].name}", flush=True)
    with tempfile.TemporaryDirectory() as name:
        weights, folder = Path(name) / "weights", Path(name) / "model"
        make_weights(shape, titles.values(), weights)
        folder.mkdir()
        recipe = replace(read_recipe("llama-3.2-1b"), base_weights=str(weights), context_tokens=4096, answer_tokens=64)
        start_from_pretrained(recipe, folder, cache_folder=folder, storage=FolderStorage(folder))
        trie = None
        for bits in (None, *((8, 4) if find_spec("bitsandbytes") else ())):
            _set_bits(folder, bits)
            model = LocalModel.load(folder, threads=1)
            trie = trie or CodeTrie.build(titles, model.tokenizer)
            words = ("bf16" if torch.cuda.is_available() else "fp32") if bits is None else f"{bits} bits"
            _measure(model, words, phrases, notes, trie, options.batch_size)
            del model


def _measure(model: object, words: str, phrases: Sequence[str], notes: Sequence[str], trie: object, batch_size: int) -> None:
    from llmcoder_tasks.model.local import LocalModel
    from llmcoder_tasks.model.trie import CodeTrie

    assert isinstance(model, LocalModel)
    assert isinstance(trie, CodeTrie)
    for what, texts, kind in (("phrases", phrases, "phrase"), ("notes", notes, "note")):
        known: TextKind = "note" if kind == "note" else "phrase"
        few = texts[: max(5, len(texts) // 500)]
        alone = report(f"{words}, {what}, one at a time by generate", len(few), lambda: _generate(model, few, known))  # noqa: B023
        together = report(
            f"{words}, {what}, batches of {batch_size} over the tree", len(texts),
            lambda: model.predict(texts, trie=trie, batch_size=batch_size, kind=known),  # noqa: B023
        )  # fmt: skip
        print(f"{'':<48} {together / alone:>9,.1f} times as many", flush=True)


def _generate(model: object, texts: Sequence[str], kind: TextKind) -> None:
    """The seed's way: each prompt by itself through the library's loop."""
    import torch
    from transformers import LlamaForCausalLM

    from llmcoder_tasks.model.local import LocalModel

    assert isinstance(model, LocalModel)
    plain = model._model
    forward, plain.__class__ = plain.__class__, LlamaForCausalLM
    try:
        for prompt in model.tokenizer.encode_prompts(texts, kind)[0]:
            ids = torch.tensor([prompt], device=plain.device)
            with torch.inference_mode():
                plain.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=64, do_sample=False, pad_token_id=0)
    finally:
        plain.__class__ = forward


def _set_bits(folder: Path, bits: int | None) -> None:
    path = folder / "config.json"
    facts = json.loads(path.read_text()) | {"inference_bits": bits}
    path.unlink()  # a link to the weights' own
    path.write_text(json.dumps(facts))


if __name__ == "__main__":
    main()
