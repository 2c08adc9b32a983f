"""transformers' Trainer over a plan of steps. A leaf: imports torch and transformers.

The Trainer does what it is good at (DDP, DeepSpeed, precision, schedules, checkpoints, resuming); batches come from the plan.
"""

from __future__ import annotations

import json
import math
import os
import resource
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch.nn.parallel import DistributedDataParallel
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from llmcoder_tasks.errors import TrainingError
from llmcoder_tasks.model.adapters import load_trained, save_trained
from llmcoder_tasks.model.divergence import DivergenceWatch
from llmcoder_tasks.model.flops import ModelShape, count_training_flops, find_peak
from llmcoder_tasks.model.llama import IGNORED, AnswerLlama
from llmcoder_tasks.model.plan import TrainingPlan
from llmcoder_tasks.model.recipe import Recipe, Stage
from llmcoder_tasks.model.training_run import PROGRESS_MARK

_STATE_NAME = "trainer_state.json"


def find_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint: the Trainer writes its state last, so a checkpoint without it was cut off."""
    whole = [path.parent for path in folder.glob(f"checkpoint-*/{_STATE_NAME}") if _is_json(path)]
    return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def make_arguments(recipe: Recipe, stage: Stage, *, steps: int, folder: Path) -> TrainingArguments:
    """The Trainer's arguments for a stage of `steps` steps."""
    gpu = torch.cuda.is_available()
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=1,  # one planned batch, of as many rows as the plan says
        learning_rate=stage.learning_rate,
        lr_scheduler_type=stage.schedule,
        warmup_steps=stage.warmup_steps,
        weight_decay=stage.weight_decay,
        adam_beta2=stage.adam_beta2,
        max_grad_norm=stage.max_gradient_norm,
        logging_steps=stage.log_every_steps,
        logging_nan_inf_filter=False,  # a loss that is not a number must end the run, not hide
        save_steps=stage.checkpoint_every_steps,
        save_total_limit=2,
        seed=recipe.seed,
        optim="adamw_torch_fused",
        bf16=recipe.precision == "bf16",
        use_cpu=not gpu,
        ddp_backend="gloo" if not gpu and "RANK" in os.environ else None,
        ddp_find_unused_parameters=False,
        deepspeed=make_deepspeed_settings(recipe, gpu=gpu) if recipe.deepspeed_zero_stage else None,
        ignore_data_skip=True,  # the plan itself is entered at the right step
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        disable_tqdm=True,
        report_to=[],
    )


def make_deepspeed_settings(recipe: Recipe, *, gpu: bool) -> dict[str, Any]:
    """DeepSpeed's settings; `auto` takes the Trainer's value. On a CPU its own Adam would have to be compiled: take torch's."""
    optimizer: dict[str, Any] = {"lr": "auto", "betas": "auto", "eps": "auto", "weight_decay": "auto"}
    zero: dict[str, Any] = {"stage": recipe.deepspeed_zero_stage}
    if recipe.deepspeed_offload:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": gpu}
    if recipe.deepspeed_offload == "all":
        zero["offload_param"] = {"device": "cpu", "pin_memory": gpu}
    if recipe.deepspeed_zero_stage == 3:
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    return {
        "zero_optimization": zero,
        "zero_force_ds_cpu_optimizer": gpu,
        "bf16": {"enabled": recipe.precision == "bf16"},
        "optimizer": {"type": "AdamW", "params": optimizer if gpu else optimizer | {"torch_adam": True}},
        "gradient_clipping": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
    }


