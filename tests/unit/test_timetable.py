"""When a push is due, on a simulated clock."""

from __future__ import annotations

import pytest

from hf_summary_writer.errors import (
    FolderBusyError,
    PostponedError,
    RateLimitError,
    TemporaryError,
    UnreachableError,
    UnwrittenError,
)
from hf_summary_writer.push.timetable import BASE_SECONDS, Result, Timetable

INTERVAL = 300.0


@pytest.fixture
def table() -> Timetable:
    return Timetable(INTERVAL, 1000.0, lambda: 0.5)


def test_the_first_push_is_due_at_once_and_the_next_an_interval_after_it(table: Timetable) -> None:
    assert table.ready_at(requested=False) == 1000
    assert table.settle(1010.0, None) is Result.DONE
    assert table.ready_at(requested=False) == 1010 + INTERVAL
    assert table.ready_at(requested=True) <= 1010


def test_a_request_skips_our_back_off_but_not_a_wait_requested_by_the_hub(table: Timetable) -> None:
    table.settle(1000.0, TemporaryError("no route"))
    assert table.ready_at(requested=False) > 1000
    assert table.ready_at(requested=True) <= 1000
    table.settle(1000.0, RateLimitError("429", retry_after=60))
    assert table.ready_at(requested=True) >= 1060
    assert table.seconds_to_wait(1000.0) >= 60
    assert table.hub_asked_to_wait
    table.settle(1000.0, RateLimitError("429", retry_after=0.0))
    assert table.ready_at(requested=True) <= 1000
    assert not table.hub_asked_to_wait


def test_after_a_success_nothing_waits_for_an_earlier_back_off(table: Timetable) -> None:
    table.settle(1000.0, RateLimitError("429", retry_after=60))
    table.settle(1001.0, None)
    assert table.seconds_to_wait(1001.0) == 0
    table.settle(1001.0, TemporaryError("down"))
    assert table.ready_at(requested=False) == 1001 + BASE_SECONDS * 0.5  # as after a first failure


def test_a_last_push_is_retried_unless_the_hub_never_responded(table: Timetable) -> None:
    table.finish(1000.0, 20.0)
    lost = UnreachableError("connection refused")
    lost.was_reached = True
    assert table.settle(1000.0, lost) is Result.AGAIN
    assert table.ready_at(requested=True) == 1000 + BASE_SECONDS * 0.5
    assert table.settle(1001.0, UnreachableError("connection refused")) is Result.GIVEN_UP


def test_a_last_push_begins_at_once_after_a_failure_and_is_not_repeated_for_the_disk(table: Timetable) -> None:
    table.settle(1000.0, TemporaryError("no route"))
    assert table.finish(1000.5, 20.0)
    assert table.ready_at(requested=True) <= 1000.5
    assert table.settle(1001.0, UnwrittenError("the disk is full")) is Result.GIVEN_UP


def test_a_last_push_without_time_is_not_made(table: Timetable) -> None:
    table.finish(1000.0, 0.0)
    assert table.is_hopeless(1000.0)


def test_the_interruption_of_a_push_is_its_failure(table: Timetable) -> None:
    assert table.settle(1000.0, SystemExit("ended by a hook")) is Result.FAILED
    assert isinstance(table.error, RuntimeError)
    assert table.ready_at(requested=False) == 1000 + INTERVAL


def test_an_ordinary_push_is_retried_even_if_the_hub_never_responded(table: Timetable) -> None:
    assert table.settle(1000.0, UnreachableError("connection refused")) is Result.FAILED
    assert table.ready_at(requested=False) < 1000 + INTERVAL


def test_a_folder_pushed_by_another_process_is_checked_less_and_less_often(table: Timetable) -> None:
    now, checks = 1000.0, 0
    while table.settle(now, FolderBusyError("another process is pushing this folder")) is Result.AGAIN:
        checks += 1
        now, before = table.ready_at(requested=True), now
        assert before < now <= before + INTERVAL / 8
    assert now < 1000 + 1.2 * INTERVAL
    assert checks < 60
    table.settle(now, None)
    assert table.settle(now + 2 * INTERVAL, FolderBusyError("another process")) is Result.AGAIN


