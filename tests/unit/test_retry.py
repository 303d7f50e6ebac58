"""The wait after a failure."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hf_summary_writer.errors import ActionNeededError, RateLimitError, TemporaryError
from hf_summary_writer.push.timetable import BASE_SECONDS, delay_after

CHANCES = st.floats(0, 1, exclude_max=True)


@given(st.integers(1, 10_000), st.floats(0.1, 1e6), CHANCES)
def test_backing_off_never_exceeds_the_interval(failures: int, interval: float, chance: float) -> None:
    assert 0 <= delay_after(TemporaryError("x"), failures, interval, chance) <= interval


def test_backing_off_doubles_with_every_failure() -> None:
    delays = [delay_after(TemporaryError("x"), failures, 1e9, 0.5) for failures in (1, 2, 3, 4)]
    assert delays == [BASE_SECONDS * factor * 0.5 for factor in (1, 2, 4, 8)]


@given(st.floats(1, 3600), CHANCES)
def test_a_wait_requested_by_the_hub_is_kept_with_a_little_jitter(asked: float, chance: float) -> None:
    delay = delay_after(RateLimitError("x", retry_after=asked), 1, 1.0, chance)
    assert asked <= delay <= asked * 1.1


def test_writers_that_are_told_the_same_wait_do_not_retry_together() -> None:
    assert len({delay_after(RateLimitError("x", retry_after=60), 1, 1.0, chance) for chance in (0, 0.3, 0.7)}) == 3


def test_a_retry_after_of_zero_seconds_still_backs_off() -> None:
    for failures in (1, 5):
        own = delay_after(RateLimitError("x"), failures, 300.0, 0.5)
        assert own > 0
        for nothing in (0.0, 1e-9):
            assert delay_after(RateLimitError("x", retry_after=nothing), failures, 300.0, 0.5) == own


def test_errors_that_need_the_user_are_retried_once_per_interval() -> None:
    assert delay_after(ActionNeededError("x"), 1, 300.0, 0.5) == 300.0
    assert delay_after(KeyError("a bug"), 1, 300.0, 0.5) == 300.0
