"""Makes the same calls on two writers and shows what each left, decoded."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Any

from events import event_files, events

if TYPE_CHECKING:
    from tensorboardX.proto.event_pb2 import Event

__all__ = ["Call", "contents", "perform", "show"]

Call = tuple[str, tuple[Any, ...], dict[str, Any]]

GIVEN = 1e9
"""Wall times below this were given by a test; the present is above it."""


def contents(logdir: str) -> dict[str, list[Event]]:
    """Return the events of each folder, in order, without the wall times nobody gave."""
    found: dict[str, list[Event]] = {}
    for path in event_files(logdir):
        first, *rest = events(path)
        assert first.file_version == "brain.Event:2"
        found.setdefault(os.path.relpath(path.parent, logdir), []).extend(rest)
    for all_events in found.values():
        for event in all_events:
            if event.wall_time > GIVEN:
                event.wall_time = 0
    return found


def perform(writer: Any, calls: list[Call]) -> list[type[BaseException] | None]:
    """Make all calls and return what each raised."""
    raised: list[type[BaseException] | None] = []
    for method, arguments, keywords in calls:
        raised.append(None)
        try:
            functools.reduce(getattr, method.split("."), writer)(*arguments, **keywords)
        except Exception as error:  # noqa: BLE001 - whatever it is, both must raise it
            raised[-1] = type(error)
    return raised


def show(found: dict[str, list[Event]]) -> dict[str, list[bytes]]:
    # Bytes, not messages: NaN differs from itself, and a zero that is written differs from one that is not.
    return {folder: [event.SerializeToString(deterministic=True) for event in all_] for folder, all_ in found.items()}
