"""Every error that LLMCoder raises on purpose.

    LLMCoderError
    ├── SettingsError            a setting is missing or malformed
    ├── ServiceError             an embedded service did not start, stop or answer
    ├── DatabaseError            the results database refused a statement
    │   └── DatabaseUnreachable  no connection: worth a retry
    ├── StorageError             the artifact store refused a request
    │   ├── StorageUnreachable   no connection: worth a retry
    │   ├── ArtifactMissing      there is nothing under that key
    │   └── PointerMoved         a conditional write lost the race
    ├── ReleaseError             a release file cannot be trusted
    │   └── ReleaseConflict      the same release is already loaded with other content
    ├── DatasetError             examples could not be made or read
    │   └── ExpectationsFailed   a Great Expectations suite found broken rows
    ├── LanguageModelError       the server of a language model refused a request
    │   ├── LanguageModelUnreachable  no answer, or too many requests: worth a retry
    │   ├── QuestionRefused      one question was refused, others may be answered
    │   └── NotOffered           the server has no such service, or not for this key
    ├── WorkPending              a server is still at work: the same call later finds it done
    ├── RecipeError              a recipe is malformed
    ├── TrainingError            a training run did not reach its end
    │   └── TrainingInterrupted  its processes were ended from outside: worth a retry, which goes on from the last checkpoint
    ├── ModelError               a model folder is incomplete, altered or does not fit
    ├── EvaluationError          a suite cannot be judged
    ├── PromotionError           a model may not go into service
    ├── NoteError                an encounter or a discharge summary cannot be read
    ├── ExportError              an export is not what it should be
    └── ReviewError              a write to a review is refused
        └── ReviewTaken          somebody else holds it, or wrote to it meanwhile

A message says what is wrong, which value, and what to do. It never holds patient text. `retryable` tells the scheduler whether the
same call may succeed later; bad input is never retryable.
"""

from __future__ import annotations

import traceback
from typing import Literal


class LLMCoderError(Exception):
    """Base of all errors with a message for the operator."""

    retryable: bool = False


class SettingsError(LLMCoderError):
    """A setting is missing or malformed."""


class ServiceError(LLMCoderError):
    """An embedded service did not start, stop or answer."""


class DatabaseError(LLMCoderError):
    """The results database refused a statement."""


class DatabaseUnreachable(DatabaseError):
    """No connection to the results database."""

    retryable = True


class StorageError(LLMCoderError):
    """The artifact store refused a request."""


class StorageUnreachable(StorageError):
    """No connection to the artifact store."""

    retryable = True


class ArtifactMissing(StorageError):
    """There is nothing under that key."""


class PointerMoved(StorageError):
    """A conditional write found another value than the one it was to replace."""


class ReleaseError(LLMCoderError):
    """A release file cannot be trusted: the whole release is refused.

    Attributes:
        file: name of the file, or "" when the fault is in the set of files.
        line: 1-based line number, or 0 when the fault is not in one line.
    """

    def __init__(self, reason: str, *, file: str = "", line: int = 0) -> None:
        self.file = file
        self.line = line
        place = ":".join(part for part in (file, str(line) if line else "") if part)
        super().__init__(f"{place}: {reason}" if place else reason)


class ReleaseConflict(ReleaseError):
    """The same release key is already loaded with other content."""


class DatasetError(LLMCoderError):
    """Examples could not be made or read."""


class ExpectationsFailed(DatasetError):
    """A Great Expectations suite found broken rows."""


class LanguageModelError(LLMCoderError):
    """The server of a language model refused a request."""


class LanguageModelUnreachable(LanguageModelError):
    """The server of a language model gave no answer, or had too many requests."""

    retryable = True


class QuestionRefused(LanguageModelError):
    """The server of a language model refused one question: too long, or not to its liking. Others may be answered."""


class NotOffered(LanguageModelError):
    """The server has no such service, or keeps it from this key."""


class WorkPending(LLMCoderError):
    """A server is still at work on what was asked of it: the same call finds the result later, and asks for nothing twice.

    Attributes:
        kind: `job` (fine-tuning) or `batch`.
        work_id: its id at the server.
    """

    retryable = True

    def __init__(self, kind: Literal["job", "batch"], work_id: str, message: str) -> None:
        self.kind = kind
        self.work_id = work_id
        super().__init__(message)


class RecipeError(LLMCoderError):
    """A recipe is malformed."""


class TrainingError(LLMCoderError):
    """A training run did not reach its end."""


class TrainingInterrupted(TrainingError):
    """The processes of a training run were ended from outside; a retry goes on from the last checkpoint."""

    retryable = True


class ModelError(LLMCoderError):
    """A model folder is incomplete, altered or does not fit."""


class EvaluationError(LLMCoderError):
    """A suite cannot be judged."""


class PromotionError(LLMCoderError):
    """A model may not go into service."""


class NoteError(LLMCoderError):
    """An encounter or a discharge summary cannot be read."""


class ExportError(LLMCoderError):
    """An export is not what it should be."""


class ReviewError(LLMCoderError):
    """A write to a review is refused."""


class ReviewTaken(ReviewError):
    """Somebody else holds the review, or wrote to it since it was read."""


def describe_place(error: Exception) -> str:
    """Type of an error that nobody expected, and where it was raised: all that may be told where its message may quote a note."""
    frames = [f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in traceback.extract_tb(error.__traceback__)]
    return f"{type(error).__name__}, its message withheld because it may quote a note, at " + " < ".join(reversed(frames))
