"""The registries of objects that are told of a fork and of the exit."""

from __future__ import annotations

import sys
from typing import Any

from hf_summary_writer import process


class Member:
    """Something that can be held weakly."""


def test_members_may_come_while_others_are_told() -> None:
    registry = process._Registry()
    first, second = Member(), Member()
    registry.add(first)
    registry.add(second)
    later = []

    def add_one_more(*_: object) -> Any:
        # As another thread may, between any two lines.
        later.append(Member())
        registry.add(later[-1])
        return add_one_more

    before = sys.gettrace()
    sys.settrace(add_one_more)
    try:
        told = registry.newest_first()
    finally:
        sys.settrace(before)
    assert later
    assert told[-2:] == [second, first]
    assert registry.newest_first() == [*reversed(later), second, first]
