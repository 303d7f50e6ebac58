"""`EventWriter`: tensorboardX's `SummaryWriter` with a cheap `add_scalar` and event files that stay whole."""

from __future__ import annotations

import os
import socket
import threading
from datetime import datetime
from pathlib import PurePath
from time import time
from typing import TYPE_CHECKING, Any, overload

from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import REGISTERED_FACTORIES
from tensorboardX.summary import _clean_tag, scalar

from hf_summary_writer import process
from hf_summary_writer.events.encoding import scalar_prefix
from hf_summary_writer.events.file_writer import FileWriter
from hf_summary_writer.events.files import SEGMENT_BYTES
from hf_summary_writer.events.media import HeavyValues
from hf_summary_writer.events.queue import Backlog, Stream
from hf_summary_writer.events.summaries import hparams_summaries, number_of, torch_scalar, trial_of
from hf_summary_writer.events.thread import drain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hf_summary_writer.events.thread import Ticket

__all__ = ["EventWriter", "RunFiles", "default_logdir"]


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


_MOST_TAGS = 10_000

"""Tags remembered in their encoded form; more than that are forgotten all at once."""

_NAME_BYTES = 255

"""What file systems take as the name of a folder; NAME_MAX of POSIX's limits.h on all of today's."""

_FLUSH_SECS = 120.0

_COMET_IS_OFF: dict[str, Any] = {"disabled": True}


