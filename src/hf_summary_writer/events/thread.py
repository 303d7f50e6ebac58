"""The thread that writes the event files of a process, and the requests to flush them."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import queue
import threading
import time
import weakref
from typing import Protocol

from hf_summary_writer import process

__all__ = ["Source", "Ticket", "drain"]


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


_logger = logging.getLogger(__name__)

_BUSY_INTERVAL = 0.1

_IDLE_INTERVAL = 0.4

"""Seconds between two looks at the sources: after one that found something, and after one that found nothing."""

_POLITE_ITEMS = 256

_URGENT_ITEMS = 1024

"""Items in one slice: fewer while a loop is running beside it, more while somebody waits for the end. A loop that waits
for the interpreter during a slice wakes up late and with cold caches, so many small slices cost it more than a few."""

_NAP = 0.001

"""Seconds between two polite slices. Letting go of the interpreter without a pause would not help: the thread that
waits for it needs longer to wake up than a short system call takes, and finds it taken again."""

_CHECK_SECONDS = 1.0

"""How often one who waits makes sure that there is a thread, and that it is not stuck."""

_PATIENCE_SECONDS = 60.0

"""How long a single slice may take without using the processor before those who wait give up: the disk hangs."""

_AT_WORK_SECONDS = 0.01

"""Processor time that tells a slice that encodes from one that hangs."""

_MOST_OPEN = 32

"""Descriptors kept between slices; beyond that the file used longest ago is closed, to be opened again for append."""


class Source(Protocol):
    """What the drain attends: a queue of items and the files they go to. Only `ask` is called by any thread."""

    directory: str
    """Where the files lie, for messages."""

    @property
    def holds_descriptor(self) -> bool:
        """Whether a file is open."""

    @property
    def pending(self) -> int:
        """Number of items that wait."""

    @property
    def is_done(self) -> bool:
        """Whether there is nothing left to do until the source is attended again."""

    def ask(self) -> Ticket:
        """Return a ticket that is released when everything before it is on disk, or cannot be for now."""

    def is_ready(self, now: float) -> bool:
        """Whether `work` would do something at the monotonic time `now`."""

    def work(self, most: int, now: float) -> int:
        """Do at most `most` items, return how many; never raise."""

    def tidy(self, now: float) -> None:
        """Do what is due by time alone, never raise."""

    def drop(self) -> None:
        """After `work` raised all the same: lose what it was at, and release those who wait for that."""

    def rest(self) -> None:
        """Give back the descriptor for now."""

    def leave_to_parent(self, *, keep_queue: bool) -> None:
        """In a forked child: forget files, threads and, unless told to keep it, the queue."""


class Drain:
    """Owns the thread. Its methods may be called from any thread, and from a signal handler.

    A signal handler may interrupt any line here and log, flush or close itself. So nothing here holds a lock that the
    thread needs while it waits for the thread; instead each step is one dictionary or attribute operation, and what
    depends on an earlier look is looked at again after it.
    """

    def __init__(self) -> None:
        self._sources: dict[int, Source] = {}
        self._broken: weakref.WeakSet[Source] = weakref.WeakSet()
        self._reset()
        process.tell_after_fork(self)
        process.tell_at_exit(self)

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._working = threading.Lock()
        self._worker: int | None = None
        self._starter: int | None = None
        self._slice_began: float | None = None
        self._clock: int | None = None
        self._calls: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._open: dict[int, Source] = {}

    def attend(self, source: Source) -> None:
        """See to it that `source` is worked on until it is done."""
        self.notice_fork()
        self._sources[id(source)] = source
        self._has_thread()

    def wait(self, ticket: Ticket, at_most: float = math.inf) -> bool:
        """Return when `ticket` is released, or after `at_most` seconds or so; work here if no thread can do it.

        Returns:
            False if waiting is of no use: the disk hangs, or the caller runs inside of what it would wait for.
        """
        if threading.current_thread() is self._thread:
            # A finaliser that happens to run in the thread itself: what it waits for comes later in the same queue.
            return False
        self._calls.put(None)
        deadline = time.monotonic() + at_most
        used, last_used = self._processor_seconds(), 0.0
        while not ticket.wait(min(_CHECK_SECONDS, at_most) if self._has_thread() else 0):
            if not self._has_thread() and not self._work_here():
                return False
            now = time.monotonic()
            if now >= deadline:
                break
            if self._processor_seconds() > used + _AT_WORK_SECONDS:
                used, last_used = self._processor_seconds(), now
            began = self._slice_began
            if began is not None and now - max(began, last_used) > _PATIENCE_SECONDS:
                _logger.warning("event files: the disk has not answered for %d s, not waiting", _PATIENCE_SECONDS)
                return False
        return True

    def notice_fork(self) -> None:
        """Catch up in the child of a fork that Python was not told of, as some application servers make it."""
        if self._pid != os.getpid():
            # Part of the queues may have been logged here already: better some events twice than some not at all.
            self._forget(keep_queues=True)

    def after_fork_in_child(self) -> None:
        """Forget the thread, and everything the parent is about to write."""
        self._forget(keep_queues=False)

    def at_exit(self) -> None:
        """Have everything on disk that was logged so far."""
        tickets = [source.ask() for source in list(self._sources.values())]
        for ticket in tickets:
            self.wait(ticket)

    def _processor_seconds(self) -> float:
        """Return how long the thread has used the processor; 0 on systems that do not tell."""
        try:
            return 0.0 if self._clock is None else time.clock_gettime(self._clock)
        except OSError:  # the thread has ended
            return 0.0

    def _forget(self, *, keep_queues: bool) -> None:
        self._reset()
        sources = list(self._sources.values())
        self._sources.clear()
        for source in sources:
            source.leave_to_parent(keep_queue=keep_queues)

    def _has_thread(self) -> bool:
        """Return whether the thread is there, after trying to start it if need be."""
        thread = self._thread
        if thread is not None and thread.is_alive():
            return True
        me = threading.get_ident()
        if self._starter == me:
            # A signal handler that interrupted the start, and maybe the locks of the threading module.
            return False
        # Two threads may come here at once; of theirs, the one that is not `_thread` in the end goes away.
        thread = threading.Thread(target=self._run, name="hf-summary-writer-events", daemon=True)
        self._starter, self._thread = me, thread
        try:
            thread.start()
        except RuntimeError:
            # The interpreter is shutting down, or the process may have no more threads.
            return False
        finally:
            self._starter = None
        return True

    def _run(self) -> None:
        me = threading.current_thread()
        if hasattr(time, "pthread_getcpuclockid"):
            self._clock = time.pthread_getcpuclockid(threading.get_ident())
        interval = _BUSY_INTERVAL
        while self._thread is me:
            urgent = self._is_called(interval)
            interval = _BUSY_INTERVAL if self._look(urgent=urgent) else _IDLE_INTERVAL
            if not self._sources:
                self._thread = None
                # One who attends adds the source first and looks for a thread then: here it is the other way round.
                if self._sources and self._thread is None:
                    self._thread = me

    def _is_called(self, seconds: float) -> bool:
        """Wait at most `seconds` to be called, and answer all calls that came by then."""
        try:
            self._calls.get(timeout=seconds)
        except queue.Empty:
            return False
        with contextlib.suppress(queue.Empty):
            while True:
                self._calls.get_nowait()
        return True

    def _look(self, *, urgent: bool) -> bool:
        """Work on what is pending now; return whether anything was.

        What comes meanwhile is left for the next look: a loop that logs all the time would keep the thread at it.
        """
        quota = self._pending()
        found = False
        while ready := self._ready(quota):
            found = True
            for source in ready:
                with self._working:
                    quota[id(source)] -= self._slice(source, _URGENT_ITEMS if urgent else _POLITE_ITEMS)
                if not urgent and self._is_called(_NAP):
                    urgent, quota = True, self._pending()
                    break
        self._tidy()
        return found

    def _pending(self) -> dict[int, int]:
        return {key: source.pending for key, source in list(self._sources.items())}

    def _ready(self, quota: dict[int, int]) -> list[Source]:
        now = time.monotonic()
        sources = list(self._sources.items())
        return [source for key, source in sources if quota.get(key, 0) > 0 and source.is_ready(now)]

    def _slice(self, source: Source, most: int) -> int:
        self._slice_began = now = time.monotonic()
        done = self._work(source, most, now)
        self._tidy_one(source, now)
        self._slice_began = None
        self._open.pop(id(source), None)
        if source.holds_descriptor:
            self._open[id(source)] = source
            if len(self._open) > _MOST_OPEN:
                self._open.pop(next(iter(self._open))).rest()
        return done

    def _tidy(self) -> None:
        for key, source in list(self._sources.items()):
            with self._working:
                self._slice_began = now = time.monotonic()
                self._tidy_one(source, now)
                self._slice_began = None
            if source.is_done:
                self._sources.pop(key, None)
                self._open.pop(key, None)
                if not source.is_done:
                    # Something came between the two lines above; it may have been attended before the second.
                    self._sources[key] = source

    def _work_here(self) -> bool:
        """Work on all sources in the calling thread; return False if that is what it was interrupted in."""
        if self._worker == threading.get_ident():
            return False
        if not self._working.acquire(timeout=_CHECK_SECONDS):
            return True
        try:
            self._worker = threading.get_ident()
            for source in list(self._sources.values()):
                while source.is_ready(now := time.monotonic()):
                    self._work(source, _URGENT_ITEMS, now)
        finally:
            self._worker = None
            self._working.release()
        return True

    def _work(self, source: Source, most: int, now: float) -> int:
        try:
            return source.work(most, now)
        except BaseException as error:  # noqa: BLE001 - all others wait for the same thread
            self._contain(error, source)
        with contextlib.suppress(Exception):
            source.drop()
        return most

    def _tidy_one(self, source: Source, now: float) -> None:
        try:
            source.tidy(now)
        except BaseException as error:  # noqa: BLE001 - likewise
            self._contain(error, source)

    def _contain(self, error: BaseException, source: Source) -> None:
        """Say once of a source that it raised what it never should."""
        if not isinstance(error, Exception) and threading.current_thread() is not self._thread:
            raise error  # in a thread of the user: it may come from a signal handler, and mean the user
        if source not in self._broken:
            self._broken.add(source)
            _logger.error(
                "event files in %s: something is wrong, and some events may be lost", source.directory, exc_info=error
            )


drain = Drain()
