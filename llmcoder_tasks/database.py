"""The results database: PostgreSQL through SQLAlchemy, with every statement named in `sql/queries/*.sql`.

A query file holds blocks that begin with `-- name: verb_noun`. Errors never carry values: a failing row may hold patient text.
"""

from __future__ import annotations

import hashlib
import io
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from llmcoder_tasks.errors import DatabaseError, DatabaseUnreachable
from llmcoder_tasks.settings import SQL_FOLDER

logger = logging.getLogger(__name__)

Row = dict[str, Any]
T = TypeVar("T")

PATIENCE_SECONDS = 600.0
"""How long work that may be repeated waits for a database that is gone."""

_GOING_AWAY = frozenset({"57P01", "57P02", "57P03"})  # shut down by an administrator, by a crash, not yet started

_BLOCK = re.compile(r"^-- name: (?P<name>\w+)\s*$", re.MULTILINE)
_MIGRATION = re.compile(r"(?P<number>\d{4})_[a-z]+_[a-z0-9_]+\.sql")
_QUOTING_CODES = ("22", "42601")
"""SQLSTATEs of messages that may quote a value: data exceptions (`invalid input syntax for type integer: "..."`), syntax errors."""

_COPY_BLOCK = 1024**2
_COPY_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"})
_MIGRATION_LOCK = 0x4C4C4D43  # "LLMC": one number for everybody who migrates this database


@cache
def load_queries(folder: Path = SQL_FOLDER / "queries") -> Mapping[str, str]:
    """All named statements, by name. Raises DatabaseError when a name stands twice."""
    queries: dict[str, str] = {}
    for path in sorted(folder.glob("*.sql")):
        parts = _BLOCK.split(path.read_text(encoding="utf-8"))
        for name, statement in zip(parts[1::2], parts[2::2], strict=True):
            if name in queries:
                raise DatabaseError(f"{path.name}: the query {name!r} is defined twice")
            queries[name] = statement.strip().rstrip(";")
    return queries


