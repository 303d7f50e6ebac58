"""`RunFiles`: the half of a `SummaryWriter` that opens, flushes and closes the event files of a run."""

from __future__ import annotations

import os
import socket
import threading
import weakref
from datetime import datetime
from typing import TYPE_CHECKING, Any

import tensorboardX

from hf_summary_writer import process
from hf_summary_writer.checks import (
    NAME_BYTES,
    as_file_name,
    check_bytes,
    check_seconds,
    has_long_name,
    is_no_folder,
    shown,
)
from hf_summary_writer.events import hooks
from hf_summary_writer.events.failures import WriteFailures
from hf_summary_writer.events.file_writer import FileWriter
from hf_summary_writer.events.files import SEGMENT_BYTES, EventFile
from hf_summary_writer.events.memory import MemoryLimit
from hf_summary_writer.events.queue import EventQueue
from hf_summary_writer.events.thread import writer_thread
from hf_summary_writer.events.tracing import keep_out_of_graphs
from hf_summary_writer.events.upstream import OBJECT_STORES, Event, SessionLog

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hf_summary_writer.events.signals import FlushRequest

_SUFFIX_BYTES = 100

"""The longest `filename_suffix`, in bytes; the rest of the longest file name fits into `NAME_BYTES` beside it."""

_FLUSH_SECS = 120.0

_COMET_IS_OFF: dict[str, Any] = {"disabled": True}


def named_logdir(logdir: object, comment: str = "") -> str | os.PathLike[str]:
    """Return `logdir` if it is a path, or the default for `None` and an empty text.

    Raises:
        TypeError: It is something else.
    """
    if logdir is None or (isinstance(logdir, str) and not logdir):
        return default_logdir(comment)
    if not isinstance(logdir, (str, os.PathLike)):
        raise TypeError(f"logdir must be a str or a path, not {type(logdir).__name__}")
    return logdir


def default_logdir(comment: str) -> str:
    """Return the folder of a run for which none was named, as `tensorboardX.SummaryWriter` chooses it."""
    if not isinstance(comment, str):
        raise TypeError(f"comment must be a str, not {type(comment).__name__}")
    now = datetime.now().strftime("%b%d_%H-%M-%S")  # noqa: DTZ005 - a name for people, in their own time
    # The system takes any bytes for a name.
    host = "".join(each if each.isprintable() and each not in "/\\" else "-" for each in socket.gethostname())
    return os.path.join("runs", f"{now}_{host}" + comment)


