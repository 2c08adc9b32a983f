"""Reviews: the queue, one encounter, and what a coder does with its codes.

Every write is a form that works without a script and answers by the page again. A script that sends the same form with the header
`X-Part` gets the part of the page that changed, without the note: so only pages with the note on them book a view of it.
What people type and choose travels in forms, never in an address, which ends up in logs.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, HTTPException, Request
from starlette.background import BackgroundTask
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from llmcoder_pages.code_index import load_code_index
from llmcoder_pages.note_text import locate_words
from llmcoder_pages.paging import Page, decode_cursor, take_page
from llmcoder_pages.rendering import render_page
from llmcoder_pages.review_view import read_note_unseen, read_view
from llmcoder_pages.security import NoteReader, Person, Reviewer, require_note_reader, verify_token
from llmcoder_pages.stores import Stores
from llmcoder_tasks.connections import Connections
from llmcoder_tasks.errors import ReviewError, ReviewTaken
from llmcoder_tasks.records import parse_code, render_code
from llmcoder_tasks.steps import review_encounters as reviews

router = APIRouter(prefix="/review", dependencies=[Depends(require_note_reader)])
"""Whose every route asks for the right to read notes: the queue alone names encounters and who works on them."""

PAGE_SIZE = 50
COUNTED = 10_000
"""Reviews that are counted; of more a page says that they are more."""

PART_HEADER = "X-Part"
QUERY_LENGTH = 200
"""Characters of a search that are looked at; who pastes more has pasted something else."""

Version = Annotated[int, Form()]
CodeField = Annotated[str, Form(max_length=10)]
Act = Callable[[], reviews.Review]

writes: dict[str, Any] = {"methods": ["POST"], "dependencies": [Depends(verify_token)]}


@router.get("", name="review")
def show_queue(
    request: Request, stores: Stores, person: NoteReader, show: str = "waiting", after: str | None = None
) -> HTMLResponse:
    """The queue, the most urgent first; `show=mine` what this person holds, `show=finished` what is done, the newest first."""
    if show not in {"waiting", "mine", "finished"}:
        raise HTTPException(404)
    counts = stores.database.fetch_one("count_reviews", person=person.name, most=COUNTED + 1)
    holder = person.name if show == "mine" else None
    page = _list_finished(stores, after) if show == "finished" else _list_open(stores, after, holder)
    return render_page(
        request, "review/queue.html", show=show, page=page, counts=counts, counted=COUNTED, is_later_page=after is not None,
        may_review=person.may_review,
    )  # fmt: skip


def _list_open(stores: Connections, after: str | None, holder: str | None) -> Page:
    priority, review_id = decode_cursor(after, (float, int))
    rows = stores.database.fetch_all(
        "list_open_reviews", holder=holder, after_priority=priority, after_id=review_id, limit=PAGE_SIZE + 1
    )
    return take_page(rows, PAGE_SIZE, ("priority", "review_id"))


def _list_finished(stores: Connections, after: str | None) -> Page:
    finished_at, review_id = decode_cursor(after, (datetime.fromisoformat, int))
    rows = stores.database.fetch_all(
        "list_finished_reviews", after_finished_at=finished_at, after_id=review_id, limit=PAGE_SIZE + 1
    )
    return take_page(rows, PAGE_SIZE, ("finished_at", "review_id"))


@router.api_route("/next", name="next_review", **writes)
def claim_next(request: Request, stores: Stores, person: Reviewer) -> Response:
    """Claim the most urgent review that nobody holds and show it; the queue, where there is none."""
    review = reviews.claim_next(person=person.name, database=stores.database)
    return _redirect(request, "encounter", review_id=review.review_id) if review else _redirect(request, "review")


@router.get("/{review_id}", name="encounter")
def show_encounter(request: Request, stores: Stores, person: NoteReader, review_id: int) -> HTMLResponse:
    """One encounter: its note, its codes, and why they are as they are."""
    return _show(request, stores, person, review_id)


@router.api_route("/{review_id}/claim", name="claim", **writes)
def claim(request: Request, stores: Stores, person: Reviewer, review_id: int) -> Response:
    """Take this review, whatever its place in the queue."""
    act = _binding(reviews.claim_review, review_id, person, stores)
    return _write(request, stores, person, review_id, act, "It is yours for 15 minutes from each thing that you do.")


@router.api_route("/{review_id}/hold", name="hold", **writes)
def hold(stores: Stores, person: Reviewer, review_id: int, version: Version) -> Response:
    """Make a claim longer while its page is open and used: until when it holds. 409 when it is lost or the page is out of date."""
    found = stores.database.fetch_one("fetch_review_page", review_id=review_id)
    if found and found["is_live"] and (found["claimed_by"], found["version"]) == (person.name, version):
        review = reviews.claim_review(review_id, person=person.name, database=stores.database)
        if review.version == version and review.claimed_until:
            return JSONResponse({"until": review.claimed_until.isoformat()})
    return JSONResponse({}, 409)


@router.api_route("/{review_id}/accept", name="accept", **writes)
def accept(request: Request, stores: Stores, person: Reviewer, review_id: int, version: Version, code: CodeField) -> Response:
    """Let a proposed code stand."""
    act = _binding(reviews.accept_code, review_id, person, stores, code=code, version=version)
    return _write(request, stores, person, review_id, act, f"{_said(code)} accepted.")


@router.api_route("/{review_id}/remove", name="remove", **writes)
def remove(request: Request, stores: Stores, person: Reviewer, review_id: int, version: Version, code: CodeField) -> Response:
    """Take a code out."""
    act = _binding(reviews.remove_code, review_id, person, stores, code=code, version=version)
    return _write(request, stores, person, review_id, act, f"{_said(code)} removed.")


class Evidence:
    """Where the note says what a chosen code says: marked by a script as offsets, or typed as words of the note, or neither."""

    def __init__(
        self,
        start: Annotated[str, Form(max_length=9)] = "",
        end: Annotated[str, Form(max_length=9)] = "",
        words: Annotated[str, Form(max_length=1000)] = "",
    ) -> None:
        self.offsets = (int(start), int(end)) if start.isdecimal() and end.isdecimal() else None
        self.words = words

    def find(self, review_id: int, stores: Connections) -> tuple[int, int] | None:
        """Offsets into the note. Raises ReviewError when the words are not in it, without repeating them."""
        if self.offsets or not self.words.strip():
            return self.offsets
        place = locate_words(read_note_unseen(review_id, stores), self.words)
        if place is None:
            raise ReviewError("the words given as evidence are not in the note: copy them from it, or leave them out")
        return place


EvidenceFields = Annotated[Evidence, Depends()]


@router.api_route("/{review_id}/replace", name="replace", **writes)
def replace(
    request: Request, stores: Stores, person: Reviewer, review_id: int, version: Version, code: CodeField, by: CodeField,
    evidence: EvidenceFields,
) -> Response:  # fmt: skip
    """Put another code in the place of one, with its evidence unless other is given."""

    def act() -> reviews.Review:
        place = evidence.find(review_id, stores)
        return _binding(reviews.replace_by, review_id, person, stores, code=code, by=by, version=version, evidence=place)()

    return _write(request, stores, person, review_id, act, f"{_said(code)} replaced by {_said(by)}.")


@router.api_route("/{review_id}/add", name="add", **writes)
def add(
    request: Request, stores: Stores, person: Reviewer, review_id: int, version: Version, by: CodeField, evidence: EvidenceFields
) -> Response:
    """Put in a code that was not proposed."""

    def act() -> reviews.Review:
        place = evidence.find(review_id, stores)
        return _binding(reviews.add_code, review_id, person, stores, code=by, version=version, evidence=place)()

    return _write(request, stores, person, review_id, act, f"{_said(by)} added.")


@router.api_route("/{review_id}/undo", name="undo", **writes)
def undo(request: Request, stores: Stores, person: Reviewer, review_id: int, version: Version) -> Response:
    """Take back the newest decision that stands."""
    act = _binding(reviews.undo, review_id, person, stores, version=version)
    return _write(request, stores, person, review_id, act, "The last decision is taken back.")


@router.api_route("/{review_id}/release", name="release_review", **writes)
def release(request: Request, stores: Stores, person: Reviewer, review_id: int, version: Version) -> Response:
    """Give the review back to the queue, with what was decided."""
    act = _binding(reviews.release_review, review_id, person, stores, version=version)
    return _write(request, stores, person, review_id, act, "Given back to the queue. What you decided is kept.")


@router.api_route("/{review_id}/finish", name="finish", **writes)
def finish(request: Request, stores: Stores, person: Reviewer, review_id: int, version: Version) -> Response:
    """Close the review: its accepted codes are the encounter's."""
    act = _binding(reviews.finish_review, review_id, person, stores, version=version)
    return _write(request, stores, person, review_id, act, "Finished. Press n for the next one.")


