"""Train one stage of a model on a dataset and publish it to `training/<model_id>/` in the artifact store."""

from __future__ import annotations

import hashlib
import json
import logging
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from llmcoder_tasks import __version__
from llmcoder_tasks.coding.training_notes import hash_source, read_training_notes
from llmcoder_tasks.database import Database
from llmcoder_tasks.dataset.store import fetch_dataset, read_examples, read_manifest
from llmcoder_tasks.errors import DatabaseError, SettingsError, TrainingError
from llmcoder_tasks.icd10cm.code_set import read_code_set
from llmcoder_tasks.model.base_weights import hash_weights, start_from_nothing, start_from_pretrained, start_from_stage
from llmcoder_tasks.model.devices import Device, lease_devices, list_devices
from llmcoder_tasks.model.manifest import MANIFEST_NAME, fetch_model, read_stored_manifest, write_manifest
from llmcoder_tasks.model.plan import PLAN_NAME, TrainingPlan
from llmcoder_tasks.model.preflight import Load, verify_fits
from llmcoder_tasks.model.recipe import FULL_STAGES, NOTES, STAGES, UPDATE, AnyRecipe, NotesStage, Recipe, ServerRecipe
from llmcoder_tasks.model.server_model import ServedName
from llmcoder_tasks.model.server_training import render_lines, train_at_server
from llmcoder_tasks.model.tokenizer import AnswerTokenizer
from llmcoder_tasks.model.training_run import Job, ProgressReport, RunFolder, launch_training, read_shape
from llmcoder_tasks.model.update import find_codes_to_learn, find_obstacle
from llmcoder_tasks.progress import record_step
from llmcoder_tasks.records import CORRECTIONS, DatasetRef, Example, ModelRef
from llmcoder_tasks.settings import CoderServer, Nodes
from llmcoder_tasks.storage import Storage

logger = logging.getLogger(__name__)

TRAINER_VERSION = 2
"""Part of every model id: raise it when the same recipe would train another model."""


def train_model(
    dataset: DatasetRef,
    *,
    recipe: AnyRecipe,
    stage: str,
    base: ModelRef | None,
    storage: Storage,
    database: Database,
    work_folder: Path,
    processes: int | None,
    server: CoderServer | None = None,
    report: Callable[[str], None] = logger.info,
    nodes: Nodes | None = None,
    notes: Path | None = None,
) -> ModelRef:
    """Train `stage` of `recipe`; stage two starts from `base`, the model of stage one, an update from one of an earlier release.

    The stage `notes` starts from stage two or an update and learns the coded notes of patients under `notes`, or without them those
    that the dataset made up.

    The model's id is a fingerprint of dataset, recipe, stage and base: the same call again finds the model trained and returns at
    once, and after a kill it goes on from the last checkpoint in `work_folder`. `processes` on each machine (None: as the recipe
    says) and `nodes` (None: this machine alone) change how fast a model is trained, not which steps it takes, and are no part of
    the id. A recipe for a server is trained there, by one paid job, whatever is retried; `report` gets its cost before it begins,
    and how it stands.

    Raises TrainingError when the devices are too small or the run does not reach its end, TrainingInterrupted when a retry may go
    on, WorkPending while a server is at work that is not waited for; nothing is published then.
    """
    _verify_stage(stage, base, recipe)
    if isinstance(recipe, ServerRecipe):
        return _train_at_server(dataset, recipe, stage, base, storage, database, work_folder, server, report)
    release_key = read_manifest(storage, dataset.uri).release_key
    base_release = _read_base_release(base, recipe, release_key, storage) if base and stage == UPDATE else None
    notes = notes if stage == NOTES else None
    notes_sha256 = hash_source(notes) if notes else None
    model_id = make_model_id(release_key, dataset.dataset_id, recipe, stage, base, notes_sha256)
    ref = ModelRef(model_id, storage.uri_of(f"training/{model_id}"))
    with record_step(database, "train_model", model_id) as detail:
        folder = RunFolder(work_folder / model_id)
        with folder.lock() as lock:
            if storage.exists(f"training/{model_id}/{MANIFEST_NAME}"):
                logger.info("%s is already trained: nothing to do", model_id)
            else:
                job = Job(
                    model_id,
                    stage,
                    recipe,
                    starts_from_weights=base is not None or recipe.base_weights is not None,
                    processes=processes or recipe.processes,
                    nodes=nodes.count if nodes else 1,
                    rendezvous=nodes.rendezvous if nodes else None,
                )
                changed = _find_changed(base_release, release_key, database) if base_release else frozenset()
                patients = _read_notes(notes, job, release_key, database) if notes else []
                _prepare(folder, job, dataset, base, storage, changed, patients)
                facts = _train(folder, job, lock, database)
                if recipe.base_weights and base is None:
                    facts |= {"base_weights_sha256": hash_weights(folder.start)}
                if base_release:
                    facts |= {"base_release_key": base_release}
                    facts["figures"]["changed_codes"] = len(changed)
                facts |= {"release_key": release_key, "dataset_id": dataset.dataset_id}
                facts |= {"base_model_id": base.model_id if base else None, "base_weights": recipe.base_weights}
                facts |= {"notes_sha256": notes_sha256}
                write_manifest(folder.model, facts)
                storage.publish_folder(folder.model, f"training/{model_id}", last=MANIFEST_NAME)
            manifest = read_stored_manifest(storage, ref.uri)
            _record(database, ref, manifest, storage.read_bytes(f"{storage.key_of(ref.uri)}/training_log.jsonl").decode())
            shutil.rmtree(folder.path, ignore_errors=True)
        detail.update(manifest["figures"])
    return ref


