"""A new ICD-10-CM release -> its codes, terms and changes in the database, its files in the artifact store."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from dataclasses import replace as with_changes
from pathlib import Path
from typing import Any

from llmcoder_tasks.database import Database, Row, Transaction
from llmcoder_tasks.dataset.expectations import verify_codes
from llmcoder_tasks.errors import ArtifactMissing, ReleaseConflict
from llmcoder_tasks.icd10cm.addenda import verify_addenda
from llmcoder_tasks.icd10cm.changes import ChangeKind, CodeChange, Titles, compute_changes, count_changes
from llmcoder_tasks.icd10cm.code_set import CodeTerm
from llmcoder_tasks.icd10cm.release import Release
from llmcoder_tasks.icd10cm.release_reader import read_release
from llmcoder_tasks.icd10cm.source import Source, read_source
from llmcoder_tasks.progress import record_step
from llmcoder_tasks.records import ReleaseRef, name_correction
from llmcoder_tasks.storage import Storage

logger = logging.getLogger(__name__)

_INGEST_LOCK = 0x52454C53  # "RELS": one ingest at a time, since each looks at its neighbours
_PARTS = ("delete_code_terms", "delete_seventh_characters", "delete_code_conversions", "delete_release_files")


@dataclass(frozen=True, slots=True)
class _Loaded:
    """The release under the key that it has here, and what the load did: nothing, or these changes against the release before."""

    release: Release
    unchanged: bool
    changes: Mapping[ChangeKind, int]


@dataclass(frozen=True, slots=True)
class _Place:
    """Under which key a release is loaded, and whether the codes that are loaded under it stay."""

    key: str
    keeps_codes: bool


def ingest_release(
    source: str | None,
    *,
    release_key: str | None,
    replace: bool,
    storage: Storage,
    database: Database,
    docs_folder: Path,
    s3_endpoint_url: str | None = None,
) -> ReleaseRef:
    """Read, check and load a release, in one transaction; None as source means the embedded release.

    A release that is loaded already with the same content is left as it is. With other content it raises ReleaseConflict, unless
    `replace` is set. Then it is replaced; where datasets, models or coded notes were made from its codes and titles, it stays with
    all of them as withdrawn, and the corrected content is loaded under a key of its own (`FY2027-corrected-1`), which is valid in
    its stead. A release that is older than loaded ones is put in its place, and the changes of its successor are computed anew.
    Raises ReleaseError or ExpectationsFailed for a release that cannot be trusted; database and artifact store stay as they were.
    """
    with record_step(database, "ingest_release", release_key or source or "embedded") as detail:
        arrived = read_source(source, s3_endpoint_url=s3_endpoint_url)
        published = read_release(arrived, release_key=release_key)
        loaded = _load(published, arrived, storage=storage, database=database, docs_folder=docs_folder, replace=replace)
        release = loaded.release
        _complete_manifest(release, arrived, _folder_of(release), storage)
        figures = {"subject": release.release_key, "unchanged": loaded.unchanged, "codes": len(release.codes)}
        detail.update(figures, changes=dict(loaded.changes))
    return ReleaseRef(key=release.release_key, uri=storage.uri_of(_folder_of(release)))


def _folder_of(release: Release) -> str:
    return f"releases/{release.release_key}"


def _load(
    published: Release, arrived: Source, *, storage: Storage, database: Database, docs_folder: Path, replace: bool
) -> _Loaded:
    with database.transaction() as transaction:
        transaction.fetch_one("lock_releases", lock=_INGEST_LOCK)
        standing = transaction.fetch_one("find_release_named", release_key=published.release_key)
        if standing and standing["content_sha256"] == published.content_sha256:
            logger.info("%s is loaded already with the same content: nothing to do", standing["release_key"])
            return _Loaded(with_changes(published, release_key=standing["release_key"]), unchanged=True, changes={})
        place = _make_place(transaction, published, standing, replace=replace)
        release = with_changes(published, release_key=place.key)
        folder = _folder_of(release)
        previous = transaction.fetch_one("find_release_before", effective_from=release.effective_from)
        changes = _find_changes(transaction, release, previous)
        _verify(release, previous, changes, docs_folder)
        _write_release(transaction, release, arrived, previous, storage.uri_of(folder))
        _write_codes(transaction, release, keeps_codes=place.keeps_codes)
        _write_parts(transaction, release)
        _write_changes(transaction, release.release_key, previous, changes)
        _relink_successor(transaction, release)
        _publish_originals(arrived, folder, storage)
    counts = count_changes(changes.values())
    _report(release, previous, counts)
    return _Loaded(release, unchanged=False, changes=counts)


def _make_place(transaction: Transaction, release: Release, standing: Row | None, *, replace: bool) -> _Place:
    """Where a release goes: to its own key, or beside what is withdrawn by this. Raises ReleaseConflict if it is not to replace."""
    if standing is None:
        return _Place(release.release_key, keeps_codes=False)
    key = standing["release_key"]
    withdrawn = transaction.fetch_one("count_withdrawn_releases", effective_from=release.effective_from)
    correction = name_correction(key, 1 + (withdrawn["releases"] if withdrawn else 0))
    if not replace:
        raise ReleaseConflict(
            f"{key} is loaded already with other content: check the source, or, if the publisher corrected it, ask for it to be "
            f"replaced (what was made from {key} stays as it is; the corrected content is then loaded as {correction})"
        )
    if _has_codes_of(transaction, key, release):
        return _Place(key, keeps_codes=True)
    dependents = transaction.fetch_all("count_release_dependents", release_key=key)[0]
    kept = [f"{count:,} {name}" for name, count in dependents.items() if count]
    if not kept:
        return _Place(key, keeps_codes=False)
    transaction.execute("withdraw_release", {"release_key": key})
    logger.info("%s is withdrawn and stays, with %s made from it; %s stands in its stead", key, ", ".join(kept), correction)
    return _Place(correction, keeps_codes=False)


def _has_codes_of(transaction: Transaction, key: str, release: Release) -> bool:
    """Whether the codes and long titles that are loaded under a key are those of a release."""
    loaded = transaction.fetch_all("fetch_codes_as_columns", release_key=key)[0]
    new = [(code.code, code.is_billable, code.long_title) for code in release.codes]
    return new == list(zip(loaded["codes"], loaded["are_billable"], loaded["long_titles"], strict=True))


def _find_changes(transaction: Transaction, release: Release, previous: Row | None) -> dict[str, CodeChange]:
    if previous is None:
        return {}
    before, _ = _fetch_titles(transaction, previous["release_key"])
    return compute_changes(before, *_split_levels(release))


def _split_levels(release: Release) -> tuple[dict[str, Titles], dict[str, Titles]]:
    """Titles of the billable codes and of the headers of a release in memory."""
    billable = {code: (short, long) for code, is_billable, short, long in release.codes if is_billable}
    headers = {code: (short, long) for code, is_billable, short, long in release.codes if not is_billable}
    return billable, headers


def _fetch_titles(transaction: Transaction, release_key: str) -> tuple[dict[str, Titles], dict[str, Titles]]:
    """Titles of the billable codes and of the headers of a loaded release."""
    columns = transaction.fetch_all("fetch_codes_as_columns", release_key=release_key)[0]
    levels: dict[bool, dict[str, Titles]] = {True: {}, False: {}}
    for code, is_billable, *titles in zip(*columns.values(), strict=True):
        levels[is_billable][code] = (titles[0], titles[1])
    return levels[True], levels[False]


def _verify(release: Release, previous: Row | None, changes: Mapping[str, CodeChange], docs_folder: Path) -> None:
    """Check the changes against the addenda and the codes against the expectations."""
    for addenda in release.addenda:
        if previous is None or previous["billable_count"] != addenda.count_before:
            logger.info("%s: the release it starts from is not loaded, its changes are not compared", addenda.file_name)
            continue
        spacing = verify_addenda(addenda, changes, release.billable_titles)
        note = f" but for titles that changed in spacing only ({', '.join(spacing)})" if spacing else ""
        logger.info("%s agrees with the computed changes%s", addenda.file_name, note)
    verify_codes(
        release.codes,
        release_key=release.release_key,
        previous_billable_count=previous["billable_count"] if previous else None,
        addenda=release.addenda[0].expected_titles if release.addenda else None,
        docs_folder=docs_folder,
    )


def _write_release(transaction: Transaction, release: Release, arrived: Source, previous: Row | None, uri: str) -> None:
    transaction.execute(
        "upsert_release",
        {
            "release_key": release.release_key,
            "effective_from": release.effective_from,
            "source": arrived.label,
            "content_sha256": release.content_sha256,
            "previous_release_key": previous["release_key"] if previous else None,
            "code_count": len(release.codes),
            "billable_count": len(release.billable_titles),
            "uri": uri,
        },
    )


def _write_codes(transaction: Transaction, release: Release, *, keeps_codes: bool) -> None:
    """Load the codes; those that stay, because predictions may point at them, only get the new short titles."""
    key = release.release_key
    if keeps_codes:
        short_titles = {
            "codes": [code.code for code in release.codes],
            "short_titles": [code.short_title for code in release.codes],
        }
        transaction.execute("update_short_titles", {"release_key": key, **short_titles})
        return
    transaction.execute("delete_codes", {"release_key": key})
    transaction.copy_rows(
        "codes",
        ["release_key", "code", "is_billable", "short_title", "long_title", "position"],
        ((key, *code, position) for position, code in enumerate(release.codes, start=1)),
    )


def _write_parts(transaction: Transaction, release: Release) -> None:
    key = release.release_key
    for query in _PARTS:
        transaction.execute(query, {"release_key": key})
    transaction.copy_rows(
        "code_terms", ["release_key", "code", "kind", "ordinal", "term"], ((key, *row) for row in _number_terms(release.terms))
    )
    transaction.copy_rows(
        "seventh_characters",
        ["release_key", "code", "character", "meaning"],
        ((key, *row) for row in release.seventh_characters),
    )
    transaction.copy_rows(
        "code_conversions",
        ["release_key", "code", "previous_code", "effective_from"],
        ((key, *row) for row in release.conversions),
    )
    transaction.copy_rows(
        "release_files", ["release_key", "file_name", "kind", "sha256", "row_count"], ((key, *row) for row in release.files)
    )


def _number_terms(terms: tuple[CodeTerm, ...]) -> Iterator[tuple[str, str, int, str]]:
    ordinals: Counter[tuple[str, str]] = Counter()
    for code, kind, term in terms:
        ordinals[code, kind] += 1
        yield code, kind, ordinals[code, kind], term


def _write_changes(transaction: Transaction, key: str, previous: Row | None, changes: Mapping[str, CodeChange]) -> None:
    transaction.execute("delete_code_changes", {"release_key": key})
    if previous is not None:
        transaction.copy_rows(
            "code_changes",
            ["release_key", "previous_release_key", "code", "kind", "old_title", "new_title"],
            ((key, previous["release_key"], code, *change) for code, change in changes.items()),
        )


def _relink_successor(transaction: Transaction, release: Release) -> None:
    """The next loaded release now follows this one: its changes are those against this one."""
    successor = transaction.fetch_one("find_release_after", effective_from=release.effective_from)
    if successor is None:
        return
    key = successor["release_key"]
    before, _ = _split_levels(release)
    changes = compute_changes(before, *_fetch_titles(transaction, key))
    transaction.execute("link_release", {"release_key": key, "previous_release_key": release.release_key})
    _write_changes(transaction, key, {"release_key": release.release_key}, changes)
    logger.info("%s now follows %s: %s", key, release.release_key, _render_counts(count_changes(changes.values())))


def _originals_folder(arrived: Source, folder: str) -> str:
    """A folder by content, so that a replaced release leaves the earlier copies whole."""
    return f"{folder}/{arrived.sha256[:12]}"


def _publish_originals(arrived: Source, folder: str, storage: Storage) -> None:
    """Copy the files as they came, those that are not there yet."""
    for original in arrived.originals:
        key = f"{_originals_folder(arrived, folder)}/{original.name}"
        if not storage.exists(key):
            storage.write_bytes(key, original.data)


def _complete_manifest(release: Release, arrived: Source, folder: str, storage: Storage) -> None:
    """Write `release.json`, last of all; does nothing when it stands there for this content.

    When an earlier run ended between its commit and this, the same call mends it.
    """
    key = f"{folder}/release.json"
    try:
        if json.loads(storage.read_bytes(key))["content_sha256"] == release.content_sha256:
            return
    except ArtifactMissing:
        pass
    _publish_originals(arrived, folder, storage)
    manifest: dict[str, Any] = {
        "release_key": release.release_key,
        "effective_from": release.effective_from.isoformat(),
        "source": arrived.label,
        "content_sha256": release.content_sha256,
        "code_count": len(release.codes),
        "billable_count": len(release.billable_titles),
        "originals": [
            {
                "key": f"{_originals_folder(arrived, folder)}/{original.name}",
                "bytes": len(original.data),
                "sha256": hashlib.sha256(original.data).hexdigest(),
            }
            for original in arrived.originals
        ],
        "files": [record._asdict() for record in release.files],
    }
    storage.write_bytes(key, json.dumps(manifest, indent=2).encode())


def _report(release: Release, previous: Row | None, counts: Mapping[ChangeKind, int]) -> None:
    against = f"; against {previous['release_key']}: {_render_counts(counts)}" if previous else "; the first release here"
    logger.info(
        "%s loaded: %s codes, %s of them billable, %s terms%s",
        release.release_key,
        f"{len(release.codes):,}",
        f"{len(release.billable_titles):,}",
        f"{len(release.terms):,}",
        against,
    )


def _render_counts(counts: Mapping[ChangeKind, int]) -> str:
    return ", ".join(f"{count:,} {kind.replace('_', ' ')}" for kind, count in counts.items())
