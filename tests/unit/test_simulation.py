"""What a day of many runs comes to, by a simulation with the real timetable, turns and budget.

The bounds are the formulas of docs/scale.md: of a limit of 120 the bucket gives 5/8 per hour, and 1/8 at once.
"""

from __future__ import annotations

from collections import Counter

import pytest

from simulation import HOUR, Layout, Result, most_in_an_hour, simulate

LIMIT = 128
PER_HOUR = 120 * 5 / 8
INTERVAL = 300.0
# From a snapshot until its commit has landed, and until the next one is made, at the most.
PUSH_SECONDS = 10.0


def period(runs: int, interval: float = INTERVAL, per_hour: float = PER_HOUR) -> float:
    """Return how far two pushes of a run are apart that has a process of its own."""
    return max(interval, runs * HOUR / per_hour)


def assert_the_limit_is_kept(result: Result) -> None:
    assert most_in_an_hour(result.accepted) <= result.layout.limit


def assert_nobody_was_refused(result: Result) -> None:
    assert_the_limit_is_kept(result)
    assert not result.refused
    for asked in result.asked.values():
        assert most_in_an_hour(asked) <= result.layout.limit


@pytest.mark.faults("N14")
@pytest.mark.parametrize("runs", [10, 11, 20, 64])
def test_many_writers_of_a_machine_stay_under_the_limit_and_none_starves(runs: int) -> None:
    result = simulate(Layout(runs))
    assert_nobody_was_refused(result)
    assert max(result.worst) <= period(runs) + PUSH_SECONDS < HOUR
    served = [result.served[run] for run in range(runs)]
    assert max(served) - min(served) <= 1 + max(served) // 50


@pytest.mark.parametrize("runs", [1, 6, 300, 1000])
def test_own_processes_are_as_stale_as_the_formula_says(runs: int) -> None:
    result = simulate(Layout(runs))
    assert_nobody_was_refused(result)
    assert max(result.worst) <= period(runs) + PUSH_SECONDS
    assert min(result.served[run] for run in range(runs)) >= 24 * HOUR / (period(runs) + PUSH_SECONDS) - 1


@pytest.mark.parametrize("runs", [2, 64, 300])
def test_writers_of_one_process_share_their_commits(runs: int) -> None:
    result = simulate(Layout(runs, processes=1, start=600, hours=6))
    assert_nobody_was_refused(result)
    assert max(result.worst) <= INTERVAL + PUSH_SECONDS
    assert len(result.accepted) <= 6 * HOUR / INTERVAL * -(-runs // 100) + 20


@pytest.mark.parametrize("runs", [64, 500])
def test_an_agent_makes_one_commit_for_a_hundred_runs(runs: int) -> None:
    result = simulate(Layout(runs, processes=1, agent=True))
    assert_nobody_was_refused(result)
    assert max(result.worst) <= INTERVAL + PUSH_SECONDS * -(-runs // 100)
    assert len(result.accepted) <= 24 * HOUR / INTERVAL * -(-runs // 100)


def test_a_higher_limit_is_used_when_it_is_known() -> None:
    result = simulate(Layout(200, limit=1000, known=1000, hours=2))
    assert_nobody_was_refused(result)
    assert max(result.worst) <= period(200, per_hour=625) + PUSH_SECONDS


def test_the_first_refusal_tells_a_limit_that_nobody_knew() -> None:
    result = simulate(Layout(20, known=None))
    assert_the_limit_is_kept(result)
    assert len(result.refused) <= 2
    assert max(result.worst) <= 1.5 * HOUR


@pytest.mark.parametrize("machines", [2, 4, 16])
@pytest.mark.parametrize("start", [0.0, HOUR])
def test_machines_that_know_nothing_of_each_other_come_to_share_what_there_is(machines: int, start: float) -> None:
    runs = 8 * machines
    result = simulate(Layout(runs, machines=machines, start=start))
    assert_the_limit_is_kept(result)
    assert len(result.accepted) > 0.8 * 24 * LIMIT  # what is there is used
    assert len(result.refused) < 4 * 24 * machines
    assert max(result.worst) <= 1.5 * HOUR + 4 * period(runs, per_hour=LIMIT)
    served = Counter(run % machines for run in result.served.elements())
    assert max(served.values()) < 2 * min(served.values())


def test_machines_that_stay_under_the_limit_together_are_never_refused() -> None:
    result = simulate(Layout(10, machines=10))
    assert_nobody_was_refused(result)
    assert max(result.worst) <= INTERVAL + PUSH_SECONDS


@pytest.mark.parametrize("runs", [20, 64])
def test_runs_that_end_deliver_all_they_have(runs: int) -> None:
    result = simulate(Layout(runs, run_seconds=HOUR))
    assert_nobody_was_refused(result)
    assert result.last_pushes > 20 * runs
    assert result.left == 0
    assert max(result.worst) <= 2 * HOUR


def test_what_does_not_fit_into_the_limit_is_left_for_later_and_no_hour_exceeds_it() -> None:
    result = simulate(Layout(200, run_seconds=HOUR))
    assert_nobody_was_refused(result)
    assert 0 < result.left < result.last_pushes / 2
    assert max(result.worst) <= 2 * HOUR
