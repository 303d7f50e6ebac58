"""The face that tensorboardX and torch give to one event file: events and summaries as protocol buffers."""

from __future__ import annotations

import contextlib
import time
import weakref
from typing import TYPE_CHECKING, Any

from tensorboardX.proto.event_pb2 import Event, TaggedRunMetadata

from hf_summary_writer.events.encoding import SUMMARY, event_payload
from hf_summary_writer.events.queue import Deferred
from hf_summary_writer.events.thread import drain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from google.protobuf.message import Message

    from hf_summary_writer.events.queue import Stream
    from hf_summary_writer.events.thread import Ticket

__all__ = ["EventFileWriter", "FileWriter"]

_GRAPH_DEF = 4

_TAGGED_RUN_METADATA = 8


def plain_step(step: Any) -> int | None:
    """Return `step` as an event stores it.

    Raises:
        ValueError: It does not fit into 64 bits.
        TypeError: It is no number.
    """
    if step is None:
        return None
    number = int(step)
    if not -(1 << 63) <= number < 1 << 63:
        raise ValueError(f"Value out of range: {number}")
    return number


def _is(message: Any, name: str) -> bool:
    descriptor = getattr(message, "DESCRIPTOR", None)
    return getattr(descriptor, "name", None) == name and hasattr(message, "SerializeToString")


def _check_event(event: Any) -> None:
    if not _is(event, "Event"):
        raise TypeError(f"expected an Event protocol buffer of tensorboardX or tensorboard, got {type(event)}")


