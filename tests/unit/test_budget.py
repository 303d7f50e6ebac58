"""The commit budget: waiting times, priorities and the limit per hour, on a simulated clock."""

from __future__ import annotations

import heapq
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_summary_writer.errors import PostponedError
from hf_summary_writer.hub.remote import BATCHES
from hf_summary_writer.push.budget import HOUR, Budget, CommitQueue, SharedBudget

if TYPE_CHECKING:
    from pathlib import Path

NOW = 1_800_000_000.0
LIMIT = 128.0


@pytest.fixture
def budget() -> Budget:
    return Budget.fresh(LIMIT, NOW)


def reserve(budget: Budget, times: int) -> tuple[Budget, list[float]]:
    waits = []
    for _ in range(times):
        budget, seconds = budget.reserved()
        waits.append(seconds)
    return budget, waits


def test_a_burst_of_commits_is_allowed_and_later_ones_take_turns(budget: Budget) -> None:
    _, waits = reserve(budget, 20)
    assert waits[:16] == [0] * 16
    assert waits[16:] == [45, 90, 135, 180]


def test_the_wait_for_a_turn_shrinks_with_time(budget: Budget) -> None:
    budget, _ = reserve(budget, 18)
    _, seconds = budget.moved_to(NOW + 60).reserved()
    assert seconds == 3 * 45 - 60


def test_unused_tokens_are_capped(budget: Budget) -> None:
    _, waits = reserve(budget.moved_to(NOW + 100 * HOUR), 17)
    assert waits == [0] * 16 + [45]


def test_the_last_push_skips_the_queue_up_to_the_limit(budget: Budget) -> None:
    budget, _ = reserve(budget, 40)
    for _ in range(128):
        budget, seconds = budget.spent(reserved=False)
        assert seconds == 0
    budget = budget.moved_to(NOW + 600)
    same, seconds = budget.spent(reserved=False)
    assert same == budget
    assert seconds == HOUR - 600
    _, seconds = budget.moved_to(NOW + HOUR).spent(reserved=False)
    assert seconds == 0


def test_a_borrowed_commit_lengthens_the_wait_of_others(budget: Budget) -> None:
    budget, _ = reserve(budget, 16)
    budget, _ = budget.spent(reserved=False)
    assert budget.reserved()[1] == 90


def test_a_commit_that_was_not_made_is_not_counted(budget: Budget) -> None:
    queued = budget.reserved()[0]
    used, _ = queued.spent(reserved=True)
    assert used.unspent(token=False) == queued
    assert used.commits
    borrowed, _ = budget.spent(reserved=False)
    assert borrowed.unspent(token=True) == budget
    assert queued.given_back().tokens == budget.tokens


def test_a_refusal_blocks_all_commits_and_cuts_the_share_once_for_a_while(budget: Budget) -> None:
    refused = budget.refused(600, None)
    assert refused.reserved()[1] == 600
    assert refused.spent(reserved=False)[1] == 600
    assert refused.share == 1
    cut = budget.refused(600, 128)
    assert cut.share == 0.7
    assert cut.named == 120
    assert cut.refused(600, 128).share == 0.7
    assert cut.moved_to(NOW + 600).refused(600, 128).share == pytest.approx(0.7, abs=0.01)
    assert cut.moved_to(NOW + 1200).refused(600, 128).share < 0.5
    assert "wait" in cut.why
    assert "for this machine" in cut.moved_to(NOW + 600).why


def test_a_refusal_delays_positions_that_are_already_in_the_queue(budget: Budget) -> None:
    budget, _ = reserve(budget, 17)
    assert budget.seconds_until(17) == 45
    refused = budget.refused(600, 128)
    assert refused.seconds_until(17) > 600 + 60
    # No tokens accumulate while the Hub blocks commits.
    assert refused.moved_to(NOW + 600).seconds_until(17) == pytest.approx(68.57, abs=0.1)


def test_a_position_of_a_lost_queue_becomes_the_last_of_the_current_one(budget: Budget) -> None:
    budget, waits = reserve(budget, 20)
    assert budget.seconds_until(1000) == waits[-1]


