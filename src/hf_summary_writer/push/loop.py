"""The thread that pushes: it waits until the next folder is due, for a trigger, or for the end.

All folders that go to one destination share a loop, and with it a thread, the client and the commits. Wake-ups of the
thread are queued, so none is lost that arrives during a push. Of each folder at most one push runs and one waits:
whoever triggers while one waits shares its future.

A signal handler may raise anywhere in a thread of the user. So the lock is one of C, which a `with` block takes and
returns in one step, as `threading.Condition` does not, and no future's condition is held while its result is awaited.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
import weakref
from typing import TYPE_CHECKING

from hf_summary_writer.process import shared, tell_after_fork
from hf_summary_writer.push.budget import commit_queue_of
from hf_summary_writer.push.outcomes import Outcomes
from hf_summary_writer.push.push import Pusher
from hf_summary_writer.push.task import PushTask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hf_summary_writer.hub import Remote
    from hf_summary_writer.push.job import Job

__all__ = ["PushLoop", "loop_to"]

# A folder that is due within this part of its interval is pushed together with others.
_SOON = 0.5
# Runs often end one after the other. What the last push of the first of them takes along needs no commit of its own.
_SOON_AT_AN_END = 0.9


class PushLoop:
    """Makes the pushes of the folders that go to one destination, in a thread of its own while there is one.

    Args:
        pusher: Makes the pushes.

    Attributes:
        pusher: The same.
        lock: Keeps the state of all tasks.
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
        self._tasks: list[PushTask] = []
        self._thread: threading.Thread | None = None

    @property
    def endpoint(self) -> str:
        """The address of the Hub."""
        return self.pusher.remote.endpoint

    def adopt(self, task: PushTask) -> None:
        """Let a task know of a fork."""
        self._adopted.add(task)

    def begin(self, task: PushTask) -> None:
        """Serve a task, and start the thread unless it runs; only while the lock is held.

        Raises:
            RuntimeError: If no thread can be started any more.
        """
        if task not in self._tasks:
            self._tasks.append(task)
        if self._thread is None or not self._thread.is_alive():
            # Before it starts: a signal handler may interrupt the start. Of two threads the older one goes away.
            self._thread = threading.Thread(target=self._run, name="hf-summary-writer-push", daemon=True)
            try:
                self.pusher.remote.start()
                self._thread.start()
            except RuntimeError:
                self._thread = None
                self._tasks.remove(task)
                self.pusher.remote.stop()
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
        """Forget the thread, which the child does not have, and its lock, which somebody may hold for ever."""
        self._reset()
        self.pusher.remote.after_fork_in_child()
        for task in list(self._adopted):
            task.after_fork_in_child()

    def notice_fork(self) -> None:
        """Do the same where an application server forked without telling Python."""
        if self._pid != os.getpid():
            self.after_fork_in_child()

    def _run(self) -> None:
        while self._wait():
            self._push()

    # Functions of their own, so that no variable of the waiting thread keeps alive a task that has ended.

    def _push(self) -> None:
        current = _Round(self)
        error: BaseException | None = None
        outcomes = Outcomes()
        try:
            outcomes = self.pusher.push(current)
        except BaseException as raised:  # noqa: BLE001 - also SystemExit from a user's override: the thread lives on
            error = raised
        for task in current.tasks:
            outcome = outcomes.get(task.job)
            if outcome is None:
                task.settle(None, error)
            else:
                task.settle(outcome.commit, outcome.error or error)

    def _let_go_of_ended(self) -> None:
        for task in self._tasks:
            task.give_up_if_hopeless()
        ended = {task for task in self._tasks if task.has_ended}
        self._tasks = [task for task in self._tasks if task not in ended]
        for task in ended:
            task.end()

    def _wait(self) -> bool:
        """Wait until a task is due; return False when there is none left and the thread is to end."""
        while True:
            with self.lock:
                if threading.current_thread() is not self._thread:
                    return False
                self._let_go_of_ended()
                if not self._tasks:
                    # Under the lock, because a restart starts another thread.
                    self._thread = None
                    self.pusher.remote.stop()
                    return False
                seconds = min(task.ready_at() for task in self._tasks) - time.monotonic()
            if seconds <= 0:
                return True
            with contextlib.suppress(queue.Empty):
                self._wakes.get(timeout=min(seconds, threading.TIMEOUT_MAX))
                while True:  # one look at the tasks answers all who have called meanwhile
                    self._wakes.get_nowait()

    def taken(self, is_wanted: Callable[[PushTask, float], bool]) -> Iterator[PushTask]:
        """Begin the pushes of the tasks that are wanted at the time when it is their turn, and yield these tasks."""
        for task in list(self._tasks):
            with self.lock:
                is_taken = not task.has_ended and is_wanted(task, time.monotonic())
                if is_taken:
                    task.begin()
            if is_taken:
                yield task

    def any(self, is_meant: Callable[[PushTask, float], bool]) -> bool:
        """Return whether that holds of any task at this time."""
        with self.lock:
            now = time.monotonic()
            return any(is_meant(task, now) for task in self._tasks)


def loop_to(remote: Remote) -> PushLoop:
    """Return the loop that all schedulers of this process share whose commits may be made together.

    Raises:
        ValueError: If the environment variable for the limit of commits is invalid.
    """
    queue = commit_queue_of(remote)
    return shared(("push loop", remote.key), lambda: PushLoop(Pusher(remote, queue)))


class _Round:
    """The tasks that one push serves."""

    def __init__(self, loop: PushLoop) -> None:
        self._loop = loop
        self.tasks: list[PushTask] = []

    def due(self) -> Iterator[Job]:
        return self._taken(PushTask.is_due)

    def due_soon(self) -> Iterator[Job]:
        share = _SOON_AT_AN_END if any(task.job.final for task in self.tasks) else _SOON
        return self._taken(lambda task, now: task.is_due_soon(now, share))

    def others_wait(self) -> bool:
        return self._loop.any(PushTask.waits_for_push)

    def _taken(self, is_wanted: Callable[[PushTask, float], bool]) -> Iterator[Job]:
        for task in self._loop.taken(is_wanted):
            self.tasks.append(task)
            yield task.job
