"""Corrections of finished reviews as a suite: who is held out, both models judged, and not a word of a patient kept."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text
from test_evaluate_model import TITLES, World

from llmcoder_tasks.coding.coder import Coder
from llmcoder_tasks.database import Database
from llmcoder_tasks.dataset.corrections import read_corrections, read_held_out
from llmcoder_tasks.dataset.splits import JUDGED_SHARE, is_judged_on
from llmcoder_tasks.evaluation.gate import Floor, Gate
from llmcoder_tasks.evaluation.scorecard import Scorecard, parse_scorecard
from llmcoder_tasks.icd10cm.code_set import read_code_set
from llmcoder_tasks.records import ModelRef, ScorecardRef
from llmcoder_tasks.steps.evaluate_model import evaluate_model
from llmcoder_tasks.steps.judge_model import judge_model
from llmcoder_tasks.steps.promote_model import promote_model
from llmcoder_tasks.storage import FolderStorage

pytestmark = pytest.mark.integration

CANARY = "Qxzebulon7731"
GATE = Gate("test", 1, "together", "lexical", 4, 0.05, (Floor("together", "base", "exact", 0.9),), "0" * 64)
JUDGING = [name for name in (f"E{number}" for number in range(100)) if is_judged_on(name)]
TRAINING = [name for name in (f"E{number}" for number in range(100)) if not is_judged_on(name)]


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    return World(FolderStorage(tmp_path / "store"), database, tmp_path)


def review(
    database: Database, encounter_id: str, code: str, *, origin: str = "added", words: str = "", release: str = "FY2026"
) -> None:
    """A finished review in which Ann gave a code to words of the note, after its canary."""
    phrase = f"{TITLES.get(code, code)} {words}".strip()
    note = f"{CANARY}: {phrase}."
    values = {
        "encounter": encounter_id, "sha": hashlib.sha256(note.encode()).hexdigest(), "note": note, "code": code, "origin": origin,
        "release": release, "proposed": "S000" if release == "FY2026" else code, "start": len(CANARY) + 2, "end": len(note) - 1,
    }  # fmt: skip
    key = "encounter_id, note_sha256, model_id, release_key"
    own = ":encounter, :sha, 'FY2026-tiny-stage_two-2', :release"
    statements = [
        "INSERT INTO encounters (encounter_id, discharge_date, source) VALUES (:encounter, '2026-01-05', 'test')",
        "INSERT INTO discharge_summaries (encounter_id, note_sha256, note_text, version) VALUES (:encounter, :sha, :note, 1)",
        "INSERT INTO coding_runs (coding_run_id, from_date, to_date, model_id, status, encounter_count) "
        "VALUES ('night', '2026-01-05', '2026-01-05', 'FY2026-tiny-stage_two-2', 'running', 1) ON CONFLICT DO NOTHING",
        f"INSERT INTO coded_notes ({key}, coding_run_id, status) VALUES ({own}, 'night', 'coded')",
        f"INSERT INTO predictions ({key}, code, rank, confidence, decision, evidence_start, evidence_end) "
        f"VALUES ({own}, :proposed, 1, 0.4, 'review', :start, :end)",
        f"INSERT INTO reviews ({key}, status, version, priority, uncertainty, money, rarity, finished_by, finished_at) "
        f"VALUES ({own}, 'finished', 1, 0.5, 0.5, 0.5, 0.5, 'Ann', now())",
        "INSERT INTO review_actions (review_id, version, person, action, before, after) "
        "SELECT review_id, 1, 'Ann', 'finish', '{}', '{}' FROM reviews WHERE encounter_id = :encounter",
        "INSERT INTO review_codes (review_id, code, release_key, rank, origin, state, prediction_id, evidence_start, evidence_end, "
        "action_id) SELECT review_id, :code, :release, 1, :origin, 'accepted', CASE WHEN :origin = 'added' THEN NULL ELSE "
        "(SELECT prediction_id FROM predictions WHERE encounter_id = :encounter) END, :start, :end, action_id "
        "FROM reviews JOIN review_actions USING (review_id) WHERE encounter_id = :encounter",
    ]
    with database.engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement), values)


def evaluate(world: World, model: ModelRef) -> tuple[ScorecardRef, Scorecard]:
    reference = evaluate_model(
        model, world.dataset, limit=30, storage=world.storage, database=world.database, cache_folder=world.folder / "cache"
    )
    return reference, parse_scorecard(world.storage.read_bytes(f"scorecards/{reference.evaluation_id}/scorecard.json"))


def reasons(world: World, reference: ScorecardRef) -> tuple[str, list[str]]:
    verdict = judge_model(reference, gate=GATE, storage=world.storage, database=world.database)
    row = world.database.fetch_one("fetch_verdict", verdict_id=verdict.verdict_id)
    assert row is not None
    return verdict.decision, [reason for reason in row["reasons"] if "corrections of reviewers" in reason]


def test_a_fifth_of_all_encounters_is_held_out_for_ever_and_their_corrections_train_nothing(
    world: World, database: Database
) -> None:
    assert sum(is_judged_on(f"encounter {number}") for number in range(5000)) / 5000 == pytest.approx(JUDGED_SHARE, abs=0.02)
    assert [is_judged_on(name) for name in ("E1", "E3", "E5", "E6")] == [False, True, True, True]
    for encounter_id in (*JUDGING[:3], *TRAINING[:3]):
        review(database, encounter_id, "S010", words="of the left side")
    trained = {row.action_id for row in read_corrections(database, read_code_set(database, "FY2026")).rows}
    judged = {row.action_id for row in read_held_out(database)}
    assert (len(trained), len(judged)) == (3, 3)
    assert not trained & judged


def test_both_models_are_judged_on_corrections_and_no_word_of_them_is_kept(
    world: World, database: Database, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    first, card = evaluate(world, world.model)
    assert card.reviewed is not None
    assert (card.reviewed.n, card.reviewed.slices) == (0, ())
    decision, said = reasons(world, first)
    assert (decision, said) == (
        "PROMOTE",
        ["together on corrections of reviewers: 0 held out, 4 are needed to tell: not judged by them"],
    )
    verdict = judge_model(first, gate=GATE, storage=world.storage, database=database)
    promote_model(verdict, promoted_by="Ann", storage=world.storage, database=database)

    codes = list(TITLES)
    for number, encounter_id in enumerate(JUDGING[:7]):
        review(database, encounter_id, codes[number + 1], origin="replaced" if number < 3 else "added", words=f"in {CANARY}")
    review(database, TRAINING[0], codes[20], words=f"in {CANARY}")
    with database.transaction() as transaction:
        transaction.run_script(
            "INSERT INTO releases (release_key, effective_from, source, content_sha256, code_count, billable_count, uri) "
            "VALUES ('FY2025', '2024-10-01', 'made up', 'x', 1, 1, 'x');"
            "INSERT INTO codes VALUES ('FY2025', 'T999', true, 'gone', 'gone', 1)"
        )
    review(database, JUDGING[7], "T999", release="FY2025")  # dead, and without a successor

    other = world._make_model("FY2026-tiny-stage_two-9", "stage_two", "FY2026-tiny-stage_one-1", seed=9)
    world.storage.write_bytes(f"coders/{other.model_id}/coder.json", world._make_fit().render())
    again, card = evaluate(world, other)
    assert card.reviewed is not None
    assert (card.reviewed.n, card.reviewed.withdrawn, card.reviewed.against_model_id) == (7, 1, world.model.model_id)
    assert (card.reviewed.better, card.reviewed.worse) == (0, 0)
    assert {(item.coder, item.kind): item.n for item in card.reviewed.slices} == {
        (coder, kind): n for coder in ("together", "in_service") for kind, n in (("all", 7), ("added", 4), ("replaced", 3))
    }
    decision, said = reasons(world, again)
    assert decision == "PROMOTE"
    assert "better on 0 and worse on 0 of them" in said[0]
    assert evaluate(world, other) == (again, card)

    kept = [path.read_bytes() for path in (world.folder / "store").rglob("*") if path.is_file()]
    kept += [
        repr(row).encode() for table in ("scorecards", "verdicts", "evaluations", "step_runs") for row in _rows(database, table)
    ]
    kept += [repr(again).encode(), caplog.text.encode(), "".join(capfd.readouterr()).encode()]
    assert any(CANARY in str(row[0]) for row in _rows(database, "discharge_summaries", "note_text")), "the canary is alive"
    phrases = [row.phrase for row in read_held_out(database)]
    assert len(phrases) == 8
    for marked in (CANARY, CANARY.lower(), *phrases, *(hashlib.sha256(phrase.encode()).hexdigest() for phrase in phrases[:7])):
        assert not [content for content in kept if marked.encode() in content and marked not in TITLES.values()]


def test_a_model_that_forgot_what_people_corrected_is_rejected(
    world: World, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    code_well = Coder.predict_together

    def code(self: Coder, texts: Sequence[str]) -> list[tuple[str, ...]]:
        is_deaf = self.fit is not None and self.fit.weight == 0.0
        return [("S000",)] * len(texts) if is_deaf and any(" or bone" in phrase for phrase in texts) else code_well(self, texts)

    monkeypatch.setattr(Coder, "predict_together", code)
    first, _ = evaluate(world, world.model)
    promote_model(
        judge_model(first, gate=GATE, storage=world.storage, database=database),
        promoted_by="Ann", storage=world.storage, database=database,
    )  # fmt: skip
    for number, encounter_id in enumerate(JUDGING[:12]):
        review(database, encounter_id, list(TITLES)[number + 1], words="or bone")
    worse = world._make_model("FY2026-tiny-stage_two-9", "stage_two", "FY2026-tiny-stage_one-1", seed=9)
    deaf = replace(world._make_fit(), weight=0.0)
    world.storage.write_bytes(f"coders/{worse.model_id}/coder.json", deaf.render())
    reference, card = evaluate(world, worse)
    assert card.reviewed is not None
    assert (card.reviewed.better, card.reviewed.worse) == (0, 12)
    decision, said = reasons(world, reference)
    assert decision == "REJECT"
    assert said[0].endswith("worse beyond noise")


def _rows(database: Database, table: str, columns: str = "*") -> list[tuple[object, ...]]:
    with database.engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(f"SELECT {columns} FROM {table}"))]