class PlannedBatches:
    """One process's batches of a plan, from a step on, on the device that computes."""

    def __init__(self, plan: TrainingPlan, *, start: int, process: int, processes: int) -> None:
        self._plan = plan
        self._answer_tokens = plan.answer_tokens_until()
        self._start = start
        self._process = process
        self._processes = processes
        # One shape for all steps, a smaller last one included: code is compiled anew for another.
        self._row_count = -(-plan.most_rows() // processes) if plan.row_tokens else 0
        self._longest = plan.longest_example()

    def __len__(self) -> int:
        return len(self._plan)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for step in range(self._start, len(self._plan)):
            yield self._packed(step) if self._plan.row_tokens else self._even(step)

    def _packed(self, step: int) -> dict[str, Any]:
        shape = {"row_count": self._row_count, "longest": self._longest}
        rows = self._plan.packed_batch(step, process=self._process, processes=self._processes, **shape)
        answers = float(self._answer_tokens[step + 1] - self._answer_tokens[step])
        return {
            "input_ids": _to_device(rows.ids),
            "labels": _to_device(rows.answers),
            "positions": _to_device(rows.positions),
            "places": _to_device(rows.places),
            "starts": _to_device(rows.starts),
            "longest": self._longest,
            "divisor": answers / self._processes,
        }

    def _even(self, step: int) -> dict[str, Any]:
        ids, labels = self._plan.batch(step, process=self._process, processes=self._processes, ignored=IGNORED)
        return {"input_ids": _to_device(ids), "labels": _to_device(labels)}


def _to_device(array: NDArray[Any]) -> torch.Tensor:
    """An array on this process's GPU, if it has one. Nobody waits for the copy: the GPU has the last step to finish meanwhile."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to("cuda", non_blocking=True) if torch.cuda.is_available() else tensor


class StageTrainer(Trainer):  # type: ignore[misc]  # transformers has no types here
    """A Trainer that is fed by a plan."""

    def __init__(
        self,
        model: AnswerLlama,
        arguments: TrainingArguments,
        batches: PlannedBatches,
        stage: Stage,
        *,
        has_adapter: bool = False,
    ) -> None:
        super().__init__(model=model, args=arguments)
        self._has_adapter = has_adapter
        self._embedding_factor = stage.embedding_factor
        self._train_apart = stage.average_every_steps is not None
        if stage.average_every_steps is not None:
            self.add_callback(WeightAveraging(stage.average_every_steps))
        self.remove_callback(PrinterCallback)  # the curve and the progress lines say it already
        self._batches = batches

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        if not self._has_adapter:
            super()._save(output_dir, state_dict)
        elif self.args.should_save:
            save_trained(self.model, Path(output_dir or self.args.output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if self._has_adapter:
            load_trained(model or self.model, Path(resume_from_checkpoint))
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def get_train_dataloader(self) -> PlannedBatches:
        return self._batches

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        if self._embedding_factor == 1.0 or self.optimizer is not None:
            return super().create_optimizer(model)
        kind, options = self.get_optimizer_cls_and_kwargs(self.args, self.model)
        embeddings = list(self.model.get_input_embeddings().parameters())
        known = {id(weights) for weights in embeddings}
        others = [weights for weights in self.model.parameters() if id(weights) not in known]
        faster = {"params": embeddings, "lr": options["lr"] * self._embedding_factor}
        self.optimizer: torch.optim.Optimizer = kind([{"params": others}, faster], weight_decay=self.args.weight_decay, **options)
        return self.optimizer

    def training_step(self, model: Any, *arguments: Any, **settings: Any) -> torch.Tensor:
        apart = self._train_apart and isinstance(model, DistributedDataParallel)
        with model.no_sync() if apart else nullcontext():
            return super().training_step(model, *arguments, **settings)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        return 0  # the Trainer's estimate is of the full computation, and costs time at every step


class WeightAveraging(TrainerCallback):  # type: ignore[misc]
    """Local SGD (Stich, ICLR 2019): every process takes steps of its own, and every so often their weights are averaged.

    At a checkpoint and at the end the optimizer's moments are averaged too, so that what the first process writes is the state of
    all, and a run that goes on from there takes the same steps.
    """

    def __init__(self, every_steps: int) -> None:
        self._every_steps = every_steps

    def on_step_end(self, arguments: Any, state: Any, __: Any, model: Any = None, optimizer: Any = None, **___: Any) -> None:
        if not dist.is_initialized() or dist.get_world_size() == 1:
            return
        is_kept = state.global_step % arguments.save_steps == 0 or state.global_step >= state.max_steps
        if is_kept or state.global_step % self._every_steps == 0:
            _average([weights.data for weights in model.parameters()])
        if is_kept:
            _average([moment for kept in optimizer.state.values() for moment in (kept["exp_avg"], kept["exp_avg_sq"])])


def _average(tensors: Sequence[torch.Tensor]) -> None:
    """Put the mean over all processes into tensors that each of them holds."""
    together = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.all_reduce(together)
    together /= dist.get_world_size()
    for tensor, mean in zip(tensors, together.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(mean.view_as(tensor))


@dataclass(frozen=True, slots=True)
class Speed:
    """What a run computes until each step, and what its devices could at their peak, None where that is not known."""

    flops_until: NDArray[np.float64]
    peak: float | None

    @classmethod
    def of(cls, plan: TrainingPlan, shape: ModelShape, recipe: Recipe, *, processes: int) -> Speed:
        """For a plan, and the device of this process on each of `processes`."""
        flops = [
            count_training_flops(shape, recipe.adapter, tokens=tokens, answer_tokens=answers, squared_tokens=squares)
            for tokens, answers, squares in zip(
                plan.tokens_until().tolist(), plan.answer_tokens_until().tolist(), plan.squared_tokens_until().tolist(), strict=True
            )
        ]
        is_known = torch.cuda.is_available() and recipe.precision == "bf16"
        peak = find_peak(torch.cuda.get_device_name()) if is_known else None
        return cls(np.array(flops), peak * processes if peak else None)

    def find_utilization(self, start: int, step: int, seconds: float) -> float | None:
        """Model FLOPs utilization between two steps, 0 to 1."""
        if self.peak is None:
            return None
        return round(float(self.flops_until[step] - self.flops_until[start]) / max(seconds, 1e-9) / self.peak, 4)


class ProgressCallback(TrainerCallback):  # type: ignore[misc]
    """Keeps the loss curve, prints progress, and ends a run whose loss is no number or diverges. Only the first process writes.

    Model FLOPs utilization is what the training asks for (`flops`) by what all its devices could do at their peak in that time.
    """

    def __init__(self, plan: TrainingPlan, log: Path, speed: Speed, *, start: int, is_first: bool) -> None:
        self._tokens = plan.tokens_until()
        self._speed = speed
        self._steps = len(plan)
        self._start = start
        self._log = log
        self._is_first = is_first
        self._started = time.monotonic()
        kept = _cut_log(log, after_step=start) if is_first else []
        self._watch = DivergenceWatch(kept)

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._started = time.monotonic()

    def on_step_end(self, _: Any, state: Any, control: Any, **__: Any) -> None:
        if state.global_step >= self._steps:
            control.should_log = True  # the curve ends where the run ends

    def on_log(self, _: Any, state: Any, __: Any, logs: dict[str, float] | None = None, **___: Any) -> None:
        if not logs or "loss" not in logs:
            return
        step, loss = int(state.global_step), float(logs["loss"])
        if not math.isfinite(loss):
            raise TrainingError(f"the loss is {loss} at step {step} of {self._steps}: lower the learning rate in the recipe")
        if not self._is_first:
            return
        if fault := self._watch.find_fault(loss):
            raise TrainingError(f"{fault}, at step {step} of {self._steps}: lower the learning rate or raise warmup_steps")
        elapsed = time.monotonic() - self._started
        rate = float(self._tokens[step] - self._tokens[self._start]) / max(elapsed, 1e-9)
        left = float(self._tokens[-1] - self._tokens[step]) / max(rate, 1e-9)
        line: dict[str, Any] = {"step": step, "loss": loss, "learning_rate": float(logs["learning_rate"])}
        line |= {"tokens_seen": int(self._tokens[step]), "tokens_per_second": round(rate, 1)}
        line |= {"model_flops_utilization": self._speed.find_utilization(self._start, step, elapsed)}
        line |= {"peak_memory_bytes": _measure_peak_memory()}
        with self._log.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
        print(PROGRESS_MARK + json.dumps(line | {"steps": self._steps, "seconds_left": round(left, 1)}), flush=True)


def _measure_peak_memory() -> int:
    """Bytes that tensors took at most on this process's GPU; without one, bytes of this process."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _cut_log(log: Path, *, after_step: int) -> list[float]:
    """Leave out what a run that was cut off logged after its last checkpoint, which is done again; the losses that stay."""
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= after_step]
    log.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
    return [float(json.loads(line)["loss"]) for line in kept]


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return True
