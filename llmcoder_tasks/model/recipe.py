"""A recipe: everything that decides how a model is trained in its two stages and brought up to date with a later release, read from
one YAML file and kept with the model.

Amounts are given in passes or examples and in tokens, never in seconds, so that a run can be repeated. Unknown keys are refused.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Collection, Mapping
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from llmcoder_tasks.errors import RecipeError
from llmcoder_tasks.prompt import ConditionsPerAnswer, PromptForm
from llmcoder_tasks.records import SCENARIOS
from llmcoder_tasks.settings import RECIPES_FOLDER

FULL_STAGES = ("stage_one", "stage_two")
"""What a model trained from nothing, or from pretrained weights, goes through."""

NOTES = "notes"
"""Whole clinical notes with the codes that people gave them, after stage two. A recipe may leave it out."""

UPDATE = "update"
"""A later release on top of an earlier model. A recipe may leave it out: then every release is trained in full."""

STAGES = (*FULL_STAGES, NOTES, UPDATE)

ADAPTED_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The matrices of a Llama layer: what an adapter may stand beside."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """The shape of a Llama that is trained from nothing."""

    layers: int
    hidden_size: int
    intermediate_size: int
    attention_heads: int
    key_value_heads: int
    text_vocabulary: int  # byte-level BPE tokens; the answer tokens come on top
    vocabulary_scenarios: tuple[str, ...]  # whose training texts the vocabulary is learnt from
    vocabulary_examples: int  # at most so many of each


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """LoRA (Hu et al., ICLR 2022): the weights stand still and a product of two thin matrices beside them is trained.

    With `quantized_base` they stand still in four bits, as NF4 with double quantization: QLoRA (Dettmers et al., NeurIPS 2023).
    When a stage ends, its adapter is merged: what is published are plain weights.
    """

    rank: int
    alpha: float  # the product counts alpha / rank times
    layers: tuple[str, ...] = ADAPTED_LAYERS
    quantized_base: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One training stage. Exactly one of `epochs` and `examples` says how long it is."""

    mix: dict[str, float]  # scenario -> share of the examples; with `epochs`, whole tables whose share is above 0
    epochs: float | None = None  # passes over the tables of the mix
    examples: int | None = None  # examples in all, drawn by share
    max_tokens: int  # examples with more tokens, prompt and answer together, are left out
    tokens_per_step: int  # over all processes
    packing: int | None = None  # examples share rows of so many tokens, and do not see each other; None: rows of one length
    learning_rate: float
    embedding_factor: float = 1.0  # the embeddings' learning rate is so many times that of the other weights
    schedule: Literal["linear", "cosine"]  # both end at zero
    warmup_steps: int = 0
    weight_decay: float = 0.0
    adam_beta2: float = 0.999
    max_gradient_norm: float = 1.0
    average_every_steps: int | None = None  # processes train apart and average their weights so often; None: gradients, each step
    log_every_steps: int = 50
    checkpoint_every_steps: int = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateStage(Stage):
    """What brings a model of an earlier release up to date: the codes that changed, and a replay of all others.

    `changed_share` of the examples are about a code that is new or has another title, the rest about any other code; both by the
    shares of the mix. On average an example of a changed code comes at most `changed_passes` times: a release that changes little
    is mostly replay. `most_changed` is the share of the billable codes up to which an update is chosen when nobody says what to do.
    """

    changed_share: float
    changed_passes: int
    most_changed: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NotesStage(Stage):
    """Whole clinical notes: the scenario `notes` of the mix is the notes that a setting names, else those of the dataset.

    Notes of more than `max_words` words are left out, never cut: the codes of a cut note would be those of another text.
    """

    max_words: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a model is trained. `base_weights` or `architecture`, not both.

    `base_weights` is a folder, a prefix like `s3://bucket/llama`, or a hub name.
    """

    name: str
    prompt_form: PromptForm
    context_tokens: int  # prompt and answer together, when coding
    answer_tokens: int  # of them, kept for the answer
    conditions_per_answer: ConditionsPerAnswer = "several"
    seed: int
    processes: int  # torchrun processes: GPUs or cores
    precision: Literal["fp32", "bf16"]
    base_weights: str | None = None
    architecture: Architecture | None = None
    adapter: Adapter | None = None  # None: all weights are trained
    gradient_checkpointing: bool = False  # computes layers twice instead of keeping what is inside them
    fused_kernels: bool = False  # those of liger-kernel, on GPUs
    compiled: bool = False  # torch.compile, layer by layer
    inference_bits: Literal[4, 8] | None = None  # how the layers of the trained model stand when it codes; None: as trained
    deepspeed_zero_stage: Literal[1, 2, 3] | None = None
    deepspeed_offload: Literal["optimizer", "all"] | None = None  # what waits in the machine's memory instead of the GPU's
    stages: dict[str, Stage]

    def to_dict(self) -> dict[str, Any]:
        """The recipe as plain data: `parse_recipe` reads it back."""
        facts = _to_dict(self)
        facts["stages"] = {name: _without_unsaid(stage) for name, stage in facts["stages"].items()}
        return _without_unsaid(facts)


_UNSAID = {
    "adapter": None, "packing": None, "gradient_checkpointing": False, "fused_kernels": False, "compiled": False,
    "deepspeed_offload": None, "inference_bits": None,
}  # fmt: skip
"""Keys that came later: unsaid where they change nothing, so that the ids of models from before them stand."""


def _without_unsaid(facts: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in facts.items() if key not in _UNSAID or value != _UNSAID[key]}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStage:
    """One training stage at a server. With 0 epochs nothing is trained: the model is taken as it is served."""

    scenarios: tuple[str, ...]  # whose training texts are learnt
    examples: int | None = None  # of each scenario at most so many, a fair sample
    epochs: int
    learning_rate_multiplier: float | None = None  # None: the server chooses
    batch_size: int | None = None  # None: the server chooses


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerRecipe:
    """How a model is trained behind a server that speaks the OpenAI API (LLMCODER_CODER_LLM_URL)."""

    name: str
    backend: Literal["openai"]
    base_model: str  # as the server lists it, a dated snapshot where there are such
    seed: int
    max_cost: float | None = None  # of one stage, in the currency of LLMCODER_TRAIN_PRICE; LLMCODER_TRAIN_MAX_COST goes before it
    stages: dict[str, ServerStage]

    def to_dict(self) -> dict[str, Any]:
        """The recipe as plain data: `parse_recipe` reads it back."""
        return _to_dict(self)


AnyRecipe = Recipe | ServerRecipe


def _to_dict(recipe: AnyRecipe) -> dict[str, Any]:
    facts: dict[str, Any] = yaml.safe_load(yaml.safe_dump(_plain(asdict(recipe))))
    return facts


def read_recipe(name: str, folder: Path = RECIPES_FOLDER) -> AnyRecipe:
    """A recipe by its name, or by the path of a YAML file. Raises RecipeError with the nearest name or key."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else folder / f"{name}.yaml"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        known = sorted(found.stem for found in folder.glob("*.yaml"))
        raise RecipeError(f"there is no recipe {name!r}{_did_you_mean(name, known)}; recipes are {', '.join(known)}") from None
    try:
        facts = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"{path.name} is no YAML: {str(error).splitlines()[0]}") from None
    return parse_recipe(facts, path.name)


