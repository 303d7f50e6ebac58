"""The thread that pushes: it waits until the next folder is due, for a trigger, or for the end.

All folders that go to one destination share a loop, and with it a thread, the client and the commits. Wake-ups of the
thread are queued, so none is lost that arrives during a push. Of each folder at most one push runs and one waits:
a trigger while one waits returns its future.

A signal handler may raise anywhere in a thread of the user. So the lock is one of C, which a `with` block takes and
returns in one step, as `threading.Condition` does not, and no future's condition is held while its result is awaited.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import queue
import random
import sys
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

from hf_summary_writer.errors import PostponedError, PushError, UnreachableError, forget_frames
from hf_summary_writer.process import shared, tell_after_fork
from hf_summary_writer.push.futures import PushFuture, contain, nothing_to_push, pass_on
from hf_summary_writer.push.push import Outcomes, Pusher, Round
from hf_summary_writer.push.timetable import Phase, Result, State, Timetable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

    from huggingface_hub import CommitInfo

    from hf_summary_writer.hub import Remote
    from hf_summary_writer.push.job import Job

# A folder that is due within this part of its interval is pushed together with others.
_SOON = 0.5
# Runs often end one after the other. Those that join the last push of the first one need no commit of their own.
_SOON_AT_AN_END = 0.9


class PushTask:
    """The pushes of one folder: when they are due, and their futures. Thread-safe.

    Futures are resolved outside of the loop's lock, since a callback of the user may wait for a thread that needs it.

    Args:
        loop: The loop that makes the pushes.
        job: The folder to push.
        owner: The scheduler, which lives for as long as the loop serves it, whether or not the user holds it.
        chance: Source of randomness for the back-off.
    """

    def __init__(
        self, loop: PushLoop, job: Job, owner: object = None, *, chance: Callable[[], float] = random.random
    ) -> None:
        self.job = job
        self.last_future: Future[CommitInfo | None] | None = None
        self.forked: bool = False
        self._loop = loop
        self._owner = owner
        self._timetable = Timetable(job.config.minutes * 60, time.monotonic(), chance)
        self._requested: Future[CommitInfo | None] | None = None
        self._asked = False
        self._running: Future[CommitInfo | None] | None = None
        self._inherited: CommitInfo | None = None
        self._active = self._stopped = self._ending = False
        job.interrupted = self.interrupted
        loop.adopt(self)

    def start(self) -> None:
        """Begin to push, also again after `finish`; does nothing while it is begun or after `stop`.

        Raises:
            RuntimeError: If no thread can be started any more.
        """
        self._loop.notice_fork()
        if sys.is_finalizing():
            raise RuntimeError("the interpreter is exiting")
        with self._loop.lock:
            if self._stopped:
                return
            self._ending, self._timetable.finish_by = False, None
            if not self._active:
                self._timetable.begin_anew(time.monotonic())
                self._loop.begin(self)
                self._active = True
                if self.last_future is None:
                    self.last_future = self._request()  # of the first push, which is due at once
            self._loop.wake()  # the thread may be waiting for the end

    def trigger(self) -> Future[CommitInfo | None]:
        """Ask for a push and return its future.

        During a wait that the Hub asked for, the future fails at once with the Hub's error and the remaining seconds;
        and with the error of a last push that has failed, if the time for another one is over.
        Without a thread it resolves to `None`.
        """
        if not self.alive:
            return nothing_to_push()
        with self._loop.lock:
            if not self.alive:
                return nothing_to_push()
            error, remaining = self._timetable.error, self._timetable.seconds_to_wait(time.monotonic())
            if remaining > 0 and isinstance(error, PushError) and self._timetable.hub_asked_to_wait:
                error = type(error)(f"{error} ({remaining:.0f} s left)", retry_after=remaining)
            elif error is None or not self._timetable.is_hopeless(self._timetable.ready_at(requested=True)):
                self._asked = True
                return self._request()
            future = self._new_future()
        future.set_exception(error)
        return future

    def finish(self, seconds: float, *, end: bool = True, again: bool = False) -> Future[CommitInfo | None]:
        """Ask for the last push, to be done within `seconds`; the task ends after it if `end`.

        A failed push is retried for as long as the time allows. A task that has ended does nothing, unless `again`.

        Raises:
            RuntimeError: If no thread can be started any more for `again`.
        """
        if not (self.alive or again):
            return nothing_to_push()
        with self._loop.lock:
            if again:
                self.start()
            if not self.alive:
                return nothing_to_push()
            future = self._request()
            self._ending = self._ending or end
            if self._timetable.finish(time.monotonic(), seconds):
                error: Exception | None = _last_pushes_in_vain.recent(self._endpoint)
            else:
                error = self._timetable.error
            if error is not None:
                self._requested = None
            # Also after an earlier trigger, whose push starts sooner now.
            self._loop.wake()
        if error is not None:
            future.set_exception(error)
        return future

    def go_on(self) -> None:
        """After `finish` without an end: the next push is not the last one any more, and has its time again."""
        if not self.alive:
            return
        with self._loop.lock:
            if not self._ending:
                self._timetable.finish_by = None

    def stop(self) -> None:
        """End after a push that is running; a push that waits resolves to `None`."""
        self._loop.notice_fork()
        self._stopped = True
        if sys.is_finalizing():
            return
        with self._loop.lock:
            requested, self._requested = self._requested, None
            self._loop.wake()
        if requested is not None:
            requested.set_result(None)

    def interrupted(self) -> bool:
        """Return whether there is no more time for a running push."""
        finish_by = self._timetable.finish_by
        return self._stopped or (finish_by is not None and time.monotonic() > finish_by)

    @property
    def is_finishing(self) -> bool:
        """Whether the last push was asked for."""
        return self._timetable.finish_by is not None

    @property
    def state(self) -> State:
        """The current state."""
        self._loop.notice_fork()
        if sys.is_finalizing():
            return State(Phase.STOPPED, error=self._timetable.error)
        with self._loop.lock:
            error, throttled = self._timetable.error, self._timetable.throttled
            remaining = self._timetable.seconds_to_wait(time.monotonic())
            if self._running is not None:
                return State(Phase.PUSHING, 0.0, error, throttled)
            if not self.alive or self.has_ended:
                return State(Phase.STOPPED, error=error)
            return State(Phase.WAITING if remaining > 0 else Phase.IDLE, remaining, error, throttled)

    @property
    def alive(self) -> bool:
        """Whether there is a thread to push."""
        self._loop.notice_fork()
        # Threads do not run any more once the interpreter is torn down, and may hold the lock for ever.
        return self._active and not self._stopped and not sys.is_finalizing()

    def after_fork_in_child(self) -> None:
        """Leave the pushing to the parent."""
        self._requested = self._running = self.last_future = None
        self._active = False
        self._stopped = self.forked = True

    def ready_at(self) -> float:
        """Return when the next push may begin, on the monotonic clock; only while the loop's lock is held."""
        return self._timetable.ready_at(requested=self._requested is not None)

    def is_due(self, now: float) -> bool:
        """Return whether a push may begin now."""
        return self._running is None and now >= self.ready_at()

    def is_due_soon(self, now: float, share: float) -> bool:
        """Return whether a push may begin now or within that share of the interval, and make it due now if so."""
        return self.is_due(now) or (self._running is None and self._timetable.bring_forward(now, share))

    def waits_for_push(self, now: float) -> bool:
        """Return whether a trigger waits for a push that can start now."""
        return self._requested is not None and self.is_due(now)

    @property
    def has_ended(self) -> bool:
        """Whether the loop has no more to do for it."""
        return self._running is None and (self._stopped or (self._ending and self._requested is None))

    def leave(self) -> None:
        """Leave the loop; only while its lock is held."""
        self._active = False

    def begin(self) -> None:
        """Begin a push; only while the loop's lock is held."""
        self._running = self._requested or self._new_future()
        self._requested = None
        self.last_future = self._running
        self.job.asked, self._asked = self._asked, False
        self.job.final = self.is_finishing
        self.job.began = time.monotonic()

    def settle(self, commit: CommitInfo | None, error: BaseException | None) -> None:
        """Schedule the next push, and resolve the future of this one."""
        if not (isinstance(error, PostponedError) or self._timetable.waits_for_folder(time.monotonic(), error)):
            contain(self._report, error)
        with self._loop.lock:
            future, self._running = self._running or self._new_future(), None
            inherited, self._inherited = self._inherited, None
            commit = inherited if commit is None else commit
            answered = self._reschedule(future, error, commit)
        contain(self.job.status_file.note, self.state)
        if error is not None:
            # The task and the future keep it until the next push, which may be long in coming.
            forget_frames(error)
        for each in answered:
            if error is None:
                each.set_result(commit)
            elif isinstance(error, PostponedError):  # stopped before its turn came, which is no failure
                each.set_result(None)
            else:
                each.set_exception(error)

    def _report(self, error: BaseException | None) -> None:
        self.job.report.ended(error)
        if error is None and self.job.is_abandoned and not self.is_finishing:
            self.finish(self.job.config.close_timeout)

    def _reschedule(
        self, future: Future[CommitInfo | None], error: BaseException | None, commit: CommitInfo | None
    ) -> list[Future[CommitInfo | None]]:
        """Set the time of the next push; return the futures that this one answers."""
        requested = self._requested
        result = self._timetable.settle(time.monotonic(), error)
        if self._stopped:
            return [future]
        if result is Result.AGAIN:
            self._inherited = commit
            self._asked = self._asked or self.job.asked
            if requested is None:
                self._requested = future
            else:
                requested.add_done_callback(functools.partial(pass_on, future))
            return []
        if result is Result.GIVEN_UP:
            if isinstance(error, UnreachableError) and not error.was_reached:
                _last_pushes_in_vain.note(self._endpoint, str(error), time.monotonic() - self.job.began)
            self._requested = None
            return [future] if requested is None else [future, requested]
        if result is Result.DONE and requested is not None:
            self._inherited = commit  # a trigger during a push that left nothing to upload is answered by that push
        return [future]

    def _request(self) -> Future[CommitInfo | None]:
        if self._requested is None:
            self._requested = self._new_future()
            self._loop.wake()
        return self._requested

    def _new_future(self) -> PushFuture[Any]:
        return PushFuture(self._loop.is_current_thread)

    @property
    def _endpoint(self) -> str:
        return self._loop.pusher.remote.client.endpoint


