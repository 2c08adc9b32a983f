"""A small release in a real PostgreSQL, and a folder as artifact store."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmcoder_tasks.database import Database
from llmcoder_tasks.icd10cm.code_set import default_code_set
from llmcoder_tasks.records import ReleaseRef
from llmcoder_tasks.storage import FolderStorage


@pytest.fixture
def release(database: Database) -> ReleaseRef:
    """A few hundred codes of the real release in the database."""
    codes = default_code_set().billable[::200]
    with database.transaction() as transaction:
        transaction.run_script(
            f"""
            INSERT INTO releases (release_key, effective_from, source, content_sha256, code_count, billable_count, uri)
            VALUES ('FY2026-April', '2026-04-01', 'test', 'abc', {len(codes)}, {len(codes)}, 'file:///releases')
            """
        )
        transaction.copy_rows(
            "codes",
            ["release_key", "code", "is_billable", "short_title", "long_title", "position"],
            [("FY2026-April", code.code, True, code.short_title, code.long_title, n) for n, code in enumerate(codes, start=1)],
        )
    return ReleaseRef("FY2026-April", "file:///releases")


@pytest.fixture
def storage(tmp_path: Path) -> FolderStorage:
    return FolderStorage(tmp_path / "store")
