"""Futures of pushes: made, passed on and waited for."""

from __future__ import annotations

from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, TypeVar

__all__ = ["failed", "pass_on", "resolved", "shared_future", "wait"]

T = TypeVar("T")


def shared_future() -> Future[Any]:
    """Return a future that nobody cancels for the others who hold it, nor under the hands of who is to resolve it."""
    future: Future[Any] = Future()
    future.set_running_or_notify_cancel()
    return future


def resolved(result: T | None) -> Future[T | None]:
    """Return a future that holds `result`."""
    future: Future[T | None] = Future()
    future.set_result(result)
    return future


def failed(error: Exception) -> Future[Any]:
    """Return a future that holds `error`."""
    future: Future[Any] = Future()
    future.set_exception(error)
    return future


def pass_on(to: Future[Any], done: Future[Any]) -> None:
    """Let `to` hold what `done` holds."""
    error = done.exception()
    if error is None:
        to.set_result(done.result())
    else:
        to.set_exception(error)


def wait(future: Future[Any], seconds: float) -> bool:
    """Wait for a future without raising what it holds; tell whether it is done."""
    try:
        future.exception(max(0.0, seconds))
    except FutureTimeoutError:
        return False
    return True
