"""Training at a server that speaks the OpenAI API: what it will cost, whether it can be, and one paid job for each model.

The id of a model is the fingerprint of all that makes it. A job carries it as metadata, and a row of `fine_tuning_jobs` has the
id of the job: before one is begun both are asked, under a lock. So a crash between beginning and recording costs nothing: the next
call finds the job at the server. A job that went wrong is reported once, with the server's reason; only a call after that begins
another one.
"""

from __future__ import annotations

import difflib
import json
import logging
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from llmcoder_tasks.database import Database, Transaction
from llmcoder_tasks.errors import LanguageModelUnreachable, NotOffered, TrainingError, WorkPending
from llmcoder_tasks.language_model import ModelServer, TuningJob, estimate_tokens
from llmcoder_tasks.model.recipe import ServerRecipe, ServerStage
from llmcoder_tasks.model.server_model import ServedName
from llmcoder_tasks.prompt import render_training_line
from llmcoder_tasks.records import Example
from llmcoder_tasks.settings import CoderServer

logger = logging.getLogger(__name__)

POLL_SECONDS = 20.0
PATIENCE_SECONDS = 1800.0
"""How long a server that does not answer is asked about a job that is under way there."""

SETTLE_SECONDS = 5.0
"""After a job whose beginning nobody saw answered: until a server lists it."""

MODEL_ID = "llmcoder_model_id"
LEAST_EXAMPLES = 10
_MARKUP_CHARACTERS = 60  # of a line of JSON: names of the fields, brackets
_LINE_TOKENS = 12  # the marks that a chat template puts around three messages
_SHORTLY = timedelta(days=60)
_WRONG = frozenset({"failed", "cancelled"})
_DATED = re.compile(r"-20\d\d-\d\d-\d\d$")
_INSTEAD = (
    "train a recipe of your own GPU instead (--recipe llama-3.2-1b) or compact on a CPU, or take a served model as it is "
    "(the recipe served, docs/serving.md)"
)


@dataclass(frozen=True, slots=True)
class TrainingEstimate:
    """What a stage will take: `tokens` over all epochs, by the length of the texts; `cost` is None without a price."""

    examples: int
    epochs: int
    tokens: int
    cost: float | None

    @classmethod
    def of(cls, lines: Sequence[str], epochs: int, price: float | None) -> TrainingEstimate:
        """The estimate for the lines of a training file; `price` is for a million tokens."""
        of_pass = sum(estimate_tokens(max(0, len(line) - _MARKUP_CHARACTERS)) + _LINE_TOKENS for line in lines)
        cost = None if price is None else of_pass * epochs * price / 1_000_000
        return cls(len(lines), epochs, of_pass * epochs, cost)

    def render(self) -> str:
        """One line for people."""
        price = "unknown price" if self.cost is None else f"about {self.cost:,.2f} in the currency of your prices"
        return f"{self.examples:,} examples, {self.epochs} epochs, about {self.tokens:,} trained tokens, {price}"

    def verify_ceiling(self, ceiling: float | None, server: CoderServer) -> None:
        """Raise TrainingError when the estimate is above the ceiling, or cannot be held against one."""
        if ceiling is None:
            if server.is_this_machine:
                return
            raise TrainingError(
                f"{self.render()}: no ceiling, and nothing is spent without one: set LLMCODER_TRAIN_MAX_COST (0 where training is "
                "free, with LLMCODER_TRAIN_PRICE=0), or max_cost in the recipe"
            )
        if self.cost is None:
            raise TrainingError(f"{self.render()}: a ceiling needs a price: set LLMCODER_TRAIN_PRICE, for a million trained tokens")
        if self.cost > ceiling:
            raise TrainingError(
                f"{self.render()}: above the ceiling of {ceiling:,.2f}, nothing was sent; raise LLMCODER_TRAIN_MAX_COST, or give "
                "the recipe fewer examples or epochs"
            )


def render_lines(examples: Sequence[Example], stage: ServerStage, place: str) -> list[str]:
    """The lines of a stage's training file. Raises TrainingError when there are too few."""
    if len(examples) < LEAST_EXAMPLES and stage.epochs:
        raise TrainingError(f"{place} has {len(examples)} examples for this stage: servers want at least {LEAST_EXAMPLES}")
    return [render_training_line(example.text, example.codes) for example in examples]


