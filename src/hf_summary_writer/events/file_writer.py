"""The writer of one event file that tensorboardX and torch expose: events and summaries as protocol buffers."""

from __future__ import annotations

import contextlib
import time
import weakref
from typing import TYPE_CHECKING, Any

from hf_summary_writer.events import hooks
from hf_summary_writer.events.device import Snapshot
from hf_summary_writer.events.encoding import SUMMARY, event_payload
from hf_summary_writer.events.items import Deferred, OnDevice, ScalarOnDevice
from hf_summary_writer.events.thread import writer_thread
from hf_summary_writer.events.upstream import Event
from hf_summary_writer.events.upstream import EventFileWriter as _TheirEventFileWriter
from hf_summary_writer.events.upstream import FileWriter as _TheirFileWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from google.protobuf.message import Message

    from hf_summary_writer.events.queue import EventQueue
    from hf_summary_writer.events.signals import FlushRequest

_CALL_BYTES = 2560

"""Memory of a call that is encoded later, besides its values: functions, their arguments, the headers of arrays.
CPython 3.14 takes most, up to 2.2 kB."""


def _check(message: Any, name: str) -> None:
    """Raise `TypeError` unless `message` is a `name` of tensorboardX or of tensorboard."""
    descriptor = getattr(message, "DESCRIPTOR", None)
    if getattr(descriptor, "name", None) != name or not hasattr(message, "SerializeToString"):
        raise TypeError(f"expected a protocol buffer {name} of tensorboardX or tensorboard, got {type(message)}")


def plain_step(step: Any) -> int | None:
    """Return a step of any type as an integer of 64 bits; raise `TypeError` or `ValueError` if it is none."""
    if step is None:
        return None
    number = int(step)
    if not -(1 << 63) <= number < 1 << 63:
        raise ValueError(f"Value out of range: {number}")
    return number


def plain_time(walltime: Any) -> float:
    """Return a wall time of any type of number as a `float`; raise `TypeError` if it is none."""
    # The message refuses other types, as in tensorboardX.
    number: float = Event(wall_time=walltime).wall_time
    return number


class EventFileWriter(_TheirEventFileWriter):  # type: ignore[misc]
    """Adds events with the wall time and step that they have."""

    _events: EventQueue
    _closed = False

    def __init__(self, logdir: str, *_theirs: Any, **_named: Any) -> None:
        # Not the parent's, which opens a file and starts a thread.
        self._logdir = logdir

    @classmethod
    def of(cls, events: EventQueue) -> EventFileWriter:
        """Return the event writer of a queue, after the constructor of a tracker that replaces tensorboardX's class."""
        theirs = hooks.replaced_event_file_writer()
        kind: Any = cls if theirs is None else type(theirs.__name__, (theirs, cls), {})
        writer: EventFileWriter = kind.__new__(kind)
        writer._events = events
        kind.__init__(writer, events.directory)
        return writer

    def get_logdir(self) -> str:
        return self._logdir

    def add_event(self, event: Message) -> None:
        _check(event, "Event")
        if hooks.event_file_writer_is_hooked():
            super().add_event(event)  # puts it into `_event_queue`
        else:
            self.put(event)

    @property
    def _event_queue(self) -> EventFileWriter:
        return self

    def put(self, event: Message) -> None:
        self._events.put(event.SerializeToString())

    def flush(self) -> None:
        """Return when all events logged before, by any thread, are written and fsynced; never raise."""
        writer_thread.wait(self._events.request_flush())

    def close(self) -> None:
        """Flush and close; later events go to a new file."""
        writer_thread.wait(self._events.close())

    def reopen(self) -> None:
        self._events.reopen()


