"""The limit on the memory of pending events."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hf_summary_writer.events.signals import Signal

_SCALAR_BYTES = 192

"""Memory of a pending scalar: the tuple and its three numbers, rounded up."""


class MemoryLimit:
    """The memory that the pending events of one writer may take, shared by its queues.

    Callers count acquired memory, under a lock; the writer thread alone counts released memory, without one. So the
    thread never waits for a caller, whose signal handler may be waiting for the thread.

    Attributes:
        items: Number of items that each queue may hold at the moment.
        waiting: Signals of callers that wait for room.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._queues: set[int] = set()
        self.reset()

    def reset(self) -> None:
        """Hold nothing and take fresh locks, in a forked child."""
        self._lock = threading.RLock()
        self.waiting: deque[Signal] = deque()
        self._acquired = self._released = 0
        self._acquired_on_device = self._released_on_device = 0
        self.items: int = self._items()

    def join(self, events: object) -> None:
        self._queues.add(id(events))
        self.items = self._items()

    def leave(self, events: object) -> None:
        self._queues.discard(id(events))
        self.items = self._items()

    def acquire(self, nbytes: int) -> None:
        """Count memory that a caller adds, without waiting: `EventQueue.wait_for_room` comes before."""
        with self._lock:
            self._acquired += nbytes
        self.items = self._items()

    def release(self, nbytes: int) -> None:
        """Count memory that the writer thread is done with."""
        self._released += nbytes
        self.items = self._items()

    def acquire_on_device(self, nbytes: int) -> bool:
        """Count device memory that a snapshot is about to take; return False if it is more than the limit allows."""
        with self._lock:
            if self._acquired_on_device - self._released_on_device + nbytes > self.max_bytes:
                return False
            self._acquired_on_device += nbytes
            return True

    def give_back_on_device(self, nbytes: int) -> None:
        """Count device memory that a caller has acquired and does not need, since its event is not added."""
        with self._lock:
            self._acquired_on_device -= nbytes

    def release_on_device(self, nbytes: int) -> None:
        """Count device memory that the writer thread is done with."""
        self._released_on_device += nbytes

    def wake_waiting(self) -> None:
        with contextlib.suppress(IndexError):
            while True:
                self.waiting.popleft().set()

    def _items(self) -> int:
        held = self._acquired - self._released
        room = (self.max_bytes - held) // (_SCALAR_BYTES * max(len(self._queues), 1))
        # However small the limit, one item must get through when nothing else is held.
        return room if held > 0 else max(room, 1)
