"""A day of many runs, simulated with the real timetable, commit queue and budget.

The bounds are the formulas of docs/scale.md: of a limit of 120, 5/8 are granted per hour and 1/8 as a burst.
"""

from __future__ import annotations

from collections import Counter

import pytest

from simulation import HOUR, Layout, Result, most_in_an_hour, simulate

LIMIT = 128
PER_HOUR = 120 * 5 / 8
INTERVAL = 300.0
# The longest time from a snapshot to the end of its commit, and to the next snapshot.
PUSH_SECONDS = 10.0


def period(runs: int, interval: float = INTERVAL, per_hour: float = PER_HOUR) -> float:
    """Return the seconds between two pushes of a run with its own process."""
    return max(interval, runs * HOUR / per_hour)


def assert_the_limit_is_kept(result: Result) -> None:
    assert most_in_an_hour(result.accepted) <= result.layout.limit


def assert_nothing_was_refused(result: Result) -> None:
    assert_the_limit_is_kept(result)
    assert not result.refused
    for asked in result.asked.values():
        assert most_in_an_hour(asked) <= result.layout.limit


@pytest.mark.faults("N14")
@pytest.mark.parametrize("runs", [10, 11, 20, 64])
def test_many_writers_of_a_machine_stay_under_the_limit_and_none_starves(runs: int) -> None:
    result = simulate(Layout(runs))
    assert_nothing_was_refused(result)
    assert max(result.worst) <= period(runs) + PUSH_SECONDS < HOUR
    served = [result.served[run] for run in range(runs)]
    assert max(served) - min(served) <= 1 + max(served) // 50


@pytest.mark.parametrize("runs", [1, 6, 300, 1000])
def test_the_staleness_of_separate_processes_matches_the_formula(runs: int) -> None:
    result = simulate(Layout(runs))
    assert_nothing_was_refused(result)
    assert max(result.worst) <= period(runs) + PUSH_SECONDS
    assert min(result.served[run] for run in range(runs)) >= 24 * HOUR / (period(runs) + PUSH_SECONDS) - 1


@pytest.mark.parametrize("runs", [2, 64, 300])
def test_writers_of_one_process_share_their_commits(runs: int) -> None:
    result = simulate(Layout(runs, processes=1, start=600, hours=6))
    assert_nothing_was_refused(result)
    assert max(result.worst) <= INTERVAL + PUSH_SECONDS
    assert len(result.accepted) <= 6 * HOUR / INTERVAL * -(-runs // 100) + 20


@pytest.mark.parametrize("runs", [64, 500])
def test_a_parent_scheduler_makes_one_commit_for_a_hundred_runs(runs: int) -> None:
    result = simulate(Layout(runs, processes=1, one_folder=True))
    assert_nothing_was_refused(result)
    assert max(result.worst) <= INTERVAL + PUSH_SECONDS * -(-runs // 100)
    assert len(result.accepted) <= 24 * HOUR / INTERVAL * -(-runs // 100)


def test_a_higher_known_limit_is_used() -> None:
    result = simulate(Layout(200, limit=1000, known=1000, hours=2))
    assert_nothing_was_refused(result)
    assert max(result.worst) <= period(200, per_hour=625) + PUSH_SECONDS


def test_an_unknown_limit_is_learned_from_the_first_refusal() -> None:
    result = simulate(Layout(20, known=None))
    assert_the_limit_is_kept(result)
    assert len(result.refused) <= 2
    assert max(result.worst) <= 1.5 * HOUR


@pytest.mark.parametrize("machines", [2, 4, 16])
@pytest.mark.parametrize("start", [0.0, HOUR])
def test_machines_without_communication_share_the_limit_evenly(machines: int, start: float) -> None:
    runs = 8 * machines
    result = simulate(Layout(runs, machines=machines, start=start))
    assert_the_limit_is_kept(result)
    assert len(result.accepted) > 0.8 * 24 * LIMIT  # most of the limit is used
    assert len(result.refused) < 4 * 24 * machines
    assert max(result.worst) <= 1.5 * HOUR + 4 * period(runs, per_hour=LIMIT)
    served = Counter(run % machines for run in result.served.elements())
    assert max(served.values()) < 2 * min(served.values())


def test_machines_that_stay_under_the_limit_together_are_never_refused() -> None:
    result = simulate(Layout(10, machines=10))
    assert_nothing_was_refused(result)
    assert max(result.worst) <= INTERVAL + PUSH_SECONDS


@pytest.mark.parametrize("runs", [20, 64])
def test_ending_runs_upload_all_their_data(runs: int) -> None:
    result = simulate(Layout(runs, run_seconds=HOUR))
    assert_nothing_was_refused(result)
    assert result.last_pushes > 20 * runs
    assert result.left == 0
    assert max(result.worst) <= 2 * HOUR


def test_data_over_the_limit_is_left_for_later_and_no_hour_exceeds_it() -> None:
    result = simulate(Layout(200, run_seconds=HOUR))
    assert_nothing_was_refused(result)
    assert 0 < result.left < result.last_pushes / 2
    assert max(result.worst) <= 2 * HOUR
