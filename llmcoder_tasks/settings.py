"""Where things are: read from the environment once, passed as an argument from there on.

| variable | meaning | default |
|---|---|---|
| LLMCODER_HOME | state of the embedded services | `.llmcoder` in the project folder |
| LLMCODER_DATABASE_URL | results database, `postgresql+psycopg2://...` | the embedded PostgreSQL |
| LLMCODER_ARTIFACTS | artifact store, `file:///folder` or `s3://bucket/prefix` | `artifacts` in LLMCODER_HOME |
| LLMCODER_LANDING | where new releases arrive, `file://` or `s3://` | `landing` in LLMCODER_HOME |
| LLMCODER_LANDING_SECONDS | how long a release there must not have changed to be taken for whole | 30 |
| LLMCODER_INBOX | folder where encounters arrive as JSONL or CSV | `inbox` in LLMCODER_HOME |
| LLMCODER_MAX_QUARANTINED_SHARE | share of bad notes, 0 to 1, above which a load or a night fails | 0.05 |
| LLMCODER_CLAIM_SECONDS | how long a worker that died keeps its notes from the others | 120 |
| LLMCODER_S3_ENDPOINT_URL | another S3 server than AWS | none |
| LLMCODER_RECIPE | recipe of the `train_model` DAG | `compact` |
| LLMCODER_VARIATIONS_PER_CODE | texts of each code and scenario in the train split of the `build_dataset` DAG | 4 |
| LLMCODER_TRAIN_ON_CORRECTIONS | `on`: the phrases that coders marked and corrected, patient text, go into datasets | `off` |
| LLMCODER_APPROVAL | `required` or `off`: a person approves each promotion | `required` |
| LLMCODER_APPROVERS | ids, by commas, of the Airflow users who may answer (embedded login: the name) | none: who may run DAGs |
| LLMCODER_APPROVAL_HOURS | after how many hours without an answer a model is rejected | 72 |
| LLMCODER_DEADLINE_DAYS | from how many days before a release takes effect people are told that it has no model | 14 |
| LLMCODER_NIGHT_HOURS | after how many hours people are told that a night is late | 6 |
| LLMCODER_NOTE_READERS | roles, by commas, that may read patient text in the pages | `op,admin` |
| LLMCODER_REVIEWERS | roles, by commas, that may also decide in reviews there | `op,admin` |
| LLMCODER_TRAINING_PROCESSES | torchrun processes, one a GPU or a core | what the recipe says |
| LLMCODER_TRAINING_NODES | machines that train together; the task's own is the first | 1 |
| LLMCODER_TRAINING_RENDEZVOUS | `host:port` of the first of several machines, where the others find it | none |
| LLMCODER_TRAINING_NOTES | coded notes of patients, a file or folder, that models may learn from | none |
| LLMCODER_PORT | port of the Airflow UI | 8080, or the next free one |
| LLMCODER_LLM_URL | server that speaks the OpenAI API, asked for variations of titles; never for anything of a patient | none |
| LLMCODER_LLM_MODEL | the model asked there | none |
| LLMCODER_LLM_KEY | its key, where it wants one | none |
| LLMCODER_LLM_INPUT_PRICE | what a million input tokens cost, in any currency | unknown |
| LLMCODER_LLM_OUTPUT_PRICE | what a million output tokens cost, in the same | unknown |
| LLMCODER_NOTE_LLM_MODEL | a language model that reads whole notes: its name at a server, or a folder of weights | none |
| LLMCODER_NOTE_LLM_URL | server that speaks the OpenAI API and is sent discharge summaries | none |
| LLMCODER_NOTE_LLM_KEY | its key, where it wants one | none |
| LLMCODER_NOTE_LLM_AGREEMENT | host of that URL, where an agreement covers sending patient text there | for this machine none |
| LLMCODER_CODER_LLM_URL | server that speaks the OpenAI API, fine-tunes coders of phrases and answers as they do | none |
| LLMCODER_CODER_LLM_KEY | its key, where it wants one | none |
| LLMCODER_CODER_LLM_AGREEMENT | host of that URL, where an agreement covers sending patient text there | for this machine none |
| LLMCODER_CODER_LLM_BATCH_FROM | from how many questions at once its Batch API is used, for texts of our own making alone | never |
| LLMCODER_TRAIN_PRICE | what a million trained tokens cost there, in any currency | unknown |
| LLMCODER_TRAIN_MAX_COST | most that one stage of training there may cost, in the same; other machines need it | the recipe's |
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from llmcoder_tasks.errors import SettingsError

PROJECT_FOLDER = Path(__file__).resolve().parent.parent
SQL_FOLDER = PROJECT_FOLDER / "sql"
RECIPES_FOLDER = Path(__file__).resolve().parent / "recipes"
SAMPLES_FOLDER = Path(__file__).resolve().parent / "samples"

_THIS_MACHINE = frozenset({"localhost", "127.0.0.1", "::1"})
_CODER_PREFIX = "LLMCODER_CODER_LLM"

_VARIABLES = frozenset(
    {
        "LLMCODER_HOME",
        "LLMCODER_DATABASE_URL",
        "LLMCODER_ARTIFACTS",
        "LLMCODER_LANDING",
        "LLMCODER_LANDING_SECONDS",
        "LLMCODER_INBOX",
        "LLMCODER_MAX_QUARANTINED_SHARE",
        "LLMCODER_CLAIM_SECONDS",
        "LLMCODER_S3_ENDPOINT_URL",
        "LLMCODER_RECIPE",
        "LLMCODER_VARIATIONS_PER_CODE",
        "LLMCODER_TRAIN_ON_CORRECTIONS",
        "LLMCODER_APPROVAL",
        "LLMCODER_APPROVERS",
        "LLMCODER_APPROVAL_HOURS",
        "LLMCODER_DEADLINE_DAYS",
        "LLMCODER_NIGHT_HOURS",
        "LLMCODER_NOTE_READERS",
        "LLMCODER_REVIEWERS",
        "LLMCODER_TRAINING_PROCESSES",
        "LLMCODER_TRAINING_NODES",
        "LLMCODER_TRAINING_RENDEZVOUS",
        "LLMCODER_TRAINING_NOTES",
        "LLMCODER_PORT",
        "LLMCODER_LLM_URL",
        "LLMCODER_LLM_MODEL",
        "LLMCODER_LLM_KEY",
        "LLMCODER_LLM_INPUT_PRICE",
        "LLMCODER_LLM_OUTPUT_PRICE",
        "LLMCODER_NOTE_LLM_MODEL",
        "LLMCODER_NOTE_LLM_URL",
        "LLMCODER_NOTE_LLM_KEY",
        "LLMCODER_NOTE_LLM_AGREEMENT",
        "LLMCODER_CODER_LLM_URL",
        "LLMCODER_CODER_LLM_KEY",
        "LLMCODER_CODER_LLM_AGREEMENT",
        "LLMCODER_CODER_LLM_BATCH_FROM",
        "LLMCODER_TRAIN_PRICE",
        "LLMCODER_TRAIN_MAX_COST",
    }
)


@dataclass(frozen=True, slots=True)
class LanguageModel:
    """A language model behind a server that speaks the OpenAI API. Prices are for a million tokens, None where unknown.

    `prefix` is what its settings begin with, for messages.
    """

    url: str
    name: str
    key: str | None = field(default=None, repr=False)
    input_price: float | None = None
    output_price: float | None = None
    prefix: str = "LLMCODER_LLM"


@dataclass(frozen=True, slots=True)
class CoderServer:
    """A server that speaks the OpenAI API, fine-tunes coders of phrases and answers as they do.

    `covers_patients` says that patient text may go there: it is this machine, or the operator says that an agreement covers it.
    `train_price` is for a million tokens, `max_cost` for one stage in the same currency. With `waits` a call that starts work there
    stays until it is done; without, it raises WorkPending, and whoever called comes again.
    """

    url: str
    key: str | None = field(default=None, repr=False)
    covers_patients: bool = False
    train_price: float | None = None
    max_cost: float | None = None
    batch_from: int | None = None
    waits: bool = True

    @property
    def host(self) -> str:
        """The host of the URL."""
        return urlsplit(self.url).hostname or ""

    @property
    def is_this_machine(self) -> bool:
        """Whether nothing leaves this machine."""
        return self.host in _THIS_MACHINE

    def model(self, name: str) -> LanguageModel:
        """One of its models."""
        return LanguageModel(self.url, name, self.key, prefix=_CODER_PREFIX)


@dataclass(frozen=True, slots=True)
class Nodes:
    """Several machines that train together, and `host:port` of the first, where they meet."""

    count: int
    rendezvous: str


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings, checked. Build it with `Settings.from_environment()` at the edge of the system."""

    home: Path
    database_url: str | None
    artifacts_uri: str
    landing_uri: str
    landing_seconds: int
    inbox_folder: Path
    max_quarantined_share: float
    claim_seconds: int
    s3_endpoint_url: str | None
    recipe: str
    variations_per_code: int
    train_on_corrections: bool
    approval_required: bool
    approvers: tuple[str, ...]
    approval_hours: int
    deadline_days: int
    night_hours: int
    note_readers: frozenset[str]
    reviewers: frozenset[str]
    """Roles of Airflow's login, in lower case."""
    training_processes: int | None
    training_nodes: Nodes | None
    """Several machines that train together; None: the task's own alone."""
    training_notes: Path | None
    """Coded notes of patients that models may learn from."""
    port: int | None
    language_model: LanguageModel | None
    note_model: LanguageModel | Path | None
    """What reads whole notes: a server, or a folder of weights."""
    coder_server: CoderServer | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Read and check every `LLMCODER_*` variable. Raises SettingsError with the variable, its value and the cure."""
        env = os.environ if environment is None else environment
        unknown = sorted(name for name in env if name.startswith("LLMCODER_") and name not in _VARIABLES)
        if unknown:
            raise SettingsError(f"unknown setting {', '.join(unknown)}: the settings are {', '.join(sorted(_VARIABLES))}")
        home = Path(env.get("LLMCODER_HOME") or PROJECT_FOLDER / ".llmcoder").expanduser().resolve()
        return cls(
            home=home,
            database_url=_database_url(env.get("LLMCODER_DATABASE_URL")),
            artifacts_uri=_store_uri("LLMCODER_ARTIFACTS", env.get("LLMCODER_ARTIFACTS"), home / "artifacts"),
            landing_uri=_store_uri("LLMCODER_LANDING", env.get("LLMCODER_LANDING"), home / "landing"),
            landing_seconds=_positive_int("LLMCODER_LANDING_SECONDS", env.get("LLMCODER_LANDING_SECONDS")) or 30,
            inbox_folder=Path(env.get("LLMCODER_INBOX") or home / "inbox").expanduser().resolve(),
            max_quarantined_share=_share("LLMCODER_MAX_QUARANTINED_SHARE", env.get("LLMCODER_MAX_QUARANTINED_SHARE"), 0.05),
            claim_seconds=_positive_int("LLMCODER_CLAIM_SECONDS", env.get("LLMCODER_CLAIM_SECONDS")) or 120,
            s3_endpoint_url=env.get("LLMCODER_S3_ENDPOINT_URL") or None,
            recipe=env.get("LLMCODER_RECIPE") or "compact",
            variations_per_code=_positive_int("LLMCODER_VARIATIONS_PER_CODE", env.get("LLMCODER_VARIATIONS_PER_CODE")) or 4,
            train_on_corrections=_train_on_corrections(env.get("LLMCODER_TRAIN_ON_CORRECTIONS")),
            approval_required=_approval(env.get("LLMCODER_APPROVAL")),
            approvers=tuple(name.strip() for name in env.get("LLMCODER_APPROVERS", "").split(",") if name.strip()),
            approval_hours=_positive_int("LLMCODER_APPROVAL_HOURS", env.get("LLMCODER_APPROVAL_HOURS")) or 72,
            deadline_days=_positive_int("LLMCODER_DEADLINE_DAYS", env.get("LLMCODER_DEADLINE_DAYS")) or 14,
            night_hours=_positive_int("LLMCODER_NIGHT_HOURS", env.get("LLMCODER_NIGHT_HOURS")) or 6,
            note_readers=_roles(env.get("LLMCODER_NOTE_READERS")),
            reviewers=_roles(env.get("LLMCODER_REVIEWERS")),
            training_processes=_positive_int("LLMCODER_TRAINING_PROCESSES", env.get("LLMCODER_TRAINING_PROCESSES")),
            training_nodes=_training_nodes(env),
            training_notes=_training_notes(env.get("LLMCODER_TRAINING_NOTES")),
            port=_positive_int("LLMCODER_PORT", env.get("LLMCODER_PORT")),
            language_model=_language_model(env),
            note_model=_note_model(env),
            coder_server=_coder_server(env),
        )

    @property
    def coder_server_without_waiting(self) -> CoderServer | None:
        """The same server for a caller that gives its place away while it is at work."""
        return replace(self.coder_server, waits=False) if self.coder_server else None

    @property
    def embedded_url_file(self) -> Path:
        """Where `llmcoder up` leaves the URL of the embedded database (the socket folder is chosen at start)."""
        return self.home / "run" / "database_url"

    def require_database_url(self) -> str:
        """The results database: the setting, or the embedded server that is up. Raises SettingsError when there is neither."""
        if self.database_url:
            return self.database_url
        try:
            return self.embedded_url_file.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            raise SettingsError(
                "no results database: run `llmcoder up` for the embedded one, or set LLMCODER_DATABASE_URL"
            ) from None

    def require_language_model(self) -> LanguageModel:
        """The language model that writes variations. Raises SettingsError when none is named."""
        if self.language_model is None:
            raise SettingsError(
                "no language model: set LLMCODER_LLM_URL and LLMCODER_LLM_MODEL, and LLMCODER_LLM_KEY where the server wants one"
            )
        return self.language_model

    def require_note_model(self) -> LanguageModel | Path:
        """The language model that reads notes: a server, or a folder of weights. Raises SettingsError when none is named."""
        if self.note_model is None:
            raise SettingsError(
                "no language model for notes: set LLMCODER_NOTE_LLM_MODEL to a folder of weights, or to a name at the server of "
                "LLMCODER_NOTE_LLM_URL"
            )
        return self.note_model


def _training_nodes(env: Mapping[str, str]) -> Nodes | None:
    count = _positive_int("LLMCODER_TRAINING_NODES", env.get("LLMCODER_TRAINING_NODES")) or 1
    rendezvous = env.get("LLMCODER_TRAINING_RENDEZVOUS") or ""
    if count == 1:
        return None
    host, _, port = rendezvous.rpartition(":")
    if not host or not port.isdigit():
        raise SettingsError(
            f"LLMCODER_TRAINING_RENDEZVOUS={rendezvous!r}: with LLMCODER_TRAINING_NODES={count} write host:port of this machine, "
            "as the others reach it"
        )
    return Nodes(count, rendezvous)


def _training_notes(value: str | None) -> Path | None:
    if not value:
        return None
    path = Path(value).expanduser()
    if not path.is_absolute():
        raise SettingsError(f"LLMCODER_TRAINING_NOTES={value!r} is no absolute path of a file or folder of coded notes")
    return path


def _language_model(env: Mapping[str, str]) -> LanguageModel | None:
    url, name = env.get("LLMCODER_LLM_URL"), env.get("LLMCODER_LLM_MODEL")
    input_price, output_price = (
        _price(variable, env.get(variable)) for variable in ("LLMCODER_LLM_INPUT_PRICE", "LLMCODER_LLM_OUTPUT_PRICE")
    )
    if not url or not name:
        return None
    _verify_server_url("LLMCODER_LLM", url)
    return LanguageModel(url.rstrip("/"), name, env.get("LLMCODER_LLM_KEY") or None, input_price, output_price)


def _note_model(env: Mapping[str, str]) -> LanguageModel | Path | None:
    url, name = env.get("LLMCODER_NOTE_LLM_URL"), env.get("LLMCODER_NOTE_LLM_MODEL")
    if not name:
        return None
    if not url:
        folder = Path(name).expanduser()
        if not folder.is_absolute():
            raise SettingsError(
                f"LLMCODER_NOTE_LLM_MODEL={name!r} is no absolute path of a folder of weights: name one, or a server by "
                "LLMCODER_NOTE_LLM_URL"
            )
        return folder
    host = _verify_server_url("LLMCODER_NOTE_LLM", url)
    if host not in _THIS_MACHINE and env.get("LLMCODER_NOTE_LLM_AGREEMENT") != host:
        raise SettingsError(
            f"LLMCODER_NOTE_LLM_URL would send discharge summaries to {host}: where an agreement covers that, say so by "
            f"LLMCODER_NOTE_LLM_AGREEMENT={host}; else take a server on this machine, or a folder of weights"
        )
    return LanguageModel(url.rstrip("/"), name, env.get("LLMCODER_NOTE_LLM_KEY") or None, prefix="LLMCODER_NOTE_LLM")


def _coder_server(env: Mapping[str, str]) -> CoderServer | None:
    url = env.get(f"{_CODER_PREFIX}_URL")
    batch_from = _positive_int(f"{_CODER_PREFIX}_BATCH_FROM", env.get(f"{_CODER_PREFIX}_BATCH_FROM"))
    price, max_cost = (_price(name, env.get(name)) for name in ("LLMCODER_TRAIN_PRICE", "LLMCODER_TRAIN_MAX_COST"))
    agreement = env.get(f"{_CODER_PREFIX}_AGREEMENT")
    if not url:
        return None
    host = _verify_server_url(_CODER_PREFIX, url)
    if agreement and agreement != host:
        raise SettingsError(
            f"{_CODER_PREFIX}_AGREEMENT={agreement!r} is not the host of {_CODER_PREFIX}_URL, {host}: name that one"
        )
    covers_patients = host in _THIS_MACHINE or agreement == host
    return CoderServer(url.rstrip("/"), env.get(f"{_CODER_PREFIX}_KEY") or None, covers_patients, price, max_cost, batch_from)


def _verify_server_url(prefix: str, url: str) -> str:
    """The host of a server's URL."""
    parts = urlsplit(url)
    # Never echo the value: somebody may have put a password into it.
    if parts.scheme not in {"http", "https"} or not parts.hostname or "@" in parts.netloc:
        raise SettingsError(f"{prefix}_URL must be http(s)://host/path without user and password; the key is {prefix}_KEY")
    return parts.hostname


