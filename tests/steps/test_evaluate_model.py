"""A whole evaluation with real, tiny models: what is written, what a second run does, and a suite of one's own."""

from __future__ import annotations

import json
import shutil
from datetime import date
from io import StringIO
from pathlib import Path

import pytest

from llmcoder_tasks.coding.calibration import Bin, Calibration, Threshold
from llmcoder_tasks.coding.coder_fit import CoderFit
from llmcoder_tasks.coding.combination import LEXICAL_FEATURES, TOGETHER_FEATURES
from llmcoder_tasks.database import Database
from llmcoder_tasks.dataset.examples import MadeExample
from llmcoder_tasks.dataset.store import DatasetManifest, write_tables
from llmcoder_tasks.errors import EvaluationError
from llmcoder_tasks.evaluation.gate import load_gate
from llmcoder_tasks.evaluation.scorecard import CODERS, IN_SERVICE, parse_scorecard
from llmcoder_tasks.evaluation.suites import BadRow
from llmcoder_tasks.model.manifest import write_manifest
from llmcoder_tasks.records import DatasetRef, Example, ModelRef, Split
from llmcoder_tasks.steps.evaluate_model import evaluate_model
from llmcoder_tasks.steps.evaluate_suite import evaluate_suite, render_suite_result
from llmcoder_tasks.steps.judge_model import judge_model
from llmcoder_tasks.storage import FolderStorage, Storage

pytestmark = pytest.mark.integration

PARTS = ("eye", "ear", "hand", "neck", "foot", "skull", "knee", "wrist")
KINDS = ("burn", "contusion", "frostbite", "abrasion", "sprain")
TITLES = {f"S{row}{column}0": f"{kind} of {part}" for row, kind in enumerate(KINDS) for column, part in enumerate(PARTS)}


