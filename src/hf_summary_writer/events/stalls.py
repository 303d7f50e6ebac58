"""The thread that notices when a writer has not been used for long.

It is a thread of its own, and runs only while a writer is watched: the thread that pushes may be busy for minutes and
does not run offline, and the one that writes must not wait for a user's function.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
import weakref
from collections.abc import Callable
from typing import Protocol

from hf_summary_writer import process

Tell = Callable[[float], None]

# Limits of the seconds between two checks, which are a tenth of the time that a writer may log nothing.
_SHORTEST, _LONGEST = 0.01, 5.0


class Watched(Protocol):
    """A writer that may stall."""

    @property
    def logged_events(self) -> int | None:
        """Number of events logged so far; `None` while it is closed."""


class _Silence:
    """Since when a writer logs nothing, and whether it was told."""

    def __init__(self, watched: Watched, seconds: float, tell: Tell, now: float) -> None:
        self.watched = weakref.ref(watched)
        self.seconds = seconds
        self.tell = weakref.WeakMethod(tell)
        self._logged = watched.logged_events
        self._since = now
        self._is_told = False

    def passed(self, logged: int, now: float) -> float | None:
        """Return the seconds of silence, once, when they reach the limit."""
        if logged != self._logged:
            self._logged, self._since, self._is_told = logged, now, False
        if self._is_told or now - self._since < self.seconds:
            return None
        self._is_told = True
        return now - self._since


class StallWatch:
    """A watch over writers: each is told when it has logged nothing for long, and again after it has gone on."""

    def __init__(self) -> None:
        self._reset()
        process.tell_after_fork(self)

    def _reset(self) -> None:
        # Reentrant, since a signal handler may make a writer, too.
        self._lock = threading.RLock()
        self._silences: dict[int, _Silence] = {}
        self._wakes: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def after_fork_in_child(self) -> None:
        """Watch no writer: the parent watches its own."""
        self._reset()

    def add(self, watched: Watched, seconds: float, tell: Tell) -> None:
        """Watch a writer until it is closed or dropped; without a thread to start, do nothing.

        Args:
            watched: The writer.
            seconds: How long it may log nothing.
            tell: A method of the writer that is told how long it has logged nothing.
        """
        with self._lock:
            self._silences[id(watched)] = _Silence(watched, seconds, tell, time.monotonic())
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="hf-summary-writer-stalls", daemon=True)
                try:
                    self._thread.start()
                except RuntimeError:  # the interpreter is exiting, or the system has no thread to give
                    self._thread = None
        self._wakes.put(None)

    def discard(self, watched: Watched) -> None:
        """Watch a writer no more."""
        if self._silences.pop(id(watched), None) is not None:
            self._wakes.put(None)

    def look(self, now: float) -> float | None:
        """Call the methods that are due at the monotonic time `now`; return the seconds to the next look, if any."""
        calls = []
        with self._lock:
            for key, silence in list(self._silences.items()):
                watched = silence.watched()
                logged = None if watched is None else watched.logged_events
                if watched is None or logged is None:
                    self._silences.pop(key, None)
                elif (seconds := silence.passed(logged, now)) is not None:
                    calls.append((silence.tell, seconds))
            pauses = [silence.seconds / 10 for silence in list(self._silences.values())]
            if not pauses:
                # Under the lock, because `add` starts another thread then.
                self._thread = None
        for weak, seconds in calls:
            tell = weak()
            if tell is not None and not process.exit_is_over():
                tell(seconds)
        return min(max(min(pauses), _SHORTEST), _LONGEST) if pauses else None

    def _run(self) -> None:
        # Holds no writer while it waits, so that a writer can be collected.
        while (pause := self.look(time.monotonic())) is not None:
            with contextlib.suppress(queue.Empty):
                self._wakes.get(timeout=pause)


stall_watch: StallWatch = StallWatch()
