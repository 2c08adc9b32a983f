"""Titles of a release -> variations written by a language model, validated, in the artifact store.

What is sent are codes and titles of a public release and the prompts of `dataset/prompts/`: this step reads no note.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from llmcoder_tasks.database import Database
from llmcoder_tasks.dataset.expectations import verify_examples
from llmcoder_tasks.dataset.llm_answers import Guard
from llmcoder_tasks.dataset.llm_asking import Asker, Bill, Work
from llmcoder_tasks.dataset.llm_config import AskingConfig, VariationsConfig
from llmcoder_tasks.dataset.llm_estimate import Estimate, add_up, cost_of, estimate_scenario, refuse_above_ceiling
from llmcoder_tasks.dataset.llm_kept import KeptAnswers, one_at_a_time
from llmcoder_tasks.dataset.llm_prompts import load_prompt
from llmcoder_tasks.dataset.llm_store import VariationsManifest, make_tables
from llmcoder_tasks.dataset.naming import names_of
from llmcoder_tasks.dataset.splits import sampling_order, split_of
from llmcoder_tasks.dataset.store import MANIFEST, write_tables
from llmcoder_tasks.errors import DatasetError
from llmcoder_tasks.icd10cm.code_set import CodeSet, read_code_set, require_release
from llmcoder_tasks.language_model import LanguageModelClient
from llmcoder_tasks.progress import record_step
from llmcoder_tasks.records import ReleaseRef, VariationsRef
from llmcoder_tasks.settings import LanguageModel
from llmcoder_tasks.storage import Storage

logger = logging.getLogger(__name__)

UNANSWERED_LIMIT = 0.1
"""Largest share of the titles of a scenario that may stay without a variation. Some have none: `Gout` has no other order."""


@dataclass(frozen=True)
class _Plan:
    """All that is known before the first question. `facts` lack only the tables."""

    facts: VariationsManifest
    reference: VariationsRef
    code_set: CodeSet
    works: tuple[Work, ...]

    @property
    def key(self) -> str:
        return f"variations/{self.reference.variations_id}"


def estimate_variations(
    release: ReleaseRef,
    *,
    model: LanguageModel,
    config: VariationsConfig,
    asking: AskingConfig,
    storage: Storage,
    database: Database,
    work_folder: Path,
) -> Estimate:
    """What `generate_variations` would ask and pay from here on; asks nothing, writes nothing."""
    return _estimate(_plan(release, model, config, storage, database, work_folder), model, config, asking)


def generate_variations(
    release: ReleaseRef,
    *,
    model: LanguageModel,
    config: VariationsConfig,
    asking: AskingConfig,
    storage: Storage,
    database: Database,
    docs_folder: Path,
    work_folder: Path,
    report: Callable[[str], None] = logger.info,
) -> VariationsRef:
    """Ask for what is not answered yet, check it as every dataset is checked, and publish it under `variations/<id>/`.

    The id is a fingerprint of release content, model, prompts and config: a set that is whole is returned at once. Answers are kept
    below `work_folder` as they come; a run after a failure asks only for the rest. `report` gets the estimate before anything is
    asked. Raises ReleaseError when the release is not loaded, LanguageModelError and DatasetError (ceiling, too few answers).
    """
    with one_at_a_time(_kept_folder(work_folder)):
        plan = _plan(release, model, config, storage, database, work_folder)
        if storage.exists(f"{plan.key}/{MANIFEST}"):
            report(f"variations {plan.reference.variations_id} are already there, nothing to do")
            return plan.reference
        with record_step(database, "generate_variations", plan.reference.variations_id) as detail:
            estimate = _estimate(plan, model, config, asking)
            report(estimate.render())
            refuse_above_ceiling(estimate, asking.max_cost)
            bill = _ask(plan, model, config, asking)
            report(_render_bill(bill))
            manifest = _publish(plan, storage, docs_folder)
            detail |= {"requests": bill.requests, "input_tokens": bill.input_tokens, "output_tokens": bill.output_tokens}
            detail |= {scenario: table.rows for scenario, table in manifest.tables.items()}
            detail["refused"] = dict(bill.refused)
    return plan.reference


def _plan(
    release: ReleaseRef, model: LanguageModel, config: VariationsConfig, storage: Storage, database: Database, work_folder: Path
) -> _Plan:
    row = require_release(database, release.key)
    release = ReleaseRef(row["release_key"], row["uri"])
    prompts = {scenario: load_prompt(scenario) for scenario in config.scenarios}
    facts = VariationsManifest(
        variations_id="",
        release_key=release.key,
        release_sha256=row["content_sha256"],
        model=model.name,
        prompts={scenario: prompt.sha256 for scenario, prompt in prompts.items()},
        config=asdict(config),
        tables={},
    )
    variations_id = f"{release.key}-llm-{_fingerprint(facts.to_json())}"
    code_set = read_code_set(database, release.key)
    titles = _choose_titles(code_set, config)
    works = []
    for scenario, prompt in prompts.items():
        # Not part of it: how many codes and how many variations. Asking for more of the same pays only for what is new.
        question = json.dumps([release.key, facts.release_sha256, model.name, prompt.sha256, config.seed, scenario])
        path = _kept_folder(work_folder) / f"{scenario}-{_fingerprint(question)}.jsonl"
        works.append(Work(prompt, titles, config.count, KeptAnswers(path)))
    reference = VariationsRef(variations_id, storage.uri_of(f"variations/{variations_id}"))
    return _Plan(replace(facts, variations_id=variations_id), reference, code_set, tuple(works))


def _fingerprint(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _kept_folder(work_folder: Path) -> Path:
    return work_folder / "variations"


def _choose_titles(code_set: CodeSet, config: VariationsConfig) -> dict[str, str]:
    codes = [code for code in code_set.titles if split_of(code, seed=config.seed, held_out_share=config.held_out_share) == "train"]
    codes.sort(key=sampling_order)
    return {code: code_set.titles[code] for code in codes[: config.limit]}


def _estimate(plan: _Plan, model: LanguageModel, config: VariationsConfig, asking: AskingConfig) -> Estimate:
    estimates = []
    for work in plan.works:
        batches = work.batches(asking.batch_size)
        kept = len(work.titles) - sum(map(len, batches))
        estimates.append(estimate_scenario(work.prompt, batches, kept=kept, count=config.count, model=model))
    return add_up(estimates)


def _ask(plan: _Plan, model: LanguageModel, config: VariationsConfig, asking: AskingConfig) -> Bill:
    bill = Bill(model, asking.max_cost)
    guard = Guard(plan.code_set.titles, names_of(plan.code_set))
    client = LanguageModelClient(model, timeout_seconds=asking.timeout_seconds, retries=asking.retries)
    try:
        asker = Asker(client, guard, asking, bill, config.seed)
        for work in plan.works:
            asker.ask_for(work)
            _refuse_too_few(work)
    finally:
        client.close()
    return bill


def _refuse_too_few(work: Work) -> None:
    unanswered = [code for code in work.titles if not work.kept.variations_of(code)]
    if len(unanswered) > UNANSWERED_LIMIT * len(work.titles):
        raise DatasetError(
            f"{work.prompt.scenario}: no usable variation for {len(unanswered):,} of {len(work.titles):,} titles, for example "
            f"{unanswered[0]}: ask again, or ask a model that keeps to the form of answer"
        )


def _render_bill(bill: Bill) -> str:
    cost = cost_of(bill.model, bill.input_tokens, bill.output_tokens)
    price = "unknown price" if cost is None else f"{cost:,.2f} in the currency of your prices"
    refused = ", ".join(f"{count:,} × {fault}" for fault, count in bill.refused.most_common() if count) or "nothing"
    return (
        f"asked: {bill.requests:,} requests, {bill.input_tokens:,} input and {bill.output_tokens:,} output tokens, {price}; "
        f"refused and asked again: {refused}"
    )


def _publish(plan: _Plan, storage: Storage, docs_folder: Path) -> VariationsManifest:
    count = plan.works[0].count
    tables = make_tables(
        {work.prompt.scenario: {code: work.kept.variations_of(code)[:count] for code in work.titles} for work in plan.works}
    )
    verify_examples(tables, code_set=plan.code_set, docs_folder=docs_folder, subject=plan.reference.variations_id)
    with tempfile.TemporaryDirectory(prefix="variations-") as name:
        folder = Path(name)
        manifest = replace(plan.facts, tables=write_tables(tables, folder))
        (folder / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
        storage.publish_folder(folder, plan.key, last=MANIFEST)
    return manifest
