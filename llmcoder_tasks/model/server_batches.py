"""Many questions through a server's Batch API, at half the price and within a day: begun once, whatever is cut off in between.

A batch carries the name of its set of questions. Whoever comes later, after a kill or on another machine, finds it at the server by
that name and reads it instead of paying for another one. What a batch leaves unanswered is left to the caller.
"""

from __future__ import annotations

import fcntl
import json
import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llmcoder_tasks.errors import LanguageModelError, WorkPending
from llmcoder_tasks.language_model import Batch, ModelServer, read_batched_line
from llmcoder_tasks.model.server_answers import KeptReplies, Reply, read_reply
from llmcoder_tasks.progress import render_progress
from llmcoder_tasks.settings import CoderServer, LanguageModel

logger = logging.getLogger(__name__)

MOST_QUESTIONS = 50_000
"""In one batch, by the API's own limit; at some 600 bytes each they stay far below its 200 MB."""

POLL_SECONDS = 30.0
SET_NAME = "llmcoder_questions"
_ANSWERED = 200


def ask_by_batches(
    questions: Mapping[str, str],
    *,
    server: CoderServer,
    model: LanguageModel,
    set_id: str,
    kept: KeptReplies,
    render: Callable[[str], Mapping[str, Any]],
) -> None:
    """Keep the replies to `questions` (key to text), as far as batches give them; `render` makes the body of a text's question.

    Raises NotOffered where the server has no Batch API, LanguageModelError where a batch was refused, LanguageModelUnreachable when
    the server stays away (the next call goes on), WorkPending while a batch is under way and the server is not waited for.
    """
    service = ModelServer(model)
    try:
        with _only_one(kept.lock_path):
            _collect(service, server, set_id, kept)
            missing = [key for key in questions if kept.find(key) is None]
            # What an earlier batch has been asked in vain is not asked by a batch again.
            if len(missing) >= (server.batch_from or 1):
                for start in range(0, len(missing), MOST_QUESTIONS):
                    bodies = {key: render(questions[key]) for key in missing[start : start + MOST_QUESTIONS]}
                    _begin(service, bodies, model, set_id)
                _collect(service, server, set_id, kept)
    finally:
        service.close()


@contextmanager
def _only_one(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _begin(service: ModelServer, bodies: Mapping[str, Mapping[str, Any]], model: LanguageModel, set_id: str) -> None:
    with tempfile.TemporaryDirectory(prefix="batch-") as folder:
        path = Path(folder) / f"llmcoder-{set_id}.jsonl"
        path.write_text("".join(f"{line}\n" for line in _render_lines(bodies)), encoding="utf-8")
        file_id = service.upload_file(path, "batch")
    batch = service.create_batch(file_id, {SET_NAME: set_id})
    logger.info("batch %s of %d questions is with %s", batch.batch_id, len(bodies), model.url)


def _render_lines(bodies: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for key, body in bodies.items():
        yield json.dumps({"custom_id": key, "method": "POST", "url": "/v1/chat/completions", "body": body}, ensure_ascii=False)


def _collect(service: ModelServer, server: CoderServer, set_id: str, kept: KeptReplies) -> None:
    """Read every batch of the set that was not read yet, waiting for those under way."""
    standing = [batch for batch in service.list_batches() if batch.metadata.get(SET_NAME) == set_id]
    for batch in standing:
        if batch.batch_id not in kept.read_batches:
            _read(service, _await(service, server, batch), kept)


def _await(service: ModelServer, server: CoderServer, batch: Batch) -> Batch:
    started = time.monotonic()
    while not batch.is_over:
        if not server.waits:
            raise WorkPending("batch", batch.batch_id, f"batch {batch.batch_id} is under way at {server.url}: come again later")
        time.sleep(POLL_SECONDS)
        batch = service.read_batch(batch.batch_id)
        label = f"batch {batch.batch_id} ({batch.status})"
        logger.info(render_progress(label, batch.done, batch.total, time.monotonic() - started, "questions"))
    return batch


def _read(service: ModelServer, batch: Batch, kept: KeptReplies) -> None:
    answered, refused = 0, 0
    for file_id in batch.files:
        for key, reply in _read_replies(service.read_file(file_id)):
            if reply is None:
                refused += 1
            elif kept.find(key) is None:
                kept.add(key, reply)
                answered += 1
    kept.close_batch(batch.batch_id)
    if batch.status == "failed" and not batch.files:
        raise LanguageModelError(f"batch {batch.batch_id} failed at the server: {batch.failure or 'it gives no reason'}")
    left = max(0, batch.total - answered)
    logger.info("batch %s %s: %d answers kept, %d refused, %d left", batch.batch_id, batch.status, answered, refused, left)


def _read_replies(lines: Sequence[str]) -> Iterator[tuple[str, Reply | None]]:
    for line in lines:
        row = read_batched_line(line)
        if row is not None:
            yield row.custom_id, read_reply(row.answer) if row.answer is not None and row.status == _ANSWERED else None
