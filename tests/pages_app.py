"""The pages as Airflow serves them: mounted below `/llmcoder`, behind a real SimpleAuthManager, with a login for each role."""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

# Before anything imports Airflow, which keeps what it finds.
os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="airflow-"))
os.environ.setdefault("AIRFLOW__CORE__LOAD_EXAMPLES", "False")
os.environ.setdefault("AIRFLOW__API_AUTH__JWT_SECRET", "a secret of tests, long enough for every algorithm: 64 bytes and more")
os.environ.setdefault("AIRFLOW__API__SECRET_KEY", "another secret of tests")

PLUGINS_FOLDER = str(Path(__file__).resolve().parents[1] / "plugins")
if PLUGINS_FOLDER not in sys.path:
    sys.path.append(PLUGINS_FOLDER)

from llmcoder_tasks.connections import Connections  # noqa: E402
from llmcoder_tasks.database import Database  # noqa: E402
from llmcoder_tasks.settings import Settings  # noqa: E402
from llmcoder_tasks.storage import FolderStorage  # noqa: E402

PREFIX = "/llmcoder"
ROLES = ("viewer", "user", "op", "admin")


@dataclass(frozen=True, slots=True)
class Pages:
    """The application that Airflow would mount (`app`), all of it as served (`served`), and the stores behind it."""

    app: Any
    served: Any
    stores: Connections

    def client(self, role: str | None = None, name: str | None = None) -> Any:
        """A TestClient below `/llmcoder`, logged in with a role (anonymous without one) as `name`, by default the role's name.

        It follows no redirects, and addresses are relative to the pages: `client.get("nights")`.
        """
        from fastapi.testclient import TestClient

        client = TestClient(self.served, base_url=f"http://testserver{PREFIX}/", follow_redirects=False)
        if role is not None:
            client.cookies.set("_token", login_token(role, name or role))
        return client


def login_token(role: str, name: str) -> str:
    """What Airflow's login would leave in the cookie `_token`."""
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

    token: str = get_auth_manager().generate_jwt(SimpleAuthManagerUser(username=name, role=role))
    return token


def start_login(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Airflow's own login, without its metadata database: that would only know who logged out."""
    from airflow.api_fastapi.app import init_auth_manager
    from airflow.models.revoked_token import RevokedToken

    patch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE", str(folder / "passwords.json"))
    patch.setattr(RevokedToken, "is_revoked", lambda _: False)
    init_auth_manager()


def make_pages(database: Database, folder: Path, routers: Any = None, **environment: str) -> Pages:
    """The pages over a database and an empty artifact store in `folder`; `environment` holds settings beside the defaults.

    `routers` take the place of the real groups of pages.
    """
    from fastapi import FastAPI

    from llmcoder_pages.app import PAGES, create_app

    settings = Settings.from_environment({"LLMCODER_HOME": str(folder), **environment})
    stores = Connections(settings, FolderStorage(folder / "store"), database)
    app = create_app(settings, lambda _: stores, routers or PAGES)
    served = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    served.mount(PREFIX, app)
    return Pages(app, served, stores)