def test_a_busy_folder_is_waited_for_a_second_even_with_a_short_interval() -> None:
    table = Timetable(0.1, 1000.0, lambda: 0.5)
    results = [table.settle(now, FolderBusyError("another process")) for now in (1000.0, 1000.9, 1001.0)]
    assert results == [Result.AGAIN, Result.AGAIN, Result.FAILED]


def test_a_last_push_gives_up_on_a_busy_folder_at_its_end(table: Timetable) -> None:
    busy = FolderBusyError("another process")
    table.finish(1000.0, 1.0)
    assert table.settle(1000.7, busy) is Result.AGAIN
    assert table.settle(1000.8, busy) is Result.GIVEN_UP
    assert table.error is busy


def test_a_last_push_checks_a_busy_folder_to_the_end_at_the_same_pace(table: Timetable) -> None:
    busy = FolderBusyError("another process is pushing this folder")
    table.settle(1000.0, busy)
    table.finish(1400.0, 20.0)
    assert table.settle(1400.0, busy) is Result.AGAIN
    first = table.ready_at(requested=True)
    assert table.settle(1410.0, busy) is Result.AGAIN
    assert table.ready_at(requested=True) - 1410 == first - 1400 < 1


def test_a_postponed_push_is_no_failure_and_waits_for_its_turn(table: Timetable) -> None:
    table.settle(1000.0, None)
    assert table.settle(1300.0, PostponedError("shared with others", 500.0)) is Result.AGAIN
    assert table.error is None
    # It asks again earlier: others may leave the queue.
    assert table.ready_at(requested=False) == table.ready_at(requested=True) == 1300 + 500 / 8
    assert table.throttled == (800.0, "shared with others")
    assert table.seconds_to_wait(1300.0) == 500
    assert table.settle(1362.5, PostponedError("shared with others", 30.0)) is Result.AGAIN
    assert table.throttled == (392.5, "shared with others")
    assert table.ready_at(requested=False) == 1392.5
    table.settle(1800.0, None)
    assert table.throttled is None
    assert table.ready_at(requested=False) == 1800 + INTERVAL
    table.settle(1810.0, PostponedError("shared with others", 1.0))
    assert table.throttled == (INTERVAL, "shared with others")


def test_the_last_push_does_not_wait_for_its_turn(table: Timetable) -> None:
    table.settle(1000.0, PostponedError("shared with others", 500.0))
    assert table.finish(1010.0, 20.0)
    assert table.ready_at(requested=True) <= 1010
    # A push that started before `finish` was called is repeated at once.
    assert table.settle(1011.0, PostponedError("shared with others", 500.0)) is Result.AGAIN
    assert table.ready_at(requested=True) <= 1011


def test_the_last_push_gives_up_if_its_retry_is_after_the_deadline(table: Timetable) -> None:
    assert table.finish(1000.0, 20.0)
    assert table.settle(1001.0, TemporaryError("no route")) is Result.AGAIN
    assert table.settle(1002.0, RateLimitError("429", retry_after=60)) is Result.GIVEN_UP
    assert not table.finish(1003.0, 20.0)


@pytest.mark.parametrize(("later", "comes"), [(0, False), (149, False), (150, True), (299, True), (301, True)])
def test_a_push_is_brought_forward_by_at_most_half_an_interval(table: Timetable, later: float, comes: bool) -> None:
    table.settle(1000.0, None)
    now = 1000 + later
    assert table.bring_forward(now, 0.5) is comes
    assert (table.ready_at(requested=False) <= now) is comes


@pytest.mark.parametrize("error", [RateLimitError("429", retry_after=60), PostponedError("shared with others", 60.0)])
def test_a_push_that_has_to_wait_is_not_brought_forward(table: Timetable, error: Exception) -> None:
    table.settle(1000.0, error)
    assert not table.bring_forward(1050.0, 1.0)


def test_a_finished_timetable_can_begin_anew(table: Timetable) -> None:
    table.settle(1000.0, None)
    table.finish(1010.0, 5.0)
    table.begin_anew(1020.0)
    assert table.finish_by is None
    assert table.ready_at(requested=False) == 1020


def test_a_timetable_that_begins_anew_keeps_a_wait_requested_by_the_hub(table: Timetable) -> None:
    table.settle(1000.0, RateLimitError("429", retry_after=60))
    table.begin_anew(1010.0)
    assert table.ready_at(requested=False) >= 1060
