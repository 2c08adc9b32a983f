"""The whole loop with a model behind a server, on five hundred codes: trained, fitted, judged, promoted; and a night coded."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from hospital import query
from openai_server import FakeOpenAI, serve_openai
from sqlalchemy import text

from llmcoder_tasks.coding.claims import Pace
from llmcoder_tasks.coding.coder_fit import CoderFit
from llmcoder_tasks.database import Database
from llmcoder_tasks.dataset.config import DatasetConfig
from llmcoder_tasks.dataset.examples import make_examples
from llmcoder_tasks.dataset.store import DatasetManifest, write_tables
from llmcoder_tasks.errors import SettingsError, WorkPending
from llmcoder_tasks.evaluation.gate import load_gate
from llmcoder_tasks.evaluation.registry import require_promoted
from llmcoder_tasks.evaluation.scorecard import parse_scorecard
from llmcoder_tasks.icd10cm.code_set import CodeSet, default_code_set
from llmcoder_tasks.model.recipe import read_recipe
from llmcoder_tasks.records import DatasetRef, ModelRef
from llmcoder_tasks.settings import CoderServer
from llmcoder_tasks.steps.code_encounters import CodedNight, code_encounters
from llmcoder_tasks.steps.evaluate_model import evaluate_model
from llmcoder_tasks.steps.fit_coder import fit_coder
from llmcoder_tasks.steps.judge_model import judge_model
from llmcoder_tasks.steps.promote_model import promote_model
from llmcoder_tasks.steps.train_model import train_model
from llmcoder_tasks.storage import FolderStorage

pytestmark = pytest.mark.integration

DAY = date(2026, 4, 2)
CODES = tuple(default_code_set().billable[::150])


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeOpenAI]:
    monkeypatch.setattr("llmcoder_tasks.model.server_training.POLL_SECONDS", 0.01)
    monkeypatch.setattr("llmcoder_tasks.model.server_batches.POLL_SECONDS", 0.01)
    with serve_openai() as fake:
        yield fake


@pytest.fixture
def storage(tmp_path: Path) -> FolderStorage:
    return FolderStorage(tmp_path / "store")


@pytest.fixture
def dataset(database: Database, storage: FolderStorage, tmp_path: Path) -> DatasetRef:
    """Five hundred codes of the real release, and a dataset of them with enough held out to judge by."""
    with database.transaction() as transaction:
        transaction.run_script(
            "INSERT INTO releases (release_key, effective_from, source, content_sha256, code_count, billable_count, uri) "
            f"VALUES ('FY2026-April', '2026-04-01', 'test', 'abc', {len(CODES)}, {len(CODES)}, 'file:///releases');"
            "INSERT INTO datasets (dataset_id, release_key, uri, manifest) VALUES ('d1', 'FY2026-April', 'x', '{}');"
        )
        transaction.copy_rows(
            "codes",
            ["release_key", "code", "is_billable", "short_title", "long_title", "position"],
            [("FY2026-April", code.code, True, code.short_title, code.long_title, n) for n, code in enumerate(CODES, start=1)],
        )
    code_set = CodeSet("FY2026-April", default_code_set().effective_from, CODES, ())
    tables = make_examples(code_set, DatasetConfig(notes=400, held_out_share=0.4))
    folder = tmp_path / "d1"
    folder.mkdir()
    manifest = DatasetManifest("d1", "FY2026-April", "0" * 64, 0, "1", "0" * 64, {}, write_tables(tables, folder))
    (folder / "manifest.json").write_text(manifest.to_json(), encoding="utf-8")
    storage.publish_folder(folder, "datasets/d1", last="manifest.json")
    return DatasetRef("d1", storage.uri_of("datasets/d1"))


def _admit(database: Database, notes: dict[str, str]) -> None:
    with database.engine.begin() as connection:
        for encounter_id, note in notes.items():
            digest = hashlib.sha256(note.encode()).hexdigest()
            connection.execute(
                text("INSERT INTO encounters (encounter_id, discharge_date, source) VALUES (:key, :on, 'test')"),
                {"key": encounter_id, "on": DAY},
            )
            connection.execute(
                text("INSERT INTO discharge_summaries VALUES (:key, :sha, :note, 1)"),
                {"key": encounter_id, "sha": digest, "note": note},
            )


def test_a_model_behind_a_server_goes_the_whole_way_and_codes_a_night(
    fake: FakeOpenAI, dataset: DatasetRef, storage: FolderStorage, database: Database, tmp_path: Path
) -> None:
    # A server outside, without an agreement: training, fitting and judging send nothing of a patient.
    server = CoderServer(fake.url, "sk", covers_patients=False, train_price=3.0, max_cost=100.0, batch_from=50)
    stores = {"storage": storage, "database": database}
    cached = {**stores, "cache_folder": tmp_path / "cache", "server": server}
    base: ModelRef | None = None
    for stage in ("stage_one", "stage_two"):
        base = train_model(
            dataset, recipe=read_recipe("openai-gpt-4o-mini"), stage=stage, base=base, work_folder=tmp_path / "work",
            processes=None, server=server, **stores,
        )  # fmt: skip
    assert base is not None

    with pytest.raises(WorkPending):
        fit_coder(base, dataset, **{**cached, "server": replace(server, waits=False)})
    model = fit_coder(base, dataset, **cached)
    assert len(fake.batches) == 1
    fit = CoderFit.parse(storage.read_bytes(f"coders/{model.model_id}/coder.json"))
    assert fit.together.threshold.error_bound <= 0.01

    scorecard_ref = evaluate_model(model, dataset, limit=40, **cached)
    scorecard = parse_scorecard(storage.read_bytes(f"scorecards/{scorecard_ref.evaluation_id}/scorecard.json"))
    exact = {(cell.coder, cell.scenario): cell.exact.value for cell in scorecard.cells}
    assert exact["untrained", "base"] == 0
    assert exact["stage_one", "base"] == 1
    assert all(cell.errors["nonexistent"] == 0 for cell in scorecard.cells if cell.coder != "untrained")
    asked = len(fake.asked)
    verdict = judge_model(scorecard_ref, gate=replace(load_gate(), minimum_items=40), **stores)
    assert verdict.decision == "PROMOTE", query(database, "SELECT reasons FROM verdicts")
    promote_model(verdict, promoted_by="A. Person", **stores)
    promoted = require_promoted(storage)

    title = next(code.long_title for code in CODES if len(code.long_title.split()) > 8 and "," in code.long_title)
    other = next(code.long_title for code in CODES[250:] if len(code.long_title.split()) > 8)
    odd = " ".join(reversed(other.split()))
    _admit(database, {"E1": f"DISCHARGE DIAGNOSES:\n1. {title} today\n", "E2": f"DISCHARGE DIAGNOSES:\n1. {odd}\n"})
    fake.rewrites = lambda asked_text, answer: '{"codes": ["E11.999", "my neighbour"]}' if asked_text == odd else answer

    def code_night(run_id: str, server: CoderServer | None) -> CodedNight:
        return code_encounters(
            DAY, DAY, model=promoted, coding_run_id=run_id, cache_folder=tmp_path / "cache", server=server, pace=Pace.of_lease(5),
            **stores,
        )  # fmt: skip

    with pytest.raises(SettingsError, match="phrases of patients would be sent to 127.0.0.1"):
        code_night("night", server)
    with pytest.raises(SettingsError, match="set LLMCODER_CODER_LLM_URL"):
        code_night("night", None)
    assert len(fake.asked) == asked, "nothing of a patient has left"

    night = code_night("night", replace(server, covers_patients=True))
    assert (night.coded, night.failed) == (2, 0)
    assert len(fake.batches) > 1, "the suites were asked in batches"
    assert all(odd not in file["content"].decode() for file in fake.files.values())
    codes = {code.long_title: code.code for code in CODES}
    rows = query(database, "SELECT encounter_id, code, decision FROM predictions ORDER BY encounter_id")
    assert ("E1", codes[title]) in [row[:2] for row in rows]
    assert [row for row in rows if row[0] == "E2"] == [("E2", codes[other], "review")]
    findings = query(
        database, "SELECT encounter_id, rule, action, code, related_code, reason FROM findings WHERE rule = 'invented_code'"
    )
    reason = "the language model gave it, and FY2026-April does not hold it: the words alone were coded"
    assert findings == [("E2", "invented_code", "removed", "E11999", codes[other], reason)]
