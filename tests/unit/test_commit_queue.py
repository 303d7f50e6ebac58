"""When a branch may commit, on a simulated clock."""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING

import pytest

from hf_summary_writer.errors import PostponedError, RateLimitError
from hf_summary_writer.push.budget import CommitQueue, SharedBudget

if TYPE_CHECKING:
    from pathlib import Path

LIMIT = 8.0  # one commit at once, then one every twelve minutes
EVERY = 720.0


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def branches(tmp_path: Path, clock: Clock) -> list[CommitQueue]:
    budget = SharedBudget(tmp_path / "budget.json", LIMIT, clock)
    return [CommitQueue(lambda: budget) for _ in range(3)]


def commit(queue: CommitQueue, *, final: bool = False) -> None:
    if not final:
        queue.wait_turn(final=False)
    queue._spend(final=final)


def commits_of(branches: list[CommitQueue], clock: Clock, minutes: int) -> list[tuple[float, int]]:
    """Let all branches try every minute, and return the time and branch of each commit."""
    made = []
    for _ in range(minutes):
        for number, queue in enumerate(branches):
            with contextlib.suppress(PostponedError):
                commit(queue)
                made.append((clock.now, number))
        clock.now += 60
    return made


def test_a_branch_keeps_its_position_when_it_asks_repeatedly(branches: list[CommitQueue], clock: Clock) -> None:
    commit(branches[0])
    for _ in range(5):
        with pytest.raises(PostponedError) as waits:
            branches[1].wait_turn(final=False)
        assert waits.value.seconds == EVERY
    with pytest.raises(PostponedError) as waits:
        branches[2].wait_turn(final=False)
    assert waits.value.seconds == 2 * EVERY
    clock.now += EVERY
    commit(branches[1])
    with pytest.raises(PostponedError):
        branches[2].wait_turn(final=False)


def test_all_branches_take_turns(branches: list[CommitQueue], clock: Clock) -> None:
    made = [number for _, number in commits_of(branches, clock, minutes=300)]
    assert len(made) == pytest.approx(300 * 60 / EVERY, abs=2)
    assert {tuple(made[i : i + 3]) for i in range(0, len(made) - 2, 3)} == {(0, 1, 2)}


def test_the_last_push_does_not_wait_unless_the_hub_would_refuse_it(branches: list[CommitQueue], clock: Clock) -> None:
    for _ in range(int(LIMIT)):
        commit(branches[0], final=True)
    with pytest.raises(RateLimitError) as refused:
        commit(branches[1], final=True)
    assert refused.value.retry_after == 3600
    clock.now += 3600
    commit(branches[1], final=True)


def test_an_ordinary_push_waits_when_last_pushes_have_used_up_the_limit(
    branches: list[CommitQueue], clock: Clock
) -> None:
    branches[0].wait_turn(final=False)
    for _ in range(int(LIMIT)):
        commit(branches[1], final=True)
    with pytest.raises(PostponedError) as waits:
        branches[0]._spend(final=False)
    assert waits.value.seconds == 3600
    clock.now += 3600
    branches[0]._spend(final=False)


def test_a_branch_whose_commit_was_not_made_keeps_its_position(branches: list[CommitQueue], clock: Clock) -> None:
    commit(branches[0])
    for queue in branches[1:]:
        with pytest.raises(PostponedError):
            queue.wait_turn(final=False)
    clock.now += EVERY
    for _ in range(3):
        commit(branches[1])
        branches[1]._give_back()
    commit(branches[1])
    with pytest.raises(PostponedError) as waits:
        branches[2].wait_turn(final=False)
    assert waits.value.seconds == EVERY


def test_a_token_borrowed_for_a_commit_that_was_not_made_is_returned(branches: list[CommitQueue]) -> None:
    commit(branches[0], final=True)
    branches[0]._give_back()
    commit(branches[1])


def test_a_failed_commit_frees_the_position_taken_for_the_one_after_it(
    branches: list[CommitQueue], clock: Clock
) -> None:
    commit(branches[0])
    with pytest.raises(PostponedError):
        branches[0].wait_turn(final=False)  # for the commit after that
    branches[0]._give_back()
    commit(branches[0])
    clock.now += EVERY
    commit(branches[1])


def test_dead_processes_in_the_queue_do_not_hold_up_the_others(branches: list[CommitQueue], clock: Clock) -> None:
    commit(branches[0])
    budget = branches[0]._budget
    for dead in [CommitQueue(budget) for _ in range(200)]:
        with pytest.raises(PostponedError):
            dead.wait_turn(final=False)
    began = clock.now
    made = 0
    while made < 3:
        clock.now += 60
        for queue in branches:
            try:
                commit(queue)
            except PostponedError:
                continue
            made += 1
    assert clock.now - began < 10 * EVERY


def test_a_refusal_of_one_branch_holds_back_all_branches(branches: list[CommitQueue], clock: Clock) -> None:
    branches[0]._refused(RateLimitError("429", retry_after=100, commits_per_hour=8))
    with pytest.raises(PostponedError, match="wait"):
        branches[1].wait_turn(final=False)
    with pytest.raises(RateLimitError):
        branches[2]._spend(final=True)
    clock.now += 100
    branches[2]._spend(final=True)


def test_queued_branches_commit_one_by_one_after_a_refusal(branches: list[CommitQueue], clock: Clock) -> None:
    commit(branches[0])
    for queue in branches:
        with pytest.raises(PostponedError):
            queue.wait_turn(final=False)
    branches[0]._refused(RateLimitError("429", retry_after=3600, commits_per_hour=8))
    clock.now += 3600
    made = commits_of(branches, clock, minutes=70)
    assert [number for _, number in made[:3]] == [0, 1, 2]
    assert all(after - before > EVERY for (before, _), (after, _) in itertools.pairwise(made))


def test_without_a_budget_no_branch_waits() -> None:
    queue = CommitQueue(lambda: None)
    for _ in range(1000):
        commit(queue)
    queue._give_back()
    queue._refused(RateLimitError("429", retry_after=100))
    commit(queue)
