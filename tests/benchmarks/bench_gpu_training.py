"""What training a Llama of a billion weights takes on this GPU: `python tests/benchmarks/bench_gpu_training.py [--small]`.

Titles of all codes of the release, learnt through torchrun by the recipe llama-3.2-1b, one change after the other: rows of one
length, packed rows, liger-kernel, torch.compile, both. Rates are of the second half of a run, so that neither start nor compilation
counts. The anchor is NVIDIA's own benchmark of this shape on an H200: 56.0 thousand tokens/s, 42.9 % by six operations a weight,
with plain SGD. `--small` runs a tiny shape for a few steps, to see that all of it works.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gpu_setup import make_weights

from llmcoder_tasks.errors import TrainingError
from llmcoder_tasks.icd10cm.code_set import default_code_set
from llmcoder_tasks.model.base_weights import start_from_pretrained
from llmcoder_tasks.model.devices import list_devices
from llmcoder_tasks.model.flops import ModelShape, find_peak
from llmcoder_tasks.model.plan import TrainingPlan
from llmcoder_tasks.model.recipe import Recipe, read_recipe
from llmcoder_tasks.model.training_run import Job, RunFolder, launch_training
from llmcoder_tasks.records import Example
from llmcoder_tasks.storage import FolderStorage


def list_variants(recipe: Recipe, *, has_gpu: bool) -> Iterator[tuple[str, Recipe]]:
    """(words, recipe), each one change further."""
    stage = recipe.stages["stage_one"]
    yield "rows of one length, eager", replace(recipe, stages=recipe.stages | {"stage_one": replace(stage, packing=None)})
    yield "packed, eager", recipe
    fused = replace(recipe, fused_kernels=True)
    if has_gpu and find_spec("liger_kernel") is not None:
        yield "packed, fused kernels", fused
    yield "packed, compiled", replace(recipe, compiled=True)
    if has_gpu and find_spec("liger_kernel") is not None:
        yield "packed, fused kernels, compiled", replace(fused, compiled=True)
    yield "packed, layers computed again", replace(recipe, gradient_checkpointing=True)


def measure(recipe: Recipe, weights: Path, path: Path, examples: list[Example]) -> dict[str, Any]:
    """Tokens a second of the second half, model FLOPs utilization, peak memory and the last loss of one run."""
    folder = RunFolder(path)
    folder.start.mkdir(parents=True)
    recipe = replace(recipe, base_weights=str(weights))
    tokenizer = start_from_pretrained(recipe, folder.start, cache_folder=path, storage=FolderStorage(path))
    plan = TrainingPlan.make(examples, recipe.stages["stage_one"], tokenizer, processes=1, seed=1)
    plan.save(path)
    job = Job("bench", "stage_one", recipe, True, 1)
    job.write(folder)
    lines: list[tuple[float, dict[str, Any]]] = []
    with folder.lock() as lock:
        launch_training(folder, job, locks=[lock], report=lambda line: lines.append((time.monotonic(), line)))
    (begin, first), (end, last) = lines[len(lines) // 2], lines[-1]
    rate = (last["tokens_seen"] - first["tokens_seen"]) / (end - begin)
    return last | {"rate": rate, "tokens": int(plan.tokens_until()[-1]), "whole_rate": last["tokens_per_second"]}


def main() -> None:
    """Print a line for each variant."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--tokens-per-step", type=int, default=16_384)
    parser.add_argument("--examples", type=int, default=60_000)
    options = parser.parse_args()
    logging.basicConfig(level="WARNING")
    shape = "small" if options.small else "llama-3.2-1b"
    titles = default_code_set().titles
    examples = [Example(code, "base", "train", title, (code,)) for code, title in titles.items()]
    recipe = read_recipe("llama-3.2-1b")
    stage = replace(
        recipe.stages["stage_one"], epochs=None, examples=1500 if options.small else options.examples, max_tokens=128,
        tokens_per_step=2048 if options.small else options.tokens_per_step, packing=512 if options.small else 2048,
        log_every_steps=2 if options.small else 5, checkpoint_every_steps=10_000, warmup_steps=2,
    )  # fmt: skip
    (device,) = list_devices(1)
    recipe = replace(
        recipe, stages=recipe.stages | {"stage_one": stage}, deepspeed_zero_stage=None, gradient_checkpointing=False,
        precision="bf16" if device.is_gpu else "fp32",
    )  # fmt: skip
    peak = find_peak(device.name) if device.is_gpu else None
    print(f"{shape} on {device.name}, {stage.tokens_per_step:,} tokens a step", flush=True)
    with tempfile.TemporaryDirectory() as name:
        weights = Path(name) / "weights"
        make_weights(shape, titles.values(), weights)
        six = 6 * ModelShape.read(weights).weights
        for words, variant in list_variants(recipe, has_gpu=device.is_gpu):
            try:
                found = measure(variant, weights, Path(name) / words.replace(" ", "-"), examples)
            except TrainingError as error:
                print(f"{words:<34} failed: {error}", flush=True)
                continue
            used = f"{found['model_flops_utilization']:.1%}" if found["model_flops_utilization"] is not None else "-"
            anchor = f"{six * found['rate'] / peak:.1%}" if peak else "-"
            print(
                f"{words:<34} {found['rate']:>9,.0f} tokens/s  MFU {used}, by six a weight {anchor}  "
                f"{found['peak_memory_bytes'] / 1e9:.1f} GB  loss {found['loss']:.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
