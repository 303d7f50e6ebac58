"""Errors of a push, and the details that hooks receive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

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
    "TemporaryError",
    "forget_frames",
]


class PushError(Exception):
    """A push did not deliver everything; what is missing stays on disk and is tried again.

    Attributes:
        retry_after: Seconds that the Hub asked to wait, if it did.
        in_doubt: Whether a commit was asked for and not answered, so that the Hub may have made it, or may make it yet.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        """Say in one line what went wrong and what to do."""
        super().__init__(message)
        self.retry_after = retry_after
        self.in_doubt = False


class TemporaryError(PushError):
    """Will go away by itself; a later push sends what this one did not."""


class BranchGoneError(TemporaryError):
    """A branch that took commits before does not exist any more; the next push makes it again and sends everything."""


class FolderBusyError(TemporaryError):
    """Another process, or another scheduler of this one, is pushing the folder."""


class DeadlineError(TemporaryError):
    """The Hub did not answer in time."""


class InterruptedPushError(TemporaryError):
    """There is no more time for the push, since the program is leaving."""


class RateLimitError(TemporaryError):
    """The Hub answered 429, or would; `retry_after` says how long it wants to be left alone.

    Attributes:
        commits_per_hour: How many commits the Hub said that it allows, if it spoke of commits.
    """

    def __init__(
        self, message: str, *, retry_after: float | None = None, commits_per_hour: float | None = None
    ) -> None:
        """Say in one line what is limited."""
        super().__init__(message, retry_after=retry_after)
        self.commits_per_hour = commits_per_hour


class ActionNeededError(PushError):
    """Does not go away by itself; the message says what the user can do."""


class RepoGoneError(ActionNeededError):
    """A repo that took commits before does not exist any more; it is never created again unasked."""


class RejectedError(PushError):
    """The Hub refuses the content or the name of a file."""


class PostponedError(Exception):
    """The push was not made, since the budget of commits gives others their turn first.

    Attributes:
        seconds: How long until it is this one's turn.
    """

    def __init__(self, message: str, seconds: float = 0.0) -> None:
        """Say in one line why there is a wait."""
        super().__init__(message)
        self.seconds = seconds


def forget_frames(error: BaseException) -> None:
    """Take the tracebacks off an exception and all that led to it, for one that is kept.

    The frames of a push hold what it was about to send.
    """
    waiting: list[BaseException | None] = [error]
    seen: set[int] = set()
    while waiting:
        each = waiting.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            each.__traceback__ = None
            waiting += [each.__cause__, each.__context__]


@dataclass(frozen=True, slots=True)
class CommitDetails:
    """A commit that the Hub has acknowledged.

    Attributes:
        repo_id: The repo, with its namespace.
        folder: The folder on this disk that was pushed.
        oid: The commit's id.
        url: The commit's page.
        files: How many files of the folder it brought up to date.
        bytes: How many bytes these files have; the client sends only those parts of them that the Hub lacks.
        seconds: How long it took, from reading the files to the Hub's answer.
    """

    repo_id: str
    folder: Path
    oid: str
    url: str
    files: int
    bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class ErrorDetails:
    """A push that failed; what it did not deliver is on disk and is sent by a later one.

    Attributes:
        repo_id: The repo, as far as its name is known.
        folder: The folder on this disk that was to be pushed.
        error: What it failed with; once the hook has returned, it loses its traceback.
        failures: How many pushes failed in a row, this one included.
    """

    repo_id: str
    folder: Path
    error: BaseException
    failures: int
