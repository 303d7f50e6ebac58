"""How the schedulers of a branch share commits. What commits here is a plain function that a test holds up."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from events import wait_until
from hf_summary_writer.errors import (
    DeadlineError,
    InterruptedPushError,
    PostponedError,
    PushError,
    RateLimitError,
    RejectedError,
    TemporaryError,
)
from hf_summary_writer.folder.snapshot import MAX_POSTED_BYTES_PER_COMMIT
from hf_summary_writer.push.budget import SharedBudget, Turns
from hf_summary_writer.push.loop import Committer, Part, Seat

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

SECONDS = 20.0


class Branch:
    """What a Hub would do: it commits when it may, and refuses what it does not like."""

    def __init__(self) -> None:
        self.commits: list[tuple[str, list[str]]] = []
        self.begun = threading.Semaphore(0)
        self.may_end = threading.Event()
        self.may_end.set()
        self.errors: list[Exception] = []

    def commit(self, additions: Sequence[Any], title: str) -> Any:
        self.begun.release()
        assert self.may_end.wait(SECONDS)
        if self.errors:
            raise self.errors.pop(0)
        if "bad" in additions:
            raise RejectedError("the Hub refused the content")
        self.commits.append((title, list(additions)))
        return f"commit {len(self.commits)}"

    def part(self, *paths: str, last: bool = False, posted: int = 0) -> Part:
        return Part(list(paths), frozenset(paths), "a run", len(paths), posted, last, self.commit)


@pytest.fixture
def branch() -> Branch:
    return Branch()


@pytest.fixture
def committer() -> Committer:
    return Committer(Turns(lambda: None))


@pytest.fixture
def submit(committer: Committer) -> Iterator[Callable[..., Future[Any]]]:
    with ThreadPoolExecutor(40) as pool:
        seats: list[Seat] = []

        def submit(part: Part, interrupted: Callable[[], bool] = lambda: False) -> Future[Any]:
            seats.append(Seat(committer))
            return pool.submit(seats[-1].commit, part, interrupted)

        yield submit


def gathered(committer: Committer, count: int) -> None:
    wait_until(lambda: len(committer._queue) == count)


def test_what_comes_during_a_commit_goes_together_into_the_next_one(
    branch: Branch, committer: Committer, submit: Callable[..., Future[Any]]
) -> None:
    branch.may_end.clear()
    first = submit(branch.part("0"))
    assert branch.begun.acquire(timeout=SECONDS)
    others = [submit(branch.part(str(number))) for number in range(1, 31)]
    gathered(committer, 30)
    branch.may_end.set()
    assert first.result(SECONDS) == ("commit 1", 1)
    assert {other.result(SECONDS) for other in others} == {("commit 2", 2)}
    assert [title for title, _ in branch.commits] == ["Logs of a run: 1 file", "Logs of 30 runs: 30 files"]
    assert sorted(branch.commits[1][1], key=int) == [str(number) for number in range(1, 31)]


def test_a_commit_holds_a_hundred_files_and_the_oldest_come_first(
    branch: Branch, committer: Committer, submit: Callable[..., Future[Any]]
) -> None:
    branch.may_end.clear()
    first = submit(branch.part("first"))
    assert branch.begun.acquire(timeout=SECONDS)
    others = []
    for number in range(5):
        others.append(submit(branch.part(*(f"{number}/{each}" for each in range(30)))))
        gathered(committer, number + 1)
    branch.may_end.set()
    for future in (first, *others):
        future.result(SECONDS)
    assert [len(additions) for _, additions in branch.commits] == [1, 90, 60]
    assert {path.partition("/")[0] for path in branch.commits[1][1]} >= {"0", "1"}


def test_the_text_of_all_who_share_a_commit_is_bounded_and_what_carries_none_goes_along(
    branch: Branch, committer: Committer, submit: Callable[..., Future[Any]]
) -> None:
    branch.may_end.clear()
    futures = [submit(branch.part("first"))]
    assert branch.begun.acquire(timeout=SECONDS)
    half = MAX_POSTED_BYTES_PER_COMMIT // 2
    for name, posted in (("half", half), ("more", half + 1), ("none", 0), ("other half", half)):
        futures.append(submit(branch.part(name, posted=posted)))
        gathered(committer, len(futures) - 1)
    branch.may_end.set()
    for future in futures:
        future.result(SECONDS)
    # Which of those who wait leads is chance.
    together = [frozenset(paths) for _, paths in branch.commits[1:]]
    assert len(together) == 2
    assert {"more"} in [paths - {"none"} for paths in together]
    assert {"half", "other half"} in [paths - {"none"} for paths in together]


def test_two_folders_that_go_to_the_same_place_are_committed_one_after_the_other(
    branch: Branch, committer: Committer, submit: Callable[..., Future[Any]]
) -> None:
    branch.may_end.clear()
    futures = [submit(branch.part("first"))]
    assert branch.begun.acquire(timeout=SECONDS)
    futures += [submit(branch.part("same")), submit(branch.part("same"))]
    gathered(committer, 2)
    branch.may_end.set()
    assert sorted(future.result(SECONDS)[1] for future in futures) == [1, 2, 3]


def test_what_the_hub_refuses_of_one_costs_no_other_its_commit(
    branch: Branch, committer: Committer, submit: Callable[..., Future[Any]]
) -> None:
    branch.may_end.clear()
    first = submit(branch.part("first"))
    assert branch.begun.acquire(timeout=SECONDS)
    good = [submit(branch.part(f"good {number}")) for number in range(6)]
    bad = submit(branch.part("bad"))
    gathered(committer, 7)
    branch.may_end.set()
    first.result(SECONDS)
    for future in good:
        assert future.result(SECONDS)[0].startswith("commit")
    with pytest.raises(RejectedError):
        bad.result(SECONDS)
    assert sorted(path for _, additions in branch.commits[1:] for path in additions) == [
        f"good {number}" for number in range(6)
    ]


@pytest.mark.parametrize(
    "error", [TemporaryError("no route"), RateLimitError("429", retry_after=7, commits_per_hour=128)]
)
def test_a_failure_is_that_of_all_who_shared_it(
    branch: Branch, committer: Committer, submit: Callable[..., Future[Any]], error: PushError
) -> None:
    branch.may_end.clear()
    first = submit(branch.part("first"))
    assert branch.begun.acquire(timeout=SECONDS)
    others = [submit(branch.part("a")), submit(branch.part("b"))]
    gathered(committer, 2)
    error.in_doubt = True
    branch.errors = [PushError("not this one"), error]
    branch.may_end.set()
    with pytest.raises(PushError, match="not this one"):
        first.result(SECONDS)
    raised = [other.exception(SECONDS) for other in others]
    assert raised[0] is not raised[1]
    for each in raised:
        assert isinstance(each, type(error))
        assert (str(each), each.retry_after, each.in_doubt) == (str(error), error.retry_after, True)


def test_who_has_no_more_time_leaves_the_queue_and_who_is_in_the_commit_cannot_know(
    branch: Branch, committer: Committer, submit: Callable[..., Future[Any]]
) -> None:
    branch.may_end.clear()
    first = submit(branch.part("first"))
    assert branch.begun.acquire(timeout=SECONDS)
    hurried = threading.Event()
    late = submit(branch.part("late"), hurried.is_set)
    gathered(committer, 1)
    hurried.set()
    with pytest.raises(InterruptedPushError):
        late.result(SECONDS)
    gathered(committer, 0)
    hurried.clear()
    leader, follower = submit(branch.part("a"), hurried.is_set), submit(branch.part("b"), hurried.is_set)
    gathered(committer, 2)
    branch.may_end.set()
    first.result(SECONDS)
    assert {leader.result(SECONDS), follower.result(SECONDS)} == {("commit 2", 2)}
    assert "late" not in [path for _, additions in branch.commits for path in additions]


def test_who_leaves_during_the_shared_commit_says_that_it_may_have_been_made(branch: Branch) -> None:
    committer = Committer(Turns(lambda: None))
    follower, leader = Seat(committer), Seat(committer)
    branch.may_end.clear()
    hurried = threading.Event()
    committer.expect(follower)  # so that the leader waits for it
    with ThreadPoolExecutor(2) as pool:
        led = pool.submit(leader.commit, branch.part("a"), lambda: False)
        wait_until(lambda: committer._is_led)
        followed = pool.submit(follower.commit, branch.part("b"), hurried.is_set)
        assert branch.begun.acquire(timeout=SECONDS)
        hurried.set()
        error = followed.exception(SECONDS)
        branch.may_end.set()
        assert led.result(SECONDS) == ("commit 1", 1)
    assert isinstance(error, DeadlineError)
    assert error.in_doubt
    assert branch.commits == [("Logs of 2 runs: 2 files", ["a", "b"])]


def test_those_who_are_due_soon_are_invited_and_waited_for(branch: Branch) -> None:
    committer = Committer(Turns(lambda: None))
    with ThreadPoolExecutor(3) as pool:
        futures: list[Future[Any]] = []

        def come(_: float) -> bool:
            futures.append(pool.submit(guest.commit, branch.part("guest"), lambda: False))
            return True

        guest, host, other = Seat(committer, come), Seat(committer), Seat(committer, lambda _: False)
        assert host.commit(branch.part("host"), lambda: False) == ("commit 1", 1)
        assert futures[0].result(SECONDS) == ("commit 1", 1)
        other.end()
    assert branch.commits == [("Logs of 2 runs: 2 files", ["host", "guest"])]


def test_who_was_invited_and_brings_nothing_holds_nobody_up(branch: Branch) -> None:
    committer = Committer(Turns(lambda: None))
    with ThreadPoolExecutor(1) as pool:

        def come(_: float) -> bool:
            pool.submit(guest.end)
            return True

        guest, host = Seat(committer, come), Seat(committer)
        host.commit(branch.part("host"), lambda: False)
        assert not committer._coming


def test_one_turn_is_one_commit_for_all_who_share_it(branch: Branch, tmp_path: Path) -> None:
    budget = SharedBudget(tmp_path / "budget.json", 8, lambda: 1e9)
    committer = Committer(Turns(lambda: budget))
    host, guest = Seat(committer), Seat(committer)
    for seat in (host, guest):
        seat.await_turn(last=False)
        seat.begin()
    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(seat.commit, branch.part(str(id(seat))), lambda: False) for seat in (host, guest)]:
            future.result(SECONDS)
    assert len(branch.commits) == 1
    with pytest.raises(PostponedError):
        host.await_turn(last=False)
    with pytest.raises(PostponedError):
        host.commit(branch.part("too early"), lambda: False)
    guest.await_turn(last=True)
    guest.commit(branch.part("the end", last=True), lambda: False)
    assert len(branch.commits) == 2


def test_a_commit_that_was_not_made_costs_no_turn_and_one_that_may_have_been_does(
    branch: Branch, tmp_path: Path
) -> None:
    budget = SharedBudget(tmp_path / "budget.json", 8, lambda: 1e9)
    seat = Seat(Committer(Turns(lambda: budget)))
    doubtful = DeadlineError("no answer")
    doubtful.in_doubt = True
    branch.errors = [TemporaryError("no route"), doubtful]
    for _ in range(2):
        with pytest.raises(TemporaryError):
            seat.commit(branch.part("a"), lambda: False)
    with pytest.raises(PostponedError):
        seat.commit(branch.part("a"), lambda: False)


def test_only_one_makes_sure_of_the_repo_and_all_know_its_name() -> None:
    committer = Committer(Turns(lambda: None))
    answers = iter([("user/run", True), ("user/run", False)])
    assert committer.ensure_repo(lambda: next(answers)) == ("user/run", True)
    assert committer.ensure_repo(lambda: next(answers)) == ("user/run", False)
    committer.forget_repo(0)
    assert committer.ensure_repo(lambda: next(answers)) == ("user/run", False)
    assert next(answers, None) is None


def test_what_several_find_gone_at_once_is_lost_once() -> None:
    committer = Committer(Turns(lambda: None))
    for _ in range(3):
        committer.forget_repo(0)
    assert committer.losses == 1
    committer.forget_repo(1)
    assert committer.losses == 2


def test_who_shared_a_commit_shares_the_squash(branch: Branch) -> None:
    committer, squashes = Committer(Turns(lambda: None)), []
    seat = Seat(committer)
    for number in (1, 2):
        assert seat.commit(branch.part("a"), lambda: False)[1] == number
    for number in (2, 2, 1):
        committer.squash(number, lambda: squashes.append(1))
    assert len(squashes) == 1
    seat.commit(branch.part("a"), lambda: False)
    committer.squash(3, lambda: squashes.append(1))
    assert len(squashes) == 2


def test_at_the_end_of_a_run_others_are_invited_earlier(branch: Branch) -> None:
    committer, shares = Committer(Turns(lambda: None)), []

    def decline(share: float) -> bool:
        shares.append(share)
        return False

    host, guest = Seat(committer), Seat(committer, decline)
    host.commit(branch.part("a"), lambda: False)
    host.commit(branch.part("b", last=True), lambda: False)
    guest.end()
    assert shares[0] < shares[1] < 1