class FileWriter(_TheirFileWriter):  # type: ignore[misc]
    """Writes protocol buffers of tensorboardX or tensorboard to the event files of one folder, in the background.

    Attributes:
        events: The queue of that folder.
    """

    def __init__(self, events: EventQueue) -> None:
        self.events: EventQueue = events
        self.event_writer: EventFileWriter = EventFileWriter.of(events)
        self._default_metadata: dict[str, Any] = {}
        # A writer that is dropped without `close` still gets its file finished.
        self._finalizer = weakref.finalize(self, events.close)
        self._finalizer.atexit = False

    def add_event(self, event: Message, step: Any = None, walltime: float | None = None) -> None:
        _check(event, "Event")
        if hooks.events_are_hooked():
            super().add_event(event, step, walltime)
            return
        event.wall_time = self._wall_time(walltime)
        if (step := self._step(step)) is not None:
            event.step = step
        self.event_writer.add_event(event)

    def add_summary(self, summary: Message, global_step: Any = None, walltime: float | None = None) -> None:
        _check(summary, "Summary")
        if hooks.events_are_hooked():
            super().add_summary(summary, global_step, walltime)
            return
        self.events.put(
            event_payload(self._wall_time(walltime), self._step(global_step), SUMMARY, summary.SerializeToString())
        )

    def add_scalar(
        self,
        prefix: bytes,
        value: float | Snapshot,
        global_step: Any = None,
        walltime: float | None = None,
        on_read: Callable[[float], None] | None = None,
    ) -> None:
        """Add a scalar with a tag encoded by `encoding.scalar_prefix`; `on_read` receives the value of a snapshot."""
        wall_time, step = self._wall_time(walltime), self._step(global_step)
        if isinstance(value, Snapshot):
            self.events.put(ScalarOnDevice(wall_time, prefix, value, step, on_read))
        else:
            self.events.put((wall_time, prefix, value, step))

    def add_deferred(
        self,
        make_summary: Callable[..., Message],
        nbytes: int,
        global_step: Any = None,
        walltime: float | None = None,
        values: Sequence[Any] = (),
    ) -> None:
        """Add the summary that `make_summary` returns in the writer thread.

        Args:
            make_summary: Called with `values`, once those among them that are snapshots have been read.
            nbytes: Memory that it and the values hold until then.
            global_step: As for `add_summary`.
            walltime: As for `add_summary`.
            values: Arguments of `make_summary`.
        """
        try:
            wall_time, step = self._wall_time(walltime), self._step(global_step)
        except BaseException:
            self.events.memory.give_back_on_device(sum(value.nbytes for value in values if type(value) is Snapshot))
            raise

        def encode(*values: Any) -> bytes:
            return event_payload(wall_time, step, SUMMARY, make_summary(*values).SerializeToString())

        self.add_work(encode, nbytes, values)

    def add_work(self, work: Callable[..., bytes | None], nbytes: int, values: Sequence[Any] = ()) -> None:
        """Do `work` in the writer thread, in order with the events; arguments as for `add_deferred`."""
        kind = OnDevice if any(type(value) is Snapshot for value in values) else Deferred
        self.events.put(kind(work, values, nbytes + _CALL_BYTES))

    def begin_close(self) -> FlushRequest:
        self._finalizer.detach()
        return self.events.close()

    def end(self) -> None:
        """Close once everything is on disk, without waiting for it."""
        self._finalizer.detach()
        self.events.end()

    def close(self) -> None:
        """Flush and close; later events go to a new file."""
        writer_thread.wait(self.begin_close())

    @contextlib.contextmanager
    def use_metadata(self, *, global_step: Any = None, walltime: float | None = None) -> Iterator[FileWriter]:
        # `add_scalar` of the writer looks at the queue alone, and the metadata ends with an exception, too.
        with super().use_metadata(global_step=global_step, walltime=walltime):
            self.events.has_metadata = True
            try:
                yield self
            finally:
                self.events.has_metadata = False
                self._default_metadata = {}

    def _wall_time(self, walltime: float | None) -> float:
        if walltime is None:
            walltime = self._default_metadata.get("walltime")
        if walltime is None:
            return time.time()
        return plain_time(walltime)

    def _step(self, step: Any) -> int | None:
        return plain_step(self._default_metadata.get("global_step") if step is None else step)
