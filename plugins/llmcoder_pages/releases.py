"""Releases: what is loaded and valid when, what each release changes here, and its work: encounters to code again."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Annotated, Any

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
from fastapi import APIRouter, Depends, Request
from markupsafe import Markup
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse

from llmcoder_pages.charts import bar_chart
from llmcoder_pages.paging import decode_cursor, take_page
from llmcoder_pages.rendering import format_count, render_page
from llmcoder_pages.security import NOTES_DAG, Person, find_person, require_reader
from llmcoder_pages.stores import Stores
from llmcoder_tasks.connections import Connections
from llmcoder_tasks.database import Row
from llmcoder_tasks.errors import StorageError
from llmcoder_tasks.icd10cm.changes import ChangeKind
from llmcoder_tasks.icd10cm.release_page import CHAPTERS, KIND_NAMES, MOST_USED_SHOWN
from llmcoder_tasks.icd10cm.release_report import KINDS
from llmcoder_tasks.storage import Storage

RELEASES_DAG = "ingest_release"

router = APIRouter(prefix="/releases", dependencies=[Depends(require_reader(RELEASES_DAG))])

PAGE_SIZE = 50

_SHOWN_OF_REPORT = ("by_chapter", "by_month", "minutes", "used_from", "used_until", "dead_corrections")


@router.get("", name="releases")
def list_releases(request: Request, stores: Stores) -> HTMLResponse:
    """All loaded releases, the newest first."""
    rows = stores.database.fetch_all("list_release_pages")
    return render_page(request, "releases/list.html", releases=rows, kinds=KINDS, kind_names=KIND_NAMES)


@router.get("/{release_key}", name="release")
def show_release(
    request: Request, stores: Stores, release_key: str, person: Annotated[Person, Depends(find_person)]
) -> HTMLResponse:
    """One release with its report. 404 when it is not loaded."""
    release = _fetch_release(stores, release_key)
    report, fault = _find_report(stores, release)
    return render_page(
        request,
        "releases/release.html",
        release=release,
        contents=stores.database.fetch_one("count_release_contents", release_key=release_key),
        files=stores.database.fetch_all("list_release_files", release_key=release_key),
        models=stores.database.fetch_all("list_release_models", release_key=release_key),
        changes={row["kind"]: row["count"] for row in stores.database.fetch_all("count_code_changes", release_key=release_key)},
        report=report,
        fault=fault,
        by_chapter=_draw_chapters(report) if report else None,
        by_month=_draw_months(report) if report else None,
        kinds=KINDS,
        kind_names=KIND_NAMES,
        chapters=CHAPTERS,
        may_recode=_may_start(person, NOTES_DAG),
    )


@router.get("/{release_key}/changes", name="release_changes")
def list_changes(
    request: Request, stores: Stores, release_key: str, kind: ChangeKind | None = None, after: str | None = None
) -> HTMLResponse:
    """Every changed code of a release, or those of one kind. 404 when it is not loaded."""
    release = _fetch_release(stores, release_key)
    (after_code,) = decode_cursor(after, (str,))
    rows = stores.database.fetch_all(
        "list_change_pages", release_key=release_key, kind=kind, after_code=after_code, limit=PAGE_SIZE + 1
    )
    return render_page(
        request,
        "releases/changes.html",
        release=release,
        page=take_page(rows, PAGE_SIZE, ("code",)),
        is_later_page=after is not None,
        kind=kind,
        kinds=KINDS,
        kind_names=KIND_NAMES,
    )


def _fetch_release(stores: Connections, release_key: str) -> Row:
    release = stores.database.fetch_one("fetch_release_page", release_key=release_key)
    if release is None:
        raise HTTPException(404)
    return release


def _may_start(person: Person, dag_id: str) -> bool:
    """Whether Airflow lets somebody start a run of a DAG."""
    manager = get_auth_manager()
    details = DagDetails(id=dag_id)
    return bool(manager.is_authorized_dag(method="POST", access_entity=DagAccessEntity.RUN, details=details, user=person.user))


def _find_report(stores: Connections, release: Row) -> tuple[dict[str, Any] | None, str]:
    """What is shown of the newest report of a release, or None and why there is nothing."""
    if release["report_uri"] is None:
        return None, "Its changes were not reported yet: the DAG ingest_release does that, or `llmcoder report-release`."
    try:
        return _read_report(stores.storage, release["report_uri"]), ""
    except StorageError:
        place = f"{release['report_uri']}/report.json"
        return None, f"The report cannot be read from the artifact store ({place}). Its counts stand in the database and are shown."
    except (ValueError, KeyError, TypeError):
        return None, "The report in the artifact store is of another version of LLMCoder: report the release again."


@lru_cache(maxsize=16)
def _read_report(storage: Storage, uri: str) -> dict[str, Any]:
    """Figures of a `report.json`, which never changes under its address; neither encounters nor all changes are kept."""
    document = json.loads(storage.read_bytes(f"{storage.key_of(uri)}/report.json"))
    used = sorted(
        (change for change in document["changes"] if change["used"]), key=lambda change: (-change["used"], change["code"])
    )
    return {"used": used, "most_shown": MOST_USED_SHOWN, **{name: document[name] for name in _SHOWN_OF_REPORT}}


def _draw_chapters(report: dict[str, Any]) -> Markup | None:
    chapters: dict[str, dict[str, int]] = report["by_chapter"]
    if not chapters:
        return None
    series = {KIND_NAMES[kind]: [row[kind] for row in chapters.values()] for kind in KINDS}
    shown = {name: counts for name, counts in series.items() if any(counts)}
    return bar_chart(shown, list(chapters), text=_describe_chapters(chapters), write=_write_count, stacked=True)


def _describe_chapters(chapters: dict[str, dict[str, int]]) -> str:
    most = sorted(chapters, key=lambda name: -sum(chapters[name].values()))[:3]
    told = ", ".join(f"{sum(chapters[name].values()):,} in chapter {name} ({CHAPTERS[int(name) - 1]})" for name in most)
    return f"Changed codes by chapter and kind: {told}"


def _draw_months(report: dict[str, Any]) -> Markup | None:
    months: dict[str, int] = report["by_month"]
    if not months:
        return None
    text = f"Encounters to code again by month of discharge, {min(months)} to {max(months)}"
    return bar_chart({"encounters": list(months.values())}, list(months), text=text, write=_write_count)


def _write_count(value: float) -> str:
    return format_count(round(value)) if value == round(value) else ""  # an axis has halves
