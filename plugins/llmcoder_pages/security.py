"""Who may see and do what: rights that every route declares, and tokens without which no write is taken.

Airflow protects none of a plugin's routes. So each declares one right as a dependency, and `verify_rights` refuses to build pages
in which one does not, or in which a write lacks its token.

| right | who has it |
|---|---|
| `require_reader(dag_id)` | who may read that DAG in Airflow |
| `require_note_reader` | who may read the DAG `code_encounters` and has a role of `LLMCODER_NOTE_READERS` |
| `require_reviewer` | who may read notes and has a role of `LLMCODER_REVIEWERS` |
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.base_auth_manager import COOKIE_NAME_JWT_TOKEN
from airflow.api_fastapi.auth.managers.models.resource_details import DagDetails
from airflow.api_fastapi.core_api.security import get_user
from airflow.configuration import conf
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from itsdangerous import BadSignature, URLSafeTimedSerializer

from llmcoder_tasks.errors import ServiceError
from llmcoder_tasks.settings import Settings

NOTES_DAG = "code_encounters"
TOKEN_FIELD, TOKEN_HEADER = "csrf_token", "X-CSRF-Token"
TOKEN_SECONDS = 12 * 3600
"""How long a page may stand open before its buttons are refused; never longer than the login itself."""

F = TypeVar("F", bound=Callable[..., Any])


class Right(Enum):
    """What a route shows or does."""

    READ = "read"
    READ_NOTES = "read patient text"
    REVIEW = "write reviews"


@dataclass(frozen=True, slots=True)
class Person:
    """Who asks. `name` is what stands in audit rows; `user` is Airflow's own object."""

    name: str
    roles: frozenset[str]
    may_read_notes: bool
    may_review: bool
    user: Any


def find_person(request: Request, user: Annotated[Any, Depends(get_user)]) -> Person:
    """The logged-in user of this request: 401 without one. Leaves them in `request.state.person`, where templates find them."""
    settings: Settings = request.app.state.settings
    roles = roles_of(user)
    reads = bool(roles & settings.note_readers) and _may_read_dag(user, NOTES_DAG)
    person = Person(user.get_name(), roles, reads, reads and bool(roles & settings.reviewers), user)
    request.state.person = person
    return person


def roles_of(user: Any) -> frozenset[str]:
    """Names of a user's roles in lower case: one under SimpleAuthManager, any number under FAB."""
    one = [user.role] if getattr(user, "role", None) else []
    many = [role.name for role in getattr(user, "roles", None) or ()]
    return frozenset(str(name).lower() for name in [*one, *many])


def _may_read_dag(user: Any, dag_id: str) -> bool:
    return bool(get_auth_manager().is_authorized_dag(method="GET", details=DagDetails(id=dag_id), user=user))


def _declares(right: Right) -> Callable[[F], F]:
    def mark(dependency: F) -> F:
        dependency.right = right  # type: ignore[attr-defined]
        return dependency

    return mark


def require_reader(dag_id: str) -> Callable[..., Person]:
    """A dependency that lets pass who may read this DAG in Airflow."""

    @_declares(Right.READ)
    def read(person: Annotated[Person, Depends(find_person)]) -> Person:
        if not _may_read_dag(person.user, dag_id):
            raise HTTPException(403, f"Your login may not read the DAG {dag_id}, so it may not see this page either.")
        return person

    return read


@_declares(Right.READ_NOTES)
def require_note_reader(person: Annotated[Person, Depends(find_person)]) -> Person:
    """Lets pass who may read patient text."""
    if not person.may_read_notes:
        raise HTTPException(403, "This page shows patient text, and your roles do not include one of LLMCODER_NOTE_READERS.")
    return person


@_declares(Right.REVIEW)
def require_reviewer(person: Annotated[Person, Depends(find_person)]) -> Person:
    """Lets pass who may read patient text and write reviews."""
    if not person.may_review:
        raise HTTPException(403, "Reviewing is for people with a role of LLMCODER_REVIEWERS who may also read patient text.")
    return person


NoteReader = Annotated[Person, Depends(require_note_reader)]
Reviewer = Annotated[Person, Depends(require_reviewer)]


def make_token(request: Request) -> str:
    """The token of the forms of a page, for this person and this login."""
    return _signer().dumps(_holder(request))


async def verify_token(request: Request, person: Annotated[Person, Depends(find_person)]) -> None:
    """A dependency of every write: the token of our own page, in the field `csrf_token` or the header `X-CSRF-Token`; else 403."""
    _verify_origin(request)
    token = request.headers.get(TOKEN_HEADER) or (await request.form()).get(TOKEN_FIELD) or ""
    try:
        holder = _signer().loads(str(token), max_age=TOKEN_SECONDS)
    except BadSignature:
        holder = None
    if holder != _holder(request):
        raise HTTPException(403, "This page is out of date: go back, load it again and repeat what you did. Nothing was changed.")


def _signer() -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(conf.get_mandatory_value("api", "secret_key"), salt="llmcoder-pages")


def _holder(request: Request) -> list[str]:
    """Whom a token belongs to: this person, in this login."""
    login = request.cookies.get(COOKIE_NAME_JWT_TOKEN, "")
    return [request.state.person.name, hashlib.sha256(login.encode()).hexdigest()[:32]]


def _verify_origin(request: Request) -> None:
    """Refuse what a browser says was sent by another site's page. Programs that are no browsers say nothing."""
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    known = {request.url.netloc, urlsplit(conf.get("api", "base_url", fallback="")).netloc} - {""}
    if site not in {None, "same-origin"} or (site is None and origin is not None and urlsplit(origin).netloc not in known):
        raise HTTPException(403, "This was sent by a page of another site. Nothing was changed.")


def rights_of(route: APIRoute) -> set[Right]:
    """The rights that a route declares."""
    return {call.right for call in _calls_of(route.dependant) if hasattr(call, "right")}


def verify_rights(app: FastAPI) -> None:
    """Raise ServiceError when a route declares no right, or takes writes without the right to review and a token."""
    for route in app.routes:
        if not isinstance(route, APIRoute):
            continue
        rights = rights_of(route)
        if not rights:
            raise ServiceError(f"the route {route.path} declares no right: add Depends(require_reader(...)) or another of them")
        writes = not route.methods <= {"GET", "HEAD"}
        if writes and (Right.REVIEW not in rights or verify_token not in _calls_of(route.dependant)):
            raise ServiceError(f"the route {route.path} writes: add Depends(require_reviewer) and Depends(verify_token)")


def _calls_of(dependant: Dependant) -> Iterator[Any]:
    yield dependant.call
    for inner in dependant.dependencies:
        yield from _calls_of(inner)