def _price(name: str, value: str | None) -> float | None:
    if not value:
        return None
    try:
        price = float(value)
    except ValueError:
        price = -1.0
    if not 0 <= price < math.inf:
        raise SettingsError(f"{name}={value!r} is no price: write what a million tokens cost, or at most may be spent, like 0.25")
    return price


def _database_url(value: str | None) -> str | None:
    if not value:
        return None
    # Never echo the value: it holds the password.
    if not value.startswith(("postgresql://", "postgresql+psycopg2://")):
        raise SettingsError("LLMCODER_DATABASE_URL must start with postgresql:// or postgresql+psycopg2://")
    return value.replace("postgresql://", "postgresql+psycopg2://", 1)


def _store_uri(name: str, value: str | None, default: Path) -> str:
    if not value:
        return default.as_uri()
    parts = urlsplit(value)
    if parts.scheme == "s3" and parts.netloc:
        return value.rstrip("/")
    if parts.scheme == "file" and not parts.netloc and parts.path.startswith("/"):
        return value.rstrip("/")
    raise SettingsError(f"{name}={value!r} is neither s3://bucket/prefix nor file:///absolute/folder")


def _train_on_corrections(value: str | None) -> bool:
    if value in (None, "", "off"):
        return False
    if value == "on":
        return True
    raise SettingsError(f"LLMCODER_TRAIN_ON_CORRECTIONS={value!r} is neither 'on' nor 'off'")


def _approval(value: str | None) -> bool:
    if value in (None, "", "required"):
        return True
    if value == "off":
        return False
    raise SettingsError(f"LLMCODER_APPROVAL={value!r} is neither 'required' nor 'off'")


def _roles(value: str | None) -> frozenset[str]:
    return frozenset(role.strip().lower() for role in (value or "op,admin").split(",") if role.strip())


def _share(name: str, value: str | None, default: float) -> float:
    if not value:
        return default
    try:
        share = float(value)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise SettingsError(f"{name}={value!r} is no share: write a number between 0 and 1, like 0.05")
    return share


def _positive_int(name: str, value: str | None) -> int | None:
    if not value:
        return None
    if not value.isdigit() or int(value) == 0:
        raise SettingsError(f"{name}={value!r} is not a positive whole number")
    return int(value)