def test_an_unused_turn_is_given_to_the_next_process_that_asks(budget: Budget) -> None:
    budget, waits = reserve(budget, 100)
    assert budget.turn_of(100) == (budget, waits[-1])
    budget, seconds = budget.moved_to(NOW + 2 * 45 + 30).turn_of(100)
    assert seconds == 0
    assert budget.turn_of(99)[1] > 0
    taken = budget.moved_to(NOW + 200).turn_of(17)[0]  # the process at the head of the queue takes its turn
    assert taken.moved_to(NOW + 300).turn_of(99)[1] > 0


def test_the_share_recovers_and_a_named_limit_expires_after_a_day() -> None:
    budget = Budget.fresh(None, NOW)
    assert budget.per_window is None
    assert reserve(budget, 1000)[1] == [0] * 1000
    budget = budget.refused(600, 64)
    assert budget.per_window == 60
    for hour in range(1, 5):
        budget = budget.moved_to(NOW + hour * HOUR)
    assert budget.share == 1
    for hour in range(5, 26):
        budget = budget.moved_to(NOW + hour * HOUR)
    assert budget.per_window is None


@pytest.mark.parametrize("jump", [-1.0, -60.0, -HOUR, -86_400.0])
def test_a_clock_set_back_adds_no_tokens_and_does_not_block_for_ever(budget: Budget, jump: float) -> None:
    budget, _ = reserve(budget, 20)
    moved = budget.moved_to(NOW + jump)
    assert moved.tokens == budget.tokens
    assert moved.moved_to(NOW + jump + 2 * HOUR).tokens > budget.tokens


def test_a_clock_set_forward_adds_at_most_an_hour_of_tokens(budget: Budget) -> None:
    budget, _ = reserve(budget, 1000)
    assert budget.moved_to(NOW + 30 * 86_400).tokens == budget.tokens + 80


@given(
    st.lists(
        st.tuples(st.sampled_from(["reserve", "last", "refuse"]), st.floats(0, 1200)),
        max_size=400,
    ),
    st.sampled_from([1.0, 7.0, 128.0]),
)
def test_no_hour_has_more_commits_than_the_limit(events: list[tuple[str, float]], limit: float) -> None:
    budget, now, waiting, made = Budget.fresh(limit, NOW), NOW, [], []
    for kind, pause in events:
        now += pause
        budget = budget.moved_to(now)
        if kind == "refuse":
            budget = budget.refused(pause, None)
        elif kind == "last":
            budget, seconds = budget.spent(reserved=False)
            made += [now] if seconds == 0 else []
        else:
            budget, seconds = budget.reserved()
            waiting.append(now + seconds)
        for moment in [moment for moment in waiting if moment <= now]:
            budget, seconds = budget.spent(reserved=True)
            if seconds == 0:
                waiting.remove(moment)
                made.append(now)
    for moment in made:
        assert sum(moment <= other < moment + HOUR for other in made) <= limit


def test_processes_share_the_budget_file(tmp_path: Path) -> None:
    path = tmp_path / "home" / "budget.json"
    one, other = (SharedBudget(path, LIMIT, lambda: NOW) for _ in range(2))
    for shared in [one, other] * 8:
        assert shared.change(Budget.reserved)[1] == 0
    assert other.change(Budget.reserved)[1] == 45
    assert one.look().tokens == -1
    assert path.stat().st_mode & 0o777 == 0o600


def test_without_a_limit_no_file_is_written_until_a_refusal_names_one(tmp_path: Path) -> None:
    path = tmp_path / "home" / "budget.json"
    shared = SharedBudget(path, None, lambda: NOW)
    assert shared.change(Budget.reserved)[1] == 0
    assert not path.parent.exists()
    shared.change(lambda budget: (budget.refused(60, 128), 0.0))
    assert SharedBudget(path, None, lambda: NOW).look().per_window == 120
    assert SharedBudget(path, None, lambda: NOW).change(Budget.reserved)[1] >= 60


