"""Whether a model can be brought up to date with a later release instead of being trained in full, and whether it should be."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any, Literal, get_args

from llmcoder_tasks.errors import TrainingError
from llmcoder_tasks.icd10cm.changes import find_changed_codes
from llmcoder_tasks.model.recipe import FULL_STAGES, UPDATE, AnyRecipe, UpdateStage
from llmcoder_tasks.records import find_effective_date

Wanted = Literal["auto", "full", "update"]
WANTED: tuple[Wanted, ...] = get_args(Wanted)

_SHAPE = ("prompt_form", "conditions_per_answer", "architecture", "base_weights")
"""Keys of a recipe that must be those of the base: weights and vocabulary are taken over as they are."""


@dataclass(frozen=True, slots=True)
class Way:
    """How a model is to be trained, or that none is, and why. `base_model_id` is the model that an update starts from."""

    kind: Literal["full", "update", "none"]
    reason: str
    base_model_id: str | None = None


@dataclass(frozen=True, slots=True)
class Base:
    """The model in service as an update sees it: the facts of its manifest, and what changed since its release."""

    manifest: Mapping[str, Any]
    changed_codes: int
    billable_codes: int


def find_codes_to_learn(before: Mapping[str, str], after: Mapping[str, str]) -> frozenset[str]:
    """The codes that are new or have another title, from the long titles of the billable codes of both releases."""
    no_conversions: Mapping[str, Set[str]] = {}  # they only say which new code took over from which
    return find_changed_codes(before, after, no_conversions).to_learn


def find_obstacle(recipe: AnyRecipe, manifest: Mapping[str, Any], release_key: str) -> str | None:
    """Why a model with this manifest cannot be updated by a recipe on a dataset of a release; None where it can."""
    model_id, learnt = manifest["model_id"], str(manifest.get("release_key", ""))
    if UPDATE not in recipe.stages:
        return f"recipe {recipe.name} has no stage {UPDATE}"
    if manifest.get("stage") == FULL_STAGES[0]:
        return f"{model_id} has learnt titles alone: its stage two comes first"
    if not learnt or find_effective_date(learnt) > find_effective_date(release_key):
        return f"{model_id} was trained on {learnt or 'no release'}, which is no release up to {release_key}"
    ours, theirs = recipe.to_dict(), manifest.get("recipe_settings", {})
    if other := [key for key in _SHAPE if ours[key] != theirs.get(key)]:
        return f"{model_id} differs from recipe {recipe.name} in {', '.join(other)}: its weights do not fit"
    return None


def choose_way(wanted: Wanted, *, recipe: AnyRecipe, release_key: str, dataset_id: str, base: Base | None) -> Way:
    """Update the model in service, train in full, or not at all.

    Args:
        wanted: `auto` updates where the model in service fits the recipe, has learnt an earlier release, and no more codes changed
            since then than the recipe allows, and trains nothing where that model has learnt this dataset or a later release;
            `update` and `full` insist.
        recipe: how models are trained.
        release_key: the release of the dataset.
        dataset_id: what would be learnt.
        base: the model in service, None before the first promotion.

    Raises TrainingError when an update is wanted that cannot be.
    """
    if wanted == "full":
        return Way("full", "full training was asked for")
    if wanted == "auto" and base is not None and (needless := _find_needless(base.manifest, release_key, dataset_id)):
        return Way("none", needless)
    obstacle = "no model is in service" if base is None else find_obstacle(recipe, base.manifest, release_key)
    if wanted == "update" and obstacle:
        raise TrainingError(f"no update is possible: {obstacle}; run with training=full")
    if base is None or obstacle:
        return Way("full", str(obstacle))
    return _weigh_changes(wanted, recipe, release_key, base)


def _weigh_changes(wanted: Wanted, recipe: AnyRecipe, release_key: str, base: Base) -> Way:
    """The way for a model that could be updated, by how many codes changed."""
    model_id, learnt = str(base.manifest["model_id"]), base.manifest["release_key"]
    changed = f"{base.changed_codes:,} of {base.billable_codes:,} codes changed from {learnt} to {release_key}"
    if wanted == "update":
        return Way("update", f"an update was asked for; {changed}", model_id)
    if learnt == release_key:
        return Way("full", f"{model_id} has learnt {release_key} already: another dataset of the same release is trained in full")
    stage = recipe.stages[UPDATE]
    most = stage.most_changed if isinstance(stage, UpdateStage) else 0.0
    limit = f"recipe {recipe.name} updates up to {most:.1%}"
    is_much = base.changed_codes > most * base.billable_codes
    return Way("full", f"{changed}: {limit}") if is_much else Way("update", f"{changed}: {limit}", model_id)


def _find_needless(manifest: Mapping[str, Any], release_key: str, dataset_id: str) -> str | None:
    """Why nothing is to be learnt from a dataset while a model with this manifest is in service; None where there is."""
    model_id, learnt = manifest["model_id"], str(manifest.get("release_key", ""))
    if manifest.get("dataset_id") == dataset_id:
        return f"{model_id} in service has learnt {dataset_id} already"
    if learnt and find_effective_date(learnt) > find_effective_date(release_key):
        return f"{model_id} in service has learnt {learnt}, which is later than {release_key}, and codes by both"
    return None
