"""A person's answer on a verdict, kept whichever it is."""

from __future__ import annotations

import logging
from datetime import datetime

from llmcoder_tasks.database import Database
from llmcoder_tasks.errors import PromotionError
from llmcoder_tasks.progress import record_step
from llmcoder_tasks.records import MAX_COMMENT_CHARACTERS, VerdictRef

logger = logging.getLogger(__name__)


def record_approval(
    verdict: VerdictRef,
    *,
    approved: bool,
    answered_by: str,
    comment: str = "",
    answered_at: datetime | None = None,
    database: Database,
) -> None:
    """Keep who approved or refused to put the model of a verdict into service. The newest answer counts.

    The same answer by the same person twice in a row is kept once. `answered_at` is by default the moment it is kept. Raises
    PromotionError when there is no such verdict, or the comment is longer than 1,000 characters.
    """
    if len(comment) > MAX_COMMENT_CHARACTERS:
        raise PromotionError(f"a comment of {len(comment)} characters cannot be kept: write at most {MAX_COMMENT_CHARACTERS}")
    answer = {"approved": approved, "answered_by": answered_by, "comment": comment}
    with record_step(database, "record_approval", verdict.verdict_id), database.transaction() as transaction:
        if transaction.fetch_one("fetch_verdict", verdict_id=verdict.verdict_id) is None:
            raise PromotionError(f"there is no verdict {verdict.verdict_id}: judge the scorecard first")
        if transaction.fetch_one("fetch_newest_approval", verdict_id=verdict.verdict_id) == answer:
            logger.info("this answer on %s is already kept: nothing to do", verdict.verdict_id)
            return
        transaction.execute("record_approval", {"verdict_id": verdict.verdict_id, **answer, "answered_at": answered_at})
