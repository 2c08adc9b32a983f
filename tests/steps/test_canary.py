"""Patient text stays in one column: marked texts go through every step, the ones that fail too, and are looked for everywhere."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import tempfile
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hospital import PRESSURE, open_hospital, publish_models, query
from sqlalchemy import text

from llmcoder_tasks.coding.title_coder import TitleCoder, TitleMatch
from llmcoder_tasks.database import Database
from llmcoder_tasks.errors import DatabaseError, NoteError
from llmcoder_tasks.records import ModelRef
from llmcoder_tasks.services.postgres import RESULTS_DATABASE, EmbeddedPostgres
from llmcoder_tasks.steps.code_encounters import CodedNight, code_encounters
from llmcoder_tasks.steps.export_encounters import export_encounters
from llmcoder_tasks.steps.load_encounters import load_encounters
from llmcoder_tasks.steps.measure_night import measure_night
from llmcoder_tasks.steps.review_encounters import open_reviews
from llmcoder_tasks.storage import FolderStorage

pytestmark = pytest.mark.integration

CANARY = "Qxzebulon7731"
DAY = date(2026, 4, 2)
PLAIN = f"""DISCHARGE SUMMARY for {CANARY}

{CANARY.upper()} HISTORY:
{CANARY}

DISCHARGE DIAGNOSES:
1. {PRESSURE}
2. {CANARY} disease
"""
NOTES = {
    "plain": PLAIN,
    "one huge word": f"{PRESSURE}. {CANARY * 2000}",
    "breaks the coder": f"Final diagnosis: fatal {CANARY}\n",
    "a page": f"<html><body><p>{CANARY} has gout</p></body></html>",
    "control characters": f"{CANARY}\x01\x02\x03\x04\x05\x06\x07\x08" * 40,
}
BROKEN_ROWS = (
    f'{{"encounter_id": "broken", "discharge_date": "2026-04-02", "text": "{CANARY}',
    json.dumps({"encounter_id": "later", "discharge_date": "2031-01-01", "text": CANARY}),
    json.dumps({"encounter_id": "aged", "discharge_date": "2026-04-02", "text": CANARY, "age_years": CANARY}),
    json.dumps({"encounter_id": "coded", "discharge_date": "2026-04-02", "text": CANARY, "codes": [CANARY]}),
)


class FragileCoder(TitleCoder):
    """Fails on some phrases, and quotes them as careless code does."""

    def code_phrases(self, texts: Sequence[str]) -> list[tuple[TitleMatch, ...]]:
        for phrase in texts:
            if "fatal" in phrase:
                raise RuntimeError(f"cannot code {phrase!r}")
        return super().code_phrases(texts)


@pytest.fixture
def home() -> Iterator[Path]:
    """Everything that is written lies below; PostgreSQL's own user can go there."""
    with tempfile.TemporaryDirectory(prefix="canary-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.fixture
def hospital(home: Path) -> Iterator[Database]:
    """On the embedded server as users start it, with its log."""
    service = EmbeddedPostgres(home)
    running = service.start()
    try:
        service.ensure_database(running, RESULTS_DATABASE)
        database = Database(running.url(RESULTS_DATABASE))
        database.migrate()
        yield open_hospital(database)
        database.engine.dispose()
    finally:
        service.stop()


def _find_in_tables(database: Database) -> tuple[list[str], int]:
    """Columns that hold the canary, in any capitals, and how many columns were looked through."""
    columns = query(
        database,
        "SELECT table_name, column_name "
        "FROM information_schema.columns JOIN information_schema.tables USING (table_schema, table_name) "
        "WHERE table_schema = 'public' AND table_type = 'BASE TABLE' ORDER BY 1, 2",
    )
    found = []
    for table, column in columns:
        with database.engine.connect() as connection:
            statement = text(f'SELECT count(*) FROM "{table}" WHERE CAST("{column}" AS text) ILIKE :mark')
            if connection.execute(statement, {"mark": f"%{CANARY}%"}).scalar():
                found.append(f"{table}.{column}")
    return found, len(columns)


def _find_in_files(folder: Path) -> tuple[list[str], int]:
    """Files that hold the canary, and how many were looked through; the server's own data files hold it by their nature."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and folder / "postgres" not in path.parents]
    mark = CANARY.lower().encode()
    return [str(path.relative_to(folder)) for path in files if mark in path.read_bytes().lower()], len(files)


def _run_night(database: Database, storage: FolderStorage, home: Path) -> CodedNight:
    return code_encounters(
        DAY, DAY, model=ModelRef("m1", f"{storage.uri}/models/m1"), coding_run_id="night", storage=storage, database=database,
        cache_folder=home / "cache", open_coder=FragileCoder.open, max_quarantined_share=1.0,
    )  # fmt: skip


def _provoke_database(database: Database) -> list[str]:
    """What is said of statements that fail with a note in their values."""
    said = []
    bad: list[tuple[str, dict[str, Any]]] = [
        ("insert_review_code", {"review_id": CANARY}),
        ("list_coded_notes", {"most_notes": CANARY}),
        ("find_billable_code", {"release_key": "\0" + CANARY, "code": CANARY}),
    ]
    for name, parameters in bad:
        try:
            database.execute(name, parameters)
        except Exception as error:
            said += [str(error), repr(error)]
    with pytest.raises(DatabaseError) as refused:
        _copy_without_encounter(database)
    return [*said, str(refused.value), repr(refused.value)]


def _copy_without_encounter(database: Database) -> None:
    with database.transaction() as transaction:
        columns = ["encounter_id", "note_sha256", "note_text", "version"]
        transaction.copy_rows("discharge_summaries", columns, [("nobody", "a", PLAIN, 1)])


def test_marked_texts_are_found_in_their_column_and_nowhere_else(
    hospital: Database, home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    storage = publish_models(home)
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    rows = [json.dumps({"encounter_id": name, "discharge_date": str(DAY), "text": note}) for name, note in NOTES.items()]
    (inbox / "export.jsonl").write_text("\n".join([*rows, *BROKEN_ROWS]) + "\n", encoding="utf-8")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        with pytest.raises(NoteError) as too_many:
            load_encounters(inbox, source_format="auto", on=DAY, database=hospital, max_quarantined_share=0.0)
        night = _run_night(hospital, storage, home)
        open_reviews("night", hospital)
        measure_night("night", hospital)
        export_encounters(storage=storage, database=hospital)
        said = [str(too_many.value), repr(too_many.value), *_provoke_database(hospital), printed.getvalue(), caplog.text]

    # The texts really went through: one was coded, one broke the coder, bad ones were set apart.
    assert night.coded >= 1
    assert night.failed == 1
    assert query(hospital, "SELECT count(*) FROM quarantined_notes")[0][0] >= len(BROKEN_ROWS)
    assert query(hospital, "SELECT failure FROM coded_notes WHERE status = 'failed'") == [("RuntimeError while coding",)]

    found, columns = _find_in_tables(hospital)
    assert found == ["discharge_summaries.note_text"]
    assert columns > 150
    leaks, files = _find_in_files(home)
    assert leaks == []
    assert files > 5
    assert (home / "logs/postgres.log").is_file()
    assert [place for place, words in enumerate(said) if CANARY.lower() in words.lower()] == []


def test_the_sweep_of_files_finds_what_is_there(home: Path) -> None:
    (home / "logs").mkdir()
    (home / "logs/leak.log").write_text(f"WARNING could not code {CANARY.upper()}", encoding="utf-8")
    assert _find_in_files(home) == (["logs/leak.log"], 1)
