"""A trained model and a dataset → `coder.json`: how model and words are weighed, and what may pass without a person."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from llmcoder_tasks.coding.coder import Coder, CodeScorer
from llmcoder_tasks.coding.coder_fit import (
    CODER_NAME,
    FIT_VERSION,
    PHRASE_KINDS,
    CoderFit,
    ValidationItem,
    fit_weight_and_calibrations,
    leave_out,
    scramble,
    shorten,
)
from llmcoder_tasks.coding.combination import Judged
from llmcoder_tasks.coding.phrases import ConditionFinder
from llmcoder_tasks.database import Database
from llmcoder_tasks.dataset.store import fetch_dataset, read_examples, read_manifest
from llmcoder_tasks.errors import ArtifactMissing, DatasetError, ModelError
from llmcoder_tasks.icd10cm.code_set import read_code_set
from llmcoder_tasks.model import backend
from llmcoder_tasks.model.backend import FreeWriter
from llmcoder_tasks.model.manifest import fetch_model
from llmcoder_tasks.model.server_answers import made_up_texts
from llmcoder_tasks.progress import record_step, track
from llmcoder_tasks.records import DatasetRef, Example, ModelRef
from llmcoder_tasks.settings import CoderServer
from llmcoder_tasks.storage import Storage

logger = logging.getLogger(__name__)

VARIED_SCENARIOS = ("reordered", "abbreviations", "typos", "sentences")
"""Each text names one condition."""

ITEMS_OF_A_SCENARIO = 1000
ODD_EVERY = 10
"""For every so many varied texts there is one strange text, one too short, and one that leaves side or encounter out."""

_BATCH = 100


def fit_coder(
    model: ModelRef,
    dataset: DatasetRef,
    *,
    storage: Storage,
    database: Database,
    cache_folder: Path,
    items_of_a_scenario: int = ITEMS_OF_A_SCENARIO,
    open_model: Callable[[Path], CodeScorer] | None = None,
    server: CoderServer | None = None,
) -> ModelRef:
    """Fit on the validation split and write `coders/<model_id>/coder.json`; the same model, dataset and limit change nothing.

    `open_model` opens a model folder (default: as the folder says, `server` being where a model is that it only names). Raises
    DatasetError when the dataset has no validation items, ModelError when the model's files are altered, WorkPending while a batch
    of questions is under way at a server that is not waited for.
    """
    fingerprint = _fingerprint(FIT_VERSION, model.model_id, dataset.dataset_id, items_of_a_scenario)
    key = f"coders/{model.model_id}/{CODER_NAME}"
    with record_step(database, "fit_coder", model.model_id) as detail:
        if _read_fingerprint(storage, key) == fingerprint:
            logger.info("%s is already fitted on %s: nothing to do", model.model_id, dataset.dataset_id)
            return model
        folder = fetch_dataset(storage, dataset, cache_folder)
        examples = _read_validation(folder, items_of_a_scenario)
        release_key = read_manifest(storage, dataset.uri).release_key
        scorer = (open_model or partial(backend.open_model, server=server))(fetch_model(storage, model.uri, cache_folder))
        coder = Coder(read_code_set(database, release_key), model=scorer)
        with made_up_texts(cache_folder / "answers"):
            items = _judge(_list_texts(examples, coder), coder)
        weight, lexical, together = fit_weight_and_calibrations(items, coder.code_set.titles)
        known = frozenset(coder.code_set.titles)
        fit = CoderFit(fingerprint, model.model_id, dataset.dataset_id, release_key, weight, lexical, together, known)
        storage.write_bytes(key, fit.render())
        detail["weight"] = fit.weight
        detail["auto_threshold"] = fit.together.threshold.value
    _report(fit)
    return model


def _read_fingerprint(storage: Storage, key: str) -> str:
    """That of the fit which stands there; "" where none does, or one that an older version wrote and that is to be replaced."""
    try:
        return CoderFit.parse(storage.read_bytes(key)).fingerprint
    except (ArtifactMissing, ModelError):
        return ""


def _fingerprint(*inputs: str | int) -> str:
    return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:16]


class _Text(NamedTuple):
    """A text to judge, with the fields of its ValidationItem."""

    kind: str
    source: str
    truths: frozenset[str]
    text: str


def _list_texts(examples: Sequence[Example], coder: Coder) -> list[_Text]:
    """What is learnt from: every example, the parts of those with several conditions, and odd texts of our own making."""
    varied = [example for example in examples if example.scenario in VARIED_SCENARIOS]
    texts = [_Text(example.scenario, example.codes[0], frozenset(example.codes), example.text) for example in varied]
    for code in dict.fromkeys(example.codes[0] for example in varied):
        texts.append(_Text("base", code, frozenset((code,)), coder.code_set.titles[code]))
    for example in varied[::ODD_EVERY]:
        code = example.codes[0]
        title = coder.code_set.titles[code]
        texts.append(_Text("strange", code, frozenset(), scramble(example.text)))
        texts.append(_Text("too short", code, frozenset(), shorten(title)))
        if (rest := leave_out(title)) != title:
            texts.append(_Text("left out", code, frozenset((code,)), rest))
    return texts + _cut([example for example in examples if example.scenario == "multiple"], coder)


def _cut(examples: Sequence[Example], coder: Coder) -> list[_Text]:
    """The conditions that the coder finds in texts of several: what it cuts wrongly is learnt from too."""
    found = ConditionFinder(coder.index).find([example.text for example in examples], [()] * len(examples))
    return [
        _Text("multiple", example.codes[0], frozenset(example.codes), example.text[span.start : span.end])
        for example, lines in zip(examples, found, strict=True)
        for line in lines
        for span in line[0].spans
    ]


def _judge(texts: Sequence[_Text], coder: Coder) -> list[ValidationItem]:
    """Every text, judged by words and together with the model."""
    items: list[ValidationItem] = []
    if isinstance(coder.model, FreeWriter):
        coder.model.read_codes([item.text for item in texts])  # all at once: a server's Batch API takes them together
    starts = range(0, len(texts), _BATCH)
    for start in track(starts, "weighing validation items", total=len(starts), unit="batches"):
        batch = texts[start : start + _BATCH]
        wanted = [item.text for item in batch]
        for item, lexical, together in zip(batch, coder.judge(wanted, None), coder.judge(wanted, coder.model), strict=True):
            if item.truths or not _is_a_name(lexical):
                items.append(ValidationItem(item.kind, item.source, item.truths, lexical, together))
    return items


def _is_a_name(judged: Judged) -> bool:
    """Whether a text that should name nothing is a name after all: `Toxic megacolon` out of a longer title."""
    return bool(judged.candidates) and judged.candidates[0].similarity > 1.0 - 1e-6


def _read_validation(folder: Path, limit: int) -> list[Example]:
    """Up to `limit` items of each varied scenario in turn, and a quarter as many lines of several conditions, of 2 to 5 parts."""
    tables = [read_examples(folder, scenario, split="validation", limit=limit) for scenario in VARIED_SCENARIOS]
    examples = [example for rows in zip(*tables, strict=False) for example in rows]
    if not examples:
        raise DatasetError(f"{folder.name} has no validation items: build the dataset with a larger held_out_share")
    return examples + read_examples(folder, "multiple", split="validation", limit=limit // 4)


def _report(fit: CoderFit) -> None:
    threshold = fit.together.threshold
    phrases = fit.together.sum_kinds(PHRASE_KINDS)
    logger.info(
        "%s: weight %.0f, expected calibration error %.3f; accepts %.0f %% of %d phrases without a person; "
        "of all it accepts %d of %d are wrong, at most %.2f %% (95 %% certainty)",
        fit.model_id,
        fit.weight,
        fit.together.expected_error,
        100 * phrases.accepted / max(1, phrases.n),
        phrases.n,
        threshold.errors,
        threshold.accepted,
        100 * threshold.error_bound,
    )
