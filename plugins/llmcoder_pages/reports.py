"""Pages that steps wrote into the artifact store and beside it: scorecards, release reports, Great Expectations' Data Docs.

They hold styles of their own, which other pages may not: so they are shown without any script, and load nothing from elsewhere.
"""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, Depends, Request
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, HTMLResponse, Response

from llmcoder_pages.rendering import path_of, render_page
from llmcoder_pages.security import require_reader
from llmcoder_pages.stores import Stores
from llmcoder_tasks.connections import Connections
from llmcoder_tasks.errors import ArtifactMissing

router = APIRouter(prefix="/reports")

_POLICY = (
    "default-src 'none'",
    "style-src 'self' 'unsafe-inline'",
    "img-src 'self' data:",
    "font-src 'self' data:",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'self'",
)
POLICY = {"Content-Security-Policy": "; ".join((*_POLICY, "sandbox"))}
"""Of one page that needs nothing else: it counts as another site, so that nothing in it reaches a login."""

POLICY_WITH_FILES = {"Content-Security-Policy": "; ".join((*_POLICY, "sandbox allow-same-origin"))}
"""Of pages with files of their own: no script runs, so that these may be loaded as ours."""


@router.get("/scorecard/{evaluation_id:path}", name="scorecard_report", dependencies=[Depends(require_reader("train_model"))])
def show_scorecard(stores: Stores, evaluation_id: str) -> Response:
    """The report of a scorecard. 404 when there is none."""
    row = stores.database.fetch_one("fetch_scorecard_place", evaluation_id=evaluation_id)
    return _show_stored(stores, row and row["uri"])


@router.get("/release/{report_id:path}", name="release_report", dependencies=[Depends(require_reader("ingest_release"))])
def show_release_report(stores: Stores, report_id: str) -> Response:
    """What a release changes. 404 when there is no such report."""
    row = stores.database.fetch_one("fetch_release_report_place", report_id=report_id)
    return _show_stored(stores, row and row["uri"])


@router.get("/data-docs/{subject}", name="data_docs", dependencies=[Depends(require_reader("build_dataset"))])
def list_data_docs(request: Request, stores: Stores, subject: str) -> Response:
    """The validations of a release (`codes-` and its key) or of a dataset. 404 when there is none.

    Great Expectations' own first page is made by scripts from other hosts.
    """
    folder = _find_docs(stores, subject)
    if folder is None or not folder.is_dir():
        raise HTTPException(404)
    files = sorted((folder / "validations").rglob("*.html"))
    validations = [(file.relative_to(folder / "validations").parts[0], file.relative_to(folder).as_posix()) for file in files]
    return render_page(request, "reports/data_docs.html", subject=subject, validations=validations)


@router.get("/data-docs/{subject}/{path:path}", name="data_docs_file", dependencies=[Depends(require_reader("build_dataset"))])
def show_data_docs(request: Request, stores: Stores, subject: str, path: str) -> Response:
    """A file of the Data Docs. 404 when there is none, or when the path leads elsewhere."""
    file = _find_docs(stores, f"{subject}/{path}")
    if file is None or not file.is_file():
        raise HTTPException(404)
    if file.suffix != ".html":
        return FileResponse(file, headers=POLICY_WITH_FILES)
    # Their styles come from other hosts: ours take their place.
    link = f'<link rel="stylesheet" href="{path_of(request, "static", path="data_docs.css")}"></head>'
    return HTMLResponse(file.read_text(encoding="utf-8").replace("</head>", link, 1), headers=POLICY_WITH_FILES)


def _find_docs(stores: Connections, path: str) -> Path | None:
    """A file or folder below the Data Docs; None when the path leads elsewhere."""
    folder = (stores.settings.home / "data_docs").resolve()
    found = (folder / path).resolve()
    return found if found.is_relative_to(folder) and found != folder else None


def _show_stored(stores: Connections, uri: str | None) -> Response:
    if uri is None:
        raise HTTPException(404)
    try:
        page = stores.storage.read_bytes(stores.storage.key_of(uri) + "/report.html")
    except ArtifactMissing:
        raise HTTPException(404, "This report is no longer in the artifact store.") from None
    return HTMLResponse(page, headers=POLICY)
