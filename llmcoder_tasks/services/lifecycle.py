"""`llmcoder up`, `down`, `status`: the embedded services as one thing that can be started twice and stopped at any moment."""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from urllib.parse import unquote, urlsplit

from llmcoder_tasks.database import Database
from llmcoder_tasks.services.airflow_api import AirflowApi
from llmcoder_tasks.services.airflow_components import COMPONENTS, EmbeddedAirflow, Launch
from llmcoder_tasks.services.airflow_environment import METADATA_VARIABLE, airflow_home
from llmcoder_tasks.services.credentials import USERNAME, ensure_credentials, read_credentials
from llmcoder_tasks.services.postgres import AIRFLOW_DATABASE, RESULTS_DATABASE, EmbeddedPostgres, RunningPostgres
from llmcoder_tasks.services.processes import write_private
from llmcoder_tasks.settings import Settings
from llmcoder_tasks.storage import open_storage

logger = logging.getLogger(__name__)

Report = Callable[[str], None]

POOLS = {"gpu_pool": (1, "Training and other work that needs the whole accelerator")}


@dataclass(frozen=True, slots=True)
class RunningServices:
    """What `up` leaves running.

    Attributes:
        started: names of the services that this call started; empty when everything was up already.
        ui_url: address of the Airflow UI and API.
        username: who may log in there.
        password: with which password.
    """

    started: tuple[str, ...]
    ui_url: str
    username: str
    password: str

    def open_api(self) -> AirflowApi:
        """A client of the running Airflow."""
        return AirflowApi(self.ui_url, self.username, self.password)


@dataclass(frozen=True, slots=True)
class ServiceState:
    """One service as `status` found it. `pid` and `uptime_seconds` are None when it does not run."""

    name: str
    pid: int | None
    address: str
    uptime_seconds: float | None
    log_file: Path

    @property
    def is_running(self) -> bool:
        """Whether its process is alive."""
        return self.pid is not None


def up(settings: Settings, *, report: Report = logger.info) -> RunningServices:
    """Start what does not run yet: folders, PostgreSQL, Airflow; and wait until all of it answers.

    A second call starts nothing. Services that run with other settings are restarted. `report` gets a line a step. Raises
    ServiceError, DatabaseUnreachable or StorageUnreachable with the cure.
    """
    with _lock(settings):
        _make_folders(settings)
        _verify_stores(settings)
        postgres, started = _start_postgres(settings, report)
        airflow = EmbeddedAirflow(settings)
        credentials = ensure_credentials(airflow.folder)
        metadata_url = os.environ.get(METADATA_VARIABLE) or (postgres.url(AIRFLOW_DATABASE) if postgres else "")
        launch = airflow.plan_launch(credentials, metadata_url)
        with _migrating_airflow(settings, airflow, launch, report):
            results = Database(settings.require_database_url())
            applied = results.migrate()
            if applied:
                report(f"migrated the results database: {', '.join(applied)}")
        services = RunningServices((*started, *launch.missing), airflow.url, USERNAME, credentials.password)
        if launch.missing:
            _start_airflow(airflow, launch, services, report)
        return services


def down(settings: Settings, *, report: Report = logger.info) -> tuple[str, ...]:
    """Stop every embedded service; the names of those that were running. Data and logs stay."""
    with _lock(settings):
        stopped = EmbeddedAirflow(settings).stop()
        if EmbeddedPostgres(settings.home).stop():
            stopped.append("postgres")
        settings.embedded_url_file.unlink(missing_ok=True)
        report(f"stopped {', '.join(stopped)}" if stopped else "nothing was running")
        return tuple(stopped)


def status(settings: Settings) -> tuple[ServiceState, ...]:
    """What runs now. Starts nothing and changes nothing."""
    airflow = EmbeddedAirflow(settings)
    return (_describe_postgres(settings), *(_describe_component(airflow, name) for name in COMPONENTS))


def open_running_api(settings: Settings) -> AirflowApi:
    """A client of the Airflow that `up` started, from another process. Raises ServiceError when none ever was."""
    credentials = read_credentials(airflow_home(settings))
    return AirflowApi(EmbeddedAirflow(settings).url, USERNAME, credentials.password)


