"""What training a Llama of a billion weights takes on this GPU: `python tests/benchmarks/bench_gpu_training.py [--small]`.

Titles of all codes of the release, learnt by the recipe llama-3.2-1b, one change after the other: rows of one length, packed rows,
torch.compile, liger-kernel, both. Rates are of the second half of a run, so that neither start nor compilation
counts. The anchor is NVIDIA's own benchmark of this shape on an H200: 56.0 thousand tokens/s, 42.9 % by six operations a weight,
with plain SGD. `--small` runs a tiny shape for a few steps, to see that all of it works; `--only` chooses variants by their words.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import json
import logging
import shutil
import tempfile
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
from llmcoder_tasks.model.tokenizer import AnswerTokenizer
from llmcoder_tasks.model.trainer import Speed
from llmcoder_tasks.model.training_run import Job, RunFolder, launch_training
from llmcoder_tasks.records import Example
from llmcoder_tasks.storage import FolderStorage


def list_variants(recipe: Recipe, *, has_gpu: bool) -> Iterator[tuple[str, Recipe]]:
    """(words, recipe), each one change further."""
    stage = recipe.stages["stage_one"]
    yield "rows of one length, eager", replace(recipe, stages=recipe.stages | {"stage_one": replace(stage, packing=None)})
    yield "packed, eager", recipe
    fused = replace(recipe, fused_kernels=True)
    yield "packed, compiled", replace(recipe, compiled=True)
    yield "packed, compiled, layers computed again", replace(recipe, compiled=True, gradient_checkpointing=True)
    if find_spec("peft") is not None:
        yield "packed, compiled, adapter", replace(recipe, compiled=True, adapter=read_recipe("llama-3.2-1b-lora").adapter)
    if find_spec("deepspeed") is not None:
        yield "packed, compiled, DeepSpeed ZeRO-2", replace(recipe, compiled=True, deepspeed_zero_stage=2)
    # Last: liger-kernel's classes stay where they were put.
    if has_gpu and find_spec("liger_kernel") is not None:
        yield "packed, fused kernels", fused
        yield "packed, fused kernels, compiled", replace(fused, compiled=True)


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
    _train(folder, job)
    lines = _read_log(folder)
    tokens = [line["tokens_seen"] for line in lines]
    seconds = [line["tokens_seen"] / line["tokens_per_second"] for line in lines]
    half = len(lines) // 2
    rate = (tokens[-1] - tokens[half]) / (seconds[-1] - seconds[half])
    flops = Speed.of(plan, ModelShape.read(weights), recipe, processes=1).flops_until
    shutil.rmtree(path)
    return lines[-1] | {"rate": rate, "flops": rate * float(flops[-1]) / tokens[-1]}


def measure_compact(recipe: Recipe, path: Path, examples: list[Example]) -> dict[str, Any]:
    """The last line of the log of a compact recipe's stage one, from nothing, in full."""
    assert recipe.architecture is not None
    folder = RunFolder(path)
    folder.start.mkdir(parents=True)
    tokenizer = AnswerTokenizer.train(
        [example.text for example in examples], [example.codes[0] for example in examples],
        text_vocabulary=recipe.architecture.text_vocabulary, context_tokens=recipe.context_tokens,
        answer_tokens=recipe.answer_tokens, conditions_per_answer=recipe.conditions_per_answer,
    )  # fmt: skip
    tokenizer.save(folder.start)
    TrainingPlan.make(examples, recipe.stages["stage_one"], tokenizer, processes=1, seed=1).save(path)
    job = Job("bench", "stage_one", recipe, False, 1)
    job.write(folder)
    _train(folder, job)
    return _read_log(folder)[-1]


def _read_log(folder: RunFolder) -> list[dict[str, Any]]:
    return [json.loads(line) for line in folder.log.read_text(encoding="utf-8").splitlines()]


def _train(folder: RunFolder, job: Job) -> None:
    """What the training process does, in this one: starting another takes as long as measuring. DeepSpeed has to have its own."""
    import torch

    from llmcoder_tasks.model import training_process

    if job.recipe.deepspeed_zero_stage:
        with folder.lock() as lock:
            launch_training(folder, job, locks=[lock], report=lambda _: None)
        return
    gc.collect()
    torch.compiler.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    with contextlib.redirect_stdout(io.StringIO()):
        training_process.main(folder)


def main() -> None:
    """Print a line for each variant."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--tokens-per-step", type=int, default=16_384)
    parser.add_argument("--examples", type=int, default=60_000)
    parser.add_argument("--packing", type=int, default=2048)
    parser.add_argument("--only", nargs="*", metavar="WORDS", help="whole names of variants")
    parser.add_argument("--weights", type=Path, help="a folder that random weights are kept in, or that has others")
    options = parser.parse_args()
    logging.basicConfig(level="WARNING")
    shape = "small" if options.small else "llama-3.2-1b"
    titles = default_code_set().titles
    examples = [Example(code, "base", "train", title, (code,)) for code, title in titles.items()]
    recipe = read_recipe("llama-3.2-1b")
    stage = replace(
        recipe.stages["stage_one"], epochs=None, examples=1500 if options.small else options.examples, max_tokens=128,
        tokens_per_step=2048 if options.small else options.tokens_per_step, packing=options.packing,
        log_every_steps=2, checkpoint_every_steps=10_000, warmup_steps=2,
    )  # fmt: skip
    (device,) = list_devices(1)
    recipe = replace(
        recipe, stages=recipe.stages | {"stage_one": stage}, deepspeed_zero_stage=None, gradient_checkpointing=False,
        precision="bf16" if device.is_gpu else "fp32",
    )  # fmt: skip
    peak = find_peak(device.name) if device.is_gpu else None
    print(f"{shape} on {device.name}, {stage.tokens_per_step:,} tokens a step, packed in rows of {stage.packing}", flush=True)
    with tempfile.TemporaryDirectory() as name:
        weights = options.weights or Path(name) / "weights"
        make_weights(shape, titles.values(), weights)
        six = 6 * ModelShape.read(weights).weights
        for words, variant in list_variants(recipe, has_gpu=device.is_gpu):
            if options.only and words not in options.only:
                continue
            try:
                found = measure(variant, weights, Path(name) / words.replace(" ", "-"), examples)
            except TrainingError as error:
                print(f"{words:<40} failed: {error}", flush=True)
                continue
            used = f"{found['flops'] / peak:.1%}" if peak else "-"
            anchor = f"{six * found['rate'] / peak:.1%}" if peak else "-"
            print(
                f"{words:<40} {found['rate']:>9,.0f} tokens/s  MFU {used}, by six a weight {anchor}  "
                f"{found['peak_memory_bytes'] / 1e9:.1f} GB  loss {found['loss']:.3f}",
                flush=True,
            )
        compact = read_recipe("tiny" if options.small else "compact-short")
        if options.only and compact.name not in options.only:
            return
        found = measure_compact(compact, Path(name) / "compact", examples)
        print(
            f"{compact.name}, stage one, from nothing, one process: {found['tokens_per_second']:,.0f} tokens/s, "
            f"{found['tokens_seen'] / found['tokens_per_second']:.0f} s, loss {found['loss']:.3f}"
        )


if __name__ == "__main__":
    main()