def _train_at_server(
    dataset: DatasetRef,
    recipe: ServerRecipe,
    stage: str,
    base: ModelRef | None,
    storage: Storage,
    database: Database,
    work_folder: Path,
    server: CoderServer | None,
    report: Callable[[str], None],
) -> ModelRef:
    """`train_model` by a server. Its job, and not this process, is what must not be lost: there is no folder to resume from."""
    if server is None:
        raise SettingsError(
            f"recipe {recipe.name} is trained by a server: set LLMCODER_CODER_LLM_URL, and the key where it wants one"
        )
    manifest = read_manifest(storage, dataset.uri)
    model_id = make_model_id(manifest.release_key, dataset.dataset_id, recipe, stage, base)
    ref = ModelRef(model_id, storage.uri_of(f"training/{model_id}"))
    with record_step(database, "train_model", model_id) as detail:
        if storage.exists(f"training/{model_id}/{MANIFEST_NAME}"):
            logger.info("%s is already trained: nothing to do", model_id)
        else:
            examples = _read_server_examples(fetch_dataset(storage, dataset, work_folder / "datasets"), recipe, stage, server)
            with tempfile.TemporaryDirectory(prefix="model-") as name:
                folder = Path(name)
                figures = train_at_server(
                    model_id,
                    recipe=recipe,
                    stage=recipe.stages[stage],
                    base=_read_served_name(base, storage).model if base else recipe.base_model,
                    lines=render_lines(examples, recipe.stages[stage], dataset.dataset_id),
                    server=server,
                    database=database,
                    on=datetime.now(UTC).date(),
                    folder=folder,
                    report=report,
                )
                facts = {
                    "model_id": model_id,
                    "stage": stage,
                    "recipe": recipe.name,
                    "recipe_settings": recipe.to_dict(),
                    "seed": recipe.seed,
                    "code_version": __version__,
                    "figures": figures,
                    "release_key": manifest.release_key,
                    "dataset_id": dataset.dataset_id,
                    "base_model_id": base.model_id if base else None,
                    "base_weights": recipe.base_model,
                }
                write_manifest(folder, facts)
                storage.publish_folder(folder, f"training/{model_id}", last=MANIFEST_NAME)
        stored = read_stored_manifest(storage, ref.uri)
        _record(database, ref, stored, "")
        detail.update(stored["figures"])
    return ref


def _read_served_name(base: ModelRef, storage: Storage) -> ServedName:
    """What stage two starts from, as the server knows it. Raises ModelError when stage one was trained elsewhere."""
    with tempfile.TemporaryDirectory(prefix="base-") as folder:
        return ServedName.read(fetch_model(storage, base.uri, Path(folder)))


