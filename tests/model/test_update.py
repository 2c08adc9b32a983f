"""Whether a model is updated or trained in full, and the reason that stands in the log."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from llmcoder_tasks.errors import TrainingError
from llmcoder_tasks.model.recipe import Recipe, read_recipe
from llmcoder_tasks.model.update import Base, Wanted, choose_way, find_codes_to_learn, find_obstacle

RECIPE = read_recipe("compact-short")


def make_base(changed: int = 300, **facts: Any) -> Base:
    manifest = {
        "model_id": "FY2025-m",
        "stage": "stage_two",
        "release_key": "FY2025",
        "dataset_id": "d1",
        "recipe_settings": RECIPE.to_dict(),
    }
    return Base(manifest | facts, changed, 74_000)


def test_codes_to_learn_are_new_or_have_another_title() -> None:
    assert find_codes_to_learn({"A00": "a", "A01": "b", "A02": "c"}, {"A00": "a", "A01": "x", "A03": "d"}) == {"A01", "A03"}


def test_a_model_of_an_earlier_release_is_updated() -> None:
    way = choose_way("auto", recipe=RECIPE, release_key="FY2026", dataset_id="d2", base=make_base())
    assert (way.kind, way.base_model_id) == ("update", "FY2025-m")
    assert way.reason == ("300 of 74,000 codes changed from FY2025 to FY2026: recipe compact-short updates up to 5.0%")


def test_a_model_that_was_updated_is_updated_again() -> None:
    assert choose_way("auto", recipe=RECIPE, release_key="FY2026", dataset_id="d2", base=make_base(stage="update")).kind == "update"


def test_a_model_of_another_length_of_training_but_the_same_shape_is_updated() -> None:
    assert (
        choose_way("auto", recipe=read_recipe("compact"), release_key="FY2026", dataset_id="d2", base=make_base()).kind == "update"
    )


@pytest.mark.parametrize(
    ("recipe", "base", "release_key", "reason"),
    [
        (RECIPE, None, "FY2026", "no model is in service"),
        (RECIPE, make_base(changed=3701), "FY2026", "3,701 of 74,000 codes changed .* updates up to 5.0%"),
        (RECIPE, make_base(), "FY2025", "FY2025-m has learnt FY2025 already"),
        (RECIPE, make_base(stage="stage_one"), "FY2026", "has learnt titles alone"),
        (read_recipe("tiny"), make_base(), "FY2026", "differs from recipe tiny in conditions_per_answer, architecture"),
        (read_recipe("llama-3.2-1b"), make_base(), "FY2026", "recipe llama-3.2-1b has no stage update"),
        (RECIPE, make_base(recipe_settings={}), "FY2026", "differs from recipe compact-short in prompt_form"),
    ],
)
def test_without_a_fitting_model_training_is_full_and_the_reason_is_told(
    recipe: Recipe, base: Base | None, release_key: str, reason: str
) -> None:
    way = choose_way("auto", recipe=recipe, release_key=release_key, dataset_id="d2", base=base)
    assert (way.kind, way.base_model_id) == ("full", None)
    assert re.search(reason, way.reason)


@pytest.mark.parametrize(
    ("base", "reason"),
    [
        (make_base(release_key="FY2026", dataset_id="d2"), "FY2025-m in service has learnt d2 already"),
        (make_base(release_key="FY2026-April"), "has learnt FY2026-April, which is later than FY2026"),
    ],
)
def test_nothing_is_trained_where_the_model_in_service_has_learnt_it_or_a_later_release(base: Base, reason: str) -> None:
    way = choose_way("auto", recipe=RECIPE, release_key="FY2026", dataset_id="d2", base=base)
    assert (way.kind, way.base_model_id) == ("none", None)
    assert re.search(reason, way.reason)
    assert choose_way("full", recipe=RECIPE, release_key="FY2026", dataset_id="d2", base=base).kind == "full"


def test_the_corrected_content_of_a_release_is_learnt_by_an_update() -> None:
    way = choose_way("auto", recipe=RECIPE, release_key="FY2025-corrected-1", dataset_id="d2", base=make_base(changed=2))
    assert (way.kind, way.base_model_id) == ("update", "FY2025-m")


def test_a_model_of_a_later_release_is_an_obstacle_to_an_update() -> None:
    obstacle = find_obstacle(RECIPE, make_base(release_key="FY2026-April").manifest, "FY2026")
    assert obstacle == "FY2025-m was trained on FY2026-April, which is no release up to FY2026"


def test_who_asks_for_full_training_gets_it() -> None:
    assert choose_way("full", recipe=RECIPE, release_key="FY2026", dataset_id="d2", base=make_base()).kind == "full"


@pytest.mark.parametrize("changed", [300, 30_000])
def test_who_asks_for_an_update_gets_it_however_much_changed(changed: int) -> None:
    assert choose_way("update", recipe=RECIPE, release_key="FY2026", dataset_id="d2", base=make_base(changed)).kind == "update"


def test_an_update_of_no_model_is_refused() -> None:
    wanted: Wanted = "update"
    with pytest.raises(TrainingError, match="no update is possible: no model is in service; run with training=full"):
        choose_way(wanted, recipe=RECIPE, release_key="FY2026", dataset_id="d2", base=None)


def test_another_shape_is_an_obstacle() -> None:
    assert RECIPE.architecture is not None
    wider = replace(RECIPE, architecture=replace(RECIPE.architecture, hidden_size=512))
    obstacle = find_obstacle(wider, make_base().manifest, "FY2026")
    assert obstacle == "FY2025-m differs from recipe compact-short in architecture: its weights do not fit"
