"""The wait for the last push of a folder, and the files that are missing at the end."""

from __future__ import annotations

import logging
import queue
import sys
import threading
import time
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TYPE_CHECKING, Any

from hf_summary_writer.notices import amount, announce, in_notebook, logger, shown_path

if TYPE_CHECKING:
    from concurrent.futures import Future

    from huggingface_hub import CommitInfo

    from hf_summary_writer.folder import Pending
    from hf_summary_writer.push.job import Job


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


def _count(job: Job, seconds: float, *, refreshes: bool = False) -> Pending | None:
    """Return the missing files, or `None` if they cannot be counted within `seconds`.

    A thread counts them, which is abandoned when it takes too long: the disk may hang.
    """
    if any(thread.is_alive() for thread in _late):
        return None
    until = time.monotonic() + seconds
    counted: queue.SimpleQueue[Pending] = queue.SimpleQueue()

    def pending() -> Pending:
        if refreshes:
            job.refresh()
        return job.inventory.pending(until)

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
        job: The push of the folder.

    Attributes:
        remaining: The rest of this time limit.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._began = time.time()
        self.remaining: float = job.config.close_timeout
        self._said_all = self._said_uncounted = self._said_late = False

    def begin_anew(self) -> None:
        """Reset the time limit, because the run continues; its next end is told again."""
        self.remaining = self._job.config.close_timeout
        self._said_all = False

    def skip_wait(self) -> None:
        """Wait no more."""
        self.remaining = 0.0

    def name_late_data(self, *, refreshes: bool = True) -> None:
        """Name, once, the data that was logged after the last push of the process, unless an owner above uploads it.

        Args:
            refreshes: Whether to re-read the ledger, for the uploads of other processes.
        """
        if self._job.owner_above is None and not self._said_late:
            pending = _count(self._job, _SECONDS_TO_COUNT, refreshes=refreshes)
            self._said_late = pending is None or pending.missing > 0
            if self._said_late:
                self._say_what_is_missing(pending)

    def await_last(self, future: Future[CommitInfo | None], deadline: float, *, away: bool) -> None:
        """Wait for the last push, and log its result in one line.

        Args:
            future: The last push.
            deadline: Until when to wait, on the monotonic clock.
            away: Whether nothing is pushed from this process, since it is offline; only then others may re-read the
                ledger than the thread that pushes.

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
            pending = _count(self._job, max(_SECONDS_TO_COUNT, deadline - time.monotonic()), refreshes=away)
            # By the deadline: the waits for other folders before this one are part of the same exit.
            self.remaining = min(self.remaining, max(0.0, deadline - time.monotonic()))
            if away or not _wait(future, 0) or future.exception() is not None:
                self._say_what_is_missing(pending)
            else:
                self._say_what_arrived(pending)

    def _explain_the_wait(self, seconds: float) -> None:
        pending = _count(self._job, min(_SECONDS_TO_COUNT, seconds))
        logger.log(
            # Not a problem, but a user at a terminal should know the reason of the wait.
            logging.WARNING if _is_watched() else logging.INFO,
            "Pushing %s of %s to %s, for at most %.0f s; Ctrl-C skips the wait, a second one interrupts the program",
            "files" if pending is None else amount(pending.files, pending.bytes),
            self._job.folder,
            self._job.remote.repo_id,
            seconds,
        )

    def _say_what_arrived(self, pending: Pending | None) -> None:
        if pending is not None and (pending.refused or (pending.files and self._job.left_behind)):
            self._say_what_is_missing(pending)
        elif self._has_uploaded and self._job.announces and not self._said_all:
            # Another process may still write; this process only uploads data from before its last push.
            self._said_all = pending is not None and pending.nothing
            what = "All of" if self._said_all and not self._job.has_lost else "All that the last push found of"
            announce("%s %s is at %s", what, shown_path(self._job.folder), self._job.url)

    @property
    def _has_uploaded(self) -> bool:
        """Whether something of the folder was uploaded since this object exists."""
        commit = self._job.ledger.commit
        return commit is not None and commit.time >= self._began

    def _say_what_is_missing(self, pending: Pending | None) -> None:
        command = self._job.sync_command
        self._job.report.told_at = time.monotonic()
        if pending is None or (pending.unlisted and not pending.missing):
            if not self._said_uncounted:
                self._said_uncounted = True
                logger.warning(
                    "Not all of %s is in %s: its files could not be counted. To send the rest: %s",
                    self._job.folder,
                    self._job.remote.repo_id,
                    command,
                )
        elif pending.missing and pending != _named.get(command):
            _named[command] = pending
            logger.warning(
                "Not all of %s is in %s yet: %s missing%s. To send the rest: %s",
                self._job.folder,
                self._job.remote.repo_id,
                amount(pending.missing, pending.bytes),
                f", {pending.refused} of which it did not take" if pending.refused else "",
                command,
            )


def _is_watched() -> bool:
    """Return whether a user may be waiting at a terminal or a notebook."""
    if in_notebook():
        return True
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):  # there is none, or it is closed
        return False