class EventWriter(RunFiles):
    """Writes what a training loop logs to event files in `logdir`, at next to no cost to the loop.

    A call takes its values, puts them into a queue and returns; one thread of the process writes them to disk, within
    half a second or so. `flush` returns when all that was logged before, by any thread, is written and fsynced. Nothing
    that goes wrong with the disk raises from a constructor, an `add_*`, `flush` or `close`: it is logged once, and
    events are kept in memory up to `max_pending_bytes`, then dropped and counted. All methods may be called from any
    thread; in a forked child the writer goes on in a file of the child's own.

    Args:
        logdir: Folder of the run, created with its parents; `runs/<time>_<host><comment>` by default.
        comment: Ends the name of the default `logdir`.
        purge_step: Has TensorBoard hide what earlier writers logged at this step and later. Written once.
        max_queue: Accepted for compatibility; what may be pending is bounded by `max_pending_bytes`.
        flush_secs: Seconds between two fsyncs while events come; 120 by default.
        filename_suffix: Ends the name of every event file.
        write_to_disk: False to write nothing at all.
        log_dir: Another name for `logdir`.
        comet_config: As for tensorboardX; while comet is on, values are encoded in the calling thread.
        segment_bytes: Size in bytes at which a run goes on in a new event file; the earlier one never changes again.
            4 MiB unless given: a push reads the newest one anew, so larger ones make each push cost more.
        max_pending_bytes: What may be pending in memory, in bytes. A caller that meets the bound waits for the disk.
        **kwargs: None are known.

    Raises:
        TypeError: An argument is of the wrong type, or unknown.
        ValueError: `logdir` is a file, a URL of object storage or too long, `filename_suffix` holds a path separator, a
            size is not positive, or `flush_secs` is below 0. Nothing has been written then.
    """

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
            raise TypeError(f"unknown keyword arguments: {', '.join(sorted(kwargs))}")
        if segment_bytes <= 0 or max_pending_bytes <= 0:
            raise ValueError("segment_bytes and max_pending_bytes must be positive numbers of bytes")
        if os.path.basename(filename_suffix) != filename_suffix or "\0" in filename_suffix:  # noqa: PTH119
            raise ValueError(f"filename_suffix must not hold a path separator: {filename_suffix!r}")
        directory = _local_folder((log_dir if logdir is None else logdir) or default_logdir(comment))
        flush_secs = _seconds(flush_secs)
        self._max_pending_bytes = max_pending_bytes
        self._prefixes: dict[str | None, bytes] = {}
        super().__init__(
            segment_bytes=segment_bytes,
            max_pending_bytes=max_pending_bytes,
            logdir=directory,
            comment=comment,
            purge_step=purge_step,
            max_queue=max_queue,
            flush_secs=flush_secs,
            filename_suffix=filename_suffix,
            write_to_disk=write_to_disk,
            comet_config=dict(comet_config),
        )

    def add_scalar(
        self,
        tag: str,
        scalar_value: Any,
        global_step: int | None = None,
        walltime: float | None = None,
        display_name: str = "",
        summary_description: str = "",
        new_style: bool = False,
        double_precision: bool = False,
    ) -> None:
        """Add one number.

        The fifth and sixth argument by position are tensorboardX's, or torch's `new_style` and `double_precision`.

        Args:
            tag: Name of the series.
            scalar_value: A number, or a tensor or array that holds one.
            global_step: Step to record.
            walltime: Seconds since the epoch; now by default.
            display_name: Title of the plot; `tag` by default.
            summary_description: Text for the plot.
            new_style: As in torch: stored as a tensor.
            double_precision: As in torch: with `new_style`, stored in 64 bits.
        """
        # The one function a training loop calls all the time: no lock, no message, no call that can be avoided.
        stream = self._stream
        prefix = self._prefixes.get(tag)
        if (
            stream is None
            or prefix is None
            or walltime is not None
            or display_name
            or summary_description
            or new_style
            or stream.has_metadata
            or (global_step is not None and (type(global_step) is not int or global_step >> 63))
        ):
            self._add_any_scalar(
                tag, scalar_value, global_step, walltime, display_name, summary_description, new_style, double_precision
            )
            return
        # The difference is zero for what is finite; number_of warns of what is not.
        if type(scalar_value) is not float or scalar_value - scalar_value:
            scalar_value = number_of(scalar_value)
        now = time()
        if len(stream.queue) >= self._backlog.limit and not stream.has_room():
            return
        stream.queue.append((now, prefix, scalar_value, global_step))
        if now >= stream.look_again:
            stream.look(now)

    def _add_any_scalar(
        self,
        tag: str,
        value: Any,
        step: Any,
        walltime: float | None,
        display_name: str,
        description: str,
        new_style: bool,
        double_precision: bool,
    ) -> None:
        writer = self._get_file_writer()
        if isinstance(display_name, bool):
            new_style, double_precision = display_name, bool(description)
            display_name = description = ""
        if new_style:
            summary = torch_scalar(_clean_tag(tag), number_of(value), double_precision=double_precision)
            writer.add_summary(summary, step, walltime)
        elif display_name or description or not self._write_to_disk:
            writer.add_summary(scalar(tag, value, display_name, description), step, walltime)
        else:
            writer.add_scalar(self._prefix(tag), number_of(value), step, walltime)
        if self._has_comet:
            self._get_comet_logger().log_metric(tag, display_name, value, step)

    def _prefix(self, tag: str) -> bytes:
        prefix = self._prefixes.get(tag)
        if prefix is None:
            prefix = scalar_prefix(_clean_tag(tag))
            if len(self._prefixes) >= _MOST_TAGS:
                self._prefixes.clear()
            self._prefixes[tag] = prefix
        return prefix

    def add_scalars(
        self, main_tag: str, tag_scalar_dict: Mapping[str, Any], global_step: Any = None, walltime: float | None = None
    ) -> None:
        """Add several numbers to one plot, each in a run of its own in a folder `<logdir>/<main_tag>/<tag>`.

        They are also kept in memory for `export_scalars_to_json`, as tensorboardX does it.

        Args:
            main_tag: Name of the plot.
            tag_scalar_dict: Names and values.
            global_step: Step to record.
            walltime: Seconds since the epoch; now by default.
        """
        wall_time = time() if walltime is None else walltime
        root = self._get_file_writer().get_logdir()
        for tag, value in tag_scalar_dict.items():
            folder = os.path.join(root, _inside(main_tag), _inside(tag))
            number = number_of(value)
            if self._write_to_disk:
                self._sub_writer(folder).add_scalar(self._prefix(main_tag), number, global_step, wall_time)
            self.scalar_dict.setdefault(folder, []).append([wall_time, global_step, number])
        if self._has_comet:
            self._get_comet_logger().log_metrics(tag_scalar_dict, main_tag, step=global_step)

    @overload
    def add_hparams(
        self,
        hparam_dict: dict[str, Any],
        metric_dict: dict[str, Any],
        name: str | None = None,
        global_step: Any = None,
        *,
        hparam_domain_discrete: Mapping[str, Sequence[Any]] | None = None,
        run_name: str | None = None,
    ) -> None: ...

    @overload
    def add_hparams(
        self,
        hparam_dict: dict[str, Any],
        metric_dict: dict[str, Any],
        hparam_domain_discrete: Mapping[str, Sequence[Any]] | None = None,
        run_name: str | None = None,
        global_step: Any = None,
    ) -> None: ...

    def add_hparams(
        self, hparam_dict: dict[str, Any], metric_dict: dict[str, Any], *positional: Any, **named: Any
    ) -> None:
        """Add a set of hyperparameters and what came of them, as a run of its own below `logdir`.

        From the third on, arguments by position are tensorboardX's `name` and `global_step`, or torch's
        `hparam_domain_discrete`, `run_name` and `global_step`; their types tell which.

        Args:
            hparam_dict: Names and values of the hyperparameters.
            metric_dict: Names and values of the metrics; may be empty.
            *positional: As above.
            **named: `name` (torch calls it `run_name`): the folder of that run; the current time by default, `"."` for
                the run's own folder. `global_step`: the step to record for the metrics. `hparam_domain_discrete`: as
                in torch, the values that each hyperparameter may take.

        Raises:
            TypeError: `hparam_dict` or `metric_dict` is no dictionary, or the other arguments fit neither library.
        """
        trial = trial_of(positional, named)
        if not all(isinstance(given, dict) for given in (hparam_dict, metric_dict)):
            raise TypeError("hparam_dict and metric_dict should be dictionary.")
        summaries = hparams_summaries(hparam_dict, metric_dict, trial.hparam_domain_discrete or {})
        metrics = {key: number_of(value) for key, value in metric_dict.items()}
        own = self._get_file_writer()
        if self._write_to_disk:
            folder = os.path.normpath(os.path.join(own.get_logdir(), trial.name or trial.run_name or str(time())))
            in_place = folder == os.path.normpath(own.get_logdir())
            writer = own if in_place else FileWriter(self._new_stream(folder))
            try:
                for summary in summaries:
                    writer.add_summary(summary)
                for key, number in metrics.items():
                    writer.add_scalar(self._prefix(key), number, trial.global_step)
            finally:
                if not in_place:
                    writer.close()
        if self._has_comet:
            self._get_comet_logger().log_parameters(hparam_dict, step=trial.global_step)

    def __reduce__(self) -> tuple[Any, ...]:
        # What cannot travel is the queue and the open file; a copy is a new writer of the same folder.
        return _renewed, (type(self), self._arguments())

    def _arguments(self) -> dict[str, Any]:
        """Return the keyword arguments of a writer like this one, for copies and other processes; for subclasses."""
        return {
            "logdir": self.logdir,
            # No `purge_step`: it has been written, and again it would hide what has been logged since.
            "max_queue": self._max_queue,
            "flush_secs": self._flush_secs,
            "filename_suffix": self._filename_suffix,
            "write_to_disk": self._write_to_disk,
            "comet_config": self._comet_config,
            "segment_bytes": self._segment_bytes,
            "max_pending_bytes": self._max_pending_bytes,
        }


