"""Switches of the client, which are those of the whole process, for `with` blocks of single threads."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

from hf_summary_writer.process import tell_after_fork

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class ClientSwitch:
    """Keeps a switch of the client off while any thread is inside a `with` block of it. Thread-safe.

    Args:
        is_on: Returns whether it is on.
        turn: Turns it on or off.
    """

    def __init__(self, is_on: Callable[[], bool], turn: Callable[[bool], None]) -> None:
        self._is_on = is_on
        self._turn = turn
        self._lock = threading.Lock()
        self._inside = 0
        # Whether the last `with` block turns it on again.
        self._was_on = False
        tell_after_fork(self)

    @contextlib.contextmanager
    def off(self) -> Iterator[None]:
        """Keep it off in the `with` block."""
        with self._lock:
            self._inside += 1
            if self._is_on():
                self._turn(False)
                self._was_on = True
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if not self._inside:
                    self._turn_on_again()

    def off_for_good(self) -> bool:
        """Turn it off, also after the `with` blocks; return whether it was on."""
        with self._lock:
            was_on = self._was_on or self._is_on()
            self._was_on = False
            self._turn(False)
            return was_on

    def after_fork_in_child(self) -> None:
        """Forget the `with` blocks, whose threads are those of the parent."""
        self._lock = threading.Lock()
        self._inside = 0
        self._turn_on_again()

    def _turn_on_again(self) -> None:
        if self._was_on:
            self._was_on = False
            self._turn(True)
