"""The database module against a real PostgreSQL: migrations, COPY, and errors that keep patient text to themselves."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import text

from llmcoder_tasks.database import Database, list_migrations
from llmcoder_tasks.errors import DatabaseError, DatabaseUnreachable
from llmcoder_tasks.settings import SQL_FOLDER

pytestmark = pytest.mark.integration


def _describe_schema(database: Database) -> list[str]:
    """Every column, constraint, index and view of the public schema, as text, without the table of migrations."""
    with database.engine.connect() as connection:
        rows = connection.execute(
            text(
                """
                SELECT 'column ' || table_name || '.' || column_name || ' ' || data_type || ' ' || is_nullable || ' '
                       || coalesce(column_default, '') || ' ' || is_identity AS line
                FROM information_schema.columns WHERE table_schema = 'public'
                UNION ALL
                SELECT 'constraint ' || conrelid::regclass || ' ' || pg_get_constraintdef(oid) FROM pg_constraint
                WHERE connamespace = 'public'::regnamespace
                UNION ALL SELECT 'index ' || indexdef FROM pg_indexes WHERE schemaname = 'public'
                UNION ALL SELECT 'view ' || viewname || ' ' || definition FROM pg_views WHERE schemaname = 'public'
                """
            )
        )
        return sorted(row.line for row in rows if "schema_migrations" not in row.line)


def test_schema_file_equals_the_sum_of_the_migrations(empty_database: Database, postgres_url: str) -> None:
    empty_database.migrate()
    migrated = _describe_schema(empty_database)
    with empty_database.transaction() as transaction:
        transaction.run_script("DROP SCHEMA public CASCADE; CREATE SCHEMA public;")
        transaction.run_script((SQL_FOLDER / "schema.sql").read_text(encoding="utf-8"))
    assert _describe_schema(empty_database) == migrated
    assert any("predictions" in line for line in migrated)


def test_migrating_twice_applies_nothing_the_second_time(empty_database: Database) -> None:
    assert empty_database.migrate() == [path.stem for path in list_migrations()]
    assert empty_database.migrate() == []
    empty_database.verify_current()


def test_two_migrations_at_once_apply_each_file_once(empty_database: Database) -> None:
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda _: empty_database.migrate(), range(2)))
    assert sorted(results[0] + results[1]) == [path.stem for path in list_migrations()]


def test_releases_that_were_loaded_before_corrections_were_known_stand_after_the_migration(
    empty_database: Database, tmp_path: Path
) -> None:
    for path in list_migrations()[:10]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    empty_database.migrate(tmp_path)
    with empty_database.transaction() as transaction:
        transaction.run_script(
            """
            INSERT INTO releases (release_key, effective_from, source, content_sha256, code_count, billable_count, uri) VALUES
                ('FY2026', '2025-10-01', 'test', 'x', 1, 1, 'u'), ('FY2027', '2026-10-01', 'test', 'y', 1, 1, 'u');
            INSERT INTO datasets (dataset_id, release_key, uri, manifest) VALUES ('d', 'FY2027', 'u', '{}');
            """
        )
    assert empty_database.migrate()[0] == "0011_keep_withdrawn_releases"
    assert [(row["release_key"], str(row["effective_to"])) for row in empty_database.fetch_all("list_releases")] == [
        ("FY2026", "2026-09-30"),
        ("FY2027", "None"),
    ]
    second = """INSERT INTO releases (release_key, effective_from, source, content_sha256, code_count, billable_count, uri)
        VALUES ('FY2027-corrected-1', '2026-10-01', 'test', 'z', 1, 1, 'u')"""
    with pytest.raises(DatabaseError, match="releases_standing"), empty_database.transaction() as transaction:
        transaction.run_script(second)
    with empty_database.transaction() as transaction:
        transaction.run_script(f"UPDATE releases SET withdrawn_at = now() WHERE release_key = 'FY2027'; {second}")
    assert empty_database.fetch_all("list_releases")[-1]["release_key"] == "FY2027-corrected-1"


def test_a_migration_that_changed_after_it_was_applied_is_refused(empty_database: Database, tmp_path: Path) -> None:
    path = tmp_path / "0001_create_thing.sql"
    path.write_text("CREATE TABLE thing (id integer);")
    empty_database.migrate(tmp_path)
    path.write_text("CREATE TABLE thing (id bigint);")
    with pytest.raises(DatabaseError, match="0001_create_thing.sql changed after it was applied"):
        empty_database.migrate(tmp_path)


def test_a_failing_migration_leaves_nothing_behind(empty_database: Database, tmp_path: Path) -> None:
    (tmp_path / "0001_create_thing.sql").write_text("CREATE TABLE thing (id integer); SELECT 1/0;")
    with pytest.raises(DatabaseError, match="division by zero"):
        empty_database.migrate(tmp_path)
    with empty_database.engine.connect() as connection:
        assert connection.execute(text("SELECT to_regclass('thing')")).scalar() is None


def test_a_misnamed_migration_is_refused(tmp_path: Path) -> None:
    (tmp_path / "0002_create_thing.sql").write_text("SELECT 1;")
    with pytest.raises(DatabaseError, match="0001_verb_noun"):
        list_migrations(tmp_path)


def test_an_unmigrated_database_names_what_it_lacks(empty_database: Database) -> None:
    with pytest.raises(DatabaseError, match="lacks 0001_create_schema"):
        empty_database.verify_current()


def test_a_refused_row_is_reported_without_its_values(database: Database) -> None:
    secret = "Mrs Canary has pneumonia"
    with pytest.raises(DatabaseError) as caught, database.transaction() as transaction:
        transaction.copy_rows(
            "discharge_summaries", ["encounter_id", "note_sha256", "note_text", "version"], [["e1", "nohash", secret, 1]]
        )
    assert "discharge_summaries_note_sha256_check" in str(caught.value)
    assert "Canary" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_value_that_cannot_be_read_is_reported_without_it(database: Database) -> None:
    with pytest.raises(DatabaseError, match="PostgreSQL 22P02: invalid input syntax for type integer") as refused:
        _copy_text_for_a_number(database)
    assert "Canary" not in str(refused.value)


def _copy_text_for_a_number(database: Database) -> None:
    with database.transaction() as transaction:
        transaction.run_script("CREATE TABLE counted (number integer)")
        transaction.copy_rows("counted", ["number"], [["Mrs Canary has a cold"]])


def test_copy_keeps_empty_texts_nulls_quotes_and_newlines(database: Database) -> None:
    with database.transaction() as transaction:
        transaction.run_script("CREATE TABLE thing (a text, b text, c text[])")
        assert transaction.copy_rows("thing", ["a", "b", "c"], [["", None, ['x "y"', "z\\"]], ['q"\n,', "é", None]]) == 2
    with database.engine.connect() as connection:
        rows = connection.execute(text("SELECT a, b, c FROM thing")).all()
    assert [tuple(row) for row in rows] == [("", None, ['x "y"', "z\\"]), ('q"\n,', "é", None)]


def test_an_unreachable_server_gives_one_line_with_the_cure() -> None:
    database = Database("postgresql+psycopg2://someone:secret@127.0.0.1:9/nowhere")
    with pytest.raises(DatabaseUnreachable) as caught:
        database.fetch_all("find_schema_migrations")
    message = str(caught.value)
    assert "llmcoder up" in message
    assert "secret" not in message
    assert "\n" not in message