def _start_postgres(settings: Settings, report: Report) -> tuple[RunningPostgres | None, list[str]]:
    """The embedded server, unless both databases are somebody else's; and what was started."""
    if settings.database_url and METADATA_VARIABLE in os.environ:
        return None, []
    server = EmbeddedPostgres(settings.home)
    running = server.find()
    started = [] if running else ["postgres"]
    if running is None:
        EmbeddedAirflow(settings).stop()  # what outlived its database holds that one's memory, and is of no use
        began = time.monotonic()
        running = server.start()
        report(f"started postgres in {time.monotonic() - began:.1f} s")
    server.ensure_database(running, AIRFLOW_DATABASE)
    if not settings.database_url:
        server.ensure_database(running, RESULTS_DATABASE)
        write_private(settings.embedded_url_file, running.url(RESULTS_DATABASE) + "\n")
    return running, started


def _verify_stores(settings: Settings) -> None:
    """Ask somebody else's servers anything: one that is named wrongly is to be known before something starts."""
    open_storage(settings.artifacts_uri, endpoint_url=settings.s3_endpoint_url).exists("models/promoted.json")
    if settings.database_url:
        Database(settings.database_url).fetch_one("find_schema_migrations")


@contextmanager
def _migrating_airflow(settings: Settings, airflow: EmbeddedAirflow, launch: Launch, report: Report) -> Iterator[None]:
    """Migrate Airflow's metadata database in a process of its own while the block does something else.

    Airflow's own check takes seconds, so that an embedded database is marked with the version that migrated it.
    """
    mark = f"apache-airflow {version('apache-airflow-core')}"
    server = EmbeddedPostgres(settings.home)
    embedded = None if METADATA_VARIABLE in os.environ else server.find()
    if not launch.missing or (embedded is not None and server.read_mark(embedded, AIRFLOW_DATABASE) == mark):
        yield
        return
    began = time.monotonic()
    migration = airflow.start_migration(launch)
    try:
        yield
    finally:
        airflow.finish_migration(migration)
    if embedded is not None:
        server.write_mark(embedded, AIRFLOW_DATABASE, mark)
    report(f"migrated Airflow's metadata in {time.monotonic() - began:.1f} s")


def _start_airflow(airflow: EmbeddedAirflow, launch: Launch, services: RunningServices, report: Report) -> None:
    began = time.monotonic()
    airflow.start(launch)
    with services.open_api() as api:
        for name, (slots, description) in POOLS.items():
            api.ensure_pool(name, slots=slots, description=description)
    report(f"started Airflow's {', '.join(launch.missing)} in {time.monotonic() - began:.1f} s")


def _describe_postgres(settings: Settings) -> ServiceState:
    server = EmbeddedPostgres(settings.home)
    running = server.find()
    if running is None:
        return ServiceState("postgres", None, "", None, server.log_file)
    return ServiceState("postgres", running.pid, str(running.socket_folder), time.time() - running.started_at, server.log_file)


def _describe_component(airflow: EmbeddedAirflow, name: str) -> ServiceState:
    found = airflow.find(name)
    if found is None:
        return ServiceState(name, None, "", None, airflow.log_file(name))
    record, process = found
    address = airflow.url if name == "api-server" else ""
    return ServiceState(name, process.pid, address, time.time() - record.started_at, airflow.log_file(name))


def _make_folders(settings: Settings) -> None:
    """The folders that the settings name; buckets are the operator's."""
    airflow_home(settings).mkdir(parents=True, exist_ok=True)
    settings.inbox_folder.mkdir(parents=True, exist_ok=True)
    landing = urlsplit(settings.landing_uri)
    if landing.scheme == "file":
        Path(unquote(landing.path)).mkdir(parents=True, exist_ok=True)


@contextmanager
def _lock(settings: Settings) -> Iterator[None]:
    """Two `up` at once: the second waits, then finds everything running."""
    path = settings.home / "run" / "lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
