"""One process of a training run: `torchrun -m llmcoder_tasks.model.training_process RUN_FOLDER`. A leaf: imports torch.

It reads the job and the plan of the run's folder, goes on from the newest checkpoint, and writes the finished model folder, whole
or not at all. What it prints goes, line by line, into the log of the task that launched it.
"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import torch
import yaml
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils import logging as transformers_logging

from llmcoder_tasks.errors import LLMCoderError, TrainingError
from llmcoder_tasks.model.adapters import add_adapter, merge_adapter
from llmcoder_tasks.model.kernels import patch_layers, speed_up
from llmcoder_tasks.model.llama import AnswerLlama, make_config
from llmcoder_tasks.model.plan import TrainingPlan
from llmcoder_tasks.model.quantization import load_quantized
from llmcoder_tasks.model.recipe import NotesStage
from llmcoder_tasks.model.tokenizer import AnswerTokenizer
from llmcoder_tasks.model.trainer import PlannedBatches, ProgressCallback, Speed, StageTrainer, find_checkpoint, make_arguments
from llmcoder_tasks.model.training_run import FAILURE_MARK, RECIPE_NAME, Job, RunFolder, read_shape


def main(folder: RunFolder) -> None:
    """Train one stage, or what is left of it."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    job, plan = Job.read(folder), TrainingPlan.load(folder.path)
    process, processes = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if processes == 1 and not job.recipe.deepspeed_zero_stage:
        _train_alone()
    checkpoint = find_checkpoint(folder.checkpoints)
    start = int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0
    if checkpoint and process == 0:
        print(f"going on from step {start} of {len(plan)}", flush=True)

    arguments = make_arguments(job.recipe, job.stage_settings, steps=len(plan), folder=folder.checkpoints)
    if processes == 1:
        arguments._n_gpu = 1  # the leased one: the Trainer would spread the rows of one process over all that it sees
    tokenizer = AnswerTokenizer.load(folder.start)
    model = _load(folder, job, tokenizer)
    batches = PlannedBatches(plan, start=start, process=process, processes=processes)
    trainer = StageTrainer(model, arguments, batches, job.stage_settings, has_adapter=job.recipe.adapter is not None)
    speed = Speed.of(plan, read_shape(folder, job, tokenizer), job.recipe, processes=processes)
    trainer.add_callback(ProgressCallback(plan, folder.log, speed, start=start, is_first=process == 0))
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    _write_model(trainer, folder, job, tokenizer, is_first=process == 0)
    # Nobody ends before the model stands: where one fails, torchrun kills the others, and threads of gloo may fail at the end.
    trainer.accelerator.wait_for_everyone()


def _train_alone() -> None:
    """Make the Trainer forget torchrun: gradients of one process would be copied into buckets to be averaged with nobody's."""
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        os.environ.pop(name, None)


def _load(folder: RunFolder, job: Job, tokenizer: AnswerTokenizer) -> AnswerLlama:
    recipe = job.recipe
    patch_layers(recipe)
    torch.manual_seed(recipe.seed)
    if not job.starts_from_weights:
        if recipe.architecture is None:
            raise TrainingError(f"recipe {recipe.name} has neither weights nor an architecture")
        model = AnswerLlama(make_config(recipe.architecture, tokenizer))
    elif recipe.adapter is not None and recipe.adapter.quantized_base:
        computing = torch.bfloat16 if recipe.precision == "bf16" else torch.float32
        model = load_quantized(folder.start, 4, computing=computing)
    else:
        # Weights that learn are kept in single precision; those that stand still need no more than they are computed with.
        stands_still = recipe.adapter is not None and recipe.precision == "bf16"
        dtype = torch.bfloat16 if stands_still else torch.float32
        model = AnswerLlama.from_pretrained(folder.start, dtype=dtype, use_safetensors=True)
    if recipe.adapter is not None:
        add_adapter(model, recipe.adapter)
    speed_up(model, recipe, packed=job.stage_settings.packing is not None)
    return model


def _write_model(trainer: StageTrainer, folder: RunFolder, job: Job, tokenizer: AnswerTokenizer, *, is_first: bool) -> None:
    """Write the model folder under a temporary name, then rename it."""
    # Every process takes part: ZeRO keeps a share of the weights in each.
    has_adapter = job.recipe.adapter is not None
    state = merge_adapter(trainer.model) if has_adapter else trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if not is_first:
        return
    for name, tensor in state.items():
        if not bool(torch.isfinite(tensor).all()):
            raise TrainingError(f"{name} holds values that are no numbers: lower the learning rate in the recipe")
    incoming = folder.path / ".incoming-model"
    shutil.rmtree(incoming, ignore_errors=True)
    # Saved under the library's own class, so that any program that reads Llama can read it.
    config = _plain_config(folder, job, trainer)
    config.inference_bits = job.recipe.inference_bits
    with torch.device("meta"):  # weights that are drawn only to be put away take longer than writing a billion of them
        plain = LlamaForCausalLM(config)
    plain.load_state_dict(state, assign=True)
    plain.tie_weights()
    if job.recipe.precision == "bf16":
        plain.to(torch.bfloat16)
    plain.save_pretrained(incoming)
    if isinstance(job.stage_settings, NotesStage):
        tokenizer.settings = replace(tokenizer.settings, reads_notes=True)
    tokenizer.save(incoming)
    recipe = yaml.safe_dump(job.recipe.to_dict(), sort_keys=False, allow_unicode=True)
    (incoming / RECIPE_NAME).write_text(recipe, encoding="utf-8")
    shutil.copy(folder.log, incoming / folder.log.name)
    incoming.replace(folder.model)


def _plain_config(folder: RunFolder, job: Job, trainer: StageTrainer) -> LlamaConfig:
    """A configuration without what was set for training alone."""
    if job.starts_from_weights:
        return LlamaConfig.from_pretrained(folder.start)
    config: LlamaConfig = trainer.model.config
    return config


if __name__ == "__main__":
    try:
        main(RunFolder(Path(sys.argv[1])))
    except LLMCoderError as error:
        print(f"{FAILURE_MARK}{error}", flush=True)
        sys.exit(1)
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
