"""Calls with a deadline, in a separate thread."""

from __future__ import annotations

import functools
import sys
import threading
import time
import weakref
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from events import wait_until
from hf_summary_writer.errors import ActionNeededError, DeadlineError
from hf_summary_writer.hub import deadline
from hf_summary_writer.hub import thread as threads
from hf_summary_writer.hub.deadline import Deadline
from hf_summary_writer.hub.thread import HubThread

if TYPE_CHECKING:
    from collections.abc import Iterator

SECONDS = 20.0


class LateFuture(Future[Any]):
    """A future that returns from a timed-out wait only once there is a result."""

    def result(self, timeout: float | None = None) -> Any:
        try:
            return super().result(timeout)
        except FutureTimeoutError:
            super().exception(SECONDS)
            raise


@pytest.fixture
def thread() -> Iterator[HubThread]:
    thread = HubThread()
    yield thread
    thread.stop()


def test_a_result_at_the_deadline_is_returned(thread: HubThread, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "Future", LateFuture)

    def work() -> int:
        time.sleep(0.1)
        return 7

    assert thread.call(work, 0.001) == 7


def test_a_timeout_error_of_the_function_is_not_a_deadline_error(thread: HubThread) -> None:
    def work() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        thread.call(work, SECONDS)


def test_a_call_past_its_deadline_is_abandoned(thread: HubThread) -> None:
    may_end: Future[None] = Future()
    with pytest.raises(DeadlineError):
        thread.call(may_end.result, 0.001)
    assert thread.left_behind == 1
    assert thread.call(lambda: 7, SECONDS) == 7
    may_end.set_result(None)


def test_a_call_that_exits_ends_no_thread(thread: HubThread) -> None:
    with pytest.raises(SystemExit):
        thread.call(sys.exit, SECONDS)
    assert thread.call(lambda: 7, SECONDS) == 7
    assert thread.left_behind == 0


def test_after_an_abandoned_call_no_thread_has_to_be_started(
    thread: HubThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("can't start new thread at interpreter shutdown")

    may_end: Future[None] = Future()
    with pytest.raises(DeadlineError):
        thread.call(may_end.result, 0.001)
    with monkeypatch.context() as exiting:
        exiting.setattr(threading.Thread, "start", fail)
        assert thread.call(lambda: 7, SECONDS) == 7
    may_end.set_result(None)


def test_a_finished_call_keeps_nothing_alive(thread: HubThread) -> None:
    content = {b"of a file"}
    kept = weakref.ref(content)
    thread.call(functools.partial(len, content), SECONDS)
    del content
    wait_until(lambda: kept() is None, SECONDS)


def test_an_attempt_that_is_late_or_was_given_up_makes_no_request() -> None:
    given_up, late = Deadline(time.monotonic() + SECONDS), Deadline(time.monotonic() - 1)
    given_up.may_ask(to_commit=True)
    given_up.may_ask(to_commit=False)
    assert given_up.give_up()  # with the commit still unanswered
    for attempt in (given_up, late):
        with pytest.raises(DeadlineError):
            attempt.may_ask(to_commit=True)
        with pytest.raises(DeadlineError):
            attempt.read(1)
    assert not late.give_up()


def test_a_host_that_must_not_get_the_token_is_shown_in_one_short_line_without_it() -> None:
    attempt = Deadline(time.monotonic() + SECONDS)
    hosts = [SimpleNamespace(scheme="https", netloc=name) for name in (b"hub.example", b"hf_abcdefgh." + b"x" * 1000)]
    attempt.take_token_to(hosts[0])
    with pytest.raises(ActionNeededError) as raised:
        attempt.take_token_to(hosts[1])
    assert "https://hub.example sends" in str(raised.value)
    assert "hf_abcdefgh" not in str(raised.value)
    assert len(str(raised.value)) < 500


def test_the_hooks_of_others_are_kept_and_ours_are_added_once() -> None:
    client = SimpleNamespace(event_hooks={"request": [print], "response": [repr]})
    for _ in range(2):
        deadline.install_hooks(client)
    assert [hooks[1:] for hooks in client.event_hooks.values()] == [[print], [repr]]


def test_reads_that_hang_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_MOST_READS_LEFT_BEHIND", 1)
    may_end: Future[None] = Future()
    with pytest.raises(DeadlineError, match="did not answer"):
        threads.in_time(may_end.result, 0.001)
    with pytest.raises(DeadlineError, match="1 call"):
        threads.in_time(may_end.result, SECONDS)
    may_end.set_result(None)
    wait_until(lambda: not any(thread.is_alive() for thread in threads._reads_left_behind), SECONDS)
    assert threads.in_time(lambda: 7, SECONDS) == 7
