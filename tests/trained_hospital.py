"""Two models that were really trained, fitted, evaluated, judged and answered for, on a hundred codes of two loaded releases.

The recipe is the tiny one and the gate asks for little, so that it takes a minute; every figure is a measured one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from llmcoder_tasks.connections import Connections
from llmcoder_tasks.dataset.config import DatasetConfig
from llmcoder_tasks.dataset.examples import make_examples
from llmcoder_tasks.dataset.store import DatasetManifest, write_tables
from llmcoder_tasks.evaluation.gate import Gate, load_gate
from llmcoder_tasks.icd10cm.code_set import Code, CodeSet, default_code_set
from llmcoder_tasks.model.recipe import read_recipe
from llmcoder_tasks.records import DatasetRef, ModelRef, ScorecardRef, VerdictRef
from llmcoder_tasks.steps.evaluate_model import evaluate_model
from llmcoder_tasks.steps.fit_coder import fit_coder
from llmcoder_tasks.steps.judge_model import judge_model
from llmcoder_tasks.steps.promote_model import promote_model
from llmcoder_tasks.steps.record_approval import record_approval
from llmcoder_tasks.steps.report_release import report_release
from llmcoder_tasks.steps.train_model import train_model

CODES = tuple(default_code_set().billable[::600])
DEAD, REVISED, NEW = CODES[10], CODES[20], CODES[30]
"""What the older release says otherwise: it also has a code DEAD, another title of REVISED, and lacks NEW."""

RELEASES = (("FY2026", "2025-10-01"), ("FY2026-April", "2026-04-01"))
LIMIT = 12
APPROVER, COMMENT = "Ann Approver", "looks <b>right</b>"


@dataclass(frozen=True, slots=True)
class TrainedHospital:
    """Ids of what was made: `promoted` went on from `stage_one` and is in service; `stage_one` was then evaluated beside it."""

    stage_one: ModelRef
    promoted: ModelRef
    scorecards: dict[str, ScorecardRef]
    verdicts: dict[str, VerdictRef]


def train_hospital(stores: Connections, folder: Path) -> TrainedHospital:
    """Everything from the releases to the promotion, into empty stores."""
    _load_releases(stores)
    dataset = _store_dataset(stores, folder)
    stage_one = _train(stores, dataset, folder, "stage_one", None)
    promoted = _train(stores, dataset, folder, "stage_two", stage_one)
    scorecards, verdicts = {}, {}
    for model in (promoted, stage_one):
        fit_coder(model, dataset, storage=stores.storage, database=stores.database, cache_folder=folder / "cache")
        scorecards[model.model_id] = evaluate_model(
            model, dataset, storage=stores.storage, database=stores.database, cache_folder=folder / "cache", limit=LIMIT
        )
        verdict = judge_model(scorecards[model.model_id], gate=_make_gate(), storage=stores.storage, database=stores.database)
        verdicts[model.model_id] = verdict
        if model == promoted:
            record_approval(verdict, approved=True, answered_by=APPROVER, comment=COMMENT, database=stores.database)
            promote_model(verdict, promoted_by=APPROVER, storage=stores.storage, database=stores.database)
    for key, _ in RELEASES:
        report_release(key, storage=stores.storage, database=stores.database)
    return TrainedHospital(stage_one, promoted, scorecards, verdicts)


def _make_gate() -> Gate:
    """The default gate without what a tiny model cannot reach."""
    return replace(load_gate(), floors=(), ceilings=(), calibration=None, baseline=None, minimum_items=1)


def _load_releases(stores: Connections) -> None:
    old = [code for code in CODES if code != NEW]
    old = [Code(code.code, True, "older title", "An older title") if code == REVISED else code for code in old]
    with stores.database.transaction() as transaction:
        for (key, day), codes in zip(RELEASES, (old, [code for code in CODES if code != DEAD]), strict=True):
            transaction.run_script(
                "INSERT INTO releases (release_key, effective_from, source, content_sha256, code_count, billable_count, uri) "
                f"VALUES ('{key}', '{day}', 'made up', 'x', {len(codes)}, {len(codes)}, 'file:///x')"
            )
            rows = [(key, code.code, True, code.short_title, code.long_title, place) for place, code in enumerate(codes, start=1)]
            transaction.copy_rows("codes", ["release_key", "code", "is_billable", "short_title", "long_title", "position"], rows)
        transaction.copy_rows(
            "code_conversions",
            ["release_key", "code", "previous_code", "effective_from"],
            [("FY2026-April", NEW.code, DEAD.code, "2026-04-01")],
        )
        columns = ["release_key", "previous_release_key", "code", "kind", "old_title", "new_title"]
        changes = [
            ("added", NEW, None, NEW.long_title), ("deleted", DEAD, DEAD.long_title, None),
            ("revised", REVISED, "An older title", REVISED.long_title),
        ]  # fmt: skip
        rows = [("FY2026-April", "FY2026", code.code, kind, old, new) for kind, code, old, new in changes]
        transaction.copy_rows("code_changes", columns, rows)


def _store_dataset(stores: Connections, folder: Path) -> DatasetRef:
    codes = tuple(code for code in CODES if code != DEAD)
    code_set = CodeSet("FY2026-April", default_code_set().effective_from, codes, ())
    tables = make_examples(code_set, DatasetConfig(notes=12, held_out_share=0.3))
    place = folder / "FY2026-April-d1"
    place.mkdir()
    manifest = DatasetManifest(place.name, "FY2026-April", "0" * 64, 0, "1", "0" * 64, {}, write_tables(tables, place))
    (place / "manifest.json").write_text(manifest.to_json(), encoding="utf-8")
    stores.storage.publish_folder(place, f"datasets/{place.name}", last="manifest.json")
    uri = stores.storage.uri_of(f"datasets/{place.name}")
    with stores.database.transaction() as transaction:
        columns = ["dataset_id", "release_key", "uri", "manifest"]
        transaction.copy_rows("datasets", columns, [(place.name, "FY2026-April", uri, manifest.to_json())])
    return DatasetRef(place.name, uri)


def _train(stores: Connections, dataset: DatasetRef, folder: Path, stage: str, base: ModelRef | None) -> ModelRef:
    recipe = read_recipe("tiny")
    stages = recipe.stages | {stage: replace(recipe.stages[stage], examples=800)}
    return train_model(
        dataset,
        recipe=replace(recipe, stages=stages),
        stage=stage,
        base=base,
        storage=stores.storage,
        database=stores.database,
        work_folder=folder / "work",
        processes=1,
    )