class World:
    """A release, a dataset and a two-stage model without any training, in real stores."""

    def __init__(self, storage: Storage, database: Database, folder: Path) -> None:
        self.storage, self.database, self.folder = storage, database, folder
        with database.transaction() as transaction:
            transaction.run_script(
                "INSERT INTO releases (release_key, effective_from, source, content_sha256, code_count, billable_count, uri) "
                f"VALUES ('FY2026', '2025-10-01', 'made up', 'x', {len(TITLES)}, {len(TITLES)}, 'x');"
                "INSERT INTO datasets (dataset_id, release_key, uri, manifest) VALUES ('FY2026-d1', 'FY2026', 'x', '{}');"
            )
            columns = ["release_key", "code", "is_billable", "short_title", "long_title", "position"]
            rows = [["FY2026", code, True, title, title, position] for position, (code, title) in enumerate(TITLES.items(), 1)]
            transaction.copy_rows("codes", columns, rows)
        self.dataset = self._make_dataset()
        one = self._make_model("FY2026-tiny-stage_one-1", "stage_one", None, seed=1)
        self.model = self._make_model("FY2026-tiny-stage_two-2", "stage_two", one.model_id, seed=2)
        storage.write_bytes(f"coders/{self.model.model_id}/coder.json", self._make_fit().render())

    def _make_dataset(self) -> DatasetRef:
        def made(scenario: str, split: Split, code: str, text: str) -> MadeExample:
            return MadeExample(Example(f"{scenario}-{code}", scenario, split, text, (code,)), 1)

        tables = {
            "base": [made("base", "train", code, title) for code, title in TITLES.items()],
            "reordered": [
                made("reordered", "test", code, " ".join(reversed(title.split(" of ")))) for code, title in TITLES.items()
            ],
            "notes": [
                made("notes", "test", code, f"DISCHARGE SUMMARY\n\nDischarge Diagnoses:\n1. {title}\n")
                for code, title in list(TITLES.items())[:5]
            ],
        }
        folder = self.folder / "dataset"
        folder.mkdir()
        manifest = DatasetManifest("FY2026-d1", "FY2026", "0" * 64, 0, "1", "0" * 64, {}, write_tables(tables, folder))
        (folder / "manifest.json").write_text(manifest.to_json(), encoding="utf-8")
        self.storage.publish_folder(folder, "datasets/FY2026-d1", last="manifest.json")
        return DatasetRef("FY2026-d1", self.storage.uri_of("datasets/FY2026-d1"))

    def _make_model(self, model_id: str, stage: str, parent: str | None, *, seed: int) -> ModelRef:
        import torch

        from llmcoder_tasks.model.llama import AnswerLlama, make_config
        from llmcoder_tasks.model.recipe import read_recipe
        from llmcoder_tasks.model.tokenizer import AnswerTokenizer

        tokenizer = AnswerTokenizer.train(TITLES.values(), TITLES, text_vocabulary=300, context_tokens=64, answer_tokens=12)
        shape = read_recipe("tiny").architecture
        assert shape is not None
        torch.manual_seed(seed)
        folder = self.folder / model_id
        AnswerLlama(make_config(shape, tokenizer)).save_pretrained(folder)
        tokenizer.save(folder)
        log = [{"step": step, "loss": 5.0 / step, "tokens_seen": 100 * step} for step in (1, 2)]
        (folder / "training_log.jsonl").write_text("\n".join(map(json.dumps, log)))
        write_manifest(folder, {"model_id": model_id, "release_key": "FY2026"})
        self.storage.publish_folder(folder, f"training/{model_id}", last="manifest.json")
        uri = self.storage.uri_of(f"training/{model_id}")
        with self.database.transaction() as transaction:
            columns = ["model_id", "release_key", "dataset_id", "recipe", "stage", "parent_model_id", "uri", "manifest"]
            transaction.copy_rows("models", columns, [[model_id, "FY2026", "FY2026-d1", "tiny", stage, parent, uri, "{}"]])
        return ModelRef(model_id, uri)

    def _make_fit(self) -> CoderFit:
        """A coder that listens to the words only: the models know nothing."""

        def calibration(features: tuple[str, ...]) -> Calibration:
            bins = (Bin(0.4, 0.5, 10), Bin(0.9, 0.95, 90))
            return Calibration(features, (0.0,) * len(features), 2.0, 100, 0.05, bins, Threshold(0.8, 100, 90, 0, 0.03, 0.9))

        return CoderFit(
            "f", self.model.model_id, "FY2026-d1", "FY2026", 1e6, calibration(LEXICAL_FEATURES), calibration(TOGETHER_FEATURES)
        )


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    return World(FolderStorage(tmp_path / "store"), database, tmp_path)


