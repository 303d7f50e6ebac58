"""The places where experiment trackers hook into tensorboardX, and whether one does.

W&B replaces the class `EventFileWriter` (`sync_tensorboard=True`), ClearML replaces `FileWriter.add_event`, SwanLab and
Neptune replace methods of `SummaryWriter`. A tracker may do so before or after this package is imported.
"""

from __future__ import annotations

from tensorboardX import event_file_writer, writer

__all__ = ["events_are_hooked", "is_hooked", "replaced_event_file_writer", "summaries_are_hooked"]


def _added_by(kind: type) -> list[tuple[type, str]]:
    return [(kind, name) for name in vars(kind) if name.startswith("add_")]


_SUMMARY_METHODS = _added_by(writer.SummaryWriter)

_EVENT_METHODS = _added_by(writer.FileWriter)


def is_hooked(kind: type, name: str) -> bool:
    """Return whether a method of a class in `tensorboardX.writer` is a tracker's."""
    # Neither the method's name nor its module tell, since `functools.wraps` copies both. What it was when this module
    # was imported does not either: a tracker may have been there already.
    return getattr(vars(kind)[name], "__globals__", None) is not vars(writer)


def summaries_are_hooked() -> bool:
    """Return whether calls must pass through the methods of tensorboardX's `SummaryWriter`."""
    return any(is_hooked(*method) for method in _SUMMARY_METHODS) or events_are_hooked()


def events_are_hooked() -> bool:
    """Return whether events must pass through the methods of tensorboardX's `FileWriter`."""
    theirs = replaced_event_file_writer()
    return any(is_hooked(*method) for method in _EVENT_METHODS) or (
        theirs is not None and theirs.add_event is not event_file_writer.EventFileWriter.add_event
    )


def replaced_event_file_writer() -> type[event_file_writer.EventFileWriter] | None:
    """Return a tracker's subclass that stands in the place of tensorboardX's `EventFileWriter`, if there is one."""
    found = writer.EventFileWriter
    original = event_file_writer.EventFileWriter
    return found if found is not original and isinstance(found, type) and issubclass(found, original) else None
