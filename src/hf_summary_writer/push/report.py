"""Log lines about pushes: failures, recovery, and the files that are missing at the end."""

from __future__ import annotations

import logging
import math
import queue
import sys
import threading
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TYPE_CHECKING, Any

from hf_summary_writer.errors import InterruptedPushError, PushError, RepoGoneError, UnwrittenError, describe
from hf_summary_writer.notices import amount, announce, in_notebook, logger, shown_path

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from huggingface_hub import CommitInfo

    from hf_summary_writer.errors import CommitDetails
    from hf_summary_writer.folder import Inventory, Ledger, Pending

__all__ = ["FailureLog", "Shutdown"]


class FailureLog:
    """Counts the consecutive failures of pushing one folder, and logs those that a user should know of.

    Not thread-safe: pushes of one folder come one after the other.

    Args:
        folder: The folder, for the messages.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # All kinds since the last success: errors that alternate would otherwise be logged each time.
        self._said: set[type[BaseException]] = set()
        self._since = 0.0
        self._failures = 0
        self._files = self._bytes = 0

    def failed(self, error: BaseException, repo_id: str, *, left_behind: bool = False) -> int:
        """Log a failure and return how many there were in a row.

        A failure that repeats the one before is logged for debugging only, and so is that of a push that was
        `left_behind`: it is not tried again, and the line about missing files has named the remedy.
        """
        self._failures += 1
        expected = isinstance(error, PushError)
        said = str(error) if expected else f"{type(error).__name__}: {describe(error)}"
        # The message at shutdown names the missing files and the command, and the writer the failure of the disk.
        if left_behind or type(error) in self._said or isinstance(error, (InterruptedPushError, UnwrittenError)):
            logger.debug("%s is still not pushed to %s: %s", self._folder, repo_id, said)
            return self._failures
        if not self._said:
            self._since = time.monotonic()
        self._said.add(type(error))
        logger.log(
            logging.ERROR if isinstance(error, RepoGoneError) else logging.WARNING,
            "%s could not be pushed to %s: %s. The data is safe on disk, and the push is retried",
            self._folder,
            repo_id,
            said.rstrip("."),
            # An unexpected error is a bug, here or in an override, and needs its traceback.
            exc_info=None if expected else error,
        )
        return self._failures

    def delivered(self, details: CommitDetails) -> None:
        """Count the uploaded files and bytes since the first failure."""
        if self._said:
            self._files += details.files
            self._bytes += details.bytes

    def passed(self, repo_id: str) -> None:
        """Log that uploads work again, if they failed before."""
        if self._said:
            logger.info(
                "%s is pushed to %s again, after %.0f s and %d failed attempts: %s",
                self._folder,
                repo_id,
                time.monotonic() - self._since,
                self._failures,
                amount(self._files, self._bytes),
            )
        self._said.clear()
        self._failures = self._files = self._bytes = 0


def _wait(future: Future[Any], seconds: float) -> bool:
    """Wait for a future without raising its exception; return whether it is done."""
    try:
        future.exception(max(0.0, seconds))
    except FutureTimeoutError:
        return False
    return True


# The time limit for counting the missing files, on top of the wait for the last push.
_SECONDS_TO_COUNT = 0.5


# The thread that was abandoned last.
_late: list[threading.Thread] = []


def _count(inventory: Inventory, seconds: float, refresh: Callable[[], object] = lambda: None) -> Pending | None:
    """Call `refresh`, and return the missing files, or `None` if they cannot be counted within `seconds`.

    A thread counts them, which is abandoned when it takes too long: the disk may hang.
    """
    if any(thread.is_alive() for thread in _late):
        return None
    until = time.monotonic() + seconds
    counted: queue.SimpleQueue[Pending] = queue.SimpleQueue()

    def pending() -> Pending:
        refresh()
        return inventory.pending(until)

    thread = threading.Thread(target=lambda: counted.put(pending()), name="hf-summary-writer-count", daemon=True)
    try:
        if sys.is_finalizing():
            return pending()
        thread.start()
    except RuntimeError:  # some versions of Python start no thread once the interpreter exits
        return pending()
    try:
        return counted.get(timeout=seconds)
    except queue.Empty:
        _late[:] = [thread]
        return None


# The missing files of the last warning, by the command that sends them: several writers may have had the same folder.
_named: dict[str, Pending] = {}

# Seconds of waiting after which a message explains the wait.
_SECONDS_BEFORE_EXPLAINING = 1.0


class Shutdown:
    """Waits for the last push of one folder. `close` and both passes of an exit share one time limit.

    May be used from any thread.

    Args:
        folder: The folder.
        repo_id: Returns the repo, with its namespace once that is known from the Hub.
        url: Returns the page that shows the files.
        command: The command that sends the missing files, ready to paste into a shell.
        inventory: The inventory of the folder, which counts the missing files.
        ledger: Its ledger, which names the last commit, whichever writer or process made it.
        seconds: How long all the waits of one exit may take together.

    Attributes:
        remaining: The rest of this time limit.
        is_quiet: Whether to leave out the line about uploaded files.
        has_lost: Whether logged data did not get into the folder, as far as the last push knows.
        told_at: When the files that are missing were named last, on the monotonic clock.
    """

    def __init__(
        self,
        folder: Path,
        repo_id: Callable[[], str],
        url: Callable[[], str | None],
        command: str,
        inventory: Inventory,
        ledger: Ledger,
        seconds: float,
    ) -> None:
        self._folder = folder
        self._repo_id = repo_id
        self._url = url
        self._command = command
        self._inventory = inventory
        self._ledger = ledger
        self._began = time.time()
        self._seconds = seconds
        self.remaining: float = seconds
        self._said_all = self._said_uncounted = self._said_late = False
        self.is_quiet: bool = False
        self.has_lost: bool = False
        self.told_at: float = -math.inf

    def begin_anew(self) -> None:
        """Reset the time limit, because the run continues; its next end is told again."""
        self.remaining = self._seconds
        self._said_all = False

    def skip_wait(self) -> None:
        """Wait no more."""
        self.remaining = 0.0

    def name_late_data(self, refresh: Callable[[], object] = lambda: None) -> None:
        """Name, once, the data that was logged after the last push of the process.

        Args:
            refresh: Re-reads the ledger, for the uploads of other processes.
        """
        if not self._said_late:
            pending = _count(self._inventory, _SECONDS_TO_COUNT, refresh)
            self._said_late = pending is None or pending.missing > 0
            if self._said_late:
                self._say_what_is_missing(pending)

    def await_last(
        self,
        future: Future[CommitInfo | None],
        deadline: float,
        *,
        away: bool,
        refresh: Callable[[], object] = lambda: None,
    ) -> None:
        """Wait for the last push, and log its result in one line.

        Args:
            future: The last push.
            deadline: Until when to wait, on the monotonic clock.
            away: Whether nothing is pushed from this process, since it is offline.
            refresh: Re-reads the ledger, for the uploads of other processes.

        Raises:
            KeyboardInterrupt: If Ctrl-C was pressed during the wait, which it skips.
        """
        try:
            seconds = min(_SECONDS_BEFORE_EXPLAINING, deadline - time.monotonic())
            if not _wait(future, seconds) and time.monotonic() < deadline:
                self._explain_the_wait(deadline - time.monotonic())
                _wait(future, deadline - time.monotonic())
        except KeyboardInterrupt:
            self.skip_wait()
            raise
        finally:
            pending = _count(self._inventory, max(_SECONDS_TO_COUNT, deadline - time.monotonic()), refresh)
            # By the deadline: the waits for other folders before this one are part of the same exit.
            self.remaining = min(self.remaining, max(0.0, deadline - time.monotonic()))
            if away or not _wait(future, 0) or future.exception() is not None:
                self._say_what_is_missing(pending)
            else:
                self._say_what_arrived(pending)

    def _explain_the_wait(self, seconds: float) -> None:
        pending = _count(self._inventory, min(_SECONDS_TO_COUNT, seconds))
        logger.log(
            # Not a problem, but a user at a terminal should know the reason of the wait.
            logging.WARNING if _is_watched() else logging.INFO,
            "Pushing %s of %s to %s, for at most %.0f s; Ctrl-C skips the wait, a second one interrupts the program",
            "files" if pending is None else amount(pending.files, pending.bytes),
            self._folder,
            self._repo_id(),
            seconds,
        )

    def _say_what_arrived(self, pending: Pending | None) -> None:
        if pending is not None and (pending.refused or (pending.files and self._inventory.left_behind)):
            self._say_what_is_missing(pending)
        elif self._has_uploaded and not (self._said_all or self.is_quiet):
            # Another process may still write; this process only uploads data from before its last push.
            self._said_all = pending is not None and pending.nothing
            what = "All of" if self._said_all and not self.has_lost else "All that the last push found of"
            announce("%s %s is at %s", what, shown_path(self._folder), self._url())

    @property
    def _has_uploaded(self) -> bool:
        """Whether something of the folder was uploaded since this object exists."""
        commit = self._ledger.commit
        return commit is not None and commit.time >= self._began

    def _say_what_is_missing(self, pending: Pending | None) -> None:
        self.told_at = time.monotonic()
        if pending is None or (pending.unlisted and not pending.missing):
            if not self._said_uncounted:
                self._said_uncounted = True
                logger.warning(
                    "Not all of %s is in %s: its files could not be counted. To send the rest: %s",
                    self._folder,
                    self._repo_id(),
                    self._command,
                )
        elif pending.missing and pending != _named.get(self._command):
            _named[self._command] = pending
            logger.warning(
                "Not all of %s is in %s yet: %s missing%s. To send the rest: %s",
                self._folder,
                self._repo_id(),
                amount(pending.missing, pending.bytes),
                f", {pending.refused} of which it did not take" if pending.refused else "",
                self._command,
            )


def _is_watched() -> bool:
    """Return whether a user may be waiting at a terminal or a notebook."""
    if in_notebook():
        return True
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):  # there is none, or it is closed
        return False
