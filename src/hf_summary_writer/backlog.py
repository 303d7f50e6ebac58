"""What one writer may hold in memory, who waits for room in it, and what is lost when the disk fails."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hf_summary_writer.ticket import Ticket

__all__ = ["Backlog"]

_logger = logging.getLogger(__name__)

_SCALAR_BYTES = 192
"""What a pending scalar takes in memory: the tuple and its three numbers, rounded up."""


class Backlog:
    """What all streams of one writer may hold in memory, and what became of it when the disk failed.

    Callers count what comes in, under a lock; the drain counts what goes out, alone. So the drain never waits for a
    caller, who may be a thread whose signal handler waits for the drain.

    Args:
        max_bytes: The bound; a caller that meets it waits for the disk, or drops its event if the disk fails.

    Attributes:
        limit: Number of items that each stream may hold at the moment.
        waiting: Tickets of callers that wait for room.
        in_trouble: Whether a write has failed and none was a success since.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._streams: set[int] = set()
        self._failing: set[int] = set()
        self.in_trouble = False
        self._refused = 0
        self._lost = 0
        self.forget()

    @property
    def dropped(self) -> int:
        """Number of events that were never written."""
        return self._refused + self._lost

    def forget(self) -> None:
        """In a forked child: hold nothing, and take fresh locks."""
        self._lock = threading.RLock()
        self.waiting: deque[Ticket] = deque()
        self._failing.clear()
        self._came = self._went = 0
        self.limit = self.share()

    def join(self, stream: object) -> None:
        """Share the bound with one more stream."""
        self._streams.add(id(stream))
        self.limit = self.share()

    def leave(self, stream: object) -> None:
        """Share the bound with one stream less."""
        self._streams.discard(id(stream))
        self.limit = self.share()

    @property
    def is_held(self) -> bool:
        """Whether a stream cannot write what it holds, so that room may never come."""
        return bool(self._failing)

    def fail(self, stream: object) -> None:
        """Note that a stream cannot write what it holds."""
        self._failing.add(id(stream))

    def go_on(self, stream: object) -> None:
        """Note that a stream can write again, or holds nothing any more."""
        self._failing.discard(id(stream))

    def hold(self, nbytes: int) -> None:
        """Count bytes that a caller brings."""
        with self._lock:
            self._came += nbytes
        self.limit = self.share()

    def refuse(self) -> None:
        """Count an event that a caller could not bring."""
        with self._lock:
            self._refused += 1

    def give_back(self, nbytes: int) -> None:
        """Count bytes that the drain is done with."""
        self._went += nbytes
        self.limit = self.share()

    def lose(self, events: int) -> None:
        """Count events that the drain could not write."""
        self._lost += events

    def let_in(self) -> None:
        """Let those who wait for room look again."""
        with contextlib.suppress(IndexError):
            while True:
                self.waiting.popleft().release()

    def report(self, error: OSError, directory: str) -> None:
        """Say once that the disk is in trouble."""
        if not self.in_trouble:
            self.in_trouble = True
            _logger.error(
                "cannot write event files in %s: %s; events are kept in memory up to %d bytes, then dropped; logging"
                " goes on when there is space again",
                directory,
                error,
                self._max_bytes,
            )

    def recover(self, directory: str) -> None:
        """Say once that the disk is well again."""
        if self.in_trouble and not self.is_held:
            self.in_trouble = False
            _logger.warning("event files in %s are written again; %d events were dropped", directory, self.dropped)

    def share(self) -> int:
        """Return `limit` as it should be now."""
        held = self._came - self._went
        room = (self._max_bytes - held) // (_SCALAR_BYTES * max(len(self._streams), 1))
        # However small the bound, one item must get through when nothing else is held.
        return room if held > 0 else max(room, 1)
