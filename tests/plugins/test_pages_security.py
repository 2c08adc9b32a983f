"""Who gets which page, that no route forgets to ask, and that a write needs the token of our own page."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, Form, Request
from fastapi.routing import APIRoute
from pages_app import Pages, make_pages
from starlette.responses import HTMLResponse, PlainTextResponse

from llmcoder_pages.security import (
    NOTES_DAG,
    NoteReader,
    Right,
    make_token,
    require_note_reader,
    require_reader,
    require_reviewer,
    rights_of,
    roles_of,
    verify_token,
)
from llmcoder_tasks.database import Database
from llmcoder_tasks.errors import DatabaseUnreachable, ReviewTaken, ServiceError

NO_DATABASE = Database("postgresql+psycopg2://nobody@127.0.0.1:1/none")

EXAMPLES: dict[str, str] = {}
"""Values for parameters of paths, where `1` will not do."""


def routes_of(pages: Pages) -> list[tuple[APIRoute, str]]:
    """Every route with a path of it."""
    found = []
    for route in pages.app.routes:
        if isinstance(route, APIRoute):
            path = re.sub(r"\{(\w+)(?::\w+)?\}", lambda match: EXAMPLES.get(match[1], "1"), route.path)
            found.append((route, path.lstrip("/")))
    return found


def test_every_route_refuses_who_is_not_logged_in(pages: Pages) -> None:
    client = pages.client()
    for route, path in routes_of(pages):
        for method in route.methods:
            assert client.request(method, path).status_code == 401, f"{method} {route.path}"


def test_a_viewer_sees_no_note_and_writes_nothing(pages: Pages) -> None:
    client = pages.client("viewer")
    for route, path in routes_of(pages):
        refused = rights_of(route) & {Right.READ_NOTES, Right.REVIEW}
        for method in route.methods:
            status = client.request(method, path).status_code
            assert status == 403 if refused else status in {200, 303, 307, 404, 422}, f"{method} {route.path}: {status}"


def test_there_are_no_routes_but_ours_and_files_that_hold_nothing(pages: Pages) -> None:
    assert {route.name for route in pages.app.routes if not isinstance(route, APIRoute)} == {"static"}
    for path in ("docs", "redoc", "openapi.json"):
        assert pages.client("admin").get(path).status_code == 404


def test_a_token_of_nobody_is_refused(pages: Pages) -> None:
    client = pages.client()
    client.cookies.set("_token", "not a token")
    assert client.get("").status_code == 403


@pytest.fixture
def planted(airflow_login: None, tmp_path: Path) -> Pages:
    """Pages with one route of each right, a write, and errors."""
    router = APIRouter()

    def home() -> PlainTextResponse:
        return PlainTextResponse("figures")

    def note(person: NoteReader) -> PlainTextResponse:
        return PlainTextResponse(f"a note for {person.name}")

    def token(request: Request) -> PlainTextResponse:
        return PlainTextResponse(make_token(request))

    def write(code: Annotated[str, Form()]) -> PlainTextResponse:
        return PlainTextResponse(f"wrote {code}")

    def fail(kind: str) -> HTMLResponse:
        if kind == "taken":
            raise ReviewTaken("Ben Coder has this review until 14:05: take another")
        if kind == "unreachable":
            raise DatabaseUnreachable("no connection to postgresql://secret-host")
        raise ValueError("John Smith has the flu")

    reading = [Depends(require_reader(NOTES_DAG))]
    router.add_api_route("/", home, name="home", dependencies=reading)
    router.add_api_route("/note", note)
    router.add_api_route("/token", token, dependencies=[Depends(require_reviewer)])
    router.add_api_route("/write", write, methods=["POST"], dependencies=[Depends(require_reviewer), Depends(verify_token)])
    router.add_api_route("/fail/{kind}", fail, dependencies=reading)
    return make_pages(NO_DATABASE, tmp_path, routers=[router])


@pytest.mark.parametrize(
    ("role", "reading", "notes"),
    [(None, 401, 401), ("viewer", 200, 403), ("user", 200, 403), ("op", 200, 200), ("admin", 200, 200)],
)
def test_each_role_gets_what_is_its(planted: Pages, role: str | None, reading: int, notes: int) -> None:
    client = planted.client(role)
    assert client.get("").status_code == reading
    assert client.get("note").status_code == notes


def test_a_role_named_in_the_settings_reads_notes_whatever_its_case(airflow_login: None, tmp_path: Path) -> None:
    router = APIRouter()
    router.add_api_route("/", lambda: PlainTextResponse(""), name="home", dependencies=[Depends(require_note_reader)])
    pages = make_pages(NO_DATABASE, tmp_path, routers=[router], LLMCODER_NOTE_READERS="Viewer")
    assert pages.client("viewer").get("").status_code == 200
    assert pages.client("admin").get("").status_code == 403


def test_roles_of_both_kinds_of_login_are_read() -> None:
    fab = SimpleNamespace(roles=[SimpleNamespace(name="Op"), SimpleNamespace(name="Coder")])
    assert roles_of(fab) == {"op", "coder"}
    assert roles_of(SimpleNamespace(role="ADMIN")) == {"admin"}
    assert roles_of(SimpleNamespace(role=None)) == frozenset()


def test_a_write_needs_the_token_of_a_page(planted: Pages) -> None:
    client = planted.client("op")
    token = client.get("token").text
    assert client.post("write", data={"code": "I10"}).status_code == 403
    assert client.post("write", data={"code": "I10", "csrf_token": token + "x"}).status_code == 403
    assert client.post("write", data={"code": "I10", "csrf_token": token}).text == "wrote I10"
    assert client.post("write", data={"code": "I10"}, headers={"X-CSRF-Token": token}).text == "wrote I10"


def test_a_token_belongs_to_one_person_in_one_login(planted: Pages) -> None:
    token = planted.client("op", "Ann").get("token").text
    ben = planted.client("op", "Ben")
    assert ben.post("write", data={"code": "I10", "csrf_token": token}).status_code == 403
    # Each login has a token of its own, so that a page from before a logout writes nothing.
    ann_again = planted.client("op", "Ann")
    assert ann_again.post("write", data={"code": "I10", "csrf_token": token}).status_code == 403


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": "http://testserver"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_what_another_sites_page_sends_is_refused_even_with_a_token(planted: Pages, headers: dict[str, str], status: int) -> None:
    client = planted.client("op")
    data = {"code": "I10", "csrf_token": client.get("token").text}
    assert client.post("write", data=data, headers=headers).status_code == status


def test_pages_with_a_route_that_asks_for_no_right_are_not_built(airflow_login: None, tmp_path: Path) -> None:
    router = APIRouter()
    router.add_api_route("/open", lambda: PlainTextResponse(""))
    with pytest.raises(ServiceError, match="the route /open declares no right"):
        make_pages(NO_DATABASE, tmp_path, routers=[router])


@pytest.mark.parametrize("dependency", [require_reader(NOTES_DAG), require_note_reader, require_reviewer])
def test_pages_with_a_write_without_right_or_token_are_not_built(airflow_login: None, tmp_path: Path, dependency: Any) -> None:
    router = APIRouter()
    router.add_api_route("/write", lambda: PlainTextResponse(""), methods=["POST"], dependencies=[Depends(dependency)])
    with pytest.raises(ServiceError, match="the route /write writes"):
        make_pages(NO_DATABASE, tmp_path, routers=[router])


@pytest.mark.parametrize("path", ["", "nights", "no/such/page", "static/pages.css"])
@pytest.mark.parametrize("role", [None, "admin"])
def test_every_answer_carries_the_headers(pages: Pages, path: str, role: str | None) -> None:
    headers = pages.client(role).get(path).headers
    policy = headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "script-src 'self'" in policy
    assert "frame-ancestors 'self'" in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    assert headers["cache-control"] == ("public, max-age=31536000, immutable" if path.startswith("static") else "no-store")


def test_an_unknown_page_is_a_404_in_the_same_style(pages: Pages) -> None:
    for path in ("no/such/page", "nights/never-planned"):
        answer = pages.client("viewer").get(path)
        assert answer.status_code == 404
        assert "<h1>Not Found</h1>" in answer.text
        assert "pages.css" in answer.text


def test_a_database_that_is_down_is_a_readable_503_that_names_no_place(planted: Pages, caplog: pytest.LogCaptureFixture) -> None:
    answer = planted.client("viewer").get("fail/unreachable")
    assert answer.status_code == 503
    assert "does not answer" in answer.text
    assert "secret-host" not in answer.text
    assert "secret-host" in caplog.text


def test_a_refused_write_says_why(planted: Pages) -> None:
    answer = planted.client("viewer").get("fail/taken")
    assert answer.status_code == 409
    assert "Ben Coder has this review until 14:05" in answer.text


def test_an_unexpected_error_is_told_by_type_and_place_alone(planted: Pages, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    answer = planted.client("viewer").get("fail/other")
    assert answer.status_code == 500
    assert "Smith" not in answer.text + caplog.text
    assert re.search(r"GET /fail/\{kind\}: ValueError, its message withheld .* in fail", caplog.text)


def test_a_damaged_parameter_is_named_and_not_repeated(planted: Pages) -> None:
    client = planted.client("op")
    answer = client.post("write", data={"csrf_token": client.get("token").text, "wrong": "John Smith"})
    assert answer.status_code == 422
    assert "code" in answer.text
    assert "Smith" not in answer.text