WHOLE = {
    "at": NOW,
    "tokens": 1.0,
    "commits": [],
    "share": 1.0,
    "blocked": 0.0,
    "named": None,
    "named_since": 0.0,
    "issued": 0,
    "idle": 0.0,
    "cut_since": 0.0,
}


@pytest.mark.parametrize(
    "content",
    [
        # Each of these would make all runs of the machine wait for years, or crash them.
        *(json.dumps({**WHOLE, "blocked": odd}).encode() for odd in (1e9, -1, True, float("nan"), 10**400, "x")),
        *(json.dumps({**WHOLE, "tokens": odd}).encode() for odd in (-1e8, None, "")),
        b"",
        b"{",
        b"[]",
        b'{"at": 1}',
        b"[" * 100_000,
        json.dumps({"at": NOW, "tokens": "x", "commits": [], "share": 1, "blocked": 0, "named": None}).encode(),
        json.dumps(
            {"at": NOW, "tokens": 1e300, "commits": [], "share": 1, "blocked": 0, "named": None, "named_since": 0}
        ).encode(),
    ],
)
def test_an_invalid_budget_file_is_replaced_by_a_fresh_budget(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "budget.json"
    path.write_bytes(content)
    shared = SharedBudget(path, LIMIT, lambda: NOW)
    assert shared.change(Budget.reserved)[1] == 0
    assert json.loads(path.read_text())["tokens"] == 15


def test_without_a_file_a_process_keeps_a_budget_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file is in the way")
    shared = SharedBudget(tmp_path / "home" / "budget.json", LIMIT, lambda: NOW)
    waits = [shared.change(Budget.reserved)[1] for _ in range(17)]
    assert waits == [0] * 16 + [45]


def test_processes_without_a_writable_home_share_a_budget_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file is in the way")
    (tmp_path / "elsewhere").mkdir()
    path = tmp_path / "home" / "budget.json"
    shared = [SharedBudget(path, LIMIT, lambda: NOW, elsewhere=lambda: tmp_path / "elsewhere") for _ in range(2)]
    waits = [shared[number % 2].change(Budget.reserved)[1] for number in range(17)]
    assert waits == [0] * 16 + [45]


def test_an_inaccessible_home_limits_nothing(tmp_path: Path) -> None:
    shared = SharedBudget(tmp_path / ("x" * 300) / "budget.json", None, lambda: NOW)
    assert shared.change(Budget.reserved)[1] == 0


def test_a_budget_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "budget.json"
    wanted = replace(Budget.fresh(LIMIT, NOW), tokens=-3.5, commits=(50.0, 1.0), share=0.5, blocked=7.0, named=100.0)
    SharedBudget(path, LIMIT, lambda: NOW).change(lambda _: (wanted, 0.0))
    found: Any = SharedBudget(path, LIMIT, lambda: NOW).look()
    assert found == wanted


@pytest.mark.parametrize("processes", [10, 60])
def test_processes_that_push_to_buckets_keep_below_the_limit_of_requests(tmp_path: Path, processes: int) -> None:
    now, seconds, made = NOW, 600, []
    budget = SharedBudget(tmp_path / "batches.json", BATCHES.times, lambda: now, BATCHES.seconds)
    queues = [CommitQueue(lambda: budget) for _ in range(processes)]
    due = [(NOW + 15 * number / processes, number) for number in range(processes)]
    while due[0][0] < NOW + seconds:
        now, number = heapq.heappop(due)
        try:
            with queues[number].commit(final=False):
                made.append(now)
            heapq.heappush(due, (now + 15, number))
        except PostponedError as error:
            heapq.heappush(due, (now + max(0.1, error.seconds), number))
    most = max(sum(moment <= other < moment + BATCHES.seconds for other in made) for moment in made)
    assert 2 * most <= 1000
    assert len(made) >= min(0.9 * processes * seconds / 15, 0.5 * BATCHES.times * seconds / BATCHES.seconds)
