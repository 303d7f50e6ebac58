"""The places where experiment trackers hook into tensorboardX, and whether one does.

W&B replaces the class `EventFileWriter` (`sync_tensorboard=True`), ClearML replaces `FileWriter.add_event`, SwanLab and
Neptune replace methods of `SummaryWriter`. A tracker may do so before or after this package is imported.
"""

from __future__ import annotations

import operator
from typing import Any

import tensorboardX


class _AddMethods:
    """The `add_*` methods of a class of tensorboardX. Cheap enough for a check at each image and histogram."""

    def __init__(self, kind: type) -> None:
        self._kind = kind
        self._read = operator.attrgetter(*(name for name in vars(kind) if name.startswith("add_")))
        # The methods at the last look, which are almost always the same ones, and whether one of them was foreign.
        self._last: tuple[tuple[Any, ...], bool] = ((), False)

    def are_hooked(self) -> bool:
        """Return whether one of them is a tracker's."""
        methods = self._read(self._kind)
        last, is_hooked = self._last
        if methods != last:
            is_hooked = any(map(_is_foreign, methods))
            self._last = methods, is_hooked
        return is_hooked


# Undocumented modules: a version that has them under other names is taken for hooked, which costs speed alone.
_writer: Any = getattr(tensorboardX, "writer", tensorboardX)
_event_file_writer: Any = getattr(tensorboardX, "event_file_writer", None)

# As it is here: a program may put a subclass in its place.
_summary_writer: type = getattr(_writer, "SummaryWriter", tensorboardX.SummaryWriter)

_summary_methods = _AddMethods(_summary_writer)

_event_methods = _AddMethods(getattr(_writer, "FileWriter", tensorboardX.FileWriter))


def is_hooked(name: str) -> bool:
    """Return whether a method of tensorboardX's `SummaryWriter` is a tracker's."""
    return _is_foreign(vars(_summary_writer)[name])


def summaries_are_hooked() -> bool:
    """Return whether calls must pass through the methods of tensorboardX's `SummaryWriter`."""
    return _summary_methods.are_hooked() or events_are_hooked()


def events_are_hooked() -> bool:
    """Return whether events must pass through the methods of tensorboardX's `FileWriter`."""
    theirs = replaced_event_file_writer()
    return (
        _event_methods.are_hooked()
        or event_file_writer_is_hooked()
        or (theirs is not None and theirs.add_event is not _event_file_writer.EventFileWriter.add_event)
    )


def event_file_writer_is_hooked() -> bool:
    """Return whether the method `add_event` of tensorboardX's `EventFileWriter` is a tracker's."""
    method = getattr(getattr(_event_file_writer, "EventFileWriter", None), "add_event", None)
    return method is not None and _is_foreign(method, _event_file_writer)


def replaced_event_file_writer() -> type[Any] | None:
    """Return a tracker's subclass that stands in the place of tensorboardX's `EventFileWriter`, if there is one."""
    found = getattr(_writer, "EventFileWriter", None)
    original = getattr(_event_file_writer, "EventFileWriter", None)
    if found is original or not isinstance(found, type) or original is None:
        return None
    return found if issubclass(found, original) else None


def _is_foreign(method: Any, module: Any = _writer) -> bool:
    # Neither the method's name nor its module tell, since `functools.wraps` copies both. Nor would a comparison
    # with the method at the import of this module: a tracker may have replaced it already.
    return getattr(method, "__globals__", None) is not getattr(module, "__dict__", None)
