"""The daemon thread that pushes: it waits for the moment that its timetable names, for a trigger, or for the end.

The thread waits on a condition whose state is checked under its lock before and after every wait, so no wake-up that
arrives during a push is lost. At most one push runs and one waits: whoever triggers while one waits shares its future.
"""

from __future__ import annotations

import functools
import os
import random
import threading
import time
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from hf_summary_writer.errors import PostponedError, PushError, forget_frames
from hf_summary_writer.futures import failed, pass_on, resolved, shared_future
from hf_summary_writer.timetable import Outcome, Stretched, Timetable

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

__all__ = ["Phase", "PushLoop", "State"]

T = TypeVar("T")


class Phase(Enum):
    """What the loop is doing."""

    IDLE = "idle"
    PUSHING = "pushing"
    WAITING = "waiting"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class State:
    """What the loop is doing.

    Attributes:
        phase: What it is doing.
        seconds: For how much longer it waits, for `Phase.WAITING`.
        error: Why the last push failed.
        stretched: That pushes come less often than the interval says, if they do.
    """

    phase: Phase
    seconds: float = 0.0
    error: Exception | None = None
    stretched: Stretched | None = None


class PushLoop(Generic[T]):
    """Calls `push` in a thread of its own, at every interval and on demand. Thread-safe.

    Args:
        push: Pushes once. May raise anything.
        interval: Seconds between pushes.
        at_start: Called before the thread starts.
        at_end: Called when the thread ends. Neither may wait or call the loop.
        name: The thread's name.
        settled: Told in the thread what a push ended in, before its future is; must not raise.
        chance: Source of randomness for the back-off.
    """

    def __init__(
        self,
        push: Callable[[], T | None],
        interval: float,
        *,
        at_start: Callable[[], object] = lambda: None,
        at_end: Callable[[], object] = lambda: None,
        name: str,
        settled: Callable[[State], None] = lambda _: None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Start nothing yet."""
        self._push = push
        self._interval = interval
        self._at_start = at_start
        self._at_end = at_end
        self._name = name
        self._settled = settled
        self._chance = chance
        self.forked = False
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self.last_future: Future[T | None] | None = None
        # The default lock is reentrant: a signal handler may trigger while this thread is inside.
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._requested: Future[T | None] | None = None
        self._running: Future[T | None] | None = None
        self._inherited: T | None = None
        self._stopped = False
        self._ending = False
        self._timetable = Timetable(self._interval, time.monotonic(), self._chance)

    def start(self) -> None:
        """Start the thread, also after `finish`; does nothing while it runs or after `stop`.

        Raises:
            RuntimeError: If no thread can be started any more.
        """
        self._notice_fork()
        with self._changed:
            if self._stopped:
                return
            self._ending, self._timetable.finish_by = False, None
            self._changed.notify_all()  # what waits may have waited for the end
            if self._thread is None:
                self._timetable.begin_anew(time.monotonic())
                self._at_start()
                thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                try:
                    thread.start()
                except RuntimeError:
                    self._at_end()
                    raise
                self._thread = thread

    def trigger(self) -> Future[T | None]:
        """Ask for a push and return its future.

        While the Hub said to wait, the future fails at once with what it said and the seconds that are left of it.
        Without a thread it resolves to `None`.
        """
        self._notice_fork()
        with self._changed:
            if self._thread is None or self._stopped:
                return resolved(None)
            error, remaining = self._timetable.error, self._timetable.seconds_to_wait(time.monotonic())
            if remaining > 0 and isinstance(error, PushError) and self._timetable.hub_asked_to_wait:
                # A fresh one for each: an exception that is raised twice collects the frames of both.
                return failed(type(error)(f"{error} ({remaining:.0f} s left)", retry_after=remaining))
            return self._request()

    def invite(self, share: float) -> bool:
        """Push now what is due soon anyway, since others push to the same place; tell whether a push comes of it.

        Args:
            share: The part of the interval within which it has to be due.
        """
        with self._changed:
            if self._pid != os.getpid() or self._thread is None or self._stopped or self._ending:
                return False
            if self._running is not None or not self._timetable.invite(time.monotonic(), share):
                return False
            self._changed.notify_all()
            return True

    def finish(self, seconds: float, *, end: bool = True) -> Future[T | None]:
        """Ask for the last push, to be done within `seconds`; the thread ends after it if `end`.

        What fails is tried again for as long as the time allows.
        """
        self._notice_fork()
        with self._changed:
            if self._thread is None or self._stopped:
                return resolved(None)
            self._ending = self._ending or end
            future = self._request()
            if not self._timetable.finish(time.monotonic(), seconds):
                self._give_up()
            # Also if somebody asked before: what he waits for comes sooner now.
            self._changed.notify_all()
            return future

    def go_on(self) -> None:
        """After `finish` without an end: what comes now is not the last push any more, and has its time again."""
        self._notice_fork()
        with self._changed:
            if not self._ending:
                self._timetable.finish_by = None

    def stop(self) -> None:
        """End the thread, after a push that is running; a push that waits resolves to `None`."""
        self._notice_fork()
        with self._changed:
            self._stopped = True
            requested, self._requested = self._requested, None
            self._changed.notify_all()
        if requested is not None:
            requested.set_result(None)

    def join(self, seconds: float) -> None:
        """Wait for the thread to end, unless it is the caller."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(max(0.0, seconds))

    def interrupted(self) -> bool:
        """Tell a running push whether there is no more time for it."""
        finish_by = self._timetable.finish_by
        return self._stopped or (finish_by is not None and time.monotonic() > finish_by)

    @property
    def seconds_left(self) -> float | None:
        """How long the last push may still take; `None` while the run goes on."""
        finish_by = self._timetable.finish_by
        return None if finish_by is None else max(0.0, finish_by - time.monotonic())

    @property
    def state(self) -> State:
        """What the loop is doing now."""
        self._notice_fork()
        with self._changed:
            error, stretched = self._timetable.error, self._timetable.stretched
            remaining = self._timetable.seconds_to_wait(time.monotonic())
            if self._running is not None:
                return State(Phase.PUSHING, 0.0, error, stretched)
            if self._thread is None or self._stopped:
                return State(Phase.STOPPED, error=error)
            return State(Phase.WAITING if remaining > 0 else Phase.IDLE, remaining, error, stretched)

    @property
    def alive(self) -> bool:
        """Whether there is a thread to push."""
        return self._thread is not None and not self._stopped

    def after_fork_in_child(self) -> None:
        """Forget the thread, which the child does not have, and its lock, which somebody may hold for ever."""
        self._reset()
        self._stopped = self.forked = True

    def _notice_fork(self) -> None:
        # Some application servers fork without telling Python.
        if self._pid != os.getpid():
            self.after_fork_in_child()

    def _request(self) -> Future[T | None]:
        if self._requested is None:
            self._requested = shared_future()
            self._changed.notify_all()
        return self._requested

    def _run(self) -> None:
        while (future := self._next()) is not None:
            self.last_future = future
            inherited, self._inherited = self._inherited, None
            error = None
            result: Any = None
            try:
                result = self._push()
            except BaseException as raised:  # noqa: BLE001 - also SystemExit from a user's override: the thread lives on
                error = raised
            again = self._settle(future, error, result)
            self._settled(self.state)
            if error is not None:
                # The loop and the future keep it until the next push, which may be long in coming.
                forget_frames(error)
            if error is None:
                # Who asked while a push was running, and finds nothing left to push, was served by that one.
                future.set_result(inherited if result is None else result)
            elif not again:
                self._fail(future, error)

    def _next(self) -> Future[T | None] | None:
        """Wait for the next push and return its future, or `None` when the thread is to end."""
        with self._changed:
            while True:
                if self._stopped or (self._ending and self._requested is None):
                    # Within the lock: whoever starts the loop anew begins with everything anew.
                    self._thread = None
                    self._at_end()
                    return None
                now = time.monotonic()
                ready = self._timetable.ready_at(requested=self._requested is not None)
                if now >= ready:
                    self._running = self._requested or shared_future()
                    self._requested = None
                    return self._running
                if self._requested is not None and self._timetable.is_hopeless(ready):
                    # Somebody asked when the last push had failed already.
                    self._give_up()
                    continue
                self._changed.wait(min(ready - now, threading.TIMEOUT_MAX))

    def _settle(self, future: Future[T | None], error: BaseException | None, result: T | None) -> bool:
        """Draw the consequences of a push; tell whether its future waits for it to be made once more."""
        with self._changed:
            self._running = None
            outcome = self._timetable.settle(time.monotonic(), error)
            if self._stopped:
                return False
            if outcome is Outcome.DONE and self._requested is not None:
                self._inherited = result
            elif outcome is Outcome.GIVEN_UP:
                self._give_up()
            elif outcome is Outcome.AGAIN:
                return self._ask_again(future, shared=isinstance(error, PostponedError))
            return False

    def _ask_again(self, future: Future[T | None], *, shared: bool) -> bool:
        """Let the next push be this one once more; where one is asked for already, only if both may be `shared`."""
        if self._requested is None:
            self._requested = future
            return True
        if shared:
            self._requested.add_done_callback(functools.partial(pass_on, future))
        return shared

    @staticmethod
    def _fail(future: Future[T | None], error: BaseException) -> None:
        if isinstance(error, PostponedError):  # stopped before its turn came, which is no failure
            future.set_result(None)
        else:
            future.set_exception(error)

    def _give_up(self) -> None:
        """Fail the push that waits: the moment for it comes after the end."""
        requested, self._requested = self._requested, None
        if requested is not None:
            requested.set_exception(self._timetable.error)
