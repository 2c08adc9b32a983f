"""Both stages through torchrun, on a hundred codes: what is published, what a second call does, what a kill or a fault leaves."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from llmcoder_tasks.database import Database
from llmcoder_tasks.dataset.examples import MadeExample
from llmcoder_tasks.dataset.store import DatasetManifest, write_tables
from llmcoder_tasks.errors import ModelError, TrainingError
from llmcoder_tasks.model.devices import Device
from llmcoder_tasks.model.manifest import fetch_model
from llmcoder_tasks.model.recipe import NotesStage, Recipe, UpdateStage, read_recipe
from llmcoder_tasks.records import DatasetRef, Example, ModelRef
from llmcoder_tasks.steps.train_model import make_model_id, train_model, train_on_notes
from llmcoder_tasks.storage import Storage, open_storage

pytestmark = pytest.mark.integration

PARTS = ["left eye", "right eye", "left hand", "right hand", "neck", "left foot", "right foot", "skull", "left knee", "right knee"]
KINDS = ["burn", "open wound", "contusion", "foreign body", "abrasion", "insect bite", "blister", "fracture", "sprain", "frostbite"]
TITLES = {f"S{row}{column}0": f"{kind} of {part}" for row, kind in enumerate(KINDS) for column, part in enumerate(PARTS)}


def _recipe(**changes: Any) -> Recipe:
    """The tiny recipe over two scenarios, a few dozen steps a stage."""
    recipe = read_recipe("tiny")
    stages = {name: replace(stage, examples=9000, tokens_per_step=256, **changes) for name, stage in recipe.stages.items()}
    return replace(recipe, stages=stages)


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage((tmp_path / "artifacts").as_uri())


@pytest.fixture
def dataset(tmp_path: Path, storage: Storage, database: Database) -> DatasetRef:
    """A dataset of a hundred made-up codes in the store and in the database."""
    tables = {
        "base": [_made("base", code, title) for code, title in TITLES.items()],
        "reordered": [_made("reordered", code, " ".join(reversed(title.split(" of ")))) for code, title in TITLES.items()],
    }
    for scenario in ("abbreviations", "typos", "sentences", "multiple"):
        tables[scenario] = []
    folder = tmp_path / "dataset"
    folder.mkdir()
    facts = write_tables(tables, folder)
    manifest = DatasetManifest("FY2026-d1", "FY2026", "0" * 64, 0, "1", "0" * 64, {}, facts)
    (folder / "manifest.json").write_text(manifest.to_json(), encoding="utf-8")
    storage.publish_folder(folder, "datasets/FY2026-d1", last="manifest.json")
    with database.transaction() as transaction:
        transaction.run_script(
            "INSERT INTO releases (release_key, effective_from, source, content_sha256, code_count, billable_count, uri) "
            "VALUES ('FY2026', '2025-10-01', 'made up', 'x', 100, 100, 'x');"
            "INSERT INTO datasets (dataset_id, release_key, uri, manifest) VALUES ('FY2026-d1', 'FY2026', 'x', '{}');"
        )
    return DatasetRef("FY2026-d1", storage.uri_of("datasets/FY2026-d1"))


def _made(scenario: str, code: str, text: str) -> MadeExample:
    return MadeExample(Example(f"{scenario}-{code}", scenario, "train", text, (code,)), 1)


def _train(
    dataset: DatasetRef, storage: Storage, database: Database, work_folder: Path, stage: str = "stage_one", **more: Any
) -> ModelRef:
    arguments: dict[str, Any] = {"recipe": _recipe(), "base": None, "processes": None} | more
    return train_model(dataset, stage=stage, storage=storage, database=database, work_folder=work_folder, **arguments)


def test_two_stages_are_trained_published_and_recorded_and_a_second_call_returns_at_once(
    dataset: DatasetRef, storage: Storage, database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    work = tmp_path / "work"
    one = _train(dataset, storage, database, work)
    two = _train(dataset, storage, database, work, "stage_two", base=one, processes=2, recipe=_recipe(average_every_steps=4))
    assert one.model_id.startswith("FY2026-tiny-stage_one-")
    assert f"training starts from {one.model_id}" in caplog.text
    assert "tokens/s" in caplog.text
    assert " s left" in caplog.text

    folder = fetch_model(storage, two.uri, tmp_path / "cache")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["base_model_id"] == one.model_id
    assert manifest["dataset_id"] == "FY2026-d1"
    assert {path.suffix for path in folder.iterdir()} <= {".safetensors", ".json", ".jsonl", ".yaml"}
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]

    assert all(line["peak_memory_bytes"] > 0 for line in database.fetch_all("list_training_metrics", model_id=one.model_id))
    assert manifest["figures"]["peak_memory_bytes"] > 0
    assert database.fetch_all("list_training_progress") == [], "what has ended is shown as running"
    curves = {ref: database.fetch_all("list_training_metrics", model_id=ref.model_id) for ref in (one, two)}
    assert curves[two][0]["loss"] < curves[one][0]["loss"] / 2, "stage two did not start from what stage one learnt"
    assert [line["step"] for line in curves[one]] == sorted({line["step"] for line in curves[one]})
    assert curves[two][-1]["tokens_seen"] == manifest["figures"]["tokens"]
    row = database.fetch_one("fetch_model", model_id=two.model_id)
    assert row is not None
    assert row["parent_model_id"] == one.model_id

    from llmcoder_tasks.model.local import LocalModel
    from llmcoder_tasks.model.trie import CodeTrie

    model = LocalModel.load(folder)
    found = model.predict(list(TITLES.values()), trie=CodeTrie.build(TITLES, model.tokenizer))
    right = sum(codes == (code,) for code, codes in zip(TITLES, found, strict=True))
    assert right >= 30, f"the trained model knows {right} of 100 titles, of which guessing gives one"

    started = time.monotonic()
    assert _train(dataset, storage, database, work) == one
    assert time.monotonic() - started < 2
    assert f"{one.model_id} is already trained" in caplog.text
    assert not list(work.glob("FY*")), "work folders of finished runs stay behind"


def _bring_next_release(dataset: DatasetRef, storage: Storage, database: Database, tmp_path: Path) -> DatasetRef:
    """FY2027: the codes of FY2026, one of them with another title, and one in a category that FY2026 does not have."""
    titles = TITLES | {"S000": "radiation of ear", "Q990": "bite of a crocodile"}
    tables = {
        "base": [_made("base", code, title) for code, title in titles.items()],
        "reordered": [_made("reordered", code, " ".join(reversed(title.split(" of ")))) for code, title in titles.items()],
    }
    for scenario in ("abbreviations", "typos", "sentences", "multiple"):
        tables[scenario] = []
    folder = tmp_path / "next"
    folder.mkdir()
    manifest = DatasetManifest("FY2027-d1", "FY2027", "0" * 64, 0, "1", "0" * 64, {}, write_tables(tables, folder))
    (folder / "manifest.json").write_text(manifest.to_json(), encoding="utf-8")
    storage.publish_folder(folder, "datasets/FY2027-d1", last="manifest.json")
    with database.transaction() as transaction:
        transaction.run_script(
            "INSERT INTO releases (release_key, effective_from, source, content_sha256, code_count, billable_count, uri) "
            "VALUES ('FY2027', '2026-10-01', 'made up', 'y', 101, 101, 'x');"
            "INSERT INTO datasets (dataset_id, release_key, uri, manifest) VALUES ('FY2027-d1', 'FY2027', 'x', '{}');"
        )
        for key, of_release in (("FY2026", TITLES), ("FY2027", titles)):
            rows = [(key, code, True, title, title, number) for number, (code, title) in enumerate(of_release.items(), start=1)]
            columns = ["release_key", "code", "is_billable", "short_title", "long_title", "position"]
            transaction.copy_rows("codes", columns, rows)
    return DatasetRef("FY2027-d1", storage.uri_of("datasets/FY2027-d1"))


def test_an_update_learns_the_changed_codes_of_a_later_release_at_a_fraction_of_the_cost_and_says_so(
    dataset: DatasetRef, storage: Storage, database: Database, tmp_path: Path
) -> None:
    work, recipe = tmp_path / "work", _recipe()
    one = _train(dataset, storage, database, work)
    two = _train(dataset, storage, database, work, "stage_two", base=one)
    later = _bring_next_release(dataset, storage, database, tmp_path)
    update = recipe.stages["update"]
    assert isinstance(update, UpdateStage)
    recipe = replace(
        recipe, stages=recipe.stages | {"update": replace(update, examples=1700, changed_share=0.4, changed_passes=150)}
    )
    with pytest.raises(TrainingError, match="has learnt titles alone: its stage two comes first"):
        _train(later, storage, database, work, "update", base=one, recipe=recipe)
    updated = _train(later, storage, database, work, "update", base=two, recipe=recipe)
    assert updated.model_id.startswith("FY2027-tiny-update-")
    with pytest.raises(TrainingError, match="trained on FY2027, which is no release up to FY2026"):
        _train(dataset, storage, database, work, "update", base=updated, recipe=recipe)

    row = database.fetch_one("fetch_model", model_id=updated.model_id)
    assert row is not None
    assert (row["stage"], row["parent_model_id"]) == ("update", two.model_id)
    manifest, before = row["manifest"], database.fetch_one("fetch_model", model_id=two.model_id)
    assert (manifest["base_release_key"], manifest["figures"]["changed_codes"]) == ("FY2026", 2)
    assert manifest["figures"]["cpu_seconds"] > 0
    assert before is not None
    assert manifest["figures"]["examples"] < before["manifest"]["figures"]["examples"] / 4

    from llmcoder_tasks.model.local import LocalModel
    from llmcoder_tasks.model.trie import CodeTrie

    titles = TITLES | {"S000": "radiation of ear", "Q990": "bite of a crocodile"}
    right = {}
    for ref in (two, updated):
        model = LocalModel.load(fetch_model(storage, ref.uri, tmp_path / "cache"))
        found = model.predict(list(titles.values()), trie=CodeTrie.build(titles, model.tokenizer))
        right[ref] = {code for code, codes in zip(titles, found, strict=True) if codes == (code,)}
    assert "Q990" in right[updated], "a code of an unknown category was not learnt"
    assert "Q990" not in right[two]
    assert len(right[updated]) >= len(right[two]), "the update forgot more than it learnt"


def test_notes_of_patients_are_learnt_after_stage_two_and_are_copied_nowhere(
    dataset: DatasetRef, storage: Storage, database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    rows = [("FY2026", code, True, title, title, number) for number, (code, title) in enumerate(TITLES.items(), start=1)]
    columns = ["release_key", "code", "is_billable", "short_title", "long_title", "position"]
    with database.transaction() as transaction:
        transaction.copy_rows("codes", columns, rows)
    notes = tmp_path / "notes.jsonl"
    secret = "Mrs Zzyzx"
    written = [
        {"id": str(number), "patient_id": f"p{number}", "text": f"{secret} has {title}", "codes": [code]}
        for number, (code, title) in enumerate(TITLES.items())
    ]
    notes.write_text("".join(json.dumps(row) + "\n" for row in written))
    recipe = _recipe()
    stage = replace(recipe.stages["stage_two"], mix={"notes": 1.0}, examples=500)
    settings = {field.name: getattr(stage, field.name) for field in fields(stage)}
    recipe = replace(recipe, stages=recipe.stages | {"notes": NotesStage(**settings, max_words=20)})
    work = tmp_path / "work"
    one = _train(dataset, storage, database, work, recipe=recipe)
    two = _train(dataset, storage, database, work, "stage_two", base=one, recipe=recipe)
    where: dict[str, Any] = {"storage": storage, "database": database, "work_folder": work, "processes": None}
    assert train_on_notes(dataset, recipe=_recipe(), base=two, notes=notes, **where) == two
    assert "learns no notes of patients: recipe tiny has no stage notes" in caplog.text
    assert train_on_notes(dataset, recipe=recipe, base=two, notes=None, **where) == two
    three = train_on_notes(dataset, recipe=recipe, base=two, notes=notes, **where)
    row = database.fetch_one("fetch_model", model_id=three.model_id)
    assert row is not None
    assert (row["stage"], row["parent_model_id"]) == ("notes", two.model_id)
    assert len(row["manifest"]["notes_sha256"]) == 64
    assert row["manifest"]["figures"]["examples"] == 500

    kept = [path for path in tmp_path.rglob("*") if path.is_file() and path != notes]
    assert not any(b"Zzyzx" in path.read_bytes() or b"zzyzx" in path.read_bytes() for path in kept)
    assert secret not in caplog.text
    assert not list(work.glob("FY*")), "the plan, which holds the notes as numbers, stays behind"


def test_a_killed_run_of_two_processes_goes_on_from_its_checkpoint_to_the_weights_of_an_undisturbed_one(
    dataset: DatasetRef, storage: Storage, database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    work = tmp_path / "work"
    script = (
        "import logging, sys; from pathlib import Path; logging.basicConfig(level='INFO');"
        "from dataclasses import replace; from llmcoder_tasks.database import Database;"
        "from llmcoder_tasks.model.recipe import read_recipe; from llmcoder_tasks.records import DatasetRef;"
        "from llmcoder_tasks.steps.train_model import train_model; from llmcoder_tasks.storage import open_storage;"
        "recipe = read_recipe('tiny');"
        "recipe = replace(recipe, stages={n: replace(s, examples=30000, average_every_steps=8) for n, s in recipe.stages.items()});"
        "train_model(DatasetRef(sys.argv[1], sys.argv[2]), recipe=recipe, stage='stage_one', base=None, processes=2,"
        "storage=open_storage(sys.argv[3]), database=Database(sys.argv[4]), work_folder=Path(sys.argv[5]))"
    )
    url = database.engine.url.render_as_string(hide_password=False)
    arguments = [dataset.dataset_id, dataset.uri, storage.uri, url, str(work)]
    with (tmp_path / "log").open("w") as log:
        victim = subprocess.Popen([sys.executable, "-c", script, *arguments], stderr=log, stdout=log, start_new_session=True)
        deadline = time.monotonic() + 120
        while not list(work.glob("*/checkpoints/checkpoint-*/trainer_state.json")):
            assert victim.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline, "no checkpoint within two minutes"
            time.sleep(0.05)
        os.killpg(victim.pid, signal.SIGKILL)
        victim.wait()
    assert not storage.list_keys("training"), "a killed run published something"
    (running,) = database.fetch_all("list_training_progress")
    assert 0 < running["step"] < running["steps"]
    assert running["peak_memory_bytes"] > 0

    recipe = read_recipe("tiny")
    stages = {name: replace(stage, examples=30000, average_every_steps=8) for name, stage in recipe.stages.items()}
    recipe = replace(recipe, stages=stages)
    ref = _train(dataset, storage, database, work, recipe=recipe, processes=2)
    assert "taking up an earlier attempt" in caplog.text
    assert "going on from step" in caplog.text
    steps = [line["step"] for line in database.fetch_all("list_training_metrics", model_id=ref.model_id)]
    assert steps == list(range(10, steps[-1] + 1, 10))
    undisturbed = open_storage((tmp_path / "undisturbed").as_uri())
    shutil.copytree(tmp_path / "artifacts" / "datasets", tmp_path / "undisturbed" / "datasets")
    again = replace(dataset, uri=undisturbed.uri_of("datasets/FY2026-d1"))
    whole = _train(again, undisturbed, database, tmp_path / "work2", recipe=recipe, processes=2)
    weights = [
        (fetch_model(store, of.uri, tmp_path / name) / "model.safetensors").read_bytes()
        for store, of, name in ((storage, ref, "cache"), (undisturbed, whole, "cache2"))
    ]
    assert weights[0] == weights[1]


def test_what_a_device_cannot_hold_is_refused_before_it_is_taken(
    dataset: DatasetRef, storage: Storage, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = Device("NVIDIA L4", "GPU-1", 1_000_000, is_gpu=True)
    monkeypatch.setattr("llmcoder_tasks.steps.train_model.list_devices", lambda _: [small])
    monkeypatch.setattr("llmcoder_tasks.steps.train_model.launch_training", lambda *_, **__: pytest.fail("it was launched"))
    with pytest.raises(TrainingError, match="all trained, need .* GB before activations .*; NVIDIA L4 has room for 0.0 GB"):
        _train(dataset, storage, database, tmp_path / "work")
    assert not (tmp_path / "work" / "devices").exists()


def test_a_loss_that_is_no_number_ends_the_run_and_nothing_is_published(
    dataset: DatasetRef, storage: Storage, database: Database, tmp_path: Path
) -> None:
    recipe = _recipe(learning_rate=1e30, warmup_steps=0)
    with pytest.raises(TrainingError, match="loss is (nan|inf).*lower the learning rate"):
        _train(dataset, storage, database, tmp_path / "work", recipe=recipe)
    assert storage.list_keys("training") == []
    assert not list((tmp_path / "work").glob("*/checkpoints")), "a retry would go on from broken weights"


def test_a_stage_without_its_base_and_a_base_without_its_stage_are_refused(
    dataset: DatasetRef, storage: Storage, database: Database, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match="stage_two needs the model of stage one"):
        _train(dataset, storage, database, tmp_path, "stage_two")
    with pytest.raises(TrainingError, match="stage_one starts from no model"):
        _train(dataset, storage, database, tmp_path, base=ModelRef("x", "x"))
    with pytest.raises(TrainingError, match="update needs a model of an earlier release"):
        _train(dataset, storage, database, tmp_path, "update")
    full = {name: stage for name, stage in _recipe().stages.items() if name != "update"}
    with pytest.raises(TrainingError, match="recipe tiny has no stage update"):
        _train(dataset, storage, database, tmp_path, "update", base=ModelRef("x", "x"), recipe=replace(_recipe(), stages=full))
    with pytest.raises(TrainingError, match="no stage 'stage_three'"):
        _train(dataset, storage, database, tmp_path, "stage_three")


def test_missing_base_weights_are_named_with_the_cure(
    dataset: DatasetRef, storage: Storage, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(TrainingError, match="meta-llama/Llama-3.2-1B.*set base_weights in the recipe to a folder"):
        _train(dataset, storage, database, tmp_path, recipe=read_recipe("llama-3.2-1b"))


def test_an_altered_base_model_is_refused(dataset: DatasetRef, storage: Storage, database: Database, tmp_path: Path) -> None:
    folder = tmp_path / "one"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    from llmcoder_tasks.model.manifest import write_manifest

    write_manifest(folder, {"model_id": "one"})
    storage.publish_folder(folder, "training/one", last="manifest.json")
    storage.write_bytes("training/one/config.json", b'{"hidden_size": 7}')
    with pytest.raises(ModelError, match="sha256 differs"):
        _train(dataset, storage, database, tmp_path, "stage_two", base=ModelRef("one", storage.uri_of("training/one")))


@pytest.mark.parametrize(
    ("stage", "base", "model_id"),
    [
        ("stage_one", None, "FY2025-compact-short-stage_one-29d64b3e"),
        ("stage_two", "FY2025-compact-short-stage_one-29d64b3e", "FY2025-compact-short-stage_two-87bad27e"),
    ],
)
def test_what_a_recipe_says_of_its_update_does_not_change_the_ids_of_its_other_stages(
    stage: str, base: str | None, model_id: str
) -> None:
    """The ids of models that were trained before recipes had an update."""
    start = ModelRef(base, "x") if base else None
    assert make_model_id("FY2025", "FY2025-de795526", read_recipe("compact-short"), stage, start) == model_id
