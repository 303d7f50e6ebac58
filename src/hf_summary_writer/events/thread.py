"""The thread that writes the event files of a process."""

from __future__ import annotations

import contextlib
import math
import os
import queue
import sys
import threading
import time
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from hf_summary_writer import process
from hf_summary_writer.events.syncing import sync_all
from hf_summary_writer.notices import logger

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from hf_summary_writer.events.queue import EventQueue
    from hf_summary_writer.events.signals import Signal

_BUSY_INTERVAL = 0.1

_IDLE_INTERVAL = 0.4

"""Seconds between two passes over the queues: after one that found items, and after one that found none."""

_DEVICE_INTERVAL = 0.2

"""Seconds between two passes while a copy from a device is under way and no caller waits. A pass reads the copy that
the one before it started and starts the next: fewer passes with more values each take less of the interpreter."""

_POLITE_ITEMS = 256

_URGENT_ITEMS = 1024

"""Items in one slice: fewer while a loop is running beside it, more while a caller waits for the end. A loop that waits
for the interpreter during a slice wakes up late and with cold caches, so many small slices cost it more than a few."""

_NAP = 0.001

"""Seconds between two polite slices. Releasing the interpreter without a pause would not help: the thread that
waits for it needs longer to wake up than a short system call takes, and finds it taken again."""

_AT_WORK_SECONDS = 0.01

"""CPU time that tells a slice that encodes from one that hangs."""

_MOST_OPEN = 32

"""Descriptors kept between slices; beyond that the least recently used file is closed, to be reopened for append."""


@dataclass(frozen=True, slots=True)
class WaitLimits:
    """How callers wait for the thread, in seconds.

    Attributes:
        check: How often they make sure that it is alive and not stuck.
        hang: How long one slice may take without using the processor before they give up: the disk hangs. As long may a
            device take to answer.
    """

    check: float = 1.0
    hang: float = 60.0


