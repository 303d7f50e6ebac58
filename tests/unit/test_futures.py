"""The future of a push resolves for every waiting caller, whatever users' callbacks do."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TYPE_CHECKING, Any

import pytest

from hf_summary_writer.errors import TemporaryError
from hf_summary_writer.push.futures import PushFuture, contain, nothing_to_push, pass_on

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS = 60.0


@pytest.fixture
def future() -> PushFuture[Any]:
    return PushFuture()


@pytest.mark.parametrize("ask", [PushFuture.result, PushFuture.exception])
def test_a_wait_ends_with_its_time_limit(future: PushFuture[Any], ask: Callable[..., object]) -> None:
    with pytest.raises(FutureTimeoutError):
        ask(future, 0)
    with pytest.raises(FutureTimeoutError):
        ask(future, 0.01)


def test_a_wait_ends_with_the_result(future: PushFuture[Any]) -> None:
    threading.Timer(0.01, future.set_result, ["done"]).start()
    assert future.result() == future.result(SECONDS) == "done"
    assert future.exception() is None


def test_a_future_of_a_push_cannot_be_cancelled(future: PushFuture[Any]) -> None:
    assert not future.cancel()
    future.set_result(1)
    assert future.result(0) == 1


def test_every_caller_gets_an_exception_of_its_own(future: PushFuture[Any]) -> None:
    error = TemporaryError("no route")
    future.set_exception(error)
    raised = []
    for _ in range(2):
        with pytest.raises(TemporaryError, match="no route") as caught:
            future.result(0)
        raised.append(caught.value)
    assert len({id(each) for each in (error, *raised, future.exception(0))}) == 4
    assert error.__traceback__ is None


def test_the_thread_that_pushes_does_not_wait_for_itself() -> None:
    with pytest.raises(FutureTimeoutError):
        PushFuture(lambda: True).result(SECONDS)


@pytest.mark.parametrize("raised", [ValueError, SystemExit, KeyboardInterrupt])
def test_a_callback_that_raises_is_logged_and_ends_no_thread(
    future: PushFuture[Any], raised: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    def callback(_: object) -> None:
        raise raised

    future.add_done_callback(callback)
    future.set_result(1)
    contain(callback, None)
    assert future.result(0) == 1
    assert caplog.messages == ["unexpected error after a push; uploads continue"] * 2


def test_a_push_without_a_thread_resolves_to_nothing() -> None:
    assert nothing_to_push().result(0) is None


def test_a_result_and_an_exception_are_passed_on() -> None:
    to: list[PushFuture[Any]] = [PushFuture(), PushFuture()]
    done, failed = Future[Any](), Future[Any]()
    done.set_result(5)
    failed.set_exception(TemporaryError("no route"))
    for future, source in zip(to, (done, failed), strict=True):
        pass_on(future, source)
    assert to[0].result(0) == 5
    with pytest.raises(TemporaryError, match="no route"):
        to[1].result(0)
