"""The event files of one run: the run's own and those of its sub-runs, from the first event to the last, and again.

tensorboardX names them `file_writer` and `all_writers`, and keeps them in the summary writer itself.
"""

from __future__ import annotations

import os
import socket
import threading
from datetime import datetime
from typing import TYPE_CHECKING, Any

from tensorboardX.proto.event_pb2 import Event, SessionLog

from hf_summary_writer import process
from hf_summary_writer.backlog import Backlog
from hf_summary_writer.drain import drain
from hf_summary_writer.file_writer import FileWriter
from hf_summary_writer.heavy import HeavyValues
from hf_summary_writer.stream import Stream

if TYPE_CHECKING:
    from hf_summary_writer.ticket import Ticket

__all__ = ["RunFiles", "default_logdir"]


def default_logdir(comment: str) -> str:
    """Return the folder of a run for which none was named, as `tensorboardX.SummaryWriter` chooses it."""
    now = datetime.now().strftime("%b%d_%H-%M-%S")  # noqa: DTZ005 - a name for people, in their own time
    return os.path.join("runs", f"{now}_{socket.gethostname()}" + comment)


class RunFiles(HeavyValues):
    """The part of a `SummaryWriter` that opens, flushes and closes event files.

    Args:
        segment_bytes: Size in bytes at which a run goes on in a new event file.
        max_pending_bytes: What may be pending in memory, in bytes.
        **arguments: Those of `tensorboardX.SummaryWriter`.
    """

    # tensorboardX's own, by name: `None` while closed.
    file_writer: Any
    all_writers: Any

    def __init__(self, *, segment_bytes: int, max_pending_bytes: int, **arguments: Any) -> None:
        self._segment_bytes = segment_bytes
        # Where a relative `logdir` is, however the program changes its working folder.
        self._started_in = _working_folder()
        self._backlog = Backlog(max_pending_bytes)
        self._lifecycle = threading.RLock()
        self._closing: list[Ticket] = []
        # The queue of the run's own folder, for good, and the same where the short way of `add_scalar` is open.
        self._main: Stream | None = None
        self._stream: Stream | None = None
        super().__init__(**arguments)
        process.tell_after_fork(self)

    @property
    def dropped_events(self) -> int:
        """Number of events that were given up because the disk failed for too long."""
        return self._backlog.dropped

    @property
    def event_files(self) -> list[str]:
        """Paths of the event files being written to; all others of the run never change again."""
        return [path for writer in self._own_writers() if (path := writer.event_file)]

    def flush(self) -> None:
        """Return when all that was logged before, by any thread, is written and fsynced.

        Never raises; on a failing disk it returns after one attempt, and what could not be written stays pending.
        """
        asked = [writer.begin_flush() for writer in self._own_writers()]
        # Read after the writers: what another thread is closing is no longer among them.
        self._wait([*self._closing, *asked])

    def close(self) -> None:
        """Flush and close all files. A second call does nothing; a later write opens a new file."""
        with self._lifecycle:
            was_open = self.all_writers is not None
            if was_open:
                self._closing = [writer.begin_close() for writer in self._own_writers()]
                self.file_writer = self.all_writers = self._stream = None
            closing = self._closing
        # A second closer returns when all is on disk, too; nobody waits with the lock held.
        self._wait(closing)
        if was_open and self._has_comet:
            self._get_comet_logger().end()
            self._comet_logger = None

    def after_fork_in_child(self) -> None:
        """Take fresh locks; the queues are told by the drain."""
        self._lifecycle = threading.RLock()
        self._closing = []
        self._backlog.forget()

    def _reopened(self) -> None:
        """Is called when something is logged after `close`, before it is written; for subclasses."""

    def _get_file_writer(self) -> Any:
        """Return the writer of the run's own folder; after `close`, one for a new file."""
        if not self._write_to_disk:
            return super()._get_file_writer()
        writer = self.file_writer
        if writer is not None:
            return writer
        with self._lifecycle:
            if self.file_writer is not None:
                return self.file_writer
            main, is_first = self._main, self._main is None
            if main is None:
                main = self._main = self._new_stream(self.logdir)
                main.open()
            else:
                main.reopen()
            writer = FileWriter(main)
            if is_first and self.purge_step is not None:
                writer.add_event(Event(step=self.purge_step, file_version="brain.Event:2"))
                writer.add_event(Event(step=self.purge_step, session_log=SessionLog(status=SessionLog.START)))
            self.all_writers = {self.logdir: writer}
            self.file_writer = writer
            self._stream = None if self._has_comet else main
        if not is_first:
            self._reopened()
        return writer

    def _sub_writer(self, folder: str) -> FileWriter:
        with self._lifecycle:
            self._get_file_writer()
            writer = self.all_writers.get(folder)
            if writer is None:
                writer = self.all_writers[folder] = FileWriter(self._new_stream(folder))
            found: FileWriter = writer
            return found

    def _new_stream(self, folder: str) -> Stream:
        return Stream(
            folder,
            self._backlog,
            base=self._started_in,
            suffix=self._filename_suffix,
            flush_secs=self._flush_secs,
            segment_bytes=self._segment_bytes,
        )

    def _own_writers(self) -> list[FileWriter]:
        # Another thread may close or add meanwhile; tensorboardX's dummies have nothing to wait for.
        writers = self.all_writers
        return [] if writers is None else [writer for writer in list(writers.values()) if type(writer) is FileWriter]

    @staticmethod
    def _wait(tickets: list[Ticket]) -> None:
        for ticket in tickets:
            drain.wait(ticket)


def _working_folder() -> str:
    try:
        return os.getcwd()  # noqa: PTH109
    except OSError:  # it was removed: there is nothing that a relative path could be in
        return ""