@router.api_route("/{review_id}/reopen", name="reopen", **writes)
def reopen(request: Request, stores: Stores, person: Reviewer, review_id: int, version: Version) -> Response:
    """Take a finished review up again."""
    act = _binding(reviews.reopen_review, review_id, person, stores, version=version)
    return _write(request, stores, person, review_id, act, "Opened again. It is yours.")


@router.api_route("/{review_id}/codes", name="find_codes", **writes)
def find_codes(
    request: Request, stores: Stores, person: Reviewer, review_id: int, code: CodeField = "", q: Annotated[str, Form()] = ""
) -> Response:
    """Codes to add, or to put in the place of `code`: found by what was typed; near ones where nothing was."""
    view = read_view(review_id, person, stores, with_note=False)
    index = load_code_index(stores.database, view.review["release_key"])
    query, replaced = q[:QUERY_LENGTH].strip(), parse_code(code)
    standing = next((row for row in view.codes if row["code"] == replaced), None)
    if query:
        found = index.search(query)
    elif standing:
        note = read_note_unseen(review_id, stores)
        phrase = "" if standing["evidence_start"] is None else note[standing["evidence_start"] : standing["evidence_end"]]
        found = index.suggest(replaced, f"{phrase} {standing['title']}" if phrase else standing["title"])
    else:
        found = []
    choosing = {"code": replaced if standing else "", "query": query, "found": found}
    if _is_part(request):
        return render_page(request, "review/found.html", choosing=choosing, standing={row["code"] for row in view.codes})
    return _show(request, stores, person, review_id, choosing=choosing)