class RunFiles(tensorboardX.SummaryWriter):  # type: ignore[misc]
    """The event files of a run, until `close` and after it, in copies and in forked children.

    The arguments are those of `tensorboardX.SummaryWriter`, and these. `max_queue` has no effect.

    Args:
        segment_bytes: Size in bytes at which a run goes on in a new event file; the earlier one never changes again.
            4 MiB unless given: a push re-reads the newest one, so larger ones make each push cost more.
        max_pending_bytes: Limit on the memory of pending events, in bytes. A caller that reaches it waits for the disk.

    Raises:
        TypeError: An argument is of the wrong type, or unknown.
        ValueError: `logdir` is a file, a URL of object storage or too long, `filename_suffix` holds a path separator or
            is too long, a size is not positive, `flush_secs` is below 0, or `purge_step` has more than 64 bits. Nothing
            has been written then.
    """

    # Whether it was unpickled or copied: then it starts with its first event, since most copies never log.
    _is_copy = False
    # tensorboardX's own, by name; the first two are `None` while closed.
    file_writer: Any
    all_writers: Any
    logdir: str
    _max_queue: int
    _flush_secs: float
    _filename_suffix: str

    def __init__(
        self,
        logdir: str | os.PathLike[str] | None = None,
        comment: str = "",
        purge_step: int | None = None,
        max_queue: int = 10,
        flush_secs: float | None = _FLUSH_SECS,
        filename_suffix: str = "",
        write_to_disk: bool = True,
        log_dir: str | os.PathLike[str] | None = None,
        comet_config: Mapping[str, Any] = _COMET_IS_OFF,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        max_pending_bytes: int = 64 * 2**20,
        **kwargs: Any,
    ) -> None:
        if kwargs:
            raise TypeError(f"unknown keyword arguments: {with_similar(type(self), kwargs)}")
        check_bytes(segment_bytes, "segment_bytes")
        check_bytes(max_pending_bytes, "max_pending_bytes")
        filename_suffix = _as_suffix(filename_suffix)
        _check_purge_step(purge_step)
        directory = _local_folder(named_logdir(log_dir if logdir is None else logdir, comment))
        flush_secs = _FLUSH_SECS if flush_secs is None else check_seconds(flush_secs, "flush_secs", may_be_endless=True)
        self._segment_bytes = segment_bytes
        # The path of `logdir`, fixed now: the program may change its working folder, or a link in the path.
        self._started_in = _working_folder()
        self._real_logdir = os.path.join(self._started_in, directory)
        if os.path.isabs(self._real_logdir):  # noqa: PTH117
            self._real_logdir = os.path.realpath(self._real_logdir)
        self._memory = MemoryLimit(max_pending_bytes)
        self._failures = WriteFailures(max_pending_bytes)
        self._lifecycle = threading.RLock()
        # Writers that `close` has closed last. Another thread may have been about to use one.
        self._closed: list[FileWriter] = []
        # Writers of `add_hparams`, until their events are on disk.
        self._trials: list[FileWriter] = []
        # The queue of the run's own folder, for good.
        self._run_queue: EventQueue | None = None
        # For `add_scalar`: the same queue while it may append to it directly, and encoded tags.
        self._queue: EventQueue | None = None
        self._prefixes: dict[str | None, bytes] = {}
        self._is_hooked = hooks.summaries_are_hooked()
        self._may_open = not self._is_copy
        # The same that tensorboardX sets, in names that are private to it: another version may call them otherwise.
        self.logdir = directory
        self.purge_step = purge_step
        self._flush_secs = flush_secs
        self._filename_suffix = filename_suffix
        self._write_to_disk = write_to_disk
        self._comet_config = dict(comet_config)
        self._comet_logger = self.file_writer = self.all_writers = None
        super().__init__(
            logdir=directory,
            comment=comment,
            purge_step=purge_step,
            max_queue=max_queue,
            flush_secs=flush_secs,
            filename_suffix=filename_suffix,
            write_to_disk=write_to_disk,
            comet_config=dict(comet_config),
        )
        self._may_open = True
        if write_to_disk and type(self.file_writer) not in {FileWriter, type(None)}:
            # A version that opens its file in a method of another name: its writer is not whole after a crash.
            self.file_writer.close()
            self.file_writer = self.all_writers = None
            self._get_file_writer()
        process.tell_after_fork(self)
        keep_out_of_graphs()

    @property
    def dropped_events(self) -> int:
        """Number of events that were given up because the disk failed for too long."""
        return self._failures.dropped

    @property
    def is_behind(self) -> bool:
        """Whether the disk fails or hangs, so that `flush` returned without having written all events."""
        return self._failures.any_failing or writer_thread.is_stuck

    @property
    def event_files(self) -> list[str]:
        """Paths of the event files being written to; all others of the run never change again."""
        return [path for writer in self._own_writers() if (path := writer.events.file.path)]

    @property
    def logged_events(self) -> int | None:
        """Number of events that were logged and whose files are still open; `None` while closed."""
        return None if self.all_writers is None else sum(writer.events.logged for writer in self._own_writers())

    def flush(self) -> None:
        """Return when all events logged before, by any thread, are written and fsynced.

        Never raises; on a failing disk it returns after one attempt, and unwritten events stay pending.
        """
        requests = [writer.events.request_flush() for writer in self._own_writers()]
        # Read after the writers: one that another thread is closing is no longer among them.
        writer_thread.wait_for_all([*requests, *self._flush_closed()])

    def _flush_closed(self) -> list[FlushRequest]:
        return [writer.events.request_flush() for writer in self._closed if not writer.events.is_done]

    def close(self) -> None:
        """Flush and close all files. A second call does nothing; a later write opens a new file."""
        with self._lifecycle:
            was_open = self.all_writers is not None
            if was_open:
                self._closed = self._own_writers()
                closing = [writer.begin_close() for writer in self._closed]
                self.file_writer = self.all_writers = self._queue = None
                self._trials = []
        # A second closer returns when all is on disk, too; no thread waits with the lock held.
        writer_thread.wait_for_all(closing if was_open else self._flush_closed())
        if was_open and hooks.is_hooked("close"):
            super().close()
        if was_open and self._has_comet:
            self._get_comet_logger().end()
            self._comet_logger = None

    def after_fork_in_child(self) -> None:
        """Take fresh locks; the writer thread tells the queues."""
        self._lifecycle = threading.RLock()
        self._closed = []
        self._trials = []
        self._memory.reset()
        self._failures.reset()

    def _reopened(self) -> None:
        """Hook for subclasses, called for events after `close` or after the exit, and for the first one of a copy."""

    def _get_file_writer(self) -> Any:
        if not self._write_to_disk:
            return super()._get_file_writer()
        writer = self.file_writer
        if writer is not None or not self._may_open:
            return writer
        with self._lifecycle:
            if self.file_writer is not None:
                return self.file_writer
            events, is_first = self._run_queue, self._run_queue is None
            if events is None:
                events = self._run_queue = self._new_queue(self.logdir)
                events.open()
            else:
                events.reopen()
                if process.exit_is_over():
                    # Weak references are dead already in a finalizer of the same garbage.
                    events.late = lambda: self._reopened
            writer = FileWriter(events)
            if is_first and self.purge_step is not None:
                writer.add_event(Event(step=self.purge_step, file_version="brain.Event:2"))
                writer.add_event(Event(step=self.purge_step, session_log=SessionLog(status=SessionLog.START)))
            self.all_writers = {self.logdir: writer}
            self.file_writer = writer
            self._queue = events if self._encodes_later else None
        if not is_first or self._is_copy:
            self._reopened()
        return writer

    def _sub_writer(self, folder: str) -> FileWriter:
        with self._lifecycle:
            self._get_file_writer()
            writer = self.all_writers.get(folder)
            if writer is None:
                writer = self.all_writers[folder] = FileWriter(self._new_queue(folder))
            found: FileWriter = writer
            return found

    def _trial_writer(self, folder: str) -> FileWriter:
        writer = FileWriter(self._new_queue(folder))
        with self._lifecycle:
            self._trials = [*(trial for trial in self._trials if not trial.events.is_done), writer]
        return writer

    def _new_queue(self, folder: str) -> EventQueue:
        # By their names alone, since there may be no working folder.
        inside = os.path.relpath(os.path.join(os.sep, folder), os.path.join(os.sep, self.logdir))
        path = os.path.normpath(os.path.join(self._real_logdir, inside))
        return EventQueue(
            folder,
            EventFile(path, self._filename_suffix, self._segment_bytes),
            self._memory,
            self._failures,
            flush_secs=self._flush_secs,
            # Weak, or the writer thread would keep alive a writer that the user has dropped.
            late=weakref.WeakMethod(self._reopened),
        )

    def _own_writers(self) -> list[FileWriter]:
        # Another thread may close or add meanwhile; tensorboardX's dummies have nothing to wait for.
        writers = self.all_writers
        found = [] if writers is None else [writer for writer in list(writers.values()) if type(writer) is FileWriter]
        return [*found, *(trial for trial in self._trials if not trial.events.is_done)]

    def _look_for_hooks(self) -> bool:
        """Return whether a tracker hooks into tensorboardX by now; then `add_scalar` calls its methods, too."""
        is_hooked = hooks.summaries_are_hooked()
        if is_hooked is not self._is_hooked:
            with self._lifecycle:
                self._is_hooked = is_hooked
                self._queue = self._run_queue if self.file_writer is not None and self._encodes_later else None
        return is_hooked

    @property
    def _has_comet(self) -> bool:
        return self._comet_config.get("disabled") is not True

    @property
    def _encodes_later(self) -> bool:
        # Trackers need the encoded summary, and a writer that writes nothing to disk only checks its arguments.
        return self._write_to_disk and not self._has_comet and not self._is_hooked

    @property
    def log_dir(self) -> str:
        """The folder of the run."""
        return self.get_logdir()

    @property
    def max_queue(self) -> int:
        return self._max_queue

    @property
    def flush_secs(self) -> float:
        return self._flush_secs

    @property
    def filename_suffix(self) -> str:
        return self._filename_suffix

    def get_logdir(self) -> str:
        """Return the folder of the run."""
        return self.logdir

    # Copies.

    def __getstate__(self) -> dict[str, Any]:
        # The queue and the open file cannot be pickled; a copy is a new writer of the same folder.
        return {"arguments": self._arguments()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._is_copy = True
        RunFiles.__init__(self, **state["arguments"])

    def _arguments(self) -> dict[str, Any]:
        """Return the keyword arguments of a writer like this one, for copies and other processes; for subclasses."""
        return {
            "logdir": self.logdir,
            # No `purge_step`: it has been written, and a second one would hide all events logged since.
            "max_queue": self._max_queue,
            "flush_secs": self._flush_secs,
            "filename_suffix": self._filename_suffix,
            "write_to_disk": self._write_to_disk,
            "comet_config": self._comet_config,
            "segment_bytes": self._segment_bytes,
            "max_pending_bytes": self._memory.max_bytes,
        }


def arguments_of(kind: type[RunFiles]) -> set[str]:
    """Return the names of the arguments of a class and of those that it passes on to its parents."""
    import inspect  # rarely needed

    known = {name for each in kind.__mro__ for name in inspect.signature(each.__init__).parameters}  # type: ignore[misc]
    return known - {"self", "args", "kwargs"}


def with_similar(kind: type[RunFiles], names: Iterable[str]) -> str:
    """Return unknown names of arguments, each with the known one that it resembles most."""
    import difflib  # rarely needed

    known = arguments_of(kind)
    said = []
    for name in sorted(names):
        # So that `every` finds `commit_every`.
        similar = difflib.get_close_matches(name, known, n=1, cutoff=0.55)
        said.append(f"{name} (did you mean {similar[0]}?)" if similar else name)
    return ", ".join(said)


def _as_suffix(filename_suffix: object) -> str:
    if not isinstance(filename_suffix, str):
        raise TypeError(f"filename_suffix must be a str, not {type(filename_suffix).__name__}")
    if os.path.basename(filename_suffix) != filename_suffix or "\0" in filename_suffix:  # noqa: PTH119
        raise ValueError(f"filename_suffix must not hold a path separator: {filename_suffix!r}")
    suffix = as_file_name(filename_suffix)
    if len(os.fsencode(suffix)) > _SUFFIX_BYTES:
        raise ValueError(f"filename_suffix must not be longer than {_SUFFIX_BYTES} bytes: {shown(suffix)}")
    return suffix


def _check_purge_step(step: Any) -> None:
    try:
        Event(step=step)
    except (TypeError, ValueError) as error:
        raise type(error)(f"purge_step must be an integer of at most 64 bits, not {step!r}") from None


def _working_folder() -> str:
    try:
        return os.getcwd()  # noqa: PTH109
    except OSError:  # it was removed: there is nothing that a relative path could be in
        return ""


def _local_folder(logdir: str | os.PathLike[str]) -> str:
    """Return `logdir` as a string; refuse paths that cannot be the folder of a run."""
    folder = as_file_name(os.fspath(logdir))
    if folder.split(":")[0] in {"s3", "gs", *OBJECT_STORES}:
        raise ValueError(f"logdir must be a local folder, event files cannot be written to {folder!r}")
    if is_no_folder(folder):
        raise ValueError(f"logdir must be a folder, {folder!r} is a file")
    if has_long_name(folder):
        raise ValueError(f"logdir must not hold a name longer than {NAME_BYTES} bytes: {shown(folder)}")
    return folder
