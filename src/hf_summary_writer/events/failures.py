"""The log lines about a disk or device that fails, and the number of events that were lost."""

from __future__ import annotations

import threading

from hf_summary_writer.notices import logger, size


class WriteFailures:
    """The failing queues of one writer, its number of lost events, and its log lines about both.

    Args:
        max_pending_bytes: Limit that the message names.
    """

    def __init__(self, max_pending_bytes: int) -> None:
        self._max_pending_bytes = max_pending_bytes
        self._lock = threading.RLock()
        self._failing: set[int] = set()
        self._reported = self._sync_reported = self._device_reported = False
        # Two counters, since the writer thread must not take the lock.
        self._refused = 0
        self._lost = 0

    def reset(self) -> None:
        """Forget the parent's failures and locks, in a forked child."""
        self._lock = threading.RLock()
        self._failing.clear()

    @property
    def dropped(self) -> int:
        """Number of events that were never written."""
        return self._refused + self._lost

    @property
    def any_failing(self) -> bool:
        return bool(self._failing)

    def refuse_one(self) -> None:
        """Count an event that a caller could not add."""
        with self._lock:
            self._refused += 1

    def lose(self, events: int) -> None:
        """Count events that the writer thread could not write."""
        self._lost += events

    def is_failing(self, events: object) -> bool:
        return id(events) in self._failing

    def fail(self, events: object, error: OSError, directory: str) -> None:
        """Note that a queue cannot write, and log the first failure since the last recovery."""
        self._failing.add(id(events))
        if not self._reported:
            self._reported = True
            logger.error(
                "cannot write event files in %s: %s; events are kept in memory up to %s, then dropped; logging goes"
                " on once it can be written to",
                directory,
                error,
                size(self._max_pending_bytes),
            )

    def forget(self, events: object) -> None:
        self._failing.discard(id(events))

    def report_sync(self, error: OSError, directory: str) -> None:
        """Log the first failing fsync. Written events stay in the file, and later events are still written."""
        if not self._sync_reported:
            self._sync_reported = True
            logger.warning(
                "cannot sync event files in %s to disk: %s; events are written, but the latest ones may not survive a"
                " power failure",
                directory,
                error,
            )

    def report_device(self, error: Exception, directory: str) -> None:
        """Log the first value that could not be read: an error of a device tends to stay."""
        if not self._device_reported:
            self._device_reported = True
            logger.error("values of %s could not be read from the device and are dropped: %s", directory, error)

    def recover(self, events: object, directory: str) -> None:
        """Note that a queue can write, and log the end of the failure if it was the last one."""
        self._failing.discard(id(events))
        if self._reported and not self._failing:
            self._reported = False
            logger.warning("event files in %s are written again; events dropped: %d", directory, self.dropped)
