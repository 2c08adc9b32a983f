"""What a Llama of a billion weights codes on this machine's GPU: `python tests/benchmarks/bench_gpu_inference.py [--small]`.

100,000 phrases of one condition and 1,000 whole notes of several, in batches over the tree of all codes, against a loop that asks
for one text at a time through `generate`; in bf16, and, for a tenth of the phrases, in eight and four bits where bitsandbytes is
installed. Random weights end an answer of several conditions by chance, of one condition after its code. Last, the memory that 16
texts of 128 tokens take, CUDA's own context included. `--small` runs a tiny shape over a few texts, to see that all of it works.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from gpu_setup import make_weights

from llmcoder_tasks.icd10cm.code_set import default_code_set
from llmcoder_tasks.model.base_weights import start_from_pretrained
from llmcoder_tasks.model.devices import list_devices
from llmcoder_tasks.model.recipe import read_recipe
from llmcoder_tasks.prompt import ConditionsPerAnswer, TextKind
from llmcoder_tasks.storage import FolderStorage

if TYPE_CHECKING:
    from llmcoder_tasks.model.local import LocalModel


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
    parser.add_argument("--phrases", type=int, default=100_000)
    parser.add_argument("--weights", type=Path, help="a folder that random weights are kept in, or that has others")
    options = parser.parse_args()
    import torch

    from llmcoder_tasks.model.local import LocalModel

    shape = "small" if options.small else "llama-3.2-1b"
    titles = list(default_code_set().titles.values())
    phrases = random.Random(1).choices(titles, k=500 if options.small else options.phrases)
    notes = write_notes(titles, 10 if options.small else 1000)
    print(f"{shape} on {list_devices(1)[0].name}", flush=True)
    with tempfile.TemporaryDirectory() as name:
        weights, folder = options.weights or Path(name) / "weights", Path(name) / "model"
        make_weights(shape, titles, weights)
        folder.mkdir()
        recipe = replace(read_recipe("llama-3.2-1b"), base_weights=str(weights), context_tokens=4096, answer_tokens=128)
        start_from_pretrained(recipe, folder, cache_folder=folder, storage=FolderStorage(folder))
        for bits in (None, *((8, 4) if find_spec("bitsandbytes") else ())):
            _set_bits(folder, bits)
            model = LocalModel.load(folder, threads=1)
            words = ("bf16" if torch.cuda.is_available() else "fp32") if bits is None else f"{bits} bits"
            _generate(model, phrases[:2], "phrase")  # what is loaded at a first call
            if bits is None:
                _compare_rates(model, words, {"phrase": phrases, "note": notes}, options.batch_size)
            else:
                _predict(model, words, phrases[::10], "phrase", options.batch_size)
            _measure_memory(model, words)
            del model


def _compare_rates(model: LocalModel, words: str, texts: dict[TextKind, list[str]], batch_size: int) -> None:
    for kind, some in texts.items():
        few = some[: max(5, len(some) // 2000)]
        alone = report(f"{words}, {kind}s, one at a time by generate", len(few), partial(_generate, model, few, kind))
        together = _predict(model, words, some, kind, batch_size)
        print(f"{'':<48} {together / alone:>9,.1f} times as many", flush=True)


def _predict(model: LocalModel, words: str, texts: Sequence[str], kind: TextKind, batch_size: int) -> float:
    conditions: ConditionsPerAnswer = "one" if kind == "phrase" else "several"
    model.tokenizer.settings = replace(model.tokenizer.settings, conditions_per_answer=conditions)
    work = partial(model.predict, texts, trie=model.allow(default_code_set().titles), batch_size=batch_size, kind=kind)
    return report(f"{words}, {kind}s, batches of {batch_size} over the tree", len(texts), work)


def _measure_memory(model: LocalModel, words: str) -> None:
    """Sixteen texts of about 128 tokens, answer included, as `estimate_inference_memory` counts them."""
    import torch

    if not torch.cuda.is_available():
        return
    text = " and ".join(list(default_code_set().titles.values())[:100])
    while len(model.tokenizer.encode_prompts([text])[0][0]) > 112:
        text = text.rpartition(" ")[0]
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    model.tokenizer.settings = replace(model.tokenizer.settings, answer_tokens=16)
    model.predict([text] * 16, trie=model.allow(default_code_set().titles), batch_size=16)
    free, total = torch.cuda.mem_get_info()
    tensors = torch.cuda.max_memory_allocated() / 1e9
    print(
        f"{words}, 16 texts of 128 tokens: tensors at most {tensors:.2f} GB, on the device {(total - free) / 1e9:.2f} GB",
        flush=True,
    )


def _generate(model: LocalModel, texts: Sequence[str], kind: TextKind) -> None:
    """The seed's way: each prompt by itself through the library's loop, for as many tokens as a code, or a dozen, take."""
    import torch
    from transformers import LlamaForCausalLM

    plain = model._model
    forward, plain.__class__ = plain.__class__, LlamaForCausalLM
    count = 8 if kind == "phrase" else 96
    try:
        for prompt in model.tokenizer.encode_prompts(texts, kind)[0]:
            ids = torch.tensor([prompt], device=plain.device)
            with torch.inference_mode():
                plain.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False, pad_token_id=0)
    finally:
        plain.__class__ = forward


def _set_bits(folder: Path, bits: int | None) -> None:
    path = folder / "config.json"
    facts = json.loads(path.read_text()) | {"inference_bits": bits}
    path.unlink()  # a link to the weights' own
    path.write_text(json.dumps(facts))


if __name__ == "__main__":
    main()