def _inside(name: Any) -> Any:
    # A leading slash would lead out of the run. What is no name is left for `os.path.join` to refuse.
    return name.lstrip("/") if isinstance(name, str) else name


def _renewed(kind: type[EventWriter], arguments: dict[str, Any]) -> EventWriter:
    return kind(**arguments)


def _seconds(flush_secs: float | None) -> float:
    """Return `flush_secs` as a number, after refusing what no clock can be compared with."""
    if flush_secs is None:
        return _FLUSH_SECS
    if isinstance(flush_secs, bool) or not isinstance(flush_secs, (int, float)):
        raise TypeError(f"flush_secs must be a number of seconds, not {type(flush_secs).__name__}")
    if not flush_secs >= 0:
        raise ValueError(f"flush_secs must be 0 or a positive number of seconds, not {flush_secs!r}")
    return flush_secs


def _local_folder(logdir: str | os.PathLike[str]) -> str:
    """Return `logdir` as a string, after refusing what can hold no run."""
    folder = os.fspath(logdir)
    if folder.split(":")[0] in REGISTERED_FACTORIES:
        raise ValueError(f"logdir must be a local folder, event files cannot be written to {folder!r}")
    if os.path.exists(folder) and not os.path.isdir(folder):  # noqa: PTH110, PTH112
        raise ValueError(f"logdir must be a folder, {folder!r} is a file")
    if any(len(os.fsencode(name)) > _NAME_BYTES for name in PurePath(folder).parts):
        raise ValueError(f"logdir must not hold a name longer than {_NAME_BYTES} bytes: {folder!r}")
    return folder
