"""Fitting a coder on a small real dataset: evidence, idempotence, refusals."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import pytest
from rapidfuzz.distance import Indel

from llmcoder_tasks.coding.coder import Coder
from llmcoder_tasks.coding.coder_fit import CoderFit
from llmcoder_tasks.database import Database
from llmcoder_tasks.dataset.config import DatasetConfig
from llmcoder_tasks.dataset.examples import make_examples
from llmcoder_tasks.dataset.store import DatasetManifest, write_tables
from llmcoder_tasks.errors import DatasetError
from llmcoder_tasks.icd10cm.code_set import CodeSet, default_code_set, read_code_set
from llmcoder_tasks.model.manifest import write_manifest
from llmcoder_tasks.records import DatasetRef, ModelRef
from llmcoder_tasks.steps.fit_coder import fit_coder
from llmcoder_tasks.storage import FolderStorage

pytestmark = pytest.mark.integration

CODES = tuple(default_code_set().billable[::75])
TITLES = {code.code: code.long_title for code in CODES}


class TitleScorer:
    """A language model that has read the titles: log-probability by the share of common letters."""

    def score(self, texts: Sequence[str], candidates: Sequence[Sequence[str]]) -> list[list[float]]:
        return [
            [-20.0 * Indel.normalized_distance(text.lower(), TITLES[code].lower()) for code in codes]
            for text, codes in zip(texts, candidates, strict=True)
        ]


@pytest.fixture
def storage(tmp_path: Path) -> FolderStorage:
    return FolderStorage(tmp_path / "store")


@pytest.fixture
def model(database: Database, storage: FolderStorage, tmp_path: Path) -> ModelRef:
    """A thousand codes of the real release in the database, and a model folder."""
    with database.transaction() as transaction:
        transaction.run_script(
            "INSERT INTO releases (release_key, effective_from, source, content_sha256, code_count, billable_count, uri) "
            f"VALUES ('FY2026-April', '2026-04-01', 'test', 'abc', {len(CODES)}, {len(CODES)}, 'file:///releases')"
        )
        transaction.copy_rows(
            "codes",
            ["release_key", "code", "is_billable", "short_title", "long_title", "position"],
            [("FY2026-April", code.code, True, code.short_title, code.long_title, n) for n, code in enumerate(CODES, start=1)],
        )
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    write_manifest(folder, {"model_id": "m1"})
    storage.publish_folder(folder, "training/m1", last="manifest.json")
    return ModelRef("m1", storage.uri_of("training/m1"))


def _store_dataset(storage: FolderStorage, folder: Path, *, share: float = 0.3, has_validation: bool = True) -> DatasetRef:
    code_set = CodeSet("FY2026-April", default_code_set().effective_from, CODES, ())
    tables = make_examples(code_set, DatasetConfig(notes=3, held_out_share=share))
    if not has_validation:
        tables = {name: [made for made in rows if made.example.split != "validation"] for name, rows in tables.items()}
    folder.mkdir()
    facts = write_tables(tables, folder)
    manifest = DatasetManifest(folder.name, "FY2026-April", "0" * 64, 0, "1", "0" * 64, {}, facts)
    (folder / "manifest.json").write_text(manifest.to_json(), encoding="utf-8")
    storage.publish_folder(folder, f"datasets/{folder.name}", last="manifest.json")
    return DatasetRef(folder.name, storage.uri_of(f"datasets/{folder.name}"))


def _run(model: ModelRef, dataset: DatasetRef, storage: FolderStorage, database: Database, tmp_path: Path) -> CoderFit:
    result = fit_coder(
        model, dataset, storage=storage, database=database, cache_folder=tmp_path / "cache", open_model=lambda _: TitleScorer()
    )
    assert result == model
    return CoderFit.parse(storage.read_bytes("coders/m1/coder.json"))


def test_a_fit_holds_weight_threshold_and_their_evidence(
    model: ModelRef, storage: FolderStorage, database: Database, tmp_path: Path
) -> None:
    dataset = _store_dataset(storage, tmp_path / "d1")
    fit = _run(model, dataset, storage, database, tmp_path)
    assert (fit.model_id, fit.dataset_id, fit.release_key) == ("m1", "d1", "FY2026-April")
    for calibration in (fit.lexical, fit.together):
        assert calibration.fitted_on > 300
        assert sum(entry.n for entry in calibration.reliability) == calibration.threshold.n
        assert calibration.expected_error < 0.05
        assert calibration.threshold.error_bound <= 0.01
        assert calibration.threshold.coverage > 0.5
    coder = Coder(read_code_set(database, "FY2026-April"), model=TitleScorer(), fit=fit)
    title = next(title for title in TITLES.values() if len(title.split()) > 6)
    (sure,) = coder.code_text(title)
    assert sure.decision == "auto"
    doubtful = coder.code_text("other unspecified zzzz thing of left")
    assert all(prediction.decision == "review" for prediction in doubtful)


def test_a_second_run_changes_nothing_and_says_so(
    model: ModelRef, storage: FolderStorage, database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = _store_dataset(storage, tmp_path / "d1")
    _run(model, dataset, storage, database, tmp_path)
    before = storage.read_bytes("coders/m1/coder.json")
    with caplog.at_level(logging.INFO):
        _run(model, dataset, storage, database, tmp_path)
    assert "already fitted" in caplog.text
    assert storage.read_bytes("coders/m1/coder.json") == before
    storage.write_bytes("coders/m1/coder.json", b'{"schema_version": 1}')
    _run(model, dataset, storage, database, tmp_path)
    assert storage.read_bytes("coders/m1/coder.json") == before, "what an older version wrote is not replaced"
    other = _store_dataset(storage, tmp_path / "d2", share=0.35)
    assert _run(model, other, storage, database, tmp_path).fingerprint != json.loads(before)["fingerprint"]


def test_a_dataset_without_validation_items_is_refused_with_the_cure(
    model: ModelRef, storage: FolderStorage, database: Database, tmp_path: Path
) -> None:
    dataset = _store_dataset(storage, tmp_path / "d1", has_validation=False)
    with pytest.raises(DatasetError, match="held_out_share"):
        _run(model, dataset, storage, database, tmp_path)
    assert not storage.exists("coders/m1/coder.json")