def test_an_evaluation_writes_a_scorecard_a_report_and_rows_once(
    world: World, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    stores = {"storage": world.storage, "database": database, "cache_folder": world.folder / "cache"}
    reference = evaluate_model(world.model, world.dataset, limit=30, **stores)  # type: ignore[arg-type]
    prefix = f"scorecards/{reference.evaluation_id}"
    names = [f"{prefix}/{name}" for name in ("outcomes.parquet", "report.html", "scorecard.json")]
    assert world.storage.list_keys("scorecards") == names

    card = parse_scorecard(world.storage.read_bytes(f"{prefix}/scorecard.json"))
    assert card.suite_sizes == {"base": 30, "reordered": 30, "notes": 5}
    assert {(cell.coder, cell.scenario): cell.n for cell in card.cells} == {
        (coder, scenario): n for coder in CODERS if coder != IN_SERVICE for scenario, n in card.suite_sizes.items()
    }
    exact = {(cell.coder, cell.scenario): cell.exact.value for cell in card.cells}
    assert exact["lexical", "base"] == exact["together", "base"] == 1.0
    assert exact["lexical", "reordered"] == 1.0
    assert max(exact[coder, "base"] for coder in ("untrained", "stage_one", "stage_two")) < 0.3
    # Over the trie no model can write a code that does not exist.
    assert all(cell.errors["nonexistent"] == 0 for cell in card.cells if cell.coder.startswith("stage"))
    assert card.stage_one_model_id == "FY2026-tiny-stage_one-1"

    rows = database.fetch_all("list_scores", evaluation_id=reference.evaluation_id)
    assert {(row["coder"], row["scenario"]): row["exact_match"] for row in rows} == exact
    report = world.storage.read_bytes(f"{prefix}/report.html").decode()
    assert report.count("<svg ") == 4

    verdict = judge_model(reference, gate=load_gate(), storage=world.storage, database=database)
    assert verdict.decision == "REJECT"  # abbreviations, typos and others were not measured

    before = {key: world.storage.read_bytes(key) for key in world.storage.list_keys("scorecards")}
    shutil.rmtree(world.folder / "cache")
    with caplog.at_level("INFO"):
        assert evaluate_model(world.model, world.dataset, limit=30, **stores) == reference  # type: ignore[arg-type]
    assert f"scorecard {reference.evaluation_id} is already there: nothing to evaluate" in caplog.messages
    assert {key: world.storage.read_bytes(key) for key in world.storage.list_keys("scorecards")} == before


def test_a_model_without_a_coder_or_without_a_row_is_refused_with_the_cure(world: World, database: Database) -> None:
    stores = {"storage": world.storage, "database": database, "cache_folder": world.folder / "cache"}
    with pytest.raises(EvaluationError, match="m9 has no coder.json: run `llmcoder fit-coder`"):
        evaluate_model(ModelRef("m9", "x"), world.dataset, limit=5, **stores)  # type: ignore[arg-type]
    world.storage.write_bytes("coders/m9/coder.json", b"{}")
    with pytest.raises(EvaluationError, match="the table models does not know m9"):
        evaluate_model(ModelRef("m9", "x"), world.dataset, limit=5, **stores)  # type: ignore[arg-type]


def test_a_suite_of_ones_own_is_scored_and_its_bad_rows_named(world: World, database: Database) -> None:
    from rich.console import Console

    published = world.folder / "published"
    shutil.copytree(world.folder / world.model.model_id, published)
    (published / "coder.json").write_bytes(world.storage.read_bytes(f"coders/{world.model.model_id}/coder.json"))
    write_manifest(published, {"model_id": world.model.model_id})
    world.storage.publish_folder(published, f"models/{world.model.model_id}", last="manifest.json")
    suite = world.folder / "suite.jsonl"
    rows = [
        {"id": 1, "text": "burn of eye", "codes": ["S00.0"]},
        {"id": 2, "text": "frostbite of hand", "codes": ["S220", "S230"]},
        {"id": 3, "text": "Mrs Canary has a sprain of knee", "codes": ["Z99.9"]},
    ]
    suite.write_text("\n".join(map(json.dumps, rows)) + "\nnot json\n")
    result = evaluate_suite(
        suite,
        model=ModelRef(world.model.model_id, world.storage.uri_of(f"models/{world.model.model_id}")),
        on=date(2026, 1, 1),
        kind="phrase",
        storage=world.storage,
        database=database,
        cache_folder=world.folder / "cache",
    )
    assert (result.n, result.exact.value, result.release_key) == (3, 1 / 3, "FY2026")
    assert result.errors == {"nonexistent": 0, "quantity": 1, "level": 0, "character": 1}
    # Right: S000 and S220. Predicted: one each. True: 1 + 2 + 1.
    assert (result.micro.precision, result.micro.recall) == (2 / 3, 2 / 4)
    assert result.bad_rows == (BadRow(4, "it is no JSON"),)
    assert result.retired_codes == 1
    output = StringIO()
    Console(file=output, width=100).print(render_suite_result(result))
    assert "line 4 was left out: it is no JSON" in output.getvalue()
    assert "1 true codes are not billable in FY2026" in output.getvalue()
    assert "Canary" not in output.getvalue() + repr(result)

    with pytest.raises(EvaluationError, match="no loaded release is valid on 2020-01-01"):
        evaluate_suite(
            suite,
            model=world.model,
            on=date(2020, 1, 1),
            kind="phrase",
            storage=world.storage,
            database=database,
            cache_folder=world.folder / "cache",
        )
