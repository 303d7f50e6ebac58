"""Event files: the names of segments, and one open segment."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import socket
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hf_summary_writer.events.encoding import file_version
from hf_summary_writer.events.tfrecord import frame

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PREFIX = "events.out.tfevents."

_NAME = re.compile(
    re.escape(PREFIX) + r"(?P<created>[0-9]{10})\.(?P<host>[A-Za-z0-9.-]*)"
    r"\.(?P<pid>[0-9]+)_(?P<writer>[0-9]{4,})-(?P<token>[0-9a-f]{8})_(?P<segment>[0-9]{6})(?P<suffix>.*)",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class SegmentName:
    """The name of an event file, taken apart.

    TensorBoard reads the files of a run in the order of their names, so names sort by age: the second of creation
    stands first, and within one second the segments of a writer sort by number.

    Attributes:
        created: Second since the epoch at which the segment was opened.
        host: Name of the machine, reduced to letters, digits, dots and hyphens.
        pid: Process that wrote it.
        writer: Number of the writer within the process.
        segment: Number of the segment within the writer, from 0.
        token: Random, for writers of the same host name and pid, such as containers have.
        suffix: The user's `filename_suffix`.
    """

    created: int
    host: str
    pid: int
    writer: int
    segment: int
    token: str
    suffix: str = ""

    def __str__(self) -> str:
        writer = f"{self.pid}_{self.writer:04d}-{self.token}"
        return f"{PREFIX}{self.created:010d}.{self.host}.{writer}_{self.segment:06d}{self.suffix}"

    @property
    def of_writer(self) -> tuple[str, int, int, str, str]:
        """The parts that all segments of a writer have in common."""
        return self.host, self.pid, self.writer, self.token, self.suffix

    @property
    def is_of_this_host(self) -> bool:
        """Whether it was written on this machine, as far as the names of machines tell."""
        return self.host == _host()


def parse_name(path: str) -> SegmentName | None:
    """Return the parts of the name of an event file of ours, `None` for any other file."""
    match = _NAME.fullmatch(os.path.basename(path))  # noqa: PTH119 - as in all scans
    if match is None:
        return None
    return SegmentName(
        created=int(match["created"]),
        host=match["host"],
        pid=int(match["pid"]),
        writer=int(match["writer"]),
        segment=int(match["segment"]),
        token=match["token"],
        suffix=match["suffix"],
    )


def followed(names: Iterable[str]) -> set[str]:
    """Return those of the base `names` of one directory whose writer went on in a later segment.

    Such a file never changes again. The last segment of a writer is not among them, even when the writer is closed.
    """
    writers: dict[tuple[str, int, int, str, str], list[SegmentName]] = {}
    for name in map(parse_name, names):
        if name is not None:
            writers.setdefault(name.of_writer, []).append(name)
    return {name for segments in writers.values() for name in sorted(map(str, segments))[:-1]}


# A push re-reads and re-sends the open segment, over plain LFS all of it: a larger one makes each push cost more. But
# TensorBoard's data server holds every event file of every run open, and ends at the limit of its descriptors.
SEGMENT_BYTES = 4 * 2**20

_CREATED = re.compile(re.escape(PREFIX) + r"([0-9]{10})\.")

_HOST_CHARACTERS = 64

_LAST_SECOND = 10**10 - 1

# fsync on a file system that has none, such as some FUSE mounts.
_NO_FSYNC = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS}

# Appending, where object stores are mounted: when the file is opened, or at the first write to one opened again.
_NO_APPEND = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EPERM, errno.ESPIPE}

_STANDARD_ERROR = 2

_writers = itertools.count()


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())[:_HOST_CHARACTERS]


class EventFile:
    """Appends records to the segments of one writer in one directory. Not thread-safe.

    Args:
        directory: Folder of the segments; created with the first one.
        suffix: Ends every file name.
        segment_bytes: A segment that has reached this size is left for a new one.

    Attributes:
        path: The segment that is written to, `None` before the first and after `finish`.
        appended: Number of records that lie whole in the files, `file_version` not counted.
        dirty: Whether something was appended since the last `sync`.
        in_one_go: Whether files are written in one go, as far as is known: so do mounts of object stores, where a file
            can be read only once it is closed, and is not opened again to append to it.
    """

    def __init__(self, directory: str, suffix: str = "", segment_bytes: int = SEGMENT_BYTES) -> None:
        self.path: str | None = None
        self.appended: int = 0
        self.dirty: bool = False
        self.in_one_go: bool = False
        self._directory = directory
        self._suffix = suffix
        self._segment_bytes = segment_bytes
        self._writer = next(_writers)
        self._token = os.urandom(4).hex()
        self._segment = 0
        # Second of creation before which all names have to lie, in a forked child.
        self._before: int | None = None
        self._descriptor: int | None = None
        self._size = 0
        self._identity = (0, 0)
        self._name_is_safe = False

    @property
    def is_open(self) -> bool:
        """Whether a descriptor is held."""
        return self._descriptor is not None

    def open(self) -> None:
        """Create the next segment, with its `file_version`, unless there is a current one.

        Raises:
            OSError: The segment cannot be created; nothing is left of it.
        """
        if self.path is not None:
            return
        os.makedirs(self._directory, exist_ok=True)  # noqa: PTH103 - no Path on the way of every event file
        path, descriptor = self._create()
        start = frame(file_version(time.time()))
        try:
            _write(descriptor, start)
            status = os.fstat(descriptor)
        except BaseException:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                os.unlink(path)  # noqa: PTH108
            raise
        self.path, self._descriptor, self._size = path, descriptor, len(start)
        self._identity = (status.st_dev, status.st_ino)
        self._segment += 1
        self._name_is_safe = False
        self.dirty = True

    def append(self, frames: Sequence[bytes]) -> None:
        """Append whole records to the current segment, or to the next one if it is full.

        `appended` grows by the number of records that lie whole in the file, also when this raises: then a torn record
        is cut off, or if that fails too, the file is left behind with its torn tail.

        Raises:
            OSError: Not all could be written.
        """
        if self.path is not None and self._size >= self._segment_bytes:
            self.finish()
        self.open()
        is_reopened, before = not self.is_open, self.appended
        try:
            self._append(frames)
        except OSError as error:
            if not is_reopened or (self.is_open and error.errno not in _NO_APPEND):
                raise
            self.in_one_go = error.errno in _NO_APPEND
            self.forget()
            self.open()
            self._append(frames[self.appended - before :])

    def _append(self, frames: Sequence[bytes]) -> None:
        descriptor = self._reopen()
        data = b"".join(frames)
        try:
            _write(descriptor, data)
            # Both counters in one step: an exception from a signal handler cannot come between.
            self._size, self.appended = self._size + len(data), self.appended + len(frames)
        except BaseException:
            self._keep_whole(descriptor, frames)
            raise
        self.dirty = True

    def verify(self) -> None:
        """Leave the current segment for a new one if another program removed, replaced or changed it."""
        if self.path is None:
            return
        try:
            status = os.stat(self.path)  # noqa: PTH116
        except OSError:
            self.forget()
            return
        if status.st_size != self._size:
            self.forget()
        elif (status.st_dev, status.st_ino) != self._identity:
            if self._descriptor is not None and os.fstat(self._descriptor).st_nlink == 0:
                self.forget()  # replaced by a copy
                return
            # Some network file systems give a file a new inode number at each look-up.
            self._identity = (status.st_dev, status.st_ino)
            self.rest()

    def sync(self) -> None:
        """Fsync all appended records, and the directory of a new file too.

        Raises:
            OSError: The disk did not take it.
        """
        if not self.dirty or self.path is None:
            return
        was_open = self.is_open
        try:
            _fsync(self._reopen())
            if not self._name_is_safe:
                if os.name == "posix":  # elsewhere directories cannot be opened
                    sync_file(self._directory, os.O_RDONLY)
                self._name_is_safe = True
                self.in_one_go = self.in_one_go or not _can_be_read(self.path)
            self.dirty = False
        finally:
            # Also after an error: the next file may need the descriptor.
            if not was_open:
                self.rest()

    def rest(self) -> None:
        """Give back the descriptor; the next `append` takes a new one on the same segment."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def finish(self) -> None:
        """Sync and close the current segment, which never changes again; the next `append` opens another.

        Raises:
            OSError: The disk did not take everything. The segment is closed all the same.
        """
        try:
            self.sync()
        finally:
            self.forget()

    def forget(self) -> None:
        """Close the current segment as it is."""
        self.rest()
        self.path = None
        self.dirty = False

    def belongs_to_parent(self, *, has_events: bool) -> None:
        """In a forked child: leave the file to the parent, and number the child's own segments from 0.

        TensorBoard follows one file of a folder at a time, and leaves the parent's for one with a later name. So where
        the parent has logged, names of the child sort before.

        Args:
            has_events: Whether the parent has logged to the file, or is about to.
        """
        name = None if self.path is None else parse_name(self.path)
        if name is not None and has_events:
            self._before = name.created
        self.forget()
        self._token = os.urandom(4).hex()
        self._segment = 0

    def _create(self) -> tuple[str, int]:
        """Create a file exclusively, under a name that sorts after all event files that are there unless in a child."""
        names: list[str] = []
        with contextlib.suppress(OSError):  # a folder may be written to and not be listed
            names = os.listdir(self._directory)  # noqa: PTH208
        newest = max(filter(_CREATED.match, names), default="")
        name = SegmentName(
            created=min(int(time.time()), _LAST_SECOND),
            host=_host(),
            pid=os.getpid(),
            writer=self._writer,
            segment=self._segment,
            token=self._token,
            suffix=self._suffix,
        )
        if self._before is not None:
            name = replace(name, created=self._before - 1)
        elif str(name) <= newest and (second := int(newest[len(PREFIX) :][:10])) < _LAST_SECOND:
            # A clock that went back, or another writer of this second: TensorBoard does not go back to older names.
            name = replace(name, created=second + 1)
        while True:
            path = os.path.join(self._directory, str(name))
            try:
                return path, _create(path)
            except FileExistsError:
                # The same host name and pid in another container, on a shared disk.
                if name.created == _LAST_SECOND:
                    raise
                name = replace(name, created=name.created + (1 if self._before is None else -1))

    def _reopen(self) -> int:
        if self._descriptor is None:
            if self.path is None:
                raise FileNotFoundError(errno.ENOENT, "no current segment", self._directory)
            self._descriptor = _open(self.path, os.O_WRONLY | os.O_APPEND)
        return self._descriptor

    def _keep_whole(self, descriptor: int, frames: Sequence[bytes]) -> None:
        """After a failed write, keep the records that lie whole in the file and cut off a torn one."""
        try:
            written = os.fstat(descriptor).st_size - self._size
            if written < 0:
                # Another program has cut the file: to lengthen it again would fill the gap with zeros.
                self.forget()
                return
            ends = list(itertools.takewhile(lambda end: end <= written, itertools.accumulate(map(len, frames))))
            whole = ends[-1] if ends else 0
            if written != whole:
                os.ftruncate(descriptor, self._size + whole)
                # Where a file could not be opened for append, its position is behind the end now.
                os.lseek(descriptor, self._size + whole, os.SEEK_SET)
            self._size, self.appended = self._size + whole, self.appended + len(ends)
        except OSError:
            self.forget()