class Transaction:
    """One open transaction: committed when its `with` block ends, rolled back when an error leaves it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def execute(self, query: str, parameters: Mapping[str, Any] | Sequence[Mapping[str, Any]] = ()) -> int:
        """Run a named statement, once for each mapping of parameters; the number of rows it touched."""
        return self._connection.execute(text(_statement(query)), parameters or None).rowcount

    def fetch_all(self, query: str, **parameters: Any) -> list[Row]:
        """All rows of a named query, as dictionaries."""
        result = self._connection.execute(text(_statement(query)), parameters)
        return [dict(row) for row in result.mappings()]

    def fetch_one(self, query: str, **parameters: Any) -> Row | None:
        """The first row of a named query, or None."""
        row = self._connection.execute(text(_statement(query)), parameters).mappings().first()
        return dict(row) if row is not None else None

    def copy_rows(self, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> int:
        """Bulk load by COPY. None becomes NULL; lists become PostgreSQL arrays of text. Returns the number of rows."""
        lines = ["\t".join([_copy_value(value) for value in row]) for row in rows]
        names = ", ".join(f'"{column}"' for column in columns)
        cursor: Any = self._connection.connection.cursor()
        # PostgreSQL's text format, not CSV: a release of 98,000 codes is written three times as fast.
        cursor.copy_expert(f"COPY {table} ({names}) FROM STDIN", io.StringIO("\n".join(lines)), size=_COPY_BLOCK)
        return len(lines)

    def run_script(self, script: str) -> None:
        """Run a script of several statements without parameters (schema and migrations)."""
        cursor: Any = self._connection.connection.cursor()
        cursor.execute(script)


class Database:
    """The results database behind a URL. Opens no connection before it is used."""

    def __init__(self, url: str) -> None:
        # hide_parameters: SQLAlchemy's messages would otherwise print bound values, which may be a patient's text.
        self.engine: Engine = create_engine(url, hide_parameters=True, pool_pre_ping=True, connect_args={"connect_timeout": 10})
        self.place = self.engine.url.render_as_string(hide_password=True)

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """A transaction. Raises DatabaseUnreachable or DatabaseError, both without any value of the failing row."""
        with self._errors(), self.engine.begin() as connection:
            yield Transaction(connection)

    def execute(self, query: str, parameters: Mapping[str, Any] | Sequence[Mapping[str, Any]] = ()) -> int:
        """`Transaction.execute` in a transaction of its own."""
        with self.transaction() as transaction:
            return transaction.execute(query, parameters)

    def fetch_all(self, query: str, **parameters: Any) -> list[Row]:
        """`Transaction.fetch_all` in a transaction of its own."""
        with self.transaction() as transaction:
            return transaction.fetch_all(query, **parameters)

    def fetch_one(self, query: str, **parameters: Any) -> Row | None:
        """`Transaction.fetch_one` in a transaction of its own."""
        with self.transaction() as transaction:
            return transaction.fetch_one(query, **parameters)

    def migrate(self, folder: Path = SQL_FOLDER / "migrations") -> list[str]:
        """Apply the migrations that this database has not seen; their names, in order.

        Each runs in one transaction together with its record, under a lock, so that two callers apply each one once. A migration
        whose file changed after it was applied is refused.
        """
        applied: list[str] = []
        for path in list_migrations(folder):
            script = path.read_text(encoding="utf-8")
            digest = hashlib.sha256(script.encode()).hexdigest()
            with self.transaction() as transaction:
                transaction.fetch_one("lock_migrations", lock=_MIGRATION_LOCK)
                transaction.execute("create_schema_migrations")
                seen = transaction.fetch_one("fetch_migration", name=path.stem)
                if seen is None:
                    transaction.run_script(script)
                    transaction.execute("record_migration", {"name": path.stem, "sha256": digest})
                    applied.append(path.stem)
                elif seen["sha256"] != digest:
                    raise DatabaseError(
                        f"{path.name} changed after it was applied to {self.place}: restore it and add a new migration"
                    )
        return applied

    def verify_current(self) -> None:
        """Raise DatabaseError unless every migration is applied."""
        missing = [path.stem for path in list_migrations() if not self._is_applied(path.stem)]
        if missing:
            raise DatabaseError(f"{self.place} lacks {', '.join(missing)}: run `llmcoder migrate`")

    def _is_applied(self, name: str) -> bool:
        exists = self.fetch_one("find_schema_migrations")
        return bool(exists and exists["found"]) and self.fetch_one("fetch_migration", name=name) is not None

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise self._translate(error.orig) from None
        except Exception as error:
            if hasattr(error, "pgcode"):  # psycopg2's own error out of COPY or a script
                raise self._translate(error) from None
            raise

    def _translate(self, error: Any) -> DatabaseError:
        """An error of psycopg2 as one of ours, without values."""
        code = getattr(error, "pgcode", None)
        is_connection = type(error).__name__ in {"OperationalError", "InterfaceError"} and code is None
        if is_connection or code in _GOING_AWAY or str(code).startswith("08"):
            return DatabaseUnreachable(
                f"no connection to {self.place}: run `llmcoder up`, or check LLMCODER_DATABASE_URL ({_first_line(error)})"
            )
        return DatabaseError(_describe(error))


def keep_trying(action: Callable[[], T], patience_seconds: float = PATIENCE_SECONDS) -> T:
    """Do what may be repeated, again and again while the database cannot be reached, with growing pauses of at most ten seconds.

    Raises DatabaseUnreachable when that lasts longer than `patience_seconds`; every other error at once.
    """
    return Retrying(
        retry=retry_if_exception_type(DatabaseUnreachable),
        wait=wait_random_exponential(multiplier=0.2, max=10),
        stop=stop_after_delay(patience_seconds),
        before_sleep=_say_why,
        reraise=True,
    )(action)


def _say_why(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    logger.warning("%s; trying again for %.0f s already", error, state.seconds_since_start or 0.0)


def list_migrations(folder: Path = SQL_FOLDER / "migrations") -> list[Path]:
    """Migration files in order. Raises DatabaseError when a name is malformed or a number is missing."""
    paths = sorted(folder.glob("*.sql"))
    for number, path in enumerate(paths, start=1):
        match = _MIGRATION.fullmatch(path.name)
        if match is None or int(match["number"]) != number:
            raise DatabaseError(f"{path.name}: expected a migration named {number:04d}_verb_noun.sql")
    return paths


def _statement(query: str) -> str:
    queries = load_queries()
    if query not in queries:
        raise DatabaseError(f"unknown query {query!r}: define it in sql/queries/")
    return queries[query]


def _copy_value(value: Any) -> str:
    """A value as COPY's text format wants it."""
    if type(value) is str:
        return value if value.isalnum() else value.translate(_COPY_ESCAPES)
    if value is None:
        return "\\N"
    if isinstance(value, list | tuple):
        quoted = (str(item).replace("\\", "\\\\").replace('"', '\\"') for item in value)
        return ("{" + ",".join(f'"{item}"' for item in quoted) + "}").translate(_COPY_ESCAPES)
    return str(value).translate(_COPY_ESCAPES)


def _first_line(error: Any) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _describe(error: Any) -> str:
    """What PostgreSQL says, without its DETAIL, which quotes the failing row, and of data that it cannot read without the data."""
    diagnosis = getattr(error, "diag", None)
    message = getattr(diagnosis, "message_primary", None) or type(error).__name__
    if str(getattr(error, "pgcode", None)).startswith(_QUOTING_CODES):
        message = re.split(r':? "|: ', message, maxsplit=1)[0]
    where = ", ".join(
        str(part) for part in (getattr(diagnosis, "table_name", None), getattr(diagnosis, "constraint_name", None)) if part
    )
    return f"PostgreSQL {getattr(error, 'pgcode', None)}: {message}" + (f" ({where})" if where else "")
