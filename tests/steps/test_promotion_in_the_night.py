"""A promotion while the night runs: the night ends on the model it began with, the next one takes the new model."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hospital import admit, open_hospital, publish_models, query

from llmcoder_tasks.coding.title_coder import TitleCoder
from llmcoder_tasks.database import Database
from llmcoder_tasks.evaluation.registry import Promotion, put_into_service, read_standing, require_promoted
from llmcoder_tasks.steps.code_encounters import code_shard, finish_night, plan_night
from llmcoder_tasks.storage import FolderStorage

pytestmark = pytest.mark.integration

FIRST, LAST = date(2026, 3, 30), date(2026, 4, 30)
SHARDS = 2
NOTES = 80
"""Several batches of sixteen in each shard."""


def put_in(model_id: str, storage: FolderStorage, database: Database) -> None:
    standing = read_standing(storage)
    number = standing.promotion.promotion_id + 1 if standing.promotion else 1
    promotion = Promotion(number, "promote", model_id, storage.uri_of(f"models/{model_id}"), "FY2026", "v", "e", None, "A. Person")
    put_into_service(storage, database, promotion, replaces=standing)


def test_a_night_ends_on_the_model_it_began_with_and_the_next_takes_the_new_one(database: Database, tmp_path: Path) -> None:
    storage, hospital = publish_models(tmp_path), open_hospital(database)
    put_in("m1", storage, hospital)
    admit(hospital, NOTES)
    coded_before: list[int] = []

    class Interrupted(TitleCoder):
        """Between two batches, another model goes into service."""

        def code_phrases(self, texts: Sequence[str]) -> Any:
            ((coded,),) = query(hospital, "SELECT count(*) FROM coded_notes")
            if coded and not coded_before:
                put_in("m2", storage, hospital)
                coded_before.append(coded)
            return super().code_phrases(texts)

    def run(night: str) -> None:
        planned = plan_night(FIRST, LAST, model=require_promoted(storage), shards=SHARDS, coding_run_id=night, database=hospital)
        for shard in planned:
            code_shard(**shard, storage=storage, database=hospital, cache_folder=tmp_path / "cache", open_coder=Interrupted.open)
        finish_night(night, hospital)

    run("night")
    assert require_promoted(storage).model_id == "m2"
    assert 0 < coded_before[0] < NOTES
    by_night = "SELECT coding_run_id, model_id, count(*) FROM coded_notes GROUP BY 1, 2 ORDER BY 1"
    assert query(hospital, by_night) == [("night", "m1", NOTES)]
    admit(hospital, 3, first=NOTES, on=date(2026, 4, 3))
    run("the next night")
    assert {row[:2] for row in query(hospital, by_night)} == {("night", "m1"), ("the next night", "m2")}
