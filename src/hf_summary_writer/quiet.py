"""A switch that is off for as long as anybody wants it off."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Protocol

from hf_summary_writer.process import tell_after_fork

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Quiet", "Switch"]


class Switch(Protocol):
    """Something of the whole process that is on or off."""

    def is_on(self) -> bool:
        """Tell whether it is on."""

    def turn(self, on: bool) -> None:
        """Turn it on or off."""


class Quiet:
    """Turns a switch off while anybody is inside a `with` block of it, and then as it was. Thread-safe.

    Args:
        switch: The switch.
    """

    def __init__(self, switch: Switch) -> None:
        """Turn nothing yet."""
        self._switch = switch
        self._lock = threading.Lock()
        self._inside = 0
        self._turned = False
        tell_after_fork(self)

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """Be inside."""
        with self._lock:
            self._inside += 1
            if self._inside == 1 and self._switch.is_on():
                self._switch.turn(False)
                self._turned = True
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if not self._inside:
                    self._turn_back()

    def after_fork_in_child(self) -> None:
        """Forget who was inside: they are not in the child."""
        self._lock = threading.Lock()
        self._inside = 0
        self._turn_back()

    def _turn_back(self) -> None:
        if self._turned:
            self._turned = False
            self._switch.turn(True)
