"""What the hooks of a scheduler are told. Frozen, so that no hook can change what the next one sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["CommitDetails", "ErrorDetails"]


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
