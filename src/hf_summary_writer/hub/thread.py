"""Calls to the Hub in a thread that is left behind when the client does not return by the deadline."""

from __future__ import annotations

import contextlib
import functools
import queue
import threading
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TYPE_CHECKING, TypeVar

from hf_summary_writer.errors import DeadlineError, PushError
from hf_summary_writer.hub.deadline import MAX_ANSWER_BYTES, Deadline, current, install_hooks

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_MOST_LEFT_BEHIND = 4

# Eight downloads run at a time, and the next check of a view makes eight again.
_MOST_READS_LEFT_BEHIND = 16

_reads_left_behind: list[threading.Thread] = []


class HubThread:
    """Runs calls one at a time in a daemon thread of its own, and leaves the thread behind if a call takes too long.

    Not thread-safe: its owner calls it from one thread at a time. The thread must be started before the interpreter
    begins to exit, since some versions of Python start none after that.

    Args:
        left: The threads that were left behind, which several may share.
        most_left: While so many of them hang, no call is made: each keeps its connections.
    """

    def __init__(self, left: list[threading.Thread] | None = None, most_left: int = _MOST_LEFT_BEHIND) -> None:
        """Start nothing yet."""
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] | None = None
        self._thread: threading.Thread | None = None
        self._left = [] if left is None else left
        self._most_left = most_left

    @property
    def left_behind(self) -> int:
        """The number of threads that still hang in a call past its deadline."""
        self._left[:] = [thread for thread in self._left if thread.is_alive()]
        return len(self._left)

    def start(self) -> queue.SimpleQueue[Callable[[], None] | None]:
        """Start the thread if there is none, and return its queue of jobs.

        Raises:
            RuntimeError: If no thread can be started any more.
        """
        if self._jobs is None:
            jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
            thread = threading.Thread(target=_work, args=(jobs,), name="hf-summary-writer-hub", daemon=True)
            thread.start()
            self._jobs, self._thread = jobs, thread
        return self._jobs

    def stop(self) -> None:
        """End the thread when it has nothing more to do."""
        jobs, self._jobs = self._jobs, None
        if jobs is not None:
            jobs.put(None)

    def after_fork_in_child(self) -> None:
        """Forget the threads, which the child does not have."""
        self._jobs = self._thread = None
        self._left = []

    def call(
        self,
        function: Callable[[], T],
        seconds: float,
        answer_bytes: int = MAX_ANSWER_BYTES,
        *,
        downloads: bool = False,
    ) -> T:
        """Run `function` in the thread; return its result or raise its exception.

        Args:
            function: Makes requests.
            seconds: How long they may take together.
            answer_bytes: As for `Deadline`.
            downloads: As for `Deadline`.

        Raises:
            DeadlineError: If it took longer, or too many earlier calls still hang. It then makes no further request;
                one that is under way may still have its effect, and if that is a commit the error is `in_doubt`.
        """
        if self.left_behind >= self._most_left:
            raise DeadlineError(f"{self.left_behind} calls to the Hub hang: no other is made until one of them returns")
        jobs = self.start()
        attempt = Deadline(time.monotonic() + seconds, answer_bytes, downloads=downloads)
        future: Future[T] = Future()
        jobs.put(functools.partial(_run, function, attempt, future))
        try:
            return future.result(seconds)
        except FutureTimeoutError:
            if future.done():
                return future.result()  # of the last moment, or a timeout of the function's own
            late = DeadlineError(f"the Hub did not answer within {seconds:.0f} s")
            late.is_outside_requests = not attempt.is_asking
            late.in_doubt = attempt.give_up()
        finally:
            if not future.done():  # late, or interrupted
                attempt.give_up()
                self._leave_behind()
        raise late

    def _leave_behind(self) -> None:
        if self._thread is not None:
            self._left.append(self._thread)
        self.stop()
        # The next call may come during the exit of the interpreter, when no thread can be started any more.
        with contextlib.suppress(RuntimeError):
            self.start()


def _work(jobs: queue.SimpleQueue[Callable[[], None] | None]) -> None:
    while (job := jobs.get()) is not None:
        job()
        del job  # or its objects would stay alive until the next job


def _run(function: Callable[[], T], attempt: Deadline, future: Future[T]) -> None:
    """Run a function within an attempt, and settle the future of its result."""
    current.attempt = attempt
    try:
        future.set_result(function())
    except BaseException as error:  # noqa: BLE001 - the caller that waits for the result gets it
        if isinstance(error, PushError):
            error.in_doubt = error.in_doubt or attempt.unanswered
        future.set_exception(error)
    finally:
        current.attempt = None


def in_time(
    call: Callable[[], T], seconds: float, answer_bytes: int = MAX_ANSWER_BYTES, *, downloads: bool = False
) -> T:
    """Return the result of a call for reading, from any thread, whose requests are bounded as those of a push.

    Headers may come byte by byte, and the timeout of the client is that of each byte, so it gets a thread as well.

    Args:
        call: As for `HubThread.call`.
        seconds: Likewise.
        answer_bytes: Likewise.
        downloads: Likewise.

    Raises:
        DeadlineError: As for `HubThread.call`.
    """

    def hooked() -> T:
        from huggingface_hub import get_session

        install_hooks(get_session())
        return call()

    thread = HubThread(_reads_left_behind, _MOST_READS_LEFT_BEHIND)
    try:
        return thread.call(hooked, seconds, answer_bytes, downloads=downloads)
    finally:
        thread.stop()