def parse_recipe(facts: Any, place: str) -> AnyRecipe:
    """Check plain data and make a recipe of it. Raises RecipeError that names the place, the key and the cure."""
    if isinstance(facts, Mapping) and "backend" in facts:
        at_server: ServerRecipe = _build(ServerRecipe, facts, place)
        _verify_server_recipe(at_server, place)
        return at_server
    recipe: Recipe = _build(Recipe, facts, place)
    _verify(recipe, place)
    return recipe


def _verify(recipe: Recipe, place: str) -> None:
    if (recipe.base_weights is None) == (recipe.architecture is None):
        raise RecipeError(f"{place}: give either base_weights (a pretrained model) or architecture (trained from nothing)")
    if (recipe.prompt_form == "compact") != (recipe.architecture is not None):
        raise RecipeError(
            f"{place}: prompt_form is compact for an architecture of its own; for base_weights it is chat, or instruct where they "
            "were taught to converse"
        )
    if not 0 < recipe.answer_tokens < recipe.context_tokens:
        raise RecipeError(f"{place}: answer_tokens must be less than context_tokens, {recipe.context_tokens}")
    _verify_stage_names(recipe.stages, place)
    if recipe.architecture is not None:
        _verify_scenarios(recipe.architecture.vocabulary_scenarios, f"{place}: architecture.vocabulary_scenarios")
    _verify_ways(recipe, place)
    if recipe.deepspeed_zero_stage and any(stage.embedding_factor != 1 for stage in recipe.stages.values()):
        raise RecipeError(f"{place}: DeepSpeed makes the optimizer itself: embedding_factor must be 1")
    for name, stage in recipe.stages.items():
        _verify_stage(stage, f"{place}: stages.{name}", recipe.context_tokens)
        if recipe.conditions_per_answer == "one" and stage.mix.get("notes", 0):
            raise RecipeError(f"{place}: stages.{name}.mix: with conditions_per_answer one, notes must be 0")
        if stage.packing is not None and recipe.architecture is not None:
            raise RecipeError(f"{place}: stages.{name}.packing is for base_weights: an architecture has rows of one length")
        if recipe.deepspeed_zero_stage and stage.average_every_steps:
            raise RecipeError(f"{place}: stages.{name}: DeepSpeed shares gradients itself: leave average_every_steps out")


