"""`Ticket`: what those who wait for the disk wait for."""

from __future__ import annotations

import contextlib
import threading

__all__ = ["Ticket"]


class Ticket:
    """Something that one thread waits for and another releases; safe to use in a signal handler.

    Attributes:
        closes: Whether it asks for the file to be closed.
        met: Whether all that it stands for has been done, so that it will not be released again.
    """

    __slots__ = ("_lock", "_released", "closes", "met")

    def __init__(self, *, closes: bool = False) -> None:
        self.closes = closes
        self.met = False
        self._released = False
        self._lock = threading.Lock()
        self._lock.acquire()

    def release(self) -> None:
        """Let all who wait go on; a second time does nothing."""
        self._released = True
        with contextlib.suppress(RuntimeError):
            self._lock.release()

    def renew(self) -> None:
        """Make all who come from now on wait for another release."""
        self._released = False
        self._lock.acquire(blocking=False)

    def wait(self, seconds: float) -> bool:
        """Return whether the ticket was released, within `seconds`."""
        # First of all: a signal handler may wait where its own thread has got the lock below and not yet let go of it.
        if self._released:
            return True
        if not self._lock.acquire(timeout=seconds):
            return False
        if not self._released:  # renewed meanwhile, and now it is held again as it should be
            return False
        with contextlib.suppress(RuntimeError):
            self._lock.release()
        return True