def _read_server_examples(folder: Path, recipe: ServerRecipe, stage: str, server: CoderServer) -> list[Example]:
    """What a server is to learn. Raises TrainingError where that holds patients' words and no agreement covers the server."""
    settings = recipe.stages[stage]
    examples = [
        example
        for scenario in settings.scenarios
        for example in read_examples(folder, scenario, split="train", limit=settings.examples)
    ]
    corrections: list[Example] = []
    if settings.epochs and stage != FULL_STAGES[0] and (folder / f"{CORRECTIONS}.parquet").is_file():
        corrections = read_examples(folder, CORRECTIONS, split="train")
    if corrections and not server.covers_patients:
        raise TrainingError(
            f"{folder.name} holds {len(corrections)} phrases that people corrected, a patient's words, which would be sent to "
            f"{server.host}: where an agreement covers that, say so by LLMCODER_CODER_LLM_AGREEMENT={server.host}; else build the "
            "dataset with LLMCODER_TRAIN_ON_CORRECTIONS=off"
        )
    return examples + corrections


def train_on_notes(dataset: DatasetRef, *, recipe: AnyRecipe, base: ModelRef, notes: Path | None, **where: Any) -> ModelRef:
    """The stage `notes` on top of a model, or that model itself where the recipe has no such stage, or no notes are named.

    `where` is what else `train_model` wants. Raises as that does.
    """
    if NOTES not in recipe.stages or notes is None:
        what = f"recipe {recipe.name} has no stage {NOTES}" if NOTES not in recipe.stages else "LLMCODER_TRAINING_NOTES names none"
        logger.info("%s learns no notes of patients: %s", base.model_id, what)
        return base
    return train_model(dataset, recipe=recipe, stage=NOTES, base=base, notes=notes, **where)


def make_model_id(
    release_key: str, dataset_id: str, recipe: AnyRecipe, stage: str, base: ModelRef | None, notes_sha256: str | None = None
) -> str:
    """Like `FY2026-April-compact-stage_two-1a2b3c4d`: readable, and the same for the same inputs."""
    settings = recipe.to_dict()
    settings |= {"stages": settings["stages"][stage]}
    for name in ("processes", "max_cost"):  # they change no model
        settings.pop(name, None)
    inputs = [TRAINER_VERSION, dataset_id, settings, stage, base.model_id if base else None]
    if notes_sha256:
        inputs.append(notes_sha256)
    digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
    return f"{release_key}-{recipe.name}-{stage}-{digest[:8]}"


def _verify_stage(stage: str, base: ModelRef | None, recipe: AnyRecipe) -> None:
    if stage not in STAGES:
        raise TrainingError(f"there is no stage {stage!r}: expected {' or '.join(STAGES)}")
    if stage not in recipe.stages:
        raise TrainingError(f"recipe {recipe.name} has no stage {stage}: train its {' and '.join(FULL_STAGES)}")
    if (stage != FULL_STAGES[0]) != (base is not None):
        starts = {UPDATE: "a model of an earlier release", NOTES: "the model of stage two"}
        start = starts.get(stage, "the model of stage one")
        raise TrainingError(f"{stage} {f'needs {start} to start from' if base is None else 'starts from no model'}")


def _read_base_release(base: ModelRef, recipe: Recipe, release_key: str, storage: Storage) -> str:
    """The release that the base of an update has learnt. Raises TrainingError when the base cannot be updated."""
    manifest = read_stored_manifest(storage, base.uri)
    if obstacle := find_obstacle(recipe, manifest, release_key):
        raise TrainingError(f"no update is possible: {obstacle}")
    return str(manifest["release_key"])


def _find_changed(before: str, after: str, database: Database) -> frozenset[str]:
    return find_codes_to_learn(*(read_code_set(database, key).titles for key in (before, after)))


def _read_notes(source: Path, job: Job, release_key: str, database: Database) -> list[Example]:
    stage = job.stage_settings
    most = stage.max_words if isinstance(stage, NotesStage) else 0
    known = frozenset(read_code_set(database, release_key).titles)
    return list(read_training_notes(source, known_codes=known, max_words=most).examples)