def _verify_server_recipe(recipe: ServerRecipe, place: str) -> None:
    if set(recipe.stages) != set(FULL_STAGES):
        found = ", ".join(recipe.stages) or "nothing"
        raise RecipeError(f"{place}: stages must be {' and '.join(FULL_STAGES)}, not {found}: a server updates no model")
    if recipe.max_cost is not None and recipe.max_cost < 0:
        raise RecipeError(f"{place}.max_cost is {recipe.max_cost}: expected 0 or more")
    for name, stage in recipe.stages.items():
        where = f"{place}: stages.{name}"
        _verify_scenarios(stage.scenarios, f"{where}.scenarios")
        if stage.epochs < 0 or (stage.epochs and not stage.scenarios):
            raise RecipeError(f"{where}: give epochs of 1 or more and scenarios, or 0 epochs to take the model as it is served")
        for key, amount in (
            ("examples", stage.examples),
            ("learning_rate_multiplier", stage.learning_rate_multiplier),
            ("batch_size", stage.batch_size),
        ):
            if amount is not None and amount <= 0:
                raise RecipeError(f"{where}.{key} is {amount}: expected more than 0")


def _verify_ways(recipe: Recipe, place: str) -> None:
    """Refuse what the libraries cannot do together."""
    if recipe.adapter is not None:
        _verify_adapter(recipe.adapter, recipe, f"{place}: adapter")
    if recipe.deepspeed_offload and recipe.deepspeed_zero_stage is None:
        raise RecipeError(f"{place}: deepspeed_offload needs a deepspeed_zero_stage")
    if recipe.deepspeed_offload == "all" and recipe.deepspeed_zero_stage != 3:
        raise RecipeError(f"{place}: deepspeed_offload all needs deepspeed_zero_stage 3: take optimizer, or that stage")
    if recipe.compiled and recipe.deepspeed_zero_stage == 3:
        raise RecipeError(f"{place}: ZeRO-3 fetches weights in between: leave compiled out, or take another deepspeed_zero_stage")


def _verify_adapter(adapter: Adapter, recipe: Recipe, place: str) -> None:
    if recipe.base_weights is None:
        raise RecipeError(f"{place}: there is nothing to adapt without base_weights")
    if adapter.rank < 1 or adapter.alpha <= 0:
        raise RecipeError(f"{place}: rank and alpha must be above 0, not {adapter.rank} and {adapter.alpha}")
    for name in adapter.layers:
        if name not in ADAPTED_LAYERS:
            raise RecipeError(f"{place}.layers: no layer {name!r}{_did_you_mean(name, ADAPTED_LAYERS)}")
    if not adapter.layers:
        raise RecipeError(f"{place}.layers is empty: leave it out for all of {', '.join(ADAPTED_LAYERS)}")
    if recipe.deepspeed_zero_stage == 3:
        raise RecipeError(f"{place}: an adapter is merged from whole weights: take deepspeed_zero_stage 2, 1 or none")


def _verify_stage_names(names: Collection[str], place: str) -> None:
    for name in names:
        if name not in STAGES:
            raise RecipeError(f"{place}: stages: unknown stage {name!r}{_did_you_mean(name, STAGES)}")
    if not set(FULL_STAGES) <= set(names):
        found = ", ".join(names) or "nothing"
        raise RecipeError(f"{place}: stages must be {' and '.join(FULL_STAGES)}, {NOTES} and {UPDATE} if you like, not {found}")