def verify_model(service: ModelServer, name: str, on: date, *, is_trained: bool) -> None:
    """Raise TrainingError unless the server has a model `on` a day, and not under an alias where it is to be trained."""
    listed = {model.name: model for model in service.list_models()}
    dated = [other for other in sorted(listed) if _DATED.sub("", other) == name and other != name]
    if dated and is_trained:
        raise TrainingError(
            f"{name} is an alias that means another model one day: name a dated snapshot as base_model, {dated[-1]}"
        )
    if name not in listed:
        near = difflib.get_close_matches(name, listed, n=3) or sorted(listed)[:3]
        raise TrainingError(f"the server has no model {name}: name one that it lists, like {', '.join(near) or 'none at all'}")
    shutdown = listed[name].shutdown
    if shutdown is not None and shutdown <= on:
        raise TrainingError(f"{name} was shut down on {shutdown}, what was made of it too: name another base_model, or {_INSTEAD}")
    if shutdown is not None and shutdown - on <= _SHORTLY:
        logger.warning("%s will be shut down on %s, and what is made of it with it", name, shutdown)


class TuningJobs:
    """The fine-tuning jobs of one model: at the server and in the database."""

    def __init__(
        self,
        model_id: str,
        server: CoderServer,
        service: ModelServer,
        database: Database,
        estimate: TrainingEstimate,
        report: Callable[[str], None],
    ) -> None:
        self.model_id, self.server, self.service, self.database = model_id, server, service, database
        self.estimate, self.report = estimate, report

    def find(self) -> TuningJob | None:
        """The job that trains the model, or has trained it, wherever that is known.

        Raises TrainingError for one that went wrong and that nobody was told of yet, for one at another server, and where this
        one does not fine-tune.
        """
        with self._locked() as transaction:
            job = self._find(transaction)
            if job is not None:
                self._record(transaction, job)
        return self._verify_well(job) if job else None

    def begin(self, recipe: ServerRecipe, stage: ServerStage, base: str, file_id: str) -> TuningJob:
        """Begin the job, unless one is there by now. Raises what `find` raises, and TrainingError where the server refuses it."""
        with self._locked() as transaction:
            job = self._find(transaction) or self._create(recipe, stage, base, file_id)
            self._record(transaction, job)
        return self._verify_well(job)

    def wait(self, job: TuningJob) -> TuningJob:
        """The job when it is done. Raises WorkPending where the server is not waited for, TrainingError when it went wrong,
        LanguageModelUnreachable when the server stays away.
        """
        seen = time.monotonic()
        while not job.is_over:
            if not self.server.waits:
                message = f"fine-tuning job {job.job_id} is under way at {self.server.url}: come again later"
                raise WorkPending("job", job.job_id, message)
            self.report(f"{self.model_id}: {render_job(job)}")
            time.sleep(POLL_SECONDS)
            try:
                job, seen = self.service.read_job(job.job_id), time.monotonic()
            except LanguageModelUnreachable as error:
                if time.monotonic() - seen > PATIENCE_SECONDS:
                    raise
                logger.warning("%s; the job goes on without us, asking again", error)
        with self._locked() as transaction:
            self._record(transaction, job)
        return self._verify_well(job)

    @contextmanager
    def _locked(self) -> Iterator[Transaction]:
        with self.database.transaction() as transaction:
            transaction.fetch_one("lock_fine_tuning", model_id=self.model_id)
            yield transaction

    def _verify_well(self, job: TuningJob) -> TuningJob:
        """Raise TrainingError for a job that went wrong. Its row says so by then: the next call may begin another one."""
        if job.status in _WRONG:
            raise TrainingError(
                f"fine-tuning job {job.job_id} at {self.server.url} {job.status}: {job.failure or 'the server gives no reason'}. "
                "Mend what it says; a further run begins another job, which is paid for by itself"
            )
        return job

    def _find(self, transaction: Transaction) -> TuningJob | None:
        told = set()
        for row in transaction.fetch_all("list_fine_tuning_jobs", model_id=self.model_id):
            if row["status"] in _WRONG:
                told.add(row["job_id"])
            elif row["server_url"] != self.server.url:
                raise TrainingError(
                    f"{self.model_id} has job {row['job_id']} at {row['server_url']}: set LLMCODER_CODER_LLM_URL to that server, "
                    "or change the recipe, which gives a new model"
                )
            else:
                return self.service.read_job(row["job_id"])
        jobs = [job for job in self._list_jobs() if job.job_id not in told]
        jobs.sort(key=lambda job: job.status in _WRONG)
        if jobs:
            logger.info("%s: taking up %s, which the server has for it", self.model_id, jobs[0].job_id)
        return jobs[0] if jobs else None

    def _list_jobs(self) -> list[TuningJob]:
        try:
            return [job for job in self.service.list_jobs() if job.metadata.get(MODEL_ID) == self.model_id]
        except NotOffered as error:
            raise TrainingError(f"{self.server.url} does not fine-tune for you: {_INSTEAD} ({error})") from None

    def _create(self, recipe: ServerRecipe, stage: ServerStage, base: str, file_id: str) -> TuningJob:
        wanted = {
            "n_epochs": stage.epochs,
            "learning_rate_multiplier": stage.learning_rate_multiplier,
            "batch_size": stage.batch_size,
        }
        try:
            return self.service.create_job(
                model=base,
                file_id=file_id,
                hyperparameters={name: value for name, value in wanted.items() if value is not None},
                seed=recipe.seed % 2**31,
                suffix=f"llmcoder-{self.model_id.rpartition('-')[2]}",
                metadata={MODEL_ID: self.model_id},
            )
        except LanguageModelUnreachable:
            time.sleep(SETTLE_SECONDS)  # nobody knows whether it has begun
            jobs = [job for job in self._list_jobs() if job.file_id == file_id and job.status not in _WRONG]
            if not jobs:
                raise
            return jobs[0]
        except NotOffered as error:
            raise TrainingError(f"{self.server.url} does not fine-tune {base} for you: {_INSTEAD} ({error})") from None

    def _record(self, transaction: Transaction, job: TuningJob) -> None:
        transaction.execute(
            "record_fine_tuning_job",
            {
                "server_url": self.server.url,
                "job_id": job.job_id,
                "model_id": self.model_id,
                "status": job.status,
                "failure": job.failure,
                "estimated_tokens": self.estimate.tokens,
                "estimated_cost": self.estimate.cost,
                "trained_tokens": job.trained_tokens,
            },
        )


