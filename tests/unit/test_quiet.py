"""A switch of the whole process is off while anybody wants it off, and then as it was."""

from __future__ import annotations

import pytest

from hf_summary_writer.hub.client import Quiet


class Lamp:
    def __init__(self, on: bool) -> None:
        self.on = on

    def is_on(self) -> bool:
        return self.on

    def turn(self, on: bool) -> None:
        self.on = on


@pytest.mark.parametrize("before", [True, False])
def test_it_is_off_until_the_last_one_leaves_and_then_as_it_was(before: bool) -> None:
    lamp = Lamp(before)
    quiet = Quiet(lamp)
    with quiet():
        assert not lamp.on
        with quiet():
            assert not lamp.on
        assert not lamp.on
    assert lamp.on is before


def test_a_forked_child_finds_it_as_it_was() -> None:
    lamp = Lamp(on=True)
    quiet = Quiet(lamp)
    with quiet():
        quiet.after_fork_in_child()
        assert lamp.is_on()