def _verify_stage(stage: Stage, place: str, context_tokens: int) -> None:
    if (stage.epochs is None) == (stage.examples is None):
        raise RecipeError(f"{place}: give exactly one of epochs and examples")
    amounts = {"epochs": stage.epochs, "examples": stage.examples, "learning_rate": stage.learning_rate}
    amounts |= {"embedding_factor": stage.embedding_factor}
    amounts |= {"tokens_per_step": stage.tokens_per_step, "log_every_steps": stage.log_every_steps}
    amounts |= {"checkpoint_every_steps": stage.checkpoint_every_steps, "average_every_steps": stage.average_every_steps}
    for key, amount in amounts.items():
        if amount is not None and amount <= 0:
            raise RecipeError(f"{place}.{key} is {amount}: expected more than 0")
    if not 0 < stage.max_tokens <= context_tokens:
        raise RecipeError(f"{place}.max_tokens is {stage.max_tokens}: expected 1 to context_tokens, {context_tokens}")
    if stage.packing is not None and stage.packing < stage.max_tokens:
        raise RecipeError(f"{place}.packing is {stage.packing}: expected at least max_tokens, {stage.max_tokens}")
    _verify_scenarios(stage.mix, f"{place}.mix")
    if not stage.mix or min(stage.mix.values()) < 0 or sum(stage.mix.values()) <= 0:
        raise RecipeError(f"{place}.mix needs shares of 0 or more with a sum above 0")
    if isinstance(stage, UpdateStage):
        _verify_update(stage, place)
    if isinstance(stage, NotesStage) and stage.max_words < 1:
        raise RecipeError(f"{place}.max_words is {stage.max_words}: expected 1 or more")
    if isinstance(stage, NotesStage) and not stage.mix.get("notes", 0):
        raise RecipeError(f"{place}.mix has no notes: give them a share above 0")


def _verify_update(stage: UpdateStage, place: str) -> None:
    if stage.examples is None:
        raise RecipeError(f"{place}: an update has a budget: give examples, not epochs")
    for key, share in (("changed_share", stage.changed_share), ("most_changed", stage.most_changed)):
        if not 0 <= share <= 1:
            raise RecipeError(f"{place}.{key} is {share}: expected 0 to 1")
    if stage.changed_passes < 1:
        raise RecipeError(f"{place}.changed_passes is {stage.changed_passes}: expected 1 or more")


def _verify_scenarios(names: Any, place: str) -> None:
    for name in names:
        if name not in SCENARIOS:
            raise RecipeError(f"{place}: no scenario {name!r}{_did_you_mean(name, SCENARIOS)}; they are {', '.join(SCENARIOS)}")


def _did_you_mean(name: str, known: Any) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _build(cls: Any, facts: Any, place: str) -> Any:
    """A dataclass from a mapping: every key known, every key without default there, every value of its type."""
    if not isinstance(facts, Mapping):
        raise RecipeError(f"{place}: expected a mapping of keys to values, found {type(facts).__name__}")
    hints = get_type_hints(cls)
    for key in facts:
        if key not in hints:
            raise RecipeError(f"{place}: unknown key {key!r}{_did_you_mean(str(key), hints)}")
    missing = [field.name for field in fields(cls) if field.default is MISSING and field.name not in facts]
    if missing:
        raise RecipeError(f"{place}: missing {', '.join(missing)}")
    return cls(**{key: _convert(value, hints[key], f"{place}: {key}") for key, value in facts.items()})


def _convert(value: Any, hint: Any, place: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (types.UnionType, Union):
        inner = next(part for part in arguments if part is not type(None))
        return None if value is None else _convert(value, inner, place)
    if origin is dict and isinstance(value, Mapping):
        return {str(key): _convert(part, _hint_of(key, arguments[1]), f"{place}.{key}") for key, part in value.items()}
    if origin is tuple and isinstance(value, list):
        return tuple(_convert(part, arguments[0], place) for part in value)
    return _build(hint, value, place) if is_dataclass(hint) else _convert_scalar(value, hint, place)


def _hint_of(key: Any, hint: Any) -> Any:
    return {UPDATE: UpdateStage, NOTES: NotesStage}.get(key, hint) if hint is Stage else hint


def _convert_scalar(value: Any, hint: Any, place: str) -> Any:
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise RecipeError(f"{place} is {value!r}: expected {' or '.join(map(repr, get_args(hint)))}")
        return value
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if hint in (int, str) and isinstance(value, hint) and not isinstance(value, bool):
        return value
    if hint is bool and isinstance(value, bool):
        return value
    cure = " (YAML reads 1e-5 as text: write 1.0e-5)" if hint is float and isinstance(value, str) else ""
    raise RecipeError(f"{place} is {value!r}: expected {getattr(hint, '__name__', hint)}{cure}")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return list(value) if isinstance(value, tuple) else value
