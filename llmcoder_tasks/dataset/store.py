"""A dataset on disk: one Parquet file a scenario and a manifest, the same bytes for the same examples.

    manifest.json       what it was made from, and sha256 and row counts of every table; written last
    base.parquet ...    example_id, scenario, split, text, codes (list of strings), condition_count

Rows stand in sampling order: the first rows of a table, or of a split of it, are a fair sample.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llmcoder_tasks.dataset.examples import MadeExample, count_by_split
from llmcoder_tasks.errors import DatasetError
from llmcoder_tasks.records import CORRECTIONS, SCENARIOS, DatasetRef, Example, Split
from llmcoder_tasks.storage import Storage, hash_file

MANIFEST = "manifest.json"
_ROWS_IN_GROUP = 65_536


@dataclass(frozen=True, slots=True)
class TableFacts:
    """One table: file name, rows, sha256 of the file, rows of each split."""

    file: str
    rows: int
    sha256: str
    rows_by_split: dict[str, int]


@dataclass(frozen=True, slots=True)
class DatasetManifest:
    """What a dataset is. `release_sha256` is the content of the release, `config` the knobs, `tables` are by scenario."""

    dataset_id: str
    release_key: str
    release_sha256: str
    seed: int
    generator_version: str
    lexicon_sha256: str
    config: dict[str, Any]
    tables: dict[str, TableFacts]

    def to_json(self) -> str:
        """The manifest as it is stored: the same bytes for the same facts."""
        return json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> DatasetManifest:
        """The inverse of `to_json`. Raises DatasetError when a field is missing or unknown."""
        try:
            facts = json.loads(text)
            tables = {scenario: TableFacts(**table) for scenario, table in facts.pop("tables").items()}
            return cls(tables=tables, **facts)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DatasetError(f"{MANIFEST} is no manifest of a dataset ({error}): build the dataset again") from error


def write_tables(tables: Mapping[str, Sequence[MadeExample]], folder: Path) -> dict[str, TableFacts]:
    """Write one Parquet file a scenario into `folder` and return their facts."""
    facts = {}
    for scenario, rows in tables.items():
        path = folder / f"{scenario}.parquet"
        _write_table(rows, path)
        facts[scenario] = TableFacts(path.name, len(rows), hash_file(path), count_by_split(rows))
    return facts


def _write_table(rows: Sequence[MadeExample], path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [
            ("example_id", pa.string()),
            ("scenario", pa.string()),
            ("split", pa.string()),
            ("text", pa.string()),
            ("codes", pa.list_(pa.string())),
            ("condition_count", pa.int16()),
        ]
    )
    columns = [
        [made.example.example_id for made in rows],
        [made.example.scenario for made in rows],
        [made.example.split for made in rows],
        [made.example.text for made in rows],
        [list(made.example.codes) for made in rows],
        [made.condition_count for made in rows],
    ]
    table = pa.table([pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema=schema)
    # Every option that shapes the bytes is fixed here; nothing in the file tells the time.
    pq.write_table(
        table, path, row_group_size=_ROWS_IN_GROUP, compression="zstd", compression_level=3, use_dictionary=["scenario", "split"],
        version="2.6", data_page_version="1.0", store_schema=False, write_statistics=True,
    )  # fmt: skip


def read_manifest(storage: Storage, dataset_uri: str) -> DatasetManifest:
    """The manifest of a stored dataset. Raises ArtifactMissing when the dataset is not there, or not whole."""
    return DatasetManifest.from_json(storage.read_bytes(f"{storage.key_of(dataset_uri)}/{MANIFEST}"))


def fetch_dataset(storage: Storage, dataset: DatasetRef, cache_folder: Path) -> Path:
    """A local copy of a dataset, fetched once and verified against the sha256 of its manifest.

    Several processes may fetch the same dataset at once. Raises DatasetError when a table is not what the manifest says.
    """
    target = cache_folder / dataset.dataset_id
    if (target / MANIFEST).is_file():
        return target
    manifest = read_manifest(storage, dataset.uri)
    cache_folder.mkdir(parents=True, exist_ok=True)
    incoming = Path(tempfile.mkdtemp(dir=cache_folder, prefix=".incoming-"))
    try:
        fetch_tables(storage, dataset.uri, manifest.tables, incoming)
        (incoming / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
        _settle(incoming, target)
    finally:
        shutil.rmtree(incoming, ignore_errors=True)
    return target


def fetch_tables(storage: Storage, uri: str, tables: Mapping[str, TableFacts], folder: Path) -> None:
    """Copy the tables under `uri` into a folder. Raises DatasetError when one is not what its manifest says."""
    for table in tables.values():
        storage.fetch_file(f"{storage.key_of(uri)}/{table.file}", folder / table.file)
        if hash_file(folder / table.file) != table.sha256:
            raise DatasetError(f"{uri}/{table.file} is not the file of its manifest: build it again")


def _settle(incoming: Path, target: Path) -> None:
    try:
        incoming.rename(target)
    except OSError:
        if not (target / MANIFEST).is_file():  # somebody else was first with the same, verified files; anything else is a fault
            raise


def read_examples(folder: Path, scenario: str, split: Split | None = None, limit: int | None = None) -> list[Example]:
    """The examples of one scenario out of a local dataset: all, or of one split, or the first `limit` of them (a fair sample).

    Raises DatasetError on an unknown scenario or a missing table.
    """
    import pyarrow.parquet as pq

    if scenario not in (*SCENARIOS, CORRECTIONS):
        raise DatasetError(f"unknown scenario {scenario!r}: the scenarios are {', '.join(SCENARIOS)}")
    path = folder / f"{scenario}.parquet"
    if not path.is_file():
        raise DatasetError(f"{folder} has no {path.name}: fetch the dataset again")
    table = pq.read_table(path, filters=[("split", "=", split)] if split else None)
    rows = table.slice(0, limit).select(["example_id", "scenario", "split", "text", "codes"]).to_pydict()
    codes = map(tuple, rows["codes"])
    return list(map(Example, rows["example_id"], rows["scenario"], rows["split"], rows["text"], codes))


def find_taught_texts(folder: Path, texts: Sequence[str]) -> frozenset[str]:
    """Those of some texts that stand in a training row of a local dataset, of whatever scenario, letter for letter."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    wanted = pa.array(texts, pa.string())
    found: set[str] = set()
    for path in sorted(folder.glob("*.parquet")):
        table = pq.read_table(path, columns=["text"], filters=[("split", "=", "train")])
        found.update(table.filter(pc.is_in(table["text"], value_set=wanted))["text"].to_pylist())
    return frozenset(found)


def hash_folder(folder: Path) -> str:
    """sha256 over names and contents of all files of a folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        digest.update(f"{path.name}\0{hash_file(path)}\n".encode())
    return digest.hexdigest()