def train_at_server(
    model_id: str,
    *,
    recipe: ServerRecipe,
    stage: ServerStage,
    base: str,
    lines: Sequence[str],
    server: CoderServer,
    database: Database,
    on: date,
    folder: Path,
    report: Callable[[str], None],
) -> dict[str, Any]:
    """Have the server train `base` on the lines of a training file; write the files of the model folder, and return its figures.

    `on` is the day by which the server's models are judged; `report` gets the estimate, and how the job stands. Raises
    TrainingError, with the reason, before anything is sent or spent where it can be known by then; WorkPending and
    LanguageModelUnreachable where the same call later goes on.
    """
    service = ModelServer(server.model(base))
    try:
        if stage.epochs == 0:
            verify_model(service, base, on, is_trained=False)
            ServedName(base, recipe.base_model).write(folder)
            return {"examples": 0, "epochs": 0, "trained_tokens": 0}
        estimate = TrainingEstimate.of(lines, stage.epochs, server.train_price)
        jobs = TuningJobs(model_id, server, service, database, estimate, report)
        job = jobs.find()
        if job is None:
            report(f"{model_id}: {estimate.render()}")
            verify_model(service, base, on, is_trained=True)
            estimate.verify_ceiling(server.max_cost if server.max_cost is not None else recipe.max_cost, server)
            job = jobs.begin(recipe, stage, base, _upload(service, lines, model_id))
        job = jobs.wait(job)
        if job.model is None:
            raise TrainingError(f"fine-tuning job {job.job_id} at {server.url} {job.status} and names no model: ask who runs it")
        ServedName(job.model, recipe.base_model).write(folder)
        figures = {"examples": len(lines), "epochs": stage.epochs, "estimated_tokens": estimate.tokens}
        return {**figures, "trained_tokens": job.trained_tokens, "job_id": job.job_id, **_write_losses(service, job, folder)}
    finally:
        service.close()


def render_job(job: TuningJob) -> str:
    """`fine-tuning job ftjob-1: running, done in about 12 min`."""
    if job.finishes_at is None:
        return f"fine-tuning job {job.job_id}: {job.status}"
    left = max(0.0, (job.finishes_at - datetime.now(UTC)).total_seconds())
    return f"fine-tuning job {job.job_id}: {job.status}, done in about {left / 60:.0f} min"


def _upload(service: ModelServer, lines: Sequence[str], model_id: str) -> str:
    """The id of the training file at the server: one that an earlier attempt sent, or a new one."""
    with tempfile.TemporaryDirectory(prefix="training-") as folder:
        path = Path(folder) / f"{model_id}.jsonl"
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        with suppress(NotOffered):  # a server may keep its files to itself
            if found := service.find_file(path.name, path.stat().st_size):
                return found
        return service.upload_file(path, "fine-tune")


def _write_losses(service: ModelServer, job: TuningJob, folder: Path) -> dict[str, Any]:
    """The loss curve of a job as a file of the model folder, and its ends as figures; nothing where the server tells none."""
    losses = service.read_losses(job.job_id)
    if not losses:
        return {}
    rows = [json.dumps({"step": step, "loss": loss}) for step, loss in losses]
    (folder / "server_losses.jsonl").write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    return {"steps": losses[-1][0], "first_loss": losses[0][1], "final_loss": losses[-1][1]}
