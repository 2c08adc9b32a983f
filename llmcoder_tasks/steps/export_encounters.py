"""Encounters whose codes are final → CSV, Parquet and FHIR R4 Bundles in the artifact store, each state of each encounter once.

    exports/000001/codes.csv            one row a code, for people and spreadsheets
    exports/000001/codes.parquet        the same rows
    exports/000001/bundles.ndjson       one FHIR transaction Bundle a line, one line an encounter
    exports/000001/encounters.parquet   what was exported: encounter, note hash, model, release, version of the review, codes
    exports/000001/manifest.json        sha256 and rows of the others; written last

Offsets and hashes leave, the text of a note never does. A folder with its manifest is never written again: a run that dies before
it is written leaves nothing for readers, and one that dies after it is booked by the next run from what the folder itself says.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llmcoder_tasks.coding.fhir import FinalCode, FinalEncounter, make_bundle, sort_codes, verify_bundle
from llmcoder_tasks.database import Database, Transaction
from llmcoder_tasks.errors import ExportError
from llmcoder_tasks.progress import record_step
from llmcoder_tasks.records import render_code
from llmcoder_tasks.storage import Storage, hash_file

logger = logging.getLogger(__name__)

BATCH_ENCOUNTERS = 5_000
"""Encounters in one export: what is held in memory at a time."""

MANIFEST = "manifest.json"

_EXPORT_LOCK = 0x4C4C4D45  # "LLME": one number for everybody who exports from this database
_KEY = ("encounter_id", "note_sha256", "model_id", "release_key", "review_version")


@dataclass(frozen=True, slots=True)
class Exported:
    """What a run wrote: exports from the first to the last number (None when there was nothing), encounters and codes in them."""

    first: int | None
    last: int | None
    encounters: int
    codes: int


def export_encounters(*, storage: Storage, database: Database, batch: int = BATCH_ENCOUNTERS) -> Exported:
    """Export every encounter whose final codes are not exported in their present state, in as many folders as it takes.

    Final are a finished review of the current note, and a current note of which the model is sure in every code. Run twice, the
    second run writes nothing. Raises ExportError when a folder in the store is not what its manifest says, or a Bundle is no FHIR.
    """
    numbers: list[int] = []
    encounters = codes = 0
    with record_step(database, "export_encounters", "exports") as detail:
        while (done := _export_batch(storage, database, batch)) is not None:
            number, manifest = done
            numbers.append(number)
            encounters += manifest["encounters"]
            codes += manifest["codes"]
        detail.update(exports=len(numbers), encounters=encounters, codes=codes)
    if not numbers:
        logger.info("every final encounter is exported already, nothing to do")
        return Exported(None, None, 0, 0)
    logger.info("exports %d to %d: %d encounters, %d codes", numbers[0], numbers[-1], encounters, codes)
    return Exported(numbers[0], numbers[-1], encounters, codes)


def _export_batch(storage: Storage, database: Database, batch: int) -> tuple[int, dict[str, Any]] | None:
    """The next export with its number, written or found written; None when there is nothing left."""
    with database.transaction() as transaction:
        transaction.fetch_one("lock_exports", lock=_EXPORT_LOCK)
        last = transaction.fetch_one("fetch_last_export") or {}
        number = last["export_id"] + 1
        prefix = f"exports/{number:06d}"
        if storage.exists(f"{prefix}/{MANIFEST}"):
            logger.info("export %d was written by a run that ended before it was booked", number)
        else:
            encounters = _fetch_final(transaction, batch)
            if not encounters:
                return None
            _write_export(encounters, number, storage, prefix)
        return number, _book(transaction, number, storage, prefix)


def _fetch_final(transaction: Transaction, most: int) -> list[FinalEncounter]:
    rows = transaction.fetch_all("list_final_encounters", most=most)
    sure = [row for row in rows if row["review_id"] is None]
    found = transaction.fetch_all(
        "list_final_codes",
        review_ids=[row["review_id"] for row in rows if row["review_id"] is not None],
        **{f"{name}s": [row[name] for row in sure] for name in ("encounter_id", "note_sha256", "model_id", "release_key")},
    )
    codes: dict[str, list[FinalCode]] = defaultdict(list)
    for code in found:
        codes[code.pop("encounter_id")].append(FinalCode(**code))
    encounters = []
    for row in rows:
        chosen = sort_codes(codes[row["encounter_id"]])
        before = row.pop("exported_codes")
        del row["review_id"]
        withdrawn = tuple(sorted(set(before) - {code.code for code in chosen}))
        encounters.append(FinalEncounter(withdrawn=withdrawn, codes=chosen, **row))
    return encounters


def _write_export(encounters: Sequence[FinalEncounter], number: int, storage: Storage, prefix: str) -> None:
    with tempfile.TemporaryDirectory(prefix="export-") as name:
        folder = Path(name)
        rows = [row for encounter in encounters for row in _rows(encounter)]
        _write_csv(rows, folder / "codes.csv")
        _write_parquet(rows, folder / "codes.parquet", _code_schema())
        states = [_state(encounter) for encounter in encounters]
        _write_parquet(states, folder / "encounters.parquet", _state_schema())
        with (folder / "bundles.ndjson").open("w", encoding="utf-8") as stream:
            for encounter in encounters:
                bundle = make_bundle(encounter)
                verify_bundle(bundle)
                stream.write(json.dumps(bundle, ensure_ascii=False, separators=(",", ":")) + "\n")
        files = {path.name: hash_file(path) for path in sorted(folder.iterdir())}
        manifest = {"export_id": number, "encounters": len(encounters), "codes": len(rows), "sha256": files}
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        storage.publish_folder(folder, prefix, last=MANIFEST)


def _book(transaction: Transaction, number: int, storage: Storage, prefix: str) -> dict[str, Any]:
    """Read a whole export back and write its rows: the store says what was exported, whoever wrote it."""
    import pyarrow.parquet as pq

    manifest: dict[str, Any] = json.loads(storage.read_bytes(f"{prefix}/{MANIFEST}"))
    with tempfile.TemporaryDirectory(prefix="export-") as name:
        path = Path(name) / "encounters.parquet"
        storage.fetch_file(f"{prefix}/{path.name}", path)
        if hash_file(path) != manifest["sha256"][path.name] or manifest["export_id"] != number:
            raise ExportError(f"{storage.uri_of(prefix)} is not what its manifest says: move the folder away, then export again")
        states = pq.read_table(path).to_pylist()
    book = {
        "export_id": number,
        "uri": storage.uri_of(prefix),
        "manifest": json.dumps(manifest),
        "encounter_count": len(states),
    }
    transaction.execute("record_export", book)
    transaction.execute("record_exported_encounters", [{"export_id": number, **state} for state in states])
    return manifest


def _state(encounter: FinalEncounter) -> dict[str, Any]:
    return {name: getattr(encounter, name) for name in _KEY} | {"codes": [code.code for code in encounter.codes]}


def _rows(encounter: FinalEncounter) -> list[dict[str, Any]]:
    """One row a code, with all that is known of its encounter."""
    facts = asdict(encounter)
    del facts["codes"], facts["withdrawn"]
    return [{**facts, **asdict(code), "code": render_code(code.code)} for code in encounter.codes]


def _code_schema() -> Any:
    import pyarrow as pa

    text, number = pa.string(), pa.int32()
    return pa.schema(
        [
            ("encounter_id", text), ("patient_id", text), ("discharge_date", pa.date32()), ("rank", number), ("code", text),
            ("title", text), ("origin", text), ("confidence", pa.float64()), ("evidence_start", number), ("evidence_end", number),
            ("note_sha256", text), ("model_id", text), ("release_key", text), ("review_version", number), ("finished_by", text),
            ("settled_at", pa.timestamp("us", tz="UTC")),
        ]
    )  # fmt: skip


def _state_schema() -> Any:
    import pyarrow as pa

    keys = [(name, pa.int32() if name == "review_version" else pa.string()) for name in _KEY]
    return pa.schema([*keys, ("codes", pa.list_(pa.string()))])


def _write_parquet(rows: list[dict[str, Any]], path: Path, schema: Any) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, compression="zstd")


def _write_csv(rows: list[dict[str, Any]], path: Path) -> None:
    import csv

    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, _code_schema().names)
        writer.writeheader()
        writer.writerows(rows)