class LastPushesInVain:
    """Last pushes that could not reach their Hub, so that those of the next runs do not wait for the same.

    A refused connection takes no time and is tried again each time; a name or a route that is missing takes seconds.
    """

    _TIMES_AS_LONG = 10

    def __init__(self) -> None:
        self._until: dict[str, tuple[float, str]] = {}

    def note(self, endpoint: str, message: str, seconds: float) -> None:
        """Note an attempt that took so many seconds."""
        self._until[endpoint] = time.monotonic() + self._TIMES_AS_LONG * seconds, message

    def recent(self, endpoint: str) -> UnreachableError | None:
        """Return the error of a recent attempt, if there was one."""
        until, message = self._until.get(endpoint, (-math.inf, ""))
        return UnreachableError(message) if time.monotonic() < until else None


_last_pushes_in_vain = LastPushesInVain()


class PushLoop:
    """Makes the pushes of the folders that go to one destination, in a thread of its own while there is one.

    Args:
        pusher: Makes the pushes.

    Attributes:
        pusher: The same.
        lock: Keeps the state of all tasks.
        served: The tasks whose pushes it makes.
    """

    def __init__(self, pusher: Pusher) -> None:
        self.pusher = pusher
        self._adopted: weakref.WeakSet[PushTask] = weakref.WeakSet()
        self._reset()
        tell_after_fork(self)

    def _reset(self) -> None:
        self._pid = os.getpid()
        # Reentrant: a signal handler may trigger while its thread is inside.
        self.lock: threading.RLock = threading.RLock()
        self._wakes: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.served: list[PushTask] = []
        self._thread: threading.Thread | None = None

    def adopt(self, task: PushTask) -> None:
        """Take a task that has to know of a fork."""
        self._adopted.add(task)

    def begin(self, task: PushTask) -> None:
        """Serve a task, and start the thread unless it runs; only while the lock is held.

        Raises:
            RuntimeError: If no thread can be started any more.
        """
        if task not in self.served:
            self.served.append(task)
        if self._thread is None or not self._thread.is_alive():
            # Before it starts: a signal handler may interrupt the start. Of two threads the older one ends.
            self._thread = threading.Thread(target=self._run, name="hf-summary-writer-push", daemon=True)
            try:
                self.pusher.remote.thread.start()
                self._thread.start()
            except RuntimeError:
                self._thread = None
                self.served.remove(task)
                self.pusher.remote.thread.stop()
                raise

    def wake(self) -> None:
        """Have the thread look at all tasks again."""
        self._wakes.put(None)

    @property
    def thread(self) -> threading.Thread | None:
        """The thread, if there is one."""
        return self._thread

    def is_current_thread(self) -> bool:
        """Return whether the caller is the loop's thread."""
        return threading.current_thread() is self._thread

    def after_fork_in_child(self) -> None:
        """Forget the thread, which the child does not have, and its lock, which a thread of the parent may hold."""
        self._reset()
        self.pusher.remote.thread.after_fork_in_child()
        for task in list(self._adopted):
            task.after_fork_in_child()

    def notice_fork(self) -> None:
        """Call `after_fork_in_child` where an application server forked without Python's hooks."""
        if self._pid != os.getpid():
            self.after_fork_in_child()

    def _run(self) -> None:
        while self._wait():
            self._push()

    # Functions of their own, so that no variable of the waiting thread keeps alive a task that has ended.

    def _push(self) -> None:
        tasks: list[PushTask] = []
        error: BaseException | None = None
        outcomes = Outcomes()
        try:
            outcomes = self.pusher.push(self._round(tasks))
        except BaseException as raised:  # noqa: BLE001 - also SystemExit from a user's override: the thread lives on
            error = raised
        for task in tasks:
            outcome = outcomes.get(task.job)
            if outcome is None:
                task.settle(None, error)
            else:
                task.settle(outcome.commit, outcome.error or error)

    def _round(self, tasks: list[PushTask]) -> Round:
        """Return the jobs of one push; their tasks are appended to `tasks`."""
        return Round(self._begun(tasks, is_soon=False), self._begun(tasks, is_soon=True), self._others_wait)

    def _begun(self, tasks: list[PushTask], *, is_soon: bool) -> Iterator[Job]:
        """Begin the pushes of the tasks that are due at the time when it is their turn, and yield their jobs."""
        share = _SOON_AT_AN_END if any(task.job.final for task in tasks) else _SOON
        for task in list(self.served):
            with self.lock:
                now = time.monotonic()
                is_taken = not task.has_ended and (task.is_due_soon(now, share) if is_soon else task.is_due(now))
                if is_taken:
                    task.begin()
            if is_taken:
                tasks.append(task)
                yield task.job

    def _others_wait(self) -> bool:
        with self.lock:
            now = time.monotonic()
            return any(task.waits_for_push(now) for task in self.served)

    def _let_go_of_ended(self) -> bool:
        """Serve the tasks that have ended no more; return whether there are any."""
        with self.lock:
            ended = [task for task in self.served if task.has_ended] if self.is_current_thread() else []
            self.served = [task for task in self.served if task not in ended]
            for task in ended:
                task.leave()
        for task in ended:  # not while the lock is held: a disk may hang
            contain(lambda ended: ended.job.lease.release(), task)
        return bool(ended)

    def _wait(self) -> bool:
        """Wait until a task is due; return False when there is none left and the thread is to end."""
        while True:
            while self._let_go_of_ended():
                pass
            with self.lock:
                if not self.is_current_thread():
                    return False
                if not self.served:
                    # Under the lock, because a restart starts another thread.
                    self._thread = None
                    self.pusher.remote.thread.stop()
                    return False
                seconds = min(task.ready_at() for task in self.served) - time.monotonic()
            if seconds <= 0:
                return True
            with contextlib.suppress(queue.Empty):
                self._wakes.get(timeout=min(seconds, threading.TIMEOUT_MAX))
                while True:  # one look at the tasks serves all wake-ups so far
                    self._wakes.get_nowait()


def loop_to(remote: Remote) -> PushLoop:
    """Return the loop shared by all schedulers of this process whose commits may be combined.

    Raises:
        ValueError: If the environment variable for the limit of commits is invalid.
    """
    return shared(("push loop", remote.key), lambda: PushLoop(Pusher(remote)))
