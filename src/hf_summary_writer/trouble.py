"""Says when trouble with pushing starts, when it changes and when it ends, and is quiet in between."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from hf_summary_writer.errors import InterruptedPushError, PushError, RepoGoneError

if TYPE_CHECKING:
    from pathlib import Path

    from hf_summary_writer.details import CommitDetails

__all__ = ["Once", "Trouble"]

logger = logging.getLogger("hf_summary_writer")

# Of so many files a user wants to know by name that something is wrong with them; more only hide other lines.
_NAMED = 10


class Trouble:
    """Counts the failures in a row of pushing one folder, and logs what a user should know of them.

    Not thread-safe: pushes of one folder come one after the other.

    Args:
        folder: The folder, for the messages.
    """

    def __init__(self, folder: Path) -> None:
        """Begin without trouble."""
        self._folder = folder
        # Kinds of errors that take turns would otherwise be as loud as none that is new.
        self._said: set[type[BaseException]] = set()
        self._since = 0.0
        self._failures = 0
        self._files = self._bytes = 0

    def failed(self, error: BaseException, repo_id: str) -> int:
        """Log a failure, unless it only repeats the one before; return how many there were in a row."""
        self._failures += 1
        expected = isinstance(error, PushError)
        said = str(error) if expected else f"{type(error).__name__}: {error}"
        # Whoever leaves says what is missing and how to send it.
        if type(error) in self._said or isinstance(error, InterruptedPushError):
            logger.debug("%s is still not pushed to %s: %s", self._folder, repo_id, said)
            return self._failures
        if not self._said:
            self._since = time.monotonic()
        self._said.add(type(error))
        logger.log(
            logging.ERROR if isinstance(error, RepoGoneError) else logging.WARNING,
            "%s could not be pushed to %s: %s. Nothing is lost, and it is tried again",
            self._folder,
            repo_id,
            said,
            # What is not an expected error is a bug, here or in an override, and needs its traceback.
            exc_info=None if expected else error,
        )
        return self._failures

    def delivered(self, details: CommitDetails) -> None:
        """Count what a commit brought since the trouble began."""
        if self._said:
            self._files += details.files
            self._bytes += details.bytes

    def passed(self, repo_id: str) -> None:
        """Log that the trouble is over, if there was any."""
        if self._said:
            logger.info(
                "%s is pushed to %s again, after %.0f s and %d failed attempts: %d files (%.1f MB)",
                self._folder,
                repo_id,
                time.monotonic() - self._since,
                self._failures,
                self._files,
                self._bytes / 1e6,
            )
        self._said.clear()
        self._failures = self._files = self._bytes = 0


class Once:
    """Logs each warning once, and of many alike only the first few.

    Not thread-safe, which costs at most a line that stands twice.
    """

    def __init__(self) -> None:
        """Have said nothing yet."""
        self._said: dict[str, set[str]] = {}

    def warn(self, kind: str, message: str, about: str = "") -> None:
        """Log `message`, unless one of this `kind` was logged `about` the same thing, or about many."""
        said = self._said.setdefault(kind, set())
        if about in said or len(said) > _NAMED:
            return
        said.add(about)
        if len(said) > _NAMED:
            message = f"{message}; more like it are not named"
        logger.warning("%s", message)
