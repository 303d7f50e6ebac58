"""Make the same calls on two writers and compare the decoded files."""

from __future__ import annotations

import functools
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tensorboardX

from events import event_files, events
from hf_summary_writer.events.writer import EventWriter

if TYPE_CHECKING:
    from tensorboardX.proto.event_pb2 import Event

__all__ = ["Call", "contents", "others", "perform", "same", "show"]

Call = tuple[str, tuple[Any, ...], dict[str, Any]]

GIVEN = 1e9
"""Tests pass wall times below this; the current time is above it."""


def contents(logdir: str) -> dict[str, list[Event]]:
    """Return the events of each folder in order, with wall times zeroed unless a test passed them."""
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
    """Make all calls and return the type of error that each raised."""
    raised: list[type[BaseException] | None] = []
    for method, arguments, keywords in calls:
        raised.append(None)
        try:
            functools.reduce(getattr, method.split("."), writer)(*arguments, **keywords)
        except Exception as error:  # noqa: BLE001 - both writers must raise the same type
            raised[-1] = type(error)
    return raised


def show(found: dict[str, list[Event]]) -> dict[str, list[bytes]]:
    # Bytes, not messages: NaN differs from itself, and an explicit zero differs from an absent field.
    return {folder: [event.SerializeToString(deterministic=True) for event in all_] for folder, all_ in found.items()}


def others(logdir: str) -> dict[str, bytes]:
    """Return the files other than event files."""
    paths = [path for path in Path(logdir).rglob("*") if path.is_file() and "tfevents" not in path.name]
    return {str(path.relative_to(logdir)): path.read_bytes() for path in paths}


def same(calls: list[Call], **arguments: Any) -> None:
    """Assert that both writers raise the same errors and write the same files for the same calls."""
    with tempfile.TemporaryDirectory() as theirs, tempfile.TemporaryDirectory() as ours:
        with tensorboardX.SummaryWriter(theirs, **arguments) as writer:
            expected = perform(writer, calls)
        with EventWriter(ours, **arguments) as writer:
            assert perform(writer, calls) == expected
        assert show(contents(ours)) == show(contents(theirs))
        assert others(ours) == others(theirs)