class WriterThread:
    """The thread that serves all event queues of the process; it runs while there are any.

    A signal handler may interrupt any line here and log, flush or close itself. So nothing here holds a lock that the
    thread needs while it waits for the thread; instead each step is one dictionary or attribute operation, and a step
    that depends on an earlier check is followed by another check.
    """

    limits: ClassVar[WaitLimits] = WaitLimits()

    def __init__(self) -> None:
        self._queues: dict[int, EventQueue] = {}
        self._broken: weakref.WeakSet[EventQueue] = weakref.WeakSet()
        self._reset()
        process.tell_after_fork(self)
        process.tell_at_exit(self)
        process.call_after_exit(self._retire)

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._working = threading.Lock()
        self._worker: int | None = None
        self._starter: int | None = None
        self._cannot_start = False
        self._slice_began: float | None = None
        # The slice that a caller gave up on, so that no other one waits for it.
        self._stuck_slice: float | None = None
        # The slice that waiting callers looked at last, its CPU time then, and when that was last seen to have grown.
        self._progress: tuple[float, float, float] = (0.0, 0.0, 0.0)
        self._clock: int | None = None
        self._calls: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._open: dict[int, EventQueue] = {}

    def register(self, events: EventQueue) -> None:
        """Serve a queue until it is closed and empty."""
        if self._pid != os.getpid():
            # A child of a fork that Python was not told of, as some application servers make it. Part of the queues may
            # have been logged here already: better some events twice than some not at all.
            self._forget(keep_items=True)
        self._queues[id(events)] = events
        if not self._has_thread() and (process.exit_is_over() or self._cannot_start) and not self.is_stuck:
            self._work_here()

    def wait(self, signal: Signal, at_most: float = math.inf) -> bool:
        """Wait until `signal` is set, at most about `at_most` seconds; do the work here if there can be no thread.

        Returns:
            False if waiting is useless: the disk hangs, or the caller runs inside of the work that it waits for.
        """
        if threading.current_thread() is self._thread:
            # A finalizer that happens to run in the thread itself: its signal is set only after the finalizer returns.
            return False
        if self.is_stuck:
            return signal.is_set
        self._calls.put(None)
        deadline = time.monotonic() + at_most
        while not signal.wait(min(self.limits.check, at_most) if self._has_thread() else 0):
            if not self._has_thread() and not self._work_here():
                return False
            now = time.monotonic()
            # Before the deadline: a caller that waits for room comes back every second, and must find out, too.
            if self._disk_hangs(now):
                return False
            if now >= deadline:
                break
            waits = [events.device_wait_began for events in list(self._queues.values())]
            if any(began is not None and now - began > self.limits.hang for began in waits):
                logger.warning("event files: the device has not answered for %d s, not waiting", self.limits.hang)
                return False
        return True

    def _disk_hangs(self, now: float) -> bool:
        """Return whether the slice in progress takes so long, without using the processor, that no caller waits."""
        began, used = self._slice_began, self._cpu_seconds()
        if began is None:
            return False
        watched, used_before, at_work = self._progress
        if began != watched:
            used_before, at_work = used, began
        elif used > used_before + _AT_WORK_SECONDS:
            used_before, at_work = used, now
        self._progress = began, used_before, at_work
        if now - at_work <= self.limits.hang:
            return False
        if self._stuck_slice != began:
            self._stuck_slice = began
            logger.warning("event files: the disk has not answered for %d s, not waiting", self.limits.hang)
        return True

    def wait_for_all(self, signals: Iterable[Signal]) -> None:
        """Wait until all are set, or until waiting is useless."""
        all(self.wait(signal) for signal in signals)

    @property
    def is_stuck(self) -> bool:
        """Whether the disk hangs, as a caller has found out by waiting."""
        return self._stuck_slice is not None and self._stuck_slice == self._slice_began

    def flush(self) -> None:
        """Write and fsync all events of the process that were logged before the call."""
        self.wait_for_all([events.request_flush() for events in list(self._queues.values())])

    at_exit = flush

    def _retire(self) -> None:
        """Let callers do the work from now on: the thread may be stopped at any step, and no flush follows."""
        for events in list(self._queues.values()):
            events.retire()
        self._thread = None
        self._calls.put(None)
        self.flush()

    def after_fork_in_child(self) -> None:
        """Forget the thread, and everything that the parent is about to write."""
        self._forget(keep_items=False)

    def _cpu_seconds(self) -> float:
        """Return the CPU time of the thread; 0 on systems that do not tell."""
        try:
            return 0.0 if self._clock is None else time.clock_gettime(self._clock)
        except OSError:  # the thread has ended
            return 0.0

    def _forget(self, *, keep_items: bool) -> None:
        self._reset()
        queues = list(self._queues.values())
        self._queues.clear()
        for events in queues:
            events.leave_to_parent(keep_items=keep_items)

    def _has_thread(self) -> bool:
        """Return whether the thread is alive, after trying to start it if need be."""
        if process.exit_is_over():
            return False  # once the interpreter is torn down it says that it is alive, but will never run again
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
            self._cannot_start = False
        except RuntimeError:
            # The interpreter is shutting down, or the process may have no more threads.
            self._cannot_start = True
            return False
        finally:
            self._starter = None
        return True

    def _run(self) -> None:
        me = threading.current_thread()
        # gevent replaces the function by one whose numbers are no threads, with which the C library crashes.
        if hasattr(time, "pthread_getcpuclockid") and threading.get_ident.__module__ == "_thread":
            self._clock = time.pthread_getcpuclockid(threading.get_ident())
        interval, awaited = _BUSY_INTERVAL, False
        while self._thread is me:
            urgent = self._is_called(interval) or awaited
            interval = _BUSY_INTERVAL if self._serve_all(urgent=urgent) else _IDLE_INTERVAL
            on_device = [events for events in list(self._queues.values()) if events.device_wait_began is not None]
            awaited = any(events.has_waiting_callers for events in on_device)
            if on_device:
                interval = _NAP if awaited else _DEVICE_INTERVAL
            if not self._queues:
                self._thread = None
                # `register` adds the queue first and looks for a thread then: here it is the other way round.
                if self._queues and self._thread is None:
                    self._thread = me

    def _is_called(self, seconds: float) -> bool:
        """Wait at most `seconds` for a caller that waits, and answer all of them at once."""
        try:
            self._calls.get(timeout=seconds)
        except queue.Empty:
            return False
        with contextlib.suppress(queue.Empty):
            while True:
                self._calls.get_nowait()
        return True

    def _serve_all(self, *, urgent: bool) -> bool:
        """Write the items that are pending now; return whether there were any.

        Items that come meanwhile are left for the next pass: a loop that logs all the time would keep the thread here.
        """
        quota = self._pending()
        found = False
        while ready := self._ready(quota):
            found = True
            for events in ready:
                with self._working:
                    quota[id(events)] -= self._serve(events, _URGENT_ITEMS if urgent else _POLITE_ITEMS)
                if not urgent and self._is_called(_NAP):
                    urgent, quota = True, self._pending()
                    break
            self._sync(ready)
        self._sync(list(self._queues.values()))
        self._tidy_all()
        return found

    def _pending(self) -> dict[int, int]:
        return {key: events.pending for key, events in list(self._queues.items())}

    def _ready(self, quota: dict[int, int]) -> list[EventQueue]:
        now = time.monotonic()
        queues = list(self._queues.items())
        ready = [events for key, events in queues if quota.get(key, 0) > 0 and events.is_ready(now)]
        return [events for events in ready if events.has_waiting_callers] or ready

    def _serve(self, events: EventQueue, most: int) -> int:
        self._slice_began = now = time.monotonic()
        done = self._work(events, most, now)
        self._slice_began = None
        self._open.pop(id(events), None)
        if events.file.is_open:
            self._open[id(events)] = events
            if len(self._open) > _MOST_OPEN:
                self._open.pop(next(iter(self._open))).file.rest()
        return done

    def _sync(self, queues: list[EventQueue]) -> None:
        """Sync together the files that need it; the callers of a synced file do not wait for the others."""
        with self._working:
            now = time.monotonic()
            needy = [events for events in queues if events.needs_sync(now)]
            if not needy:
                return
            self._slice_began = now
            for events, error in sync_all(needy):
                self._slice_began = time.monotonic()
                self._end_sync(events, error)
            self._slice_began = None

    def _tidy_all(self) -> None:
        for key, events in list(self._queues.items()):
            with self._working:
                self._slice_began = now = time.monotonic()
                with self._errors_contained(events):
                    events.tidy(now)
                self._slice_began = None
            if events.is_done:
                self._queues.pop(key, None)
                self._open.pop(key, None)
                if not events.is_done:
                    # An event came between the two lines above; its queue may have been registered before the second.
                    self._queues[key] = events

    def _work_here(self) -> bool:
        """Serve all queues in the calling thread; return False if that is the work that it interrupted."""
        if self._worker == threading.get_ident():
            return False
        if not self._working.acquire(timeout=self.limits.check):
            # At the end of the interpreter it may be held for ever, by the thread that was stopped at its work.
            return not sys.is_finalizing()
        try:
            self._worker = threading.get_ident()
            for events in list(self._queues.values()):
                while events.is_ready(now := time.monotonic()):
                    self._work(events, _URGENT_ITEMS, now)
                    if events.needs_sync(now):
                        # Each by itself: at this point of the exit, threads cannot start or never run.
                        for _, error in sync_all([events]):
                            self._end_sync(events, error)
                if events.device_wait_began is not None:
                    time.sleep(_NAP)
        finally:
            self._worker = None
            self._working.release()
        return True

    def _work(self, events: EventQueue, most: int, now: float) -> int:
        with self._errors_contained(events):
            return events.work(most, now)
        with contextlib.suppress(Exception):
            events.drop()
        return most

    def _end_sync(self, events: EventQueue, error: BaseException | None) -> None:
        if error is not None and not isinstance(error, OSError):
            with self._errors_contained(events):
                raise error
            error = None
        with self._errors_contained(events):
            events.end_sync(error)

    @contextlib.contextmanager
    def _errors_contained(self, events: EventQueue) -> Iterator[None]:
        """Log an unexpected error, once for each queue: all others wait for the same thread."""
        try:
            yield
        except BaseException as error:
            if not isinstance(error, Exception) and threading.current_thread() is not self._thread:
                raise  # in a thread of the user: it may come from a signal handler, and mean the user
            if events not in self._broken:
                self._broken.add(events)
                logger.exception("event files in %s: unexpected error, some events may be lost", events.directory)


writer_thread: WriterThread = WriterThread()