def sync_file(path: str, flags: int = os.O_RDWR) -> None:
    """Fsync the file `path`, if its file system supports that; a directory is opened with `O_RDONLY`."""
    descriptor = os.open(path, flags)
    try:
        _fsync(descriptor)
    finally:
        os.close(descriptor)


def _create(path: str) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    try:
        return _open(path, flags | os.O_APPEND)
    except OSError as error:
        if error.errno not in _NO_APPEND:
            raise
        return _open(path, flags)


def _open(path: str, flags: int) -> int:
    descriptor = os.open(path, flags | getattr(os, "O_BINARY", 0), 0o666)
    if descriptor > _STANDARD_ERROR or fcntl is None:
        return descriptor
    # A standard stream of the program was closed: its output must not get into an event file.
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _STANDARD_ERROR + 1)
    finally:
        os.close(descriptor)


def _can_be_read(path: str) -> bool:
    """Return whether a file that is open for writing can be opened for reading."""
    try:
        os.close(os.open(path, os.O_RDONLY))
    except OSError as error:
        return error.errno not in {*_NO_APPEND, errno.ENOENT} or not os.path.exists(path)  # noqa: PTH110
    return True


def _write(descriptor: int, data: bytes) -> None:
    written = os.write(descriptor, data)
    while written < len(data):
        written += os.write(descriptor, memoryview(data)[written:])


def _fsync(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FSYNC:
            raise
