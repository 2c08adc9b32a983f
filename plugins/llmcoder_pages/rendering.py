"""Templates into pages: one environment that escapes everything, what every template may call, and how figures are written.

A template extends `base.html`, which knows these names:

- `person`: who is logged in, or None on a page for those who are not
- `url_for(route name, **parameters)`: the path of a page or, by `url_for("static", path=...)`, of a file
- `airflow_url(path)`: the same for a page of Airflow itself; such a link carries `data-airflow`, so that it leaves the frame
- `known_routes`: names of the routes that there are
- `csrf_field()`: the hidden field of a form that writes
"""

from __future__ import annotations

import hashlib
from datetime import UTC, date, datetime, timedelta
from functools import cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import HTMLResponse

from llmcoder_pages.security import TOKEN_FIELD, Person, make_token
from llmcoder_tasks.records import render_code

FOLDER = Path(__file__).resolve().parent
STATIC_FOLDER = FOLDER / "static"
SECTIONS = (("home", "Home"), ("nights", "Nights"), ("models", "Models"), ("releases", "Releases"), ("review", "Review"))
"""The navigation: name of the first route of each group, and what it is called. Templates are named after the group."""

URL_SAFE = ":@,+!/"
"""What ids hold and a path may, besides letters and digits. A slash wants `:path` in the route."""


def render_page(request: Request, template: str, *, status_code: int = 200, **values: Any) -> HTMLResponse:
    """A page from a template of `templates/`."""
    person = getattr(request.state, "person", None)
    known = routes_of(request)
    text = _environment().get_template(template).render(
        person=person,
        known_routes=known,
        sections=_sections_for(known, person),
        section=template.partition("/")[0].partition(".")[0],
        url_for=partial(path_of, request),
        airflow_url=lambda path: _airflow_path(request) + path,
        csrf_field=lambda: Markup('<input type="hidden" name="{}" value="{}">').format(TOKEN_FIELD, make_token(request)),
        **values,
    )  # fmt: skip
    return HTMLResponse(text, status_code)


def _sections_for(known: set[str], person: Person | None) -> list[tuple[str, str]]:
    return [(name, label) for name, label in SECTIONS if name in known and (name != "review" or (person and person.may_read_notes))]


def routes_of(request: Request) -> set[str]:
    """Names of the routes that there are."""
    return {str(getattr(route, "name", "")) for route in request.app.routes}


def path_of(request: Request, name: str, **parameters: Any) -> str:
    """The path of a page by the name of its route, or of a file by `static` and its `path`, wherever Airflow is mounted."""
    root = str(request.scope.get("root_path", ""))
    if name == "static":
        return f"{root}/static/{parameters['path']}?v={_version_of(parameters['path'])}"
    quoted = {key: quote(str(value), safe=URL_SAFE) for key, value in parameters.items()}
    return root + str(request.app.url_path_for(name, **quoted))


def _airflow_path(request: Request) -> str:
    """The path below which Airflow's own pages are: what is left of ours without the prefix of the plugin."""
    return str(request.scope.get("root_path", "")).rpartition("/")[0]


@cache
def _version_of(path: str) -> str:
    """Changes with the content of a static file, so that browsers may keep it for long."""
    return hashlib.sha256((STATIC_FOLDER / path).read_bytes()).hexdigest()[:12]


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters.update(
        code=render_code, count=format_count, percent=format_percent, when=format_when, day=format_day, duration=format_duration
    )
    environment.filters.update(sentence=format_sentence, verbatim=format_verbatim)
    return environment


def format_count(value: int | None) -> str:
    """A whole number with separators, `12,345`; a dash for None."""
    return "–" if value is None else f"{value:,}"


def format_percent(value: float | None, places: int = 1) -> str:
    """A share in [0, 1] in percent; a dash for None."""
    return "–" if value is None else f"{100 * value:.{places}f}\N{NO-BREAK SPACE}%"


def format_when(value: datetime | None) -> Markup:
    """A moment to the minute in UTC, machine-readable besides; a dash for None."""
    if value is None:
        return Markup("–")
    moment = value.astimezone(UTC)
    return Markup('<time datetime="{}">{}</time>').format(moment.isoformat(), moment.strftime("%d %b %Y, %H:%M UTC"))


def format_day(value: date | None) -> Markup:
    """A date, machine-readable besides; a dash for None."""
    if value is None:
        return Markup("–")
    return Markup('<time datetime="{}">{}</time>').format(value.isoformat(), f"{value:%d %b %Y}")


def format_duration(value: timedelta | float | None) -> str:
    """A time span (seconds, where it is a number) as `1 h 02 min`, `3 min 05 s` or `4.2 s`; a dash for None."""
    if value is None:
        return "–"
    seconds = value.total_seconds() if isinstance(value, timedelta) else float(value)
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def format_sentence(text: str) -> str:
    """A message as the beginning of a sentence."""
    return text[:1].upper() + text[1:]


def format_verbatim(text: str) -> Markup:
    """Text whose characters a script counts: browsers would make one of a carriage return and a line feed."""
    return Markup(str(escape(text)).replace("\r", "&#13;"))  # noqa: S704 - escaped just before
