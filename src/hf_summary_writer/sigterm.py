"""Opt-in: a last push when the process is asked to end by SIGTERM, which by itself runs no code of Python's exit.

The handler only puts a mark into a queue and calls the handler that was there before; a thread of its own does the
rest, so that it does not matter what the main thread is in the middle of. The process then ends as after the signal,
without `finally` and `atexit`, but with 143 as its exit code, which is what a shell reports for the signal.

Whoever had a handler of his own meant to end the program in his own way: he gets all of the grace time for that.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, Protocol

from hf_summary_writer import process

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["EXIT_CODE", "SigtermAware", "check_push_on_sigterm", "watch"]

EXIT_CODE = 128 + 15


class SigtermAware(Protocol):
    """Has something to finish when SIGTERM comes."""

    close_timeout: float

    def at_sigterm(self) -> Callable[[bool], None]:
        """Begin to finish without waiting; return what waits for the end, within `close_timeout` seconds."""


def check_push_on_sigterm(push_on_sigterm: object) -> bool:
    """Return `push_on_sigterm` if the calling thread may have its way with signals."""
    if not isinstance(push_on_sigterm, bool):
        raise TypeError(f"push_on_sigterm must be a bool, not {type(push_on_sigterm).__name__}")
    if push_on_sigterm:
        before = signal.getsignal(signal.SIGTERM)
        if before is None:
            raise ValueError("push_on_sigterm=True: SIGTERM has a handler that is not Python's and cannot be kept")
        try:
            signal.signal(signal.SIGTERM, before)
        except ValueError:
            raise ValueError(
                "push_on_sigterm=True needs the main thread of the main interpreter: only there can Python set a "
                "handler of a signal"
            ) from None
    return push_on_sigterm


class _Watch:
    """The handler of this process, and the thread that does what it asks for; both are there while somebody is."""

    def __init__(self) -> None:
        self._reset()
        process.tell_after_fork(self)

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._members: weakref.WeakSet[Any] = weakref.WeakSet()
        # Its `put` may be called in a handler, whatever that interrupts.
        self._marks: queue.SimpleQueue[float | None] | None = None
        self._before: Any = signal.SIG_DFL
        self._ends_by_itself = False

    def add(self, member: SigtermAware) -> None:
        """Have `member` finish when SIGTERM comes; only in the main thread.

        Raises:
            ValueError: If this is not the main thread of the main interpreter.
            RuntimeError: If no thread can be started any more.
        """
        with self._lock:
            installed = signal.getsignal(signal.SIGTERM)
            if installed != self._handle:
                signal.signal(signal.SIGTERM, self._handle)
                self._before = installed
            if self._marks is None:
                marks: queue.SimpleQueue[float | None] = queue.SimpleQueue()
                threading.Thread(target=self._run, args=(marks,), name="hf-summary-writer-sigterm", daemon=True).start()
                self._marks = marks
            self._members.add(member)

    def remove(self, member: SigtermAware) -> None:
        """Leave `member` alone; with the last one the handler that was there before comes back."""
        with self._lock:
            self._members.discard(member)
            if self._members or self._marks is None:
                return
            self._marks.put(None)
            self._marks = None
            self._put_back()

    def after_fork_in_child(self) -> None:
        """Let the child end as it would without us: whoever started it may count on SIGTERM to end it."""
        self._put_back()
        self._reset()

    def _put_back(self) -> None:
        # In other threads it stays, and does what the one before would do.
        if signal.getsignal(signal.SIGTERM) == self._handle:
            with contextlib.suppress(ValueError):
                signal.signal(signal.SIGTERM, self._before)

    def _handle(self, number: int, frame: Any) -> None:
        marks = self._marks if self._pid == os.getpid() else None
        if marks is not None:
            marks.put(time.monotonic())
        if callable(self._before):
            try:
                self._before(number, frame)
            except BaseException:
                self._ends_by_itself = True
                raise
        elif marks is None and self._before is signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def _run(self, marks: queue.SimpleQueue[float | None]) -> None:
        while (came := marks.get()) is not None:
            members = list(self._members)
            grace = came + max((member.close_timeout for member in members), default=0.0)
            waits: list[Callable[[bool], None]] = []
            for member in members:
                with contextlib.suppress(Exception):
                    waits.append(member.at_sigterm())
            for wait in waits:
                with contextlib.suppress(Exception):
                    wait(False)
            if self._before is signal.SIG_IGN:
                continue
            if callable(self._before):
                time.sleep(max(0.0, grace - time.monotonic()))
            if not self._ends_by_itself:
                os._exit(EXIT_CODE)


watch = _Watch()
