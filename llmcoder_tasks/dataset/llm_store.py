"""A set of variations from a language model: its rows, its place in the artifact store, and its way into a dataset.

    manifest.json         what it was made from, and sha256 and rows of every table; written last
    typos.parquet ...     one table a scenario, in the form of a dataset's tables

An id says where a row is from: `typos-E119-llm-0`.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llmcoder_tasks.dataset.config import DatasetConfig
from llmcoder_tasks.dataset.examples import MadeExample, Tables
from llmcoder_tasks.dataset.llm_config import LLM_SCENARIOS
from llmcoder_tasks.dataset.splits import sampling_order, split_of
from llmcoder_tasks.dataset.store import MANIFEST, TableFacts, fetch_tables, read_examples
from llmcoder_tasks.dataset.titles import normalise_text
from llmcoder_tasks.errors import DatasetError
from llmcoder_tasks.records import Example, VariationsRef
from llmcoder_tasks.storage import Storage


@dataclass(frozen=True, slots=True)
class VariationsManifest:
    """What a set is: `prompts` are sha256 by scenario, `config` the knobs, `tables` are by scenario."""

    variations_id: str
    release_key: str
    release_sha256: str
    model: str
    prompts: dict[str, str]
    config: dict[str, Any]
    tables: dict[str, TableFacts]

    def to_json(self) -> str:
        """The manifest as it is stored."""
        return json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> VariationsManifest:
        """The inverse of `to_json`. Raises DatasetError when a field is missing or unknown."""
        try:
            facts = json.loads(text)
            tables = {scenario: TableFacts(**table) for scenario, table in facts.pop("tables").items()}
            return cls(tables=tables, **facts)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DatasetError(f"{MANIFEST} is no manifest of variations ({error}): generate them again") from error


def make_tables(variations: Mapping[str, Mapping[str, Sequence[str]]]) -> Tables:
    """The rows of a set out of scenario → code → texts. A text that was written for two codes stands for neither."""
    rows = [
        MadeExample(Example(f"{scenario}-{code}-llm-{ordinal}", scenario, "train", text, (code,)), 1)
        for scenario, texts_by_code in variations.items()
        for code, texts in texts_by_code.items()
        for ordinal, text in enumerate(texts)
    ]
    return _by_scenario(drop_clashes(rows, standing=()))


def drop_clashes(rows: Iterable[MadeExample], *, standing: Iterable[MadeExample]) -> list[MadeExample]:
    """Rows without those whose text is already there among `standing` or earlier, or is written for two codes."""
    seen = {normalise_text(made.example.text) for made in standing}
    rows = list(rows)
    codes_by_text: dict[str, set[str]] = defaultdict(set)
    for made in rows:
        codes_by_text[normalise_text(made.example.text)].update(made.example.codes)
    kept = []
    for made in rows:
        text = normalise_text(made.example.text)
        if text not in seen and len(codes_by_text[text]) == 1:
            seen.add(text)
            kept.append(made)
    return kept


def merge_variations(tables: Tables, added: Tables, config: DatasetConfig) -> int:
    """Put the rows of a set into the tables of a dataset, and say how many.

    Only of codes in the dataset's own train split, and only texts that no variation of the dataset already has.
    """
    of_train = [
        made
        for rows in added.values()
        for made in rows
        if split_of(made.example.codes[0], seed=config.seed, held_out_share=config.held_out_share) == "train"
    ]
    standing = (made for scenario in LLM_SCENARIOS for made in tables[scenario])
    kept = drop_clashes(of_train, standing=standing)
    for scenario, rows in _by_scenario(kept).items():
        tables[scenario] = sorted(tables[scenario] + rows, key=lambda made: sampling_order(made.example.example_id))
    return len(kept)


def _by_scenario(rows: Iterable[MadeExample]) -> Tables:
    tables: Tables = {}
    for made in rows:
        tables.setdefault(made.example.scenario, []).append(made)
    for table in tables.values():
        table.sort(key=lambda made: sampling_order(made.example.example_id))
    return tables


def read_variations_manifest(storage: Storage, variations: VariationsRef) -> VariationsManifest:
    """The manifest of a stored set. Raises ArtifactMissing when the set is not there, or not whole."""
    return VariationsManifest.from_json(storage.read_bytes(f"{storage.key_of(variations.uri)}/{MANIFEST}"))


def read_variations(storage: Storage, variations: VariationsRef) -> Tables:
    """The rows of a stored set, verified against its manifest. Raises DatasetError when a table was altered."""
    manifest = read_variations_manifest(storage, variations)
    with tempfile.TemporaryDirectory(prefix="variations-") as name:
        folder = Path(name)
        fetch_tables(storage, variations.uri, manifest.tables, folder)
        return {scenario: [MadeExample(example, 1) for example in read_examples(folder, scenario)] for scenario in manifest.tables}
