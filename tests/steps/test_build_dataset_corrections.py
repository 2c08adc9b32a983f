"""From a coder's decision to a row of the next dataset, and what keeps the rest of the note out of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from reviewed_hospital import Hospital
from sqlalchemy import text

from llmcoder_tasks.database import Database
from llmcoder_tasks.dataset import corrections as module
from llmcoder_tasks.dataset.config import DatasetConfig
from llmcoder_tasks.dataset.examples import MadeExample
from llmcoder_tasks.dataset.store import read_examples, read_manifest
from llmcoder_tasks.errors import ExpectationsFailed
from llmcoder_tasks.icd10cm.code_set import default_code_set
from llmcoder_tasks.model.recipe import read_recipe
from llmcoder_tasks.model.training_run import Job
from llmcoder_tasks.records import DatasetRef, ReleaseRef
from llmcoder_tasks.steps import train_model
from llmcoder_tasks.steps.build_dataset import build_dataset
from llmcoder_tasks.steps.review_encounters import add_code, claim_next, finish_review, open_reviews, replace_by
from llmcoder_tasks.storage import FolderStorage

pytestmark = pytest.mark.integration

CONFIG = DatasetConfig(notes=20, held_out_share=0.1)


@pytest.fixture
def hospital(database: Database) -> Hospital:
    """A hospital where Ann has corrected one review, and a later release to build a dataset of, in which N39.0 has a successor."""
    hospital = Hospital(database)
    hospital.code("E1", [("E119", 0.4, "review"), ("I10", 0.99, "auto")])
    open_reviews("night", database)
    here: dict[str, Any] = {"person": "Ann Coder", "database": database}
    review = claim_next(**here)
    assert review is not None
    review = replace_by(review.review_id, "E119", "E1122", evidence=(0, 30), version=review.version, **here)
    review = add_code(review.review_id, "J189", evidence=(53, 68), version=review.version, **here)
    review = add_code(review.review_id, "N390", evidence=(32, 51), version=review.version, **here)
    finish_review(review.review_id, version=review.version, **here)
    wanted = {code.code for code in default_code_set().billable[::200]} | {"E1122", "A419"}
    codes = [code for code in default_code_set().billable if code.code in wanted - {"J189", "N390"}]
    with database.transaction() as transaction:
        transaction.run_script(
            "INSERT INTO releases (release_key, effective_from, source, content_sha256, code_count, billable_count, uri) "
            f"VALUES ('FY2026-April', '2026-04-01', 'test', 'abc', {len(codes)}, {len(codes)}, 'file:///releases')"
        )
        transaction.copy_rows(
            "codes",
            ["release_key", "code", "is_billable", "short_title", "long_title", "position"],
            [("FY2026-April", code.code, True, code.short_title, code.long_title, n) for n, code in enumerate(codes, start=1)],
        )
        transaction.run_script("INSERT INTO code_conversions VALUES ('FY2026-April', 'A419', 'N390', '2026-04-01')")
    return hospital


def _build(hospital: Hospital, storage: FolderStorage, folder: Path, *, on: bool) -> DatasetRef:
    return build_dataset(
        ReleaseRef("FY2026-April", "file:///releases"), config=CONFIG, storage=storage, database=hospital.database,
        docs_folder=folder, train_on_corrections=on,
    )  # fmt: skip


def test_nothing_leaves_the_notes_unless_the_operator_says_so(hospital: Hospital, storage: FolderStorage, tmp_path: Path) -> None:
    dataset = _build(hospital, storage, tmp_path / "docs", on=False)
    assert "corrections" not in read_manifest(storage, dataset.uri).tables


def test_corrections_are_a_checked_table_of_phrases_with_mapped_and_withdrawn_codes_counted(
    hospital: Hospital, storage: FolderStorage, tmp_path: Path
) -> None:
    without = _build(hospital, storage, tmp_path / "docs", on=False)
    dataset = _build(hospital, storage, tmp_path / "docs", on=True)
    assert dataset.dataset_id != without.dataset_id
    assert read_manifest(storage, dataset.uri).tables["corrections"].rows == 2
    storage.fetch_folder(f"datasets/{dataset.dataset_id}", tmp_path / "local")
    rows = {row.codes[0]: row for row in read_examples(tmp_path / "local", "corrections")}
    assert {code: row.text for code, row in rows.items()} == {
        "E1122": "Sugar disease with bad kidneys",
        "A419": "high blood pressure",  # coded N39.0, which became A41.9
    }
    actions = dict(hospital.query("SELECT action, max(action_id) FROM review_actions GROUP BY action"))
    assert rows["E1122"].example_id == f"corrections-E1122-{actions['replace']}-FY2026"
    detail = hospital.query("SELECT detail -> 'corrections_read' FROM step_runs WHERE detail ? 'corrections_read'")[0][0]
    assert detail == {"taken": 2, "left_out": 0, "mapped": 1, "withdrawn": 1, "private": 0}
    assert pq.read_table(tmp_path / "local" / "corrections.parquet").num_rows == 2


def test_a_second_build_finds_the_same_dataset_and_a_later_correction_makes_another(
    hospital: Hospital, storage: FolderStorage, tmp_path: Path
) -> None:
    first = _build(hospital, storage, tmp_path / "docs", on=True)
    assert _build(hospital, storage, tmp_path / "docs", on=True) == first
    with hospital.database.engine.begin() as connection:
        connection.execute(text("UPDATE review_codes SET evidence_end = 13 WHERE code = 'E1122'"))
    assert _build(hospital, storage, tmp_path / "docs", on=True) != first


def test_a_broken_correction_fails_the_gate_without_a_word_of_it(
    hospital: Hospital, storage: FolderStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drop_and_break(rows: list[MadeExample], *, standing: object) -> list[MadeExample]:
        return [replace(made, condition_count=2) for made in rows]

    monkeypatch.setattr(module, "drop_clashes", drop_and_break)
    with pytest.raises(
        ExpectationsFailed, match="'as many conditions as codes' failed .*: of 2 rows, which are not shown"
    ) as caught:
        _build(hospital, storage, tmp_path / "docs", on=True)
    assert "kidneys" not in str(caught.value)
    pages = list((tmp_path / "docs").rglob("*.html"))
    assert len(pages) > 5
    assert not [page for page in pages if "Sugar disease" in page.read_text(encoding="utf-8")]
    assert storage.list_keys("datasets") == []


def test_stage_two_learns_them_as_rows_of_its_largest_scenario(hospital: Hospital, storage: FolderStorage, tmp_path: Path) -> None:
    dataset = _build(hospital, storage, tmp_path / "docs", on=True)
    storage.fetch_folder(f"datasets/{dataset.dataset_id}", tmp_path / "local")
    job = Job("m", "stage_two", read_recipe("tiny"), starts_from_weights=False, processes=1)
    mix = job.stage_settings.mix
    learnt = train_model._read_corrections(tmp_path / "local", job)
    assert [example.codes for example in learnt] == [("E1122",)], "A41.9 is held out"
    assert {mix[example.scenario] for example in learnt} == {max(mix.values())}
