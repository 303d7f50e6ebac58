"""Log lines about pushes, and the hooks that receive the same."""

from __future__ import annotations

import logging
import math
import threading
import time
from typing import TYPE_CHECKING, TypeVar

from hf_summary_writer.errors import (
    ErrorDetails,
    InterruptedPushError,
    PushError,
    RepoGoneError,
    UnwrittenError,
    describe,
)
from hf_summary_writer.notices import amount, announce, interval, logger, shown_path

if TYPE_CHECKING:
    from collections.abc import Callable

    from hf_summary_writer.errors import CommitDetails
    from hf_summary_writer.push.job import Job

T = TypeVar("T")


class PushReport:
    """Tells the user of the pushes of one folder, in log lines and by hooks.

    Only the thread that pushes uses it, except for `announce`.

    Args:
        job: The push of the folder.

    Attributes:
        told_at: When the files that are missing were named last, on the monotonic clock.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._announced = False
        self.told_at: float = -math.inf
        # Since the last success: all kinds of failures, since those that alternate would otherwise be logged each time,
        # when they began, how many there were, and what was uploaded in spite of them.
        self._said: set[type[BaseException]] = set()
        self._since = 0.0
        self._failures = self._files = self._bytes = 0

    def announce(self) -> None:
        """Announce once where the logs can be seen."""
        job = self._job
        if job.announces and not self._announced:
            self._announced = True
            announce("%s → %s (every %s)", shown_path(job.folder), job.url, interval(job.config.minutes))

    def committed(self, details: CommitDetails) -> None:
        """Report a commit."""
        logger.info(
            "Uploaded %s of %s to %s in %.1f s: %s",
            amount(details.files, details.bytes),
            details.folder,
            details.repo_id,
            details.seconds,
            details.url,
        )
        self.announce()
        if self._said:
            self._files += details.files
            self._bytes += details.bytes
        call_hook(self._job.config.on_commit, details)

    def ended(self, error: BaseException | None) -> None:
        """Report the end of a push, with `error` if it failed."""
        job = self._job
        if error is None:
            self._log_recovery()
            return
        self._failures += 1
        self._log_failure(error)
        call_hook(job.config.on_error, ErrorDetails(job.remote.repo_id, job.folder, error, self._failures))

    def _log_failure(self, error: BaseException) -> None:
        """Log a failure; one that repeats an earlier one, or that other lines are about, for debugging only."""
        job, expected = self._job, isinstance(error, PushError)
        said = str(error) if expected else f"{type(error).__name__}: {describe(error)}"
        # The message at shutdown names the missing files and the command, and the writer the failure of the disk. A
        # push that began before that message is not tried again.
        is_named = isinstance(error, (InterruptedPushError, UnwrittenError)) or job.began < self.told_at
        if is_named or type(error) in self._said:
            logger.debug("%s is still not pushed to %s: %s", job.folder, job.remote.repo_id, said)
            return
        if not self._said:
            self._since = time.monotonic()
        self._said.add(type(error))
        logger.log(
            logging.ERROR if isinstance(error, RepoGoneError) else logging.WARNING,
            "%s could not be pushed to %s: %s. The data is safe on disk, and the push is retried",
            job.folder,
            job.remote.repo_id,
            said.rstrip("."),
            # An unexpected error is a bug, here or in an override, and needs its traceback.
            exc_info=None if expected else error,
        )

    def _log_recovery(self) -> None:
        if self._said:
            logger.info(
                "%s is pushed to %s again, after %.0f s and %d failed attempts: %s",
                self._job.folder,
                self._job.remote.repo_id,
                time.monotonic() - self._since,
                self._failures,
                amount(self._files, self._bytes),
            )
        self._said.clear()
        self._failures = self._files = self._bytes = 0


def call_hook(hook: Callable[[T], object] | None, details: T) -> None:
    """Call a user's hook; its exceptions are logged."""
    if hook is not None:
        try:
            hook(details)
        except BaseException as error:  # also SystemExit: the thread lives on
            if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
                raise  # Ctrl-C during a `sync`
            logger.exception("A hook of hf_summary_writer failed; nothing else is affected")
