"""Objects that are notified of forks, exit and SIGTERM may be added and removed by other threads meanwhile."""

from __future__ import annotations

import contextlib
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest

from hf_summary_writer import process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Member:
    """An object that is notified at exit."""

    close_timeout = 0.0

    def __init__(self) -> None:
        self.told = 0

    def at_sigterm(self) -> Callable[[bool], None]:
        self.told += 1
        return lambda _: None


@contextlib.contextmanager
def between_any_two_lines(step: Callable[[], object]) -> Iterator[None]:
    """Run a step before every line of the block, as another thread might."""

    def trace(*_: object) -> Any:
        step()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


@pytest.fixture
def later() -> list[Member]:
    return []


def test_members_may_be_added_during_the_iteration(later: list[Member]) -> None:
    def add_one_more() -> None:
        later.append(Member())
        registry.add(later[-1])

    registry = process.Registry()
    first, second = Member(), Member()
    registry.add(first)
    registry.add(second)
    with between_any_two_lines(add_one_more):
        told = registry.newest_first()
    assert later
    assert told[-2:] == [second, first]
    assert registry.newest_first() == [*reversed(later), second, first]


def test_members_may_be_added_and_removed_while_sigterm_is_handled(later: list[Member]) -> None:
    def exchange() -> None:
        later.append(Member())
        watch._members.add(later[-1])
        watch._members.discard(later[len(later) // 2])

    watch = process._Watch()
    watch._before = signal.SIG_IGN  # or it would end this process
    member = Member()
    watch._members.add(member)
    with between_any_two_lines(exchange):
        watch._finish()
    assert member.told == 1