def _binding(call: Callable[..., reviews.Review], review_id: int, person: Person, stores: Connections, **arguments: Any) -> Act:
    return lambda: call(review_id, person=person.name, database=stores.database, **arguments)


def _write(request: Request, stores: Connections, person: Person, review_id: int, act: Act, said: str) -> Response:
    """Do it; then the page again, or its part, with what was done. A refusal shows the review as it is now, and why."""
    try:
        act()
    except ReviewError as error:
        status = 409 if isinstance(error, ReviewTaken) else 400
        return _show(request, stores, person, review_id, status_code=status, problem=str(error))
    if _is_part(request):
        return _show(request, stores, person, review_id, said=said)
    return _redirect(request, "encounter", review_id=review_id)


def _show(
    request: Request, stores: Connections, person: Person, review_id: int, *, status_code: int = 200, problem: str = "",
    said: str = "", choosing: dict[str, Any] | None = None,
) -> HTMLResponse:  # fmt: skip
    is_part = _is_part(request)
    view = read_view(review_id, person, stores, with_note=not is_part)
    answer = render_page(
        request, "review/work.html" if is_part else "review/encounter.html", status_code=status_code, view=view, review=view.review,
        problem=problem, said=said, choosing=choosing, standing={row["code"] for row in view.codes},
    )  # fmt: skip
    if not is_part and view.may_decide:
        # Read before the first search asks for it.
        answer.background = BackgroundTask(load_code_index, stores.database, view.review["release_key"])
    return answer


def _is_part(request: Request) -> bool:
    return PART_HEADER in request.headers


def _redirect(request: Request, name: str, **parameters: Any) -> RedirectResponse:
    return RedirectResponse(request.scope.get("root_path", "") + str(request.app.url_path_for(name, **parameters)), 303)


def _said(code: str) -> str:
    return render_code(parse_code(code))