class FileWriter:
    """Writes protocol buffers of either family, tensorboardX's or tensorboard's, to the event files of one directory.

    Values are taken at the call; files are written in the background. All methods may be called from any thread.

    Args:
        stream: The queue of the directory.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._default_metadata: dict[str, Any] = {}
        # A writer that is forgotten instead of closed still gets its file finished.
        self._finalizer = weakref.finalize(self, stream.close)
        self._finalizer.atexit = False

    @property
    def event_writer(self) -> EventFileWriter:
        """What tensorboardX's writer delegates to; it takes events with their own wall time and step."""
        return EventFileWriter(self)

    @property
    def event_file(self) -> str | None:
        """Path of the event file that is written to, if there is one at the moment."""
        return self._stream.event_file

    def get_logdir(self) -> str:
        """Return the directory where the event files are written."""
        return self._stream.directory

    @property
    def folder(self) -> str:
        """The absolute path of that directory."""
        return self._stream.folder

    def add_event(self, event: Message, step: Any = None, walltime: float | None = None) -> None:
        """Add an event, with wall time and step set in it as tensorboardX does.

        Args:
            event: An `Event` of tensorboardX or of tensorboard.
            step: Global step; that of `use_metadata`, or else of the event, by default.
            walltime: Seconds since the epoch; now by default.

        Raises:
            TypeError: `event` is no `Event`.
        """
        _check_event(event)
        event.wall_time = self._wall_time(walltime)
        if (step := self._step(step)) is not None:
            event.step = step
        self._put(event.SerializeToString())

    def add_event_as_it_is(self, event: Message) -> None:
        """Add an event with the wall time and step that it has; arguments and errors as for `add_event`."""
        _check_event(event)
        self._put(event.SerializeToString())

    def add_summary(self, summary: Message, global_step: Any = None, walltime: float | None = None) -> None:
        """Add a `Summary` of tensorboardX or of tensorboard in an event of its own; arguments as for `add_event`."""
        if not _is(summary, "Summary"):
            raise TypeError(f"expected a Summary protocol buffer of tensorboardX or tensorboard, got {type(summary)}")
        self._add(SUMMARY, summary.SerializeToString(), global_step, walltime)

    def add_scalar(self, tag: bytes, value: float, global_step: Any = None, walltime: float | None = None) -> None:
        """Add a plain scalar.

        Args:
            tag: What `encode.scalar_prefix` gave for the tag.
            value: What to store in 32 bits.
            global_step: As for `add_event`.
            walltime: As for `add_event`.
        """
        self._stream.put((self._wall_time(walltime), tag, value, self._step(global_step)))

    def add_deferred(
        self, make_summary: Callable[[], Message], nbytes: int, global_step: Any = None, walltime: float | None = None
    ) -> None:
        """Add a summary that is made in the background from values nobody changes any more.

        Args:
            make_summary: Called once, in another thread.
            nbytes: Memory that it keeps alive until then.
            global_step: As for `add_event`.
            walltime: As for `add_event`.
        """
        wall_time, step = self._wall_time(walltime), self._step(global_step)

        def encode() -> bytes:
            return event_payload(wall_time, step, SUMMARY, make_summary().SerializeToString())

        self._stream.put(Deferred(encode, nbytes))

    def add_work(self, work: Callable[[], None], nbytes: int) -> None:
        """Have `work` done in the background, in order with the events; `flush` waits for it."""
        self._stream.put(Deferred(work, nbytes))

    def add_graph(self, graph_profile: tuple[Message, Message], walltime: float | None = None) -> None:
        """Add a graph and its step statistics."""
        graph, statistics = graph_profile
        self._add(_GRAPH_DEF, graph.SerializeToString(), None, walltime)
        tagged = TaggedRunMetadata(tag="profiler", run_metadata=statistics.SerializeToString())
        self._add(_TAGGED_RUN_METADATA, tagged.SerializeToString(), None, walltime)

    def add_onnx_graph(self, graph: Message, walltime: float | None = None) -> None:
        """Add a graph."""
        self._add(_GRAPH_DEF, graph.SerializeToString(), None, walltime)

    add_openvino_graph = add_onnx_graph

    def flush(self) -> None:
        """Return when all that was logged before, by any thread, is written and fsynced; never raise."""
        drain.wait(self.begin_flush())

    def begin_flush(self) -> Ticket:
        """Return a ticket to wait for what `flush` waits for."""
        return self._stream.ask()

    def close(self) -> None:
        """Flush and close; what is added later goes to a new file."""
        drain.wait(self.begin_close())

    def begin_close(self) -> Ticket:
        """Return a ticket to wait for what `close` waits for."""
        self._finalizer.detach()
        return self._stream.close()

    def reopen(self) -> None:
        """Expect more after `close`."""
        self._stream.reopen()

    @contextlib.contextmanager
    def use_metadata(self, *, global_step: Any = None, walltime: float | None = None) -> Iterator[FileWriter]:
        """Give every event added meanwhile this step and wall time unless it comes with its own."""
        assert not self._default_metadata, "Default metadata is already set."  # noqa: S101 - as tensorboardX
        assert global_step is not None or walltime is not None, (  # noqa: S101
            "At least one of `global_step` or `walltime` must be provided."
        )
        self._default_metadata = {"global_step": global_step, "walltime": walltime}
        self._stream.has_metadata = True
        try:
            yield self
        finally:
            self._default_metadata = {}
            self._stream.has_metadata = False

    def _add(self, field: int, body: bytes, step: Any, walltime: float | None) -> None:
        self._put(event_payload(self._wall_time(walltime), self._step(step), field, body))

    def _put(self, payload: bytes) -> None:
        self._stream.put(payload)

    def _wall_time(self, walltime: float | None) -> float:
        if walltime is None:
            walltime = self._default_metadata.get("walltime")
        if walltime is None:
            return time.time()
        # The message refuses what is no number, as it does in tensorboardX.
        number: float = Event(wall_time=walltime).wall_time
        return number

    def _step(self, step: Any) -> int | None:
        return plain_step(self._default_metadata.get("global_step") if step is None else step)


class EventFileWriter:
    """The lower face of a `FileWriter`, for those who copy events: what is added is written as it is.

    Args:
        writer: What it belongs to.
    """

    def __init__(self, writer: FileWriter) -> None:
        self.add_event = writer.add_event_as_it_is
        self.get_logdir = writer.get_logdir
        self.flush = writer.flush
        self.close = writer.close
        self.reopen = writer.reopen
