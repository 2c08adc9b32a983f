"""Keys and passwords of the embedded Airflow: made once, kept in files that only their owner may read."""

from __future__ import annotations

import base64
import json
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from llmcoder_tasks.errors import ServiceError
from llmcoder_tasks.services.processes import write_private

USERNAME = "admin"


@dataclass(frozen=True, slots=True)
class Credentials:
    """What Airflow's components share, and the password of its one user."""

    fernet_key: str
    jwt_secret: str
    session_key: str
    password: str


def ensure_credentials(airflow_home: Path) -> Credentials:
    """Read the credentials, making them first where there are none. Raises ServiceError when the file is damaged."""
    path = airflow_home / "credentials.json"
    if path.exists():
        credentials = read_credentials(airflow_home)
    else:
        credentials = Credentials(
            fernet_key=base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            jwt_secret=secrets.token_urlsafe(48),
            session_key=secrets.token_urlsafe(48),
            password=secrets.token_urlsafe(12),
        )
        write_private(path, json.dumps(asdict(credentials)))
    write_private(password_file(airflow_home), json.dumps({USERNAME: credentials.password}) + "\n")
    return credentials


def read_credentials(airflow_home: Path) -> Credentials:
    """The credentials that `ensure_credentials` made. Raises ServiceError when there are none or the file is damaged."""
    path = airflow_home / "credentials.json"
    try:
        return Credentials(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise ServiceError(f"there is no {path}: run `llmcoder up` first") from None
    except (ValueError, TypeError):
        raise ServiceError(f"{path} is damaged: run `llmcoder down`, delete the file, run `llmcoder up`") from None


def password_file(airflow_home: Path) -> Path:
    """Where Airflow's SimpleAuthManager looks passwords up."""
    return airflow_home / "passwords.json"
