"""What training begins with: nothing but a vocabulary, a pretrained model from a folder, a store or the hub, an earlier stage."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import shutil
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from llmcoder_tasks.errors import ArtifactMissing, TrainingError
from llmcoder_tasks.model.manifest import verify_manifest
from llmcoder_tasks.model.recipe import Recipe
from llmcoder_tasks.model.tokenizer import TOKENIZER_NAME, AnswerTokenizer, PromptSettings
from llmcoder_tasks.model.training_run import RECIPE_NAME
from llmcoder_tasks.records import Example
from llmcoder_tasks.storage import Storage, hash_file, open_storage

logger = logging.getLogger(__name__)

_PATTERNS = ("*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json", "tokenizer*.json")


def start_from_nothing(recipe: Recipe, examples: Sequence[Example], codes: Sequence[str], start: Path) -> AnswerTokenizer:
    """Train a vocabulary on texts and on the categories of codes, and write it into the folder `start`."""
    if recipe.architecture is None:
        raise TrainingError(f"recipe {recipe.name} has no architecture to begin from nothing")
    tokenizer = AnswerTokenizer.train(
        (example.text for example in examples),
        codes,
        text_vocabulary=recipe.architecture.text_vocabulary,
        context_tokens=recipe.context_tokens,
        answer_tokens=recipe.answer_tokens,
        conditions_per_answer=recipe.conditions_per_answer,
    )
    tokenizer.save(start)
    logger.info("trained a vocabulary of %d tokens on %d texts", tokenizer.size, len(examples))
    return tokenizer


def start_from_pretrained(recipe: Recipe, start: Path, *, cache_folder: Path, storage: Storage) -> AnswerTokenizer:
    """Bring pretrained weights into the folder `start`. Raises TrainingError with the cure when they are not to be had."""
    source = find_base_weights(recipe.base_weights or "", cache_folder=cache_folder, endpoint_url=storage.endpoint_url)
    for pattern in _PATTERNS:
        for path in source.glob(pattern):
            (start / path.name).unlink(missing_ok=True)
            (start / path.name).symlink_to(path.resolve())
    end_token = _read_end_token(start, recipe.base_weights or "")
    settings = PromptSettings(
        recipe.prompt_form, recipe.context_tokens, recipe.answer_tokens, end_token, recipe.conditions_per_answer
    )
    settings.write(start)
    return AnswerTokenizer.load(start)


def start_from_stage(recipe: Recipe, base_folder: Path, start: Path) -> AnswerTokenizer:
    """Bring an earlier stage into the folder `start` and say what is inherited. Raises ModelError when it was altered."""
    manifest = verify_manifest(base_folder)
    for name in manifest["files"]:
        if name not in (RECIPE_NAME, "training_log.jsonl"):
            shutil.copy(base_folder / name, start / name)
    tokenizer = AnswerTokenizer.load(start)
    config = json.loads((start / "config.json").read_text(encoding="utf-8"))
    logger.info(
        "training starts from %s: weights, %d layers of %d, %d tokens of vocabulary, context of %d tokens",
        manifest["model_id"],
        config["num_hidden_layers"],
        config["hidden_size"],
        tokenizer.size,
        tokenizer.settings.context_tokens,
    )
    if recipe.context_tokens != tokenizer.settings.context_tokens:
        logger.info("recipe %s says context_tokens %d: the inherited value stands", recipe.name, recipe.context_tokens)
    return tokenizer


def find_base_weights(name: str, *, cache_folder: Path, endpoint_url: str | None = None) -> Path:
    """The folder of pretrained weights: `name` itself, a copy of what lies under a URI, or a hub model, downloaded where needed.

    Only safetensors, configuration and tokenizer are taken. Raises TrainingError, and StorageError of a store.
    """
    if "://" in name:
        folder = _fetch(name, cache_folder, endpoint_url)
    else:
        folder = Path(name).expanduser()
        if not folder.is_dir():
            folder = _download(name)
    missing = [what for what in ("*.safetensors", "config.json", TOKENIZER_NAME) if not any(folder.glob(what))]
    if missing:
        raise TrainingError(f"base weights {name!r}: {folder} has no {' and no '.join(missing)}; only safetensors are read")
    return folder


def hash_weights(folder: Path) -> str:
    """One sha256 over names and contents of the safetensors of a folder: which weights a model grew from."""
    facts = [(path.name, hash_file(path)) for path in sorted(folder.glob("*.safetensors"))]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _fetch(uri: str, cache_folder: Path, endpoint_url: str | None) -> Path:
    """A copy of the weights under a URI, fetched once for each version of its files."""
    storage = open_storage(uri.rstrip("/"), endpoint_url=endpoint_url)
    versions = {key: version for key, version in storage.list_versions("").items() if _is_wanted(key)}
    if not versions:
        raise ArtifactMissing(f"base weights {uri!r}: nothing lies there; put config.json, tokenizer.json and *.safetensors there")
    digest = hashlib.sha256(json.dumps([uri, sorted(versions.items())]).encode()).hexdigest()
    target = cache_folder / f"weights-{digest[:16]}"
    cache_folder.mkdir(parents=True, exist_ok=True)
    with (cache_folder / f".{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            incoming = target.with_name(f".incoming-{target.name}")
            shutil.rmtree(incoming, ignore_errors=True)
            for key in versions:
                storage.fetch_file(key, incoming / key)
            incoming.replace(target)
            logger.info("fetched base weights %s into %s", uri, target)
    return target


def _is_wanted(key: str) -> bool:
    return len(PurePosixPath(key).parts) == 1 and any(fnmatch(key, pattern) for pattern in _PATTERNS)


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=list(_PATTERNS)))
    except GatedRepoError:
        raise TrainingError(
            f"base weights {name!r} are gated: log in to the hub, accept the licence on the model's page, wait until access is "
            "granted, and set HF_TOKEN to a token that may read it; or set base_weights to a folder or an s3:// prefix"
        ) from None
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise TrainingError(
            f"base weights {name!r} are neither a folder here nor to be had from the hub ({type(error).__name__}): set "
            "base_weights in the recipe to a folder or an s3:// prefix with config.json, tokenizer.json and *.safetensors; a gated "
            "model wants its licence accepted on the hub and HF_TOKEN set"
        ) from None


def _read_end_token(start: Path, name: str) -> str:
    try:
        end = json.loads((start / "tokenizer_config.json").read_text(encoding="utf-8"))["eos_token"]
    except (OSError, ValueError, KeyError) as error:
        raise TrainingError(f"base weights {name!r}: tokenizer_config.json names no eos_token ({type(error).__name__})") from None
    return str(end["content"] if isinstance(end, dict) else end)