def _prepare(
    folder: RunFolder,
    job: Job,
    dataset: DatasetRef,
    base: ModelRef | None,
    storage: Storage,
    changed: Set[str],
    patients: Sequence[Example],
) -> None:
    """Lay out the run, unless an earlier attempt already did."""
    if (folder.path / PLAN_NAME).is_file() and Job.read(folder) == job:
        logger.info("taking up an earlier attempt at %s in %s", job.model_id, folder.path)
        return
    shutil.rmtree(folder.path)
    folder.start.mkdir(parents=True)
    job.write(folder)
    examples_folder = fetch_dataset(storage, dataset, folder.path / "dataset")
    tokenizer = _prepare_start(folder, job, base, examples_folder, storage)
    examples = [
        example
        for scenario, share in job.stage_settings.mix.items()
        if share > 0 and not (scenario == "notes" and patients)
        for example in read_examples(examples_folder, scenario, split="train")
    ]
    examples += patients
    if job.stage != FULL_STAGES[0] and CORRECTIONS in read_manifest(storage, dataset.uri).tables:
        examples += _read_corrections(examples_folder, job)
    plan = TrainingPlan.make(
        examples,
        job.stage_settings,
        tokenizer,
        processes=job.world_size,
        seed=job.recipe.seed,
        changed=changed,
    )
    plan.save(folder.path)
    limit = job.stage_settings.max_tokens
    if plan.left_out:
        logger.warning("%d examples are longer than %d tokens and are left out", plan.left_out, limit)
    logger.info(
        "%s: %d examples in %d steps, %d tokens, %d processes",
        job.model_id,
        plan.example_count,
        len(plan),
        plan.tokens_until()[-1],
        job.world_size,
    )


def _read_corrections(examples_folder: Path, job: Job) -> list[Example]:
    """What coders corrected, as rows of the scenario of which the stage learns most: a recipe cannot count on their number."""
    mix = job.stage_settings.mix
    scenario = max(mix, key=lambda name: (mix[name], name))
    return [replace(example, scenario=scenario) for example in read_examples(examples_folder, CORRECTIONS, split="train")]


def _prepare_start(folder: RunFolder, job: Job, base: ModelRef | None, examples_folder: Path, storage: Storage) -> AnswerTokenizer:
    recipe = job.recipe
    if base is not None:
        return start_from_stage(recipe, fetch_model(storage, base.uri, folder.path / "base"), folder.start)
    if recipe.architecture is None:
        cache_folder = folder.path.parent / "base_weights"
        return start_from_pretrained(recipe, folder.start, cache_folder=cache_folder, storage=storage)
    texts: list[Example] = []
    for scenario in recipe.architecture.vocabulary_scenarios:
        texts += read_examples(examples_folder, scenario, split="train", limit=recipe.architecture.vocabulary_examples)
    codes = [code for example in read_examples(examples_folder, "base", split="train") for code in example.codes]
    return start_from_nothing(recipe, texts, codes, folder.start)


def _train(folder: RunFolder, job: Job, lock: int, database: Database) -> dict[str, Any]:
    """Run the training processes, alone on their devices; the manifest's facts about how it went."""
    plan = TrainingPlan.load(folder.path)
    started, cpu_before = time.monotonic(), _cpu_seconds_of_children()
    if not folder.model.is_dir():
        devices = list_devices(job.processes)
        _verify_fits(folder, job, plan, devices)
        with (
            lease_devices(devices, folder.path.parent / "devices", job.model_id) as leases,
            _show_progress(f"training {job.model_id}", len(plan)) as show,
        ):
            launch_training(folder, job, locks=[lock, *leases], report=_report_to(database, job.model_id, show))
    curve = read_curve(folder.log)
    if not curve:
        raise TrainingError(f"{job.model_id} was trained without a line of its loss curve: lower log_every_steps in the recipe")
    return {
        "model_id": job.model_id,
        "stage": job.stage,
        "recipe": job.recipe.name,
        "recipe_settings": job.recipe.to_dict(),
        "seed": job.recipe.seed,
        "code_version": __version__,
        "figures": {
            "steps": len(plan),
            "examples": plan.example_count,
            "examples_left_out": int(plan.left_out),
            "tokens": int(plan.tokens_until()[-1]),
            "seconds": round(time.monotonic() - started, 1),
            "cpu_seconds": round(_cpu_seconds_of_children() - cpu_before, 1),
            "tokens_per_second": curve[-1]["tokens_per_second"],
            "first_loss": curve[0]["loss"],
            "final_loss": curve[-1]["loss"],
            "processes": job.world_size,
            "model_flops_utilization": curve[-1]["model_flops_utilization"],
            "peak_memory_bytes": max(line["peak_memory_bytes"] for line in curve),
        },
    }


