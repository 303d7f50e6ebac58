"""Errors of a push, and the details that hooks receive."""

from __future__ import annotations

import contextlib
import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "ActionNeededError",
    "BranchGoneError",
    "CommitDetails",
    "DeadlineError",
    "ErrorDetails",
    "FolderBusyError",
    "InterruptedPushError",
    "PostponedError",
    "PushError",
    "RateLimitError",
    "RejectedError",
    "RepoGoneError",
    "StallDetails",
    "TemporaryError",
    "UnreachableError",
    "UnwrittenError",
    "copy_of",
    "describe",
    "forget_frames",
]


T = TypeVar("T")


class PushError(Exception):
    """A push that did not upload everything; the rest stays on disk and is retried.

    Attributes:
        retry_after: Seconds that the Hub asked to wait, if it did.
        in_doubt: Whether a commit was asked for and not answered, so that the Hub may have made it, or may make it yet.
        is_outside_requests: Whether no request to the Hub failed, but something else of the client, such as an upload
            over Xet.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        """Create the error from one line with the problem and the remedy."""
        super().__init__(message)
        self.retry_after = retry_after
        self.in_doubt = False
        self.is_outside_requests = False


class TemporaryError(PushError):
    """An error that needs no action; a later push uploads the rest."""


class BranchGoneError(TemporaryError):
    """A branch with earlier commits was deleted; the next push recreates it and uploads all files."""


class FolderBusyError(TemporaryError):
    """Another process, or another scheduler of this one, is pushing the folder."""


class UnreachableError(TemporaryError):
    """No connection to the Hub: it was refused, there is no route, or the name is unknown.

    Attributes:
        was_reached: Whether the Hub answered this process before.
    """

    def __init__(self, message: str) -> None:
        """Create the error from one line that names the host."""
        super().__init__(message)
        self.was_reached: bool = False


class UnwrittenError(TemporaryError):
    """Some events logged before the push are not on the disk, which fails or hangs; the rest was pushed."""


class DeadlineError(TemporaryError):
    """The Hub did not answer in time."""


class InterruptedPushError(TemporaryError):
    """The time for the last push is over."""


class RateLimitError(TemporaryError):
    """A 429 Too Many Requests response, or a commit that would get one; `retry_after` is the wait in seconds.

    Attributes:
        commits_per_hour: The limit of commits that the response names, if it names one.
    """

    def __init__(
        self, message: str, *, retry_after: float | None = None, commits_per_hour: float | None = None
    ) -> None:
        """Create the error from one line that names the limit."""
        super().__init__(message, retry_after=retry_after)
        self.commits_per_hour = commits_per_hour


class ActionNeededError(PushError):
    """An error that needs action by the user; the message says which."""


class RepoGoneError(ActionNeededError):
    """A repo with earlier commits was deleted; it is not recreated unasked."""


class RejectedError(PushError):
    """The Hub rejects the content or the name of a file."""


class PostponedError(Exception):
    """The push waits for its turn in the budget of commits.

    Attributes:
        seconds: The estimated wait.
    """

    def __init__(self, message: str, seconds: float = 0.0) -> None:
        """Create the error from one line with the reason."""
        super().__init__(message)
        self.seconds = seconds


def describe(error: BaseException) -> str:
    """Return the message of an exception, or its type if the message cannot be shown."""
    try:
        return (str(error) if isinstance(error, Exception) else "") or repr(error)
    except Exception:  # noqa: BLE001 - the `__str__` or `__repr__` of a user's exception may raise anything
        return type(error).__name__


def copy_of(error: T) -> T:
    """Return a copy of an exception of this package; other exceptions, and those that cannot be copied, as they are.

    A receiver of a shared exception may change it, or raise it and so add frames to it.
    """
    if isinstance(error, (PushError, PostponedError)):
        with contextlib.suppress(Exception):  # the constructor of a user's subclass may take other arguments
            return copy.copy(error)
    return error


def forget_frames(error: BaseException) -> None:
    """Remove the tracebacks of an exception and its causes.

    For an exception that is kept: the frames of a push keep file contents in memory.
    """
    waiting: list[BaseException | None] = [error]
    seen: set[int] = set()
    while waiting:
        each = waiting.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            with contextlib.suppress(Exception):  # such as that of a frozen dataclass
                each.__traceback__ = None
            waiting += [each.__cause__, each.__context__]


@dataclass(frozen=True, slots=True)
class CommitDetails:
    """A commit on the Hub, or a batch of files for a bucket.

    Attributes:
        repo_id: The repo or bucket, with its namespace.
        folder: The folder on this disk that was pushed.
        oid: The commit's id; `None` for a bucket, which has no commits.
        url: The commit's page, or that of the bucket.
        files: How many files of the folder it brought up to date.
        bytes: How many bytes these files have; the client sends only those parts of them that the Hub lacks.
        seconds: How long it took, from reading the files to the Hub's answer.
    """

    repo_id: str
    folder: Path
    oid: str | None
    url: str
    files: int
    bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class StallDetails:
    """A run in which nothing was logged for long.

    Attributes:
        repo_id: The repo, as far as its name is known.
        folder: The logdir.
        seconds: How long ago something was logged last, or the writer was made.
    """

    repo_id: str
    folder: Path
    seconds: float


@dataclass(frozen=True, slots=True)
class ErrorDetails:
    """A failed push; its data is on disk, and a later push uploads it.

    Attributes:
        repo_id: The repo, as far as its name is known.
        folder: The folder on this disk that was to be pushed.
        error: The exception of the push; once the hook has returned, it loses its traceback.
        failures: How many pushes failed in a row, this one included.
    """

    repo_id: str
    folder: Path
    error: BaseException
    failures: int
