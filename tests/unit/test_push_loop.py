"""When the loop pushes, what its futures resolve to, and how it ends. A push here is a plain function."""

from __future__ import annotations

import threading
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, Any

import pytest

from events import wait_until
from hf_summary_writer.errors import ActionNeededError, PostponedError, RateLimitError, TemporaryError
from hf_summary_writer.push.loop import Phase, PushLoop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECONDS = 20.0  # far more than any test needs
HOUR = 3600.0


class Pushes:
    """A push that a test steps through: it tells when it begins and waits until it may end."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.may_end = threading.Semaphore(0)
        self.outcomes: list[Any] = []
        self.count = 0

    def __call__(self) -> Any:
        self.count += 1
        self.begun.release()
        assert self.may_end.acquire(timeout=SECONDS)
        outcome = self.outcomes.pop(0) if self.outcomes else self.count
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def wait_for_begin(self) -> None:
        assert self.begun.acquire(timeout=SECONDS)

    def let_end(self, times: int = 1) -> None:
        self.may_end.release(times)


@pytest.fixture
def pushes() -> Pushes:
    return Pushes()


@pytest.fixture
def make(pushes: Pushes) -> Iterator[Callable[..., PushLoop[Any]]]:
    loops = []

    def make(interval: float = HOUR) -> PushLoop[Any]:
        loop: PushLoop[Any] = PushLoop(
            pushes, interval, at_end=lambda: None, name="hf-summary-writer-test", chance=lambda: 0.0
        )
        loops.append(loop)
        loop.start()
        return loop

    yield make
    for loop in loops:
        loop.stop()
        pushes.let_end(100)
        loop.join(SECONDS)


def test_the_first_push_comes_at_once(pushes: Pushes, make: Callable[..., PushLoop[Any]]) -> None:
    loop = make()
    pushes.wait_for_begin()
    assert loop.state.phase is Phase.PUSHING
    assert loop.last_future is not None
    pushes.let_end()
    assert loop.last_future.result(SECONDS) == 1


def test_the_next_push_comes_after_the_interval(pushes: Pushes, make: Callable[..., PushLoop[Any]]) -> None:
    make(interval=0.01)
    for _ in range(3):
        pushes.wait_for_begin()
        pushes.let_end()


@pytest.mark.faults("C3")
def test_ten_thousand_triggers_during_a_push_make_one_more(pushes: Pushes, make: Callable[..., PushLoop[Any]]) -> None:
    loop = make()
    pushes.wait_for_begin()
    futures: list[Future[Any]] = []
    threads = [threading.Thread(target=lambda: futures.extend(loop.trigger() for _ in range(200))) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pushes.let_end()
    pushes.wait_for_begin()
    pushes.let_end()
    assert len(futures) == 10_000
    assert wait(futures, SECONDS).not_done == set()
    assert {future.result() for future in futures} == {2}
    assert pushes.count == 2
    loop.stop()
    assert loop.trigger().result(SECONDS) is None


def test_a_trigger_during_a_push_is_not_covered_by_that_push(
    pushes: Pushes, make: Callable[..., PushLoop[Any]]
) -> None:
    loop = make()
    pushes.wait_for_begin()
    future = loop.trigger()
    pushes.let_end()
    pushes.wait_for_begin()
    assert not future.done()
    pushes.let_end()
    assert future.result(SECONDS) == 2


def test_who_asks_during_a_push_that_left_nothing_to_push_gets_that_pushs_result(
    pushes: Pushes, make: Callable[..., PushLoop[Any]]
) -> None:
    loop = make()
    pushes.wait_for_begin()
    future = loop.trigger()
    pushes.outcomes = ["commit", None, None]
    pushes.let_end(2)
    assert future.result(SECONDS) == "commit"
    pushes.let_end()
    assert loop.trigger().result(SECONDS) is None


def test_a_failed_push_fails_its_future_and_the_loop_goes_on(
    pushes: Pushes, make: Callable[..., PushLoop[Any]]
) -> None:
    loop = make()
    pushes.outcomes = [SystemExit(3), KeyError("bug"), None]
    for kind in (SystemExit, KeyError):
        future = loop.trigger() if kind is KeyError else None
        pushes.wait_for_begin()
        running = loop.last_future
        pushes.let_end()
        assert running is not None
        assert isinstance(running.exception(SECONDS), kind)
        assert future is None or future is running
    future = loop.trigger()
    pushes.wait_for_begin()
    pushes.let_end()
    assert future.result(SECONDS) is None


def test_a_wait_that_the_hub_asked_for_is_reported_and_not_bypassed(
    pushes: Pushes, make: Callable[..., PushLoop[Any]]
) -> None:
    loop = make(interval=0.01)
    pushes.outcomes = [RateLimitError("slow down", retry_after=HOUR)]
    pushes.wait_for_begin()
    assert loop.last_future is not None
    pushes.let_end()
    assert isinstance(loop.last_future.exception(SECONDS), RateLimitError)
    assert isinstance(loop.trigger().exception(0), RateLimitError)
    assert loop.state.phase.value == "waiting"
    assert loop.state.seconds > HOUR / 2
    assert pushes.count == 1
    last = loop.finish(SECONDS)
    assert isinstance(last.exception(SECONDS), RateLimitError)
    loop.join(SECONDS)
    assert loop.state.phase is Phase.STOPPED
    assert pushes.count == 1


def test_finishing_pushes_once_more_and_ends_the_thread(pushes: Pushes, make: Callable[..., PushLoop[Any]]) -> None:
    loop = make()
    pushes.let_end(2)
    pushes.wait_for_begin()
    assert loop.finish(SECONDS).result(SECONDS) == 2
    loop.join(SECONDS)
    assert not loop.alive
    assert loop.finish(SECONDS).result(SECONDS) is None
    assert loop.trigger().result(SECONDS) is None


def test_the_last_push_is_tried_again_while_there_is_time(pushes: Pushes, make: Callable[..., PushLoop[Any]]) -> None:
    loop = make()
    pushes.let_end(1)
    pushes.wait_for_begin()
    pushes.outcomes = [TemporaryError("x"), TemporaryError("y"), "delivered"]
    future = loop.finish(SECONDS)
    pushes.let_end(3)
    assert future.result(SECONDS) == "delivered"


def test_the_last_push_gives_up_when_the_wait_is_longer_than_the_time(
    pushes: Pushes, make: Callable[..., PushLoop[Any]]
) -> None:
    loop = make()
    pushes.let_end(1)
    pushes.wait_for_begin()
    pushes.outcomes = [TemporaryError("busy", retry_after=HOUR)]
    pushes.let_end(1)
    future = loop.finish(SECONDS)
    assert isinstance(future.exception(SECONDS), TemporaryError)
    loop.join(SECONDS)
    assert not loop.alive


def test_who_asks_when_the_last_push_has_failed_does_not_wait_for_a_moment_after_the_end(
    pushes: Pushes, make: Callable[..., PushLoop[Any]]
) -> None:
    loop = make()
    pushes.let_end(1)
    pushes.wait_for_begin()
    pushes.outcomes = [ActionNeededError("log in")]
    # Where the failed push has settled, and the thread has not ended yet.
    late: list[Future[Any]] = []
    loop._settled = lambda _: late.append(loop.trigger())
    loop.finish(SECONDS)
    pushes.let_end(1)
    loop.join(SECONDS)
    assert isinstance(late[0].exception(SECONDS), ActionNeededError)
    assert not loop.alive


def test_stopping_resolves_what_waits_and_ends_the_thread(pushes: Pushes, make: Callable[..., PushLoop[Any]]) -> None:
    loop = make()
    pushes.wait_for_begin()
    waiting = loop.trigger()
    loop.stop()
    assert waiting.result(SECONDS) is None
    pushes.let_end()
    loop.join(SECONDS)
    loop.start()
    assert not loop.alive


def test_a_finished_loop_can_start_again(pushes: Pushes, make: Callable[..., PushLoop[Any]]) -> None:
    loop = make()
    pushes.let_end(10)
    loop.finish(SECONDS).result(SECONDS)
    loop.join(SECONDS)
    loop.start()
    assert loop.trigger().result(SECONDS) is not None


def test_nobody_can_cancel_a_push_that_others_wait_for(pushes: Pushes, make: Callable[..., PushLoop[Any]]) -> None:
    loop = make()
    pushes.wait_for_begin()
    mine, theirs = loop.trigger(), loop.trigger()
    assert not mine.cancel()
    pushes.let_end(2)
    assert theirs.result(SECONDS) == 2


def test_a_push_that_waits_for_its_turn_keeps_all_who_asked_waiting_with_it(
    pushes: Pushes, make: Callable[..., PushLoop[Any]]
) -> None:
    pushes.outcomes = [1, PostponedError("others come first", 0.2), 2]
    loop = make()
    pushes.wait_for_begin()
    before = loop.trigger()
    pushes.let_end()
    pushes.wait_for_begin()
    meanwhile = loop.trigger()
    pushes.let_end()
    pushes.wait_for_begin()
    assert not before.done()
    assert not meanwhile.done()
    assert loop.state.error is None
    pushes.let_end()
    assert before.result(SECONDS) == meanwhile.result(SECONDS) == 2


def test_the_end_does_not_wait_for_a_turn(pushes: Pushes, make: Callable[..., PushLoop[Any]]) -> None:
    pushes.outcomes = [PostponedError("others come first", HOUR), 2]
    loop = make()
    pushes.wait_for_begin()
    future = loop.trigger()
    pushes.let_end()
    wait_until(lambda: loop.state.phase is Phase.WAITING)
    assert loop.state.stretched == (HOUR, "others come first")
    last = loop.finish(SECONDS)
    pushes.wait_for_begin()
    pushes.let_end()
    assert future.result(SECONDS) == last.result(SECONDS) == 2


def test_a_push_that_waits_for_its_turn_when_all_is_stopped_is_no_failure(
    pushes: Pushes, make: Callable[..., PushLoop[Any]]
) -> None:
    pushes.outcomes = [PostponedError("others come first", HOUR)]
    loop = make()
    pushes.wait_for_begin()
    future = loop.last_future
    assert future is not None
    pushes.let_end()
    wait_until(lambda: loop.state.phase is Phase.WAITING)
    loop.stop()
    assert future.result(SECONDS) is None


def test_who_is_invited_pushes_what_is_due_soon(pushes: Pushes, make: Callable[..., PushLoop[Any]]) -> None:
    loop = make(interval=0.4)
    pushes.wait_for_begin()
    assert not loop.invite(0.5)
    pushes.let_end()
    wait_until(lambda: loop.invite(0.5) or pushes.count > 1)
    pushes.wait_for_begin()
    pushes.let_end()
    loop.stop()
    assert not loop.invite(0.5)