def _verify_fits(folder: RunFolder, job: Job, plan: TrainingPlan, devices: Sequence[Device]) -> None:
    """Refuse what the devices cannot hold, before one is taken."""
    tokens, answer_tokens = plan.largest_step(job.world_size)
    has_mask = plan.row_tokens and not (devices[0].is_gpu and job.recipe.precision == "bf16")
    load = Load(
        tokens,
        answer_tokens,
        int(plan.tokens_until()[-1]),
        int(plan.answer_tokens_until()[-1]),
        int(plan.squared_tokens_until()[-1]),
        mask_tokens=plan.row_tokens if has_mask else 0,
    )
    shape = read_shape(folder, job, AnswerTokenizer.load(folder.start))
    verify_fits(
        shape,
        job.recipe,
        load,
        devices,
        processes=job.processes,
        nodes=job.nodes,
        host_bytes=psutil.virtual_memory().total,
    )


def _report_to(database: Database, model_id: str, show: ProgressReport) -> ProgressReport:
    """Shows a line and keeps it in the database; a database that is away for a while costs lines there, not the training."""

    def report(line: dict[str, Any]) -> None:
        show(line)
        try:
            database.execute("record_training_progress", line | {"model_id": model_id})
        except DatabaseError as error:
            logger.warning("progress of %s is not in the database: %s", model_id, error)

    return report


def _cpu_seconds_of_children() -> float:
    """Of all training processes of this process that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def read_curve(path: Path) -> list[dict[str, Any]]:
    """The lines of a loss curve."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def _record(database: Database, ref: ModelRef, manifest: dict[str, Any], curve: str) -> None:
    """The row of the model and of its curve; a second call changes nothing."""
    with database.transaction() as transaction:
        added = transaction.execute(
            "record_model",
            {
                "model_id": ref.model_id,
                "release_key": manifest["release_key"],
                "dataset_id": manifest["dataset_id"],
                "recipe": manifest["recipe"],
                "stage": manifest["stage"],
                "parent_model_id": manifest["base_model_id"],
                "uri": ref.uri,
                "manifest": json.dumps(manifest),
            },
        )
        transaction.execute("end_training_progress", {"model_id": ref.model_id})
        if added and curve:
            unknown = {"model_id": ref.model_id, "model_flops_utilization": None, "peak_memory_bytes": None}
            lines = [unknown | json.loads(line) for line in curve.splitlines()]
            transaction.execute("record_training_metrics", lines)


@contextmanager
def _show_progress(label: str, steps: int) -> Iterator[ProgressReport]:
    """A bar in a terminal, a plain line for each report elsewhere."""
    if not sys.stderr.isatty():
        yield lambda line: logger.info("%s: %s", label, render_training_progress(line))
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=steps)
        yield lambda line: bar.update(task, completed=line["step"], description=f"{label} loss {line['loss']:.3f}")


def render_training_progress(line: dict[str, Any]) -> str:
    """`step 300/1,200 (25 %), loss 0.412, rate 1.0e-05, 18,900 tokens/s, MFU 41.0 %, at most 21.3 GB, 75 s left`."""
    share = 100 * line["step"] / line["steps"]
    used = line["model_flops_utilization"]
    return (
        f"step {line['step']:,}/{line['steps']:,} ({share:.0f} %), loss {line['loss']:.3f}, rate {line['learning_rate']:.1e}, "
        f"{line['tokens_per_second']:,.0f} tokens/s, {'' if used is None else f'MFU {used:.1%}, '}"
        f"at most {line['peak_memory_bytes'] / 1e9:.1f} GB, {line['seconds_left']:,.0f} s left"
    )
