"""When the loop pushes, the results of its futures, and its end, with a plain function as the push."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import signal
import sys
import threading
import weakref
from concurrent.futures import Future, wait
from concurrent.futures import TimeoutError as FutureTimeoutError
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from events import wait_until
from hf_summary_writer.config import PushConfig
from hf_summary_writer.errors import (
    ActionNeededError,
    FolderBusyError,
    PostponedError,
    RateLimitError,
    TemporaryError,
    UnreachableError,
)
from hf_summary_writer.hub.client import Client
from hf_summary_writer.hub.repo import RepoRemote
from hf_summary_writer.push import Phase
from hf_summary_writer.push.loop import PushLoop, PushTask, loop_to
from hf_summary_writer.push.push import Outcomes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hf_summary_writer.push.timetable import State

SECONDS = 20.0  # far more than any test needs
HOUR = 3600.0


class Pushes:
    """A push that signals its start and waits until the test lets it end."""

    def __init__(self) -> None:
        self.remote = SimpleNamespace(
            thread=SimpleNamespace(start=lambda: None, stop=lambda: None, after_fork_in_child=lambda: None),
            client=SimpleNamespace(endpoint=""),
        )
        self.begun = threading.Semaphore(0)
        self.may_end = threading.Semaphore(0)
        self.outcomes: list[Any] = []
        self.served: list[list[Any]] = []
        self.count = 0

    def push(self, jobs: Any) -> Outcomes:
        self.count += 1
        served = [*jobs.due, *jobs.due_soon]
        self.served.append(served)
        self.begun.release()
        assert self.may_end.acquire(timeout=SECONDS)
        outcome = self.outcomes.pop(0) if self.outcomes else self.count
        if isinstance(outcome, BaseException) and not isinstance(outcome, Exception):
            raise outcome
        outcomes = Outcomes()
        for job in served:
            outcomes[job].error = outcome if isinstance(outcome, Exception) else None
            outcomes[job].commit = None if isinstance(outcome, Exception) else outcome  # type: ignore[assignment]
        return outcomes

    def wait_for_begin(self) -> None:
        assert self.begun.acquire(timeout=SECONDS)

    def let_end(self, times: int = 1) -> None:
        self.may_end.release(times)


class Job:
    asked = final = is_abandoned = False
    interrupted: Any = None

    def __init__(
        self,
        interval: float = HOUR,
        *,
        ended: Callable[[BaseException | None], object] = lambda _: None,
        settled: Callable[[State], object] = lambda _: None,
        release: Callable[[], object] = lambda: None,
    ) -> None:
        self.config = SimpleNamespace(minutes=interval / 60)
        self.report = SimpleNamespace(ended=ended)
        self.status_file = SimpleNamespace(note=settled)
        self.lease = SimpleNamespace(release=release)


def joined(task: PushTask) -> None:
    wait_until(lambda: task._loop.thread is None, SECONDS)


@pytest.fixture
def pushes() -> Pushes:
    return Pushes()


@pytest.fixture
def loop(pushes: Pushes) -> PushLoop:
    return PushLoop(pushes)  # type: ignore[arg-type]


@pytest.fixture
def make(pushes: Pushes, loop: PushLoop) -> Iterator[Callable[..., Any]]:
    tasks = []

    def make(interval: float = HOUR, **options: Any) -> PushTask:
        task = PushTask(loop, Job(interval, **options), chance=lambda: 0.0)  # type: ignore[arg-type]
        tasks.append(task)
        task.start()
        return task

    yield make
    for task in tasks:
        task.stop()
    pushes.let_end(100)
    wait_until(lambda: loop._thread is None, SECONDS)


def test_the_first_push_starts_at_once(pushes: Pushes, make: Callable[..., Any]) -> None:
    task = make()
    pushes.wait_for_begin()
    assert task.state.phase is Phase.PUSHING
    assert task.last_future is not None
    pushes.let_end()
    assert task.last_future.result(SECONDS) == 1


def test_the_next_push_starts_after_the_interval(pushes: Pushes, make: Callable[..., Any]) -> None:
    make(interval=0.01)
    for _ in range(3):
        pushes.wait_for_begin()
        pushes.let_end()


@pytest.mark.faults("C3")
def test_ten_thousand_triggers_during_a_push_make_one_more(pushes: Pushes, make: Callable[..., Any]) -> None:
    task = make()
    pushes.wait_for_begin()
    futures: list[Future[Any]] = []
    threads = [threading.Thread(target=lambda: futures.extend(task.trigger() for _ in range(200))) for _ in range(50)]
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
    task.stop()
    assert task.trigger().result(SECONDS) is None


def test_a_trigger_during_a_push_is_not_covered_by_that_push(pushes: Pushes, make: Callable[..., Any]) -> None:
    task = make()
    pushes.wait_for_begin()
    future = task.trigger()
    pushes.let_end()
    pushes.wait_for_begin()
    assert not future.done()
    pushes.let_end()
    assert future.result(SECONDS) == 2


def test_a_trigger_with_nothing_left_to_push_gets_the_result_of_the_running_push(
    pushes: Pushes, make: Callable[..., Any]
) -> None:
    task = make()
    pushes.wait_for_begin()
    future = task.trigger()
    pushes.outcomes = ["commit", None, None]
    pushes.let_end(2)
    assert future.result(SECONDS) == "commit"
    pushes.let_end()
    assert task.trigger().result(SECONDS) is None


def test_a_failed_push_fails_its_future_and_the_loop_continues(pushes: Pushes, make: Callable[..., Any]) -> None:
    task = make()
    pushes.outcomes = [SystemExit(3), KeyError("bug"), None]
    for kind in (SystemExit, KeyError):
        future = task.trigger() if kind is KeyError else None
        pushes.wait_for_begin()
        running = task.last_future
        pushes.let_end()
        assert running is not None
        assert isinstance(running.exception(SECONDS), kind)
        assert future is None or future is running
    future = task.trigger()
    pushes.wait_for_begin()
    pushes.let_end()
    assert future.result(SECONDS) is None


def test_a_wait_requested_by_the_hub_is_reported_and_not_bypassed(pushes: Pushes, make: Callable[..., Any]) -> None:
    task = make(interval=0.01)
    pushes.outcomes = [RateLimitError("slow down", retry_after=HOUR)]
    pushes.wait_for_begin()
    assert task.last_future is not None
    pushes.let_end()
    assert isinstance(task.last_future.exception(SECONDS), RateLimitError)
    assert isinstance(task.trigger().exception(0), RateLimitError)
    assert task.state.phase.value == "waiting"
    assert task.state.seconds > HOUR / 2
    assert pushes.count == 1
    last = task.finish(SECONDS)
    assert isinstance(last.exception(SECONDS), RateLimitError)
    joined(task)
    assert task.state.phase is Phase.STOPPED
    assert pushes.count == 1


def test_finishing_pushes_once_more_and_ends_the_thread(pushes: Pushes, make: Callable[..., Any]) -> None:
    task = make()
    pushes.let_end(2)
    pushes.wait_for_begin()
    assert task.finish(SECONDS).result(SECONDS) == 2
    joined(task)
    assert not task.alive
    assert task.finish(SECONDS).result(SECONDS) is None
    assert task.trigger().result(SECONDS) is None


def test_the_last_push_is_retried_until_its_deadline(pushes: Pushes, make: Callable[..., Any]) -> None:
    task = make()
    pushes.let_end(1)
    pushes.wait_for_begin()
    pushes.outcomes = [TemporaryError("x"), TemporaryError("y"), "delivered"]
    future = task.finish(SECONDS)
    pushes.let_end(3)
    assert future.result(SECONDS) == "delivered"


def test_a_last_push_that_is_tried_again_answers_the_push_before_it_as_well(
    pushes: Pushes, make: Callable[..., Any]
) -> None:
    task = make()
    pushes.wait_for_begin()
    before = task.last_future
    assert before is not None
    pushes.outcomes = [TemporaryError("x"), "delivered"]
    last = task.finish(SECONDS)
    pushes.let_end(2)
    assert before.result(SECONDS) == last.result(SECONDS) == "delivered"


def test_the_last_push_gives_up_if_the_wait_exceeds_its_deadline(pushes: Pushes, make: Callable[..., Any]) -> None:
    task = make()
    pushes.let_end(1)
    pushes.wait_for_begin()
    pushes.outcomes = [TemporaryError("busy", retry_after=HOUR)]
    pushes.let_end(1)
    future = task.finish(SECONDS)
    assert isinstance(future.exception(SECONDS), TemporaryError)
    joined(task)
    assert not task.alive


def test_a_trigger_right_after_the_last_push_failed_gets_its_error(pushes: Pushes, make: Callable[..., Any]) -> None:
    task = make()
    pushes.let_end(1)
    pushes.wait_for_begin()
    pushes.outcomes = [ActionNeededError("log in")]
    # Runs after the failed push has settled and before the thread ends.
    late: list[Future[Any]] = []
    task.job.status_file.note = lambda _: late.append(task.trigger())
    task.finish(SECONDS)
    pushes.let_end(1)
    joined(task)
    assert isinstance(late[0].exception(SECONDS), ActionNeededError)
    assert not task.alive


def test_stopping_resolves_pending_futures_and_ends_the_thread(pushes: Pushes, make: Callable[..., Any]) -> None:
    task = make()
    pushes.wait_for_begin()
    waiting = task.trigger()
    task.stop()
    assert waiting.result(SECONDS) is None
    pushes.let_end()
    joined(task)
    task.start()
    assert not task.alive


def test_a_finished_loop_can_start_again(pushes: Pushes, make: Callable[..., Any]) -> None:
    task = make()
    pushes.let_end(10)
    task.finish(SECONDS).result(SECONDS)
    joined(task)
    task.start()
    assert task.trigger().result(SECONDS) is not None


def test_a_shared_push_cannot_be_cancelled(pushes: Pushes, make: Callable[..., Any]) -> None:
    task = make()
    pushes.wait_for_begin()
    mine, theirs = task.trigger(), task.trigger()
    assert not mine.cancel()
    pushes.let_end(2)
    assert theirs.result(SECONDS) == 2


def test_triggers_stay_pending_while_a_push_waits_for_its_turn(pushes: Pushes, make: Callable[..., Any]) -> None:
    pushes.outcomes = [1, PostponedError("others come first", 0.2), 2]
    task = make()
    pushes.wait_for_begin()
    before = task.trigger()
    pushes.let_end()
    pushes.wait_for_begin()
    meanwhile = task.trigger()
    pushes.let_end()
    pushes.wait_for_begin()
    assert not before.done()
    assert not meanwhile.done()
    assert task.state.error is None
    pushes.let_end()
    assert before.result(SECONDS) == meanwhile.result(SECONDS) == 2


def test_the_last_push_does_not_wait_for_its_turn(pushes: Pushes, make: Callable[..., Any]) -> None:
    pushes.outcomes = [PostponedError("others come first", HOUR), 2]
    task = make()
    pushes.wait_for_begin()
    future = task.trigger()
    pushes.let_end()
    wait_until(lambda: task.state.phase is Phase.WAITING)
    assert task.state.throttled == (HOUR, "others come first")
    last = task.finish(SECONDS)
    pushes.wait_for_begin()
    pushes.let_end()
    assert future.result(SECONDS) == last.result(SECONDS) == 2


def test_stopping_a_push_that_waits_for_its_turn_is_no_failure(pushes: Pushes, make: Callable[..., Any]) -> None:
    pushes.outcomes = [PostponedError("others come first", HOUR)]
    task = make()
    pushes.wait_for_begin()
    future = task.last_future
    assert future is not None
    pushes.let_end()
    wait_until(lambda: task.state.phase is Phase.WAITING)
    task.stop()
    assert future.result(SECONDS) is None


def test_stopping_during_a_push_that_is_postponed_resolves_its_future(pushes: Pushes, make: Callable[..., Any]) -> None:
    task = make()
    pushes.outcomes = [PostponedError("others are first", HOUR)]
    pushes.wait_for_begin()
    future = task.last_future
    task.stop()
    pushes.let_end()
    assert future.result(SECONDS) is None
    joined(task)


def test_a_stopped_push_that_was_postponed_gets_no_earlier_commit(pushes: Pushes, make: Callable[..., Any]) -> None:
    task = make()
    pushes.outcomes = ["commit", PostponedError("others are first", HOUR)]
    pushes.wait_for_begin()
    future = task.trigger()
    pushes.let_end()
    pushes.wait_for_begin()
    task.stop()
    pushes.let_end()
    assert future.result(SECONDS) is None
    joined(task)


def test_a_task_that_is_stopped_while_another_is_scanned_does_not_join_its_push(loop: PushLoop) -> None:
    first, second = loop.served = [PushTask(loop, Job()) for _ in range(2)]  # type: ignore[arg-type]
    due = loop._round([]).due
    assert next(due) is first.job
    second.stop()
    assert list(due) == []


def test_a_folder_that_is_triggered_while_another_is_scanned_joins_its_push(
    pushes: Pushes, loop: PushLoop, make: Callable[..., Any]
) -> None:
    pushes.let_end(100)
    first, second = make(), make()
    for task in (first, second):
        assert task.last_future is not None
        task.last_future.result(SECONDS)
    with loop.lock:  # the thread begins no push
        tasks: list[PushTask] = []
        current = loop._round(tasks)
        first.trigger()
        assert list(current.due) == [first.job]
        second.trigger()
        assert list(current.due_soon) == [second.job]
        for task in tasks:
            task.settle(None, None)


def test_a_folder_that_is_due_soon_joins_the_push_of_another(pushes: Pushes, make: Callable[..., Any]) -> None:
    pushes.let_end(100)
    frequent, rare, later = make(interval=0.2), make(interval=0.3), make(interval=HOUR)
    wait_until(lambda: any(later.job in served for served in pushes.served), SECONDS)
    count = pushes.count
    wait_until(lambda: [frequent.job, rare.job] in pushes.served[count:], SECONDS)
    assert sum(later.job in served for served in pushes.served) == 1


def test_folders_that_are_due_at_once_are_pushed_together(pushes: Pushes, make: Callable[..., Any]) -> None:
    tasks = [make() for _ in range(3)]
    pushes.let_end(3)
    wait_until(lambda: sum(map(len, pushes.served)) >= 3, SECONDS)
    wait_until(lambda: all(task.last_future and task.last_future.done() for task in tasks), SECONDS)
    count = len(pushes.served)
    with tasks[0]._loop.lock:  # the thread cannot start a push before all triggers
        futures = [task.trigger() for task in tasks]
    pushes.let_end(100)
    assert {future.result(SECONDS) for future in futures} == {count + 1}
    assert sorted(map(id, pushes.served[count])) == sorted(id(task.job) for task in tasks)


def test_the_thread_serves_the_other_tasks_after_one_ends(pushes: Pushes, make: Callable[..., Any]) -> None:
    pushes.let_end(100)
    first, second = make(), make()
    first.finish(SECONDS).result(SECONDS)
    wait_until(lambda: not first.alive, SECONDS)
    assert second.trigger().result(SECONDS) is not None
    count = pushes.count
    first.start()  # while the thread waits for the next push of the other
    wait_until(lambda: [first.job] in pushes.served[count:], SECONDS)
    for task in (first, second):
        task.finish(SECONDS).result(SECONDS)
    joined(second)


def test_a_hung_disk_at_the_end_of_a_task_blocks_no_trigger(pushes: Pushes, make: Callable[..., Any]) -> None:
    hangs, recovered, triggered = threading.Event(), threading.Event(), threading.Event()

    def release_lease() -> None:
        hangs.set()
        recovered.wait(SECONDS)

    def trigger() -> None:
        other.trigger()
        triggered.set()

    pushes.let_end(100)
    ending, other = make(release=release_lease), make()
    ending.finish(SECONDS)
    assert hangs.wait(SECONDS)
    try:
        threading.Thread(target=trigger, daemon=True).start()
        assert triggered.wait(SECONDS / 4)
    finally:
        recovered.set()
    assert other.trigger().result(SECONDS) is not None


def test_a_task_restarted_from_its_end_callback_is_served(pushes: Pushes, make: Callable[..., Any]) -> None:
    begun: list[Future[Any]] = []

    def begin_once() -> None:
        if not begun:
            begun.append(task.finish(SECONDS, again=True))

    pushes.let_end(100)
    task = make(release=begin_once)
    task.finish(SECONDS)
    joined(task)
    assert begun[0].result(SECONDS) is not None


def test_a_busy_folder_is_retried_until_it_is_free(pushes: Pushes, make: Callable[..., Any]) -> None:
    pushes.outcomes = [1, FolderBusyError("another process is pushing this folder"), "commit"]
    task = make()
    pushes.wait_for_begin()
    future = task.trigger()
    pushes.let_end(3)
    assert future.result(SECONDS) == "commit"
    assert task.state.error is None


def test_a_folder_that_stays_busy_fails_the_last_push_in_time(pushes: Pushes, make: Callable[..., Any]) -> None:
    busy = FolderBusyError("another process is pushing this folder")
    pushes.outcomes = [1, *[busy] * 90]
    task = make()
    pushes.let_end(100)
    pushes.wait_for_begin()
    assert isinstance(task.finish(0.6).exception(SECONDS), FolderBusyError)
    joined(task)


@pytest.mark.skipif(
    sys.version_info >= (3, 14), reason="these versions run handlers between taking a lock and entering its block"
)
# An exception in a callback of the interpreter, such as that of a weak reference, is not propagated.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.faults("P13")
def test_a_signal_handler_that_raises_leaves_no_lock_held(pushes: Pushes, make: Callable[..., Any]) -> None:
    class AlarmError(Exception):
        pass

    def handler(*_: object) -> None:
        raise AlarmError

    pushes.let_end(100_000)
    task = make()
    before = signal.signal(signal.SIGALRM, handler)
    attempts = 0
    try:
        while attempts < 500:
            attempts += 1
            with contextlib.suppress(AlarmError, FutureTimeoutError):
                signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, 3e-4))
                while True:
                    future = task.trigger()
                    task.finish(SECONDS, end=False)
                    task.go_on()
                    future.exception(0.001)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(task.trigger().result(SECONDS)), daemon=True)
    thread.start()
    thread.join(SECONDS)
    assert results


@pytest.mark.faults("P14")
def test_waiting_for_a_future_in_the_push_thread_raises(pushes: Pushes, make: Callable[..., Any]) -> None:
    def ask_for_the_next_push(_: object) -> None:
        if not asked:
            asked.append(task.trigger())
            with pytest.raises(FutureTimeoutError):
                asked[0].result()
            refused.set()

    asked: list[Future[Any]] = []
    refused = threading.Event()
    task = make(settled=ask_for_the_next_push)
    pushes.wait_for_begin()
    pushes.let_end(2)
    assert refused.wait(SECONDS)
    assert asked[0].result(SECONDS) == 2


@pytest.mark.faults("P14")
def test_the_thread_survives_a_callback_that_exits(pushes: Pushes, make: Callable[..., Any]) -> None:
    task = make()
    pushes.wait_for_begin()
    first = task.trigger()
    first.add_done_callback(lambda _: sys.exit(3))
    pushes.let_end(2)
    assert first.result(SECONDS) == 2
    pushes.wait_for_begin()
    with pytest.raises(SystemExit):
        first.add_done_callback(lambda _: sys.exit(3))  # called at once, in the calling thread
    pushes.let_end()
    assert task.trigger().result(SECONDS) == 3


@dataclasses.dataclass(frozen=True)
class FrozenError(Exception):
    code: int


class ReadOnlyError(Exception):
    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(name)


class UnprintableError(Exception):
    def __repr__(self) -> str:
        raise ValueError("no repr")

    __str__ = __repr__


@pytest.mark.faults("P14")
@pytest.mark.parametrize("error", [FrozenError(1), ReadOnlyError("x"), UnprintableError()])
def test_the_thread_survives_any_exception_of_a_push_or_callback(
    pushes: Pushes, make: Callable[..., Any], error: Exception
) -> None:
    def tell(_: object) -> None:
        raise error

    pushes.outcomes = [error]
    task = make(ended=tell, settled=tell)
    pushes.wait_for_begin()
    pushes.let_end(100)
    assert task.last_future is not None
    assert task.last_future.exception(SECONDS) is error
    assert task.trigger().result(SECONDS) is not None


@pytest.mark.parametrize("when", ["asked before the end", "during the last push", "after the last push"])
def test_a_callback_may_wait_for_a_thread_that_uses_the_scheduler(
    pushes: Pushes, make: Callable[..., Any], when: str
) -> None:
    task = make()
    pushes.wait_for_begin()
    answered: list[bool] = []

    def wait_for_another_thread(_: object) -> None:
        other = threading.Thread(target=lambda: task.state, daemon=True)
        other.start()
        other.join(SECONDS)
        answered.append(not other.is_alive())

    if when == "asked before the end":
        future = task.trigger()
        future.add_done_callback(wait_for_another_thread)
        pushes.outcomes = [RateLimitError("wait", retry_after=HOUR)]
        pushes.let_end()
        wait_until(lambda: task.state.phase is Phase.WAITING, SECONDS)
        task.finish(1.0)
    else:
        pushes.outcomes = [UnreachableError("no network"), TemporaryError("broken")]
        if when == "during the last push":
            future = task.finish(SECONDS)
        else:
            pushes.outcomes = [RateLimitError("wait", retry_after=1.0)]
            task.finish(0.5, end=False)
            future = task.trigger()
        future.add_done_callback(wait_for_another_thread)
        pushes.let_end()
    assert future.exception(2 * SECONDS) is not None
    wait_until(lambda: answered, SECONDS)
    assert answered == [True]


def test_a_failed_push_keeps_no_reference_to_frames_of_its_waiters(pushes: Pushes, make: Callable[..., Any]) -> None:
    task = make()
    pushes.wait_for_begin()
    pushes.outcomes = [TemporaryError("broken")]
    pushes.let_end()

    class Value:
        pass

    def ask() -> weakref.ref[Value]:
        value = Value()
        assert task.last_future is not None
        with pytest.raises(TemporaryError, match="broken"):
            task.last_future.result(SECONDS)
        return weakref.ref(value)

    asked = ask()
    assert asked() is None


def test_the_future_raises_an_error_whose_class_has_other_arguments(pushes: Pushes, make: Callable[..., Any]) -> None:
    class MineError(TemporaryError):
        def __init__(self, code: int, why: str) -> None:
            super().__init__(f"{why} ({code})")

    task = make()
    pushes.wait_for_begin()
    pushes.outcomes = [MineError(3, "broken")]
    pushes.let_end()
    assert task.last_future is not None
    with pytest.raises(MineError, match=r"broken \(3\)"):
        task.last_future.result(SECONDS)


def test_only_runs_of_one_account_and_destination_share_a_loop() -> None:
    one, other = (Client(None, SimpleNamespace(endpoint="https://hub", token="hf_none")) for _ in range(2))
    config = PushConfig(repo_id="user/run", endpoint="https://hub")
    others = [{"repo_id": "user/other"}, {"repo_type": "dataset"}, {"revision": "runs"}, {"private": True}]
    remotes = [RepoRemote(dataclasses.replace(config, **changes), one) for changes in ({}, *others)]  # type: ignore[arg-type]
    loops = [loop_to(remote) for remote in [*remotes, RepoRemote(config, other)]]
    assert len(set(map(id, loops))) == len(loops)
    assert loop_to(RepoRemote(dataclasses.replace(config, path_in_repo="elsewhere"), one)) is loops[0]
