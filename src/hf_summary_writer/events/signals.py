"""Signals that threads wait for, also in a signal handler."""

from __future__ import annotations

import queue


class Signal:
    """An event that a signal handler may wait for.

    `threading.Event` is not one: a handler that interrupts its `wait` can hold the lock that `set` needs.
    """

    __slots__ = ("_released", "is_set")

    def __init__(self) -> None:
        self.is_set: bool = False
        self._released: queue.SimpleQueue[None] = queue.SimpleQueue()

    def set(self) -> None:
        self.is_set = True
        self._released.put(None)

    def wait(self, seconds: float) -> bool:
        # The flag first: a signal handler may run between the `get` and the `put` of the thread that it interrupts.
        if not self.is_set:
            try:
                self._released.get(timeout=seconds)
            except queue.Empty:
                return False
            self._released.put(None)
        return True


class FlushRequest(Signal):
    """An item of a queue that asks for all earlier events to be on disk."""

    __slots__ = ("closes",)

    def __init__(self, *, closes: bool = False) -> None:
        super().__init__()
        self.closes: bool = closes
