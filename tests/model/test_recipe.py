"""Recipes are read strictly: what is not understood is refused, with the nearest key."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmcoder_tasks.errors import RecipeError
from llmcoder_tasks.model.recipe import ServerRecipe, parse_recipe, read_recipe
from llmcoder_tasks.settings import RECIPES_FOLDER


@pytest.fixture
def facts() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((RECIPES_FOLDER / "tiny.yaml").read_text())
    return loaded


@pytest.mark.parametrize("name", sorted(path.stem for path in RECIPES_FOLDER.glob("*.yaml")))
def test_a_shipped_recipe_is_named_like_its_file_and_survives_being_written(name: str) -> None:
    recipe = read_recipe(name)
    assert recipe.name == name
    assert parse_recipe(recipe.to_dict(), "copy") == recipe


def test_the_llama_recipe_has_the_published_settings() -> None:
    recipe = read_recipe("llama-3.2-1b")
    one, two = recipe.stages["stage_one"], recipe.stages["stage_two"]
    assert (one.learning_rate, one.epochs, two.learning_rate, two.epochs) == (1e-5, 10, 5e-6, 5)
    assert {one.schedule, two.schedule} == {"cosine"}
    assert {one.max_tokens, two.max_tokens} == {50}
    assert (recipe.precision, recipe.deepspeed_zero_stage) == ("bf16", 2)


def test_an_unknown_recipe_gets_the_nearest_name() -> None:
    known = "compact, compact-short, llama-3.1-8b, .*llama-3.2-1b, .*openai-gpt-4o-mini, served, tiny"
    with pytest.raises(RecipeError, match=f"no recipe 'compct' .did you mean 'compact'.*recipes are {known}"):
        read_recipe("compct")


def test_a_misspelt_key_gets_the_nearest_key(facts: dict[str, Any]) -> None:
    facts["stages"]["stage_one"]["learning_rat"] = 1.0
    with pytest.raises(RecipeError, match="r.yaml: stages.stage_one: unknown key 'learning_rat' .did you mean 'learning_rate'"):
        parse_recipe(facts, "r.yaml")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("stages", "stage_one", "learning_rate"), "1e-5", "write 1.0e-5"),
        (("stages", "stage_one", "learning_rate"), -1.0, "learning_rate is -1.0: expected more than 0"),
        (("stages", "stage_one", "epochs"), 2, "exactly one of epochs and examples"),
        (("stages", "stage_one", "mix"), {"typo": 1.0}, "no scenario 'typo' \\(did you mean 'typos'\\?\\)"),
        (("stages", "stage_one", "mix"), {"base": 0.0}, "a sum above 0"),
        (("stages", "stage_one", "max_tokens"), 500, "expected 1 to context_tokens, 96"),
        (("stages", "stage_one", "schedule"), "polynomial", "expected 'linear' or 'cosine'"),
        (("answer_tokens",), 96, "answer_tokens must be less than context_tokens"),
        (("base_weights",), "x", "either base_weights .* or architecture"),
        (("prompt_form",), "chat", "prompt_form is compact"),
        (("deepspeed_zero_stage",), 2, "embedding_factor must be 1"),
        (("seed",), True, "seed is True: expected int"),
        (("stages", "stage_two"), None, "expected a mapping"),
        (("stages", "update", "changed_shar"), 0.1, "unknown key 'changed_shar' \\(did you mean 'changed_share'\\?\\)"),
        (("stages", "update", "changed_share"), 1.5, "stages.update.changed_share is 1.5: expected 0 to 1"),
        (("stages", "update", "most_changed"), -0.1, "stages.update.most_changed is -0.1: expected 0 to 1"),
        (("stages", "update", "changed_passes"), 0, "changed_passes is 0: expected 1 or more"),
        (("stages", "stage_two", "changed_share"), 0.5, "stages.stage_two: unknown key 'changed_share'"),
    ],
)
def test_a_value_that_makes_no_sense_is_named_with_its_place(
    facts: dict[str, Any], path: tuple[str, ...], value: Any, message: str
) -> None:
    place = facts
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(RecipeError, match=message):
        parse_recipe(facts, "r.yaml")


def test_a_missing_key_and_a_missing_stage_are_named(facts: dict[str, Any]) -> None:
    del facts["seed"]
    with pytest.raises(RecipeError, match="missing seed"):
        parse_recipe(facts, "r.yaml")
    facts["seed"] = 1
    del facts["stages"]["stage_two"]
    with pytest.raises(
        RecipeError, match="stages must be stage_one and stage_two, notes and update if you like, not stage_one, update"
    ):
        parse_recipe(facts, "r.yaml")


def test_a_misspelt_stage_gets_the_nearest_name(facts: dict[str, Any]) -> None:
    facts["stages"]["updat"] = facts["stages"]["stage_one"]
    with pytest.raises(RecipeError, match="stages: unknown stage 'updat' .did you mean 'update'"):
        parse_recipe(facts, "r.yaml")


def test_an_update_has_a_budget_of_examples(facts: dict[str, Any]) -> None:
    del facts["stages"]["update"]["examples"]
    facts["stages"]["update"]["epochs"] = 1.0
    with pytest.raises(RecipeError, match="stages.update: an update has a budget: give examples"):
        parse_recipe(facts, "r.yaml")


def test_a_recipe_may_leave_the_update_out(facts: dict[str, Any]) -> None:
    del facts["stages"]["update"]
    assert list(parse_recipe(facts, "r.yaml").stages) == ["stage_one", "stage_two"]


def test_a_file_that_is_no_yaml_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("a: [1")
    with pytest.raises(RecipeError, match="r.yaml is no YAML"):
        read_recipe(str(path))


def test_the_recipe_for_openai_has_the_hyperparameters_of_the_seed_and_a_dated_snapshot() -> None:
    recipe = read_recipe("openai-gpt-4o-mini")
    assert isinstance(recipe, ServerRecipe)
    assert parse_recipe(recipe.to_dict(), "again") == recipe
    stages = [(stage.epochs, stage.learning_rate_multiplier) for stage in recipe.stages.values()]
    assert (recipe.base_model, stages) == ("gpt-4o-mini-2024-07-18", [(10, 1.8), (5, 1.0)])


UNTRAINED: dict[str, Any] = {"scenarios": [], "epochs": 0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backend": "azure"}, "backend is 'azure': expected 'openai'"),
        ({"base_modl": "x"}, "unknown key 'base_modl' (did you mean 'base_model'?)"),
        ({"max_cost": -1.0}, "max_cost is -1.0: expected 0 or more"),
        ({"stages": {}}, "stages must be stage_one and stage_two, not nothing"),
        ({"stages": {"stage_one": {"scenarios": [], "epochs": 3}, "stage_two": UNTRAINED}}, "give epochs of 1"),
        ({"stages": {"stage_one": UNTRAINED, "stage_two": UNTRAINED | {"examples": 0}}}, "stage_two.examples is 0"),
        ({"stages": {"stage_one": {"scenarios": ["bas"], "epochs": 3}, "stage_two": UNTRAINED}}, "did you mean 'base'?"),
    ],
)
def test_a_bad_recipe_for_a_server_is_refused_with_key_and_cure(change: dict[str, Any], message: str) -> None:
    facts = read_recipe("served").to_dict() | change
    with pytest.raises(RecipeError, match=re.escape(message)):
        parse_recipe(facts, "mine.yaml")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("adapter", "layers"), ["q_proj", "v_prj"], "no layer 'v_prj' .did you mean 'v_proj'"),
        (("adapter", "rank"), 0, "adapter: rank and alpha must be above 0, not 0 and 32.0"),
        (("deepspeed_offload",), "optimizer", "deepspeed_offload needs a deepspeed_zero_stage"),
        (("deepspeed_zero_stage",), 3, "an adapter is merged from whole weights"),
        (("stages", "stage_one", "packing"), 40, "packing is 40: expected at least max_tokens, 50"),
        (("stages", "notes", "max_words"), 0, "max_words is 0: expected 1 or more"),
        (("stages", "notes", "mix"), {"base": 1.0}, "notes.mix has no notes"),
        (("gradient_checkpointing",), 1, "gradient_checkpointing is 1: expected bool"),
    ],
)
def test_a_way_of_training_that_cannot_be_is_named_with_its_place(path: tuple[str, ...], value: Any, message: str) -> None:
    facts: dict[str, Any] = yaml.safe_load((RECIPES_FOLDER / "llama-3.2-1b-lora.yaml").read_text())
    place = facts
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(RecipeError, match=message):
        parse_recipe(facts, "r.yaml")


def test_keys_that_came_later_do_not_change_what_a_recipe_without_them_is(facts: dict[str, Any]) -> None:
    said = parse_recipe(facts, "r.yaml").to_dict()
    assert not {"adapter", "gradient_checkpointing", "fused_kernels", "compiled", "deepspeed_offload"} & said.keys()
    assert all("packing" not in stage for stage in said["stages"].values())
