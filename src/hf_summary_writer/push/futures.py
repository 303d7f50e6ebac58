"""Futures of pushes, which resolve in spite of exceptions in users' callbacks."""

from __future__ import annotations

import functools
import math
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

from hf_summary_writer.errors import copy_of
from hf_summary_writer.events import Signal
from hf_summary_writer.notices import logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from huggingface_hub import CommitInfo

_CHECK_SECONDS = 1.0

T = TypeVar("T")


class PushFuture(Future[T]):
    """A future that cannot be cancelled, and whose condition is not held while its result is awaited.

    `set_result` needs the condition, and a signal handler that raises can leave it held by the thread that waits.
    Every caller gets its own copy of the exception: a raised exception keeps the frames that it passed, and with them
    the values of a training, and the original is kept until the next push.

    Args:
        is_resolved_here: Returns whether the calling thread is the one that pushes. It does not wait for itself: a hook
            that asks for the result of a later push gets a `TimeoutError` at once.
    """

    def __init__(self, is_resolved_here: Callable[[], bool] = lambda: False) -> None:
        super().__init__()
        self._is_resolved_here = is_resolved_here
        self._resolved = Signal()
        resolved = self._resolved
        self.add_done_callback(lambda _: resolved.set())
        self.set_running_or_notify_cancel()

    def add_done_callback(self, fn: Callable[[Future[T]], object]) -> None:
        # The base class contains exceptions of callbacks, but not `SystemExit`, which would end the thread that pushes.
        super().add_done_callback(fn if self.done() else functools.partial(contain, fn))

    def result(self, timeout: float | None = None) -> T:
        error = self.exception(timeout)
        if error is None:
            return super().result(0)
        try:
            raise error
        finally:
            del error  # or this frame and the exception would keep each other alive

    def exception(self, timeout: float | None = None) -> BaseException | None:
        self._wait(timeout)
        error = super().exception(0)
        return None if error is None else copy_of(error)

    def _wait(self, timeout: float | None) -> None:
        if self._is_resolved_here():
            return
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        # In steps, since an interrupted thread may have consumed the wake-up of the others.
        while not self._resolved.wait(max(0.0, min(_CHECK_SECONDS, deadline - time.monotonic()))):
            if time.monotonic() >= deadline:
                break


def contain(function: Callable[[T], object], argument: T) -> None:
    """Call `function`; its exceptions do not end the thread."""
    try:
        function(argument)
    except BaseException:
        logger.exception("unexpected error after a push; uploads continue")


def nothing_to_push() -> Future[CommitInfo | None]:
    future: Future[CommitInfo | None] = PushFuture()
    future.set_result(None)
    return future


def pass_on(to: Future[Any], done: Future[Any]) -> None:
    """Copy the result or exception of `done` to `to`."""
    error = done.exception()
    if error is None:
        to.set_result(done.result())
    else:
        to.set_exception(error)
