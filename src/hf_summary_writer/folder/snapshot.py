"""What one push will send of a file: content that is stable, and whole.

Nothing here ever hands over something that may still change. A file is read through a descriptor that was opened
without following links, its content is checked on what was read and not on what lies on disk a moment later, and event
files are cut at the last whole record. Small content is handed over as `bytes`; large content as the path of a private
copy, or of a closed segment of our own writer, which by its name is known never to change again.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import os
import time
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from hf_summary_writer.errors import InterruptedPushError
from hf_summary_writer.events import boundaries, followed
from hf_summary_writer.folder import disk
from hf_summary_writer.folder.disk import OUT_OF_DESCRIPTORS
from hf_summary_writer.folder.ledger import LedgerEntry, Signature

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from hf_summary_writer.folder.disk import PrivateCopies
    from hf_summary_writer.folder.scan import ChangedFile

__all__ = [
    "MAX_FILES_PER_COMMIT",
    "MAX_POSTED_BYTES_PER_COMMIT",
    "Batch",
    "ClosedSegments",
    "FileSnapshot",
    "SkipReason",
    "batches",
    "is_event_file",
    "take_snapshot",
]

# Two changes within the coarsest clock tick of a file system in use (2 s: FAT; NFS caches about as long) may leave the
# same signature, so a file this young is looked at once more.
YOUNG_NS = 2 * 10**9

_TAIL_BYTES = 4096

# Content up to this size is handed over as bytes even where the file could be: one open file less to depend on.
_SMALL = 2**20

_DIGEST_CHUNK = 4 * 2**20

# The first record of an event file is no event, the second is one.
_RECORDS_WORTH_A_COPY = 2


@dataclass(frozen=True, slots=True)
class FileSnapshot:
    """What a commit will hold of one file; nothing changes it any more.

    Attributes:
        relpath: The file's path in the folder.
        body: The bytes, or the path of a file that holds exactly them.
        arrival: What to note in the ledger once it is on the Hub.
    """

    relpath: str
    body: bytes | Path
    entry: LedgerEntry

    @property
    def in_memory(self) -> int:
        """How many bytes of memory the body takes."""
        return len(self.body) if isinstance(self.body, bytes) else 0


class SkipReason(Enum):
    """Why a changed has nothing to send right now."""

    NO_EVENT = "holds no event yet"
    NO_RECORD = "holds no whole record"
    BUSY = "changes while it is read"
    GONE = "is no file any more"
    DENIED = "may not be read"


def is_event_file(relpath: str) -> bool:
    """Tell by its name whether a file is made of TFRecord frames."""
    return ".tfevents." in relpath.rpartition("/")[2]


class ClosedSegments:
    """Which event files of a folder are segments of our own writer that it has left for a later one.

    Args:
        folder: The folder. Each of its sub-folders is listed at most once.
    """

    def __init__(self, folder: str) -> None:
        """List nothing yet."""
        self._folder = folder
        self._closed: dict[str, frozenset[str]] = {}

    def __contains__(self, relpath: str) -> bool:
        """Tell whether the file at `relpath` never changes again."""
        reldir, _, name = relpath.rpartition("/")
        if reldir not in self._closed:
            names: list[str] = []
            with contextlib.suppress(OSError):
                names = os.listdir(os.path.join(self._folder, reldir))  # noqa: PTH208 - names are wanted
            self._closed[reldir] = frozenset(followed(names))
        return name in self._closed[reldir]


def take_snapshot(
    folder: str,
    changed: ChangedFile,
    known: LedgerEntry | None,
    outbox: PrivateCopies,
    closed: ClosedSegments,
    *,
    memory: int,
    last: bool,
) -> FileSnapshot | LedgerEntry | SkipReason:
    """Read one changed into something stable.

    Args:
        folder: The folder's real path.
        changed: The file, as the scan saw it.
        known: What the Hub holds of it.
        outbox: Where private copies go.
        closed: Which event files may be handed over by their own path.
        memory: Up to how many bytes content is handed over as `bytes`; larger content becomes a path.
        last: Whether event files that hold no event are meant too.

    Returns:
        The content to send; or, if the Hub already has it, what to note in the ledger; or why there is nothing now.

    Raises:
        OSError: If it could not be read to its end, or no private copy could be made.
    """
    try:
        file = disk.regular_file(folder, changed.target)
    except PermissionError:
        return SkipReason.DENIED
    except OSError as error:
        if error.errno in OUT_OF_DESCRIPTORS:
            raise
        return SkipReason.GONE
    with file:
        signature = Signature.of(os.fstat(file.fileno()))
        reading = _Reading(folder, changed, file, signature, known, outbox, closed, memory)
        return reading.take_event_file(last=last) if is_event_file(changed.relpath) else reading.take_plain_file()


@dataclass(frozen=True, slots=True)
class _Reading:
    """One open file on its way to becoming content."""

    folder: str
    changed: ChangedFile
    file: BinaryIO
    signature: Signature
    known: LedgerEntry | None
    outbox: PrivateCopies
    closed: ClosedSegments
    memory: int

    def take_event_file(self, *, last: bool) -> FileSnapshot | LedgerEntry | SkipReason:
        closed = self.signature.size > _SMALL and self.changed.target in self.closed
        if self.signature.size <= self.memory and not closed:
            body = _read(self.file, self.signature.size)
            end = self._whole_end(io.BytesIO(body), last=last)
            return end if not isinstance(end, int) else self._content(body[:end], _tail(io.BytesIO(body), end))
        # To look through a large file takes long: for an original that is to be copied, see only that it is worth it.
        end = self._whole_end(self.file, last=last, records=None if closed else _RECORDS_WORTH_A_COPY)
        if not isinstance(end, int):
            return end
        if closed and end == self.signature.size:
            path = Path(self.folder, self.changed.target)
            return self._content(path, _tail(self.file, end), end)
        path, copy = self.outbox.copy(self.file, self.signature.size)
        with copy:
            end = self._whole_end(copy, last=last)
            if not isinstance(end, int):
                return end
            copy.truncate(end)
            return self._content(path, _tail(copy, end), end)

    def take_plain_file(self) -> FileSnapshot | LedgerEntry | SkipReason:
        known, size = self.known, self.signature.size
        young = time.time_ns() - self.signature.mtime_ns < YOUNG_NS
        if known is not None and known.digest and known.signature == self.signature:
            if _digest(self.file, size) == known.digest:
                return known if young else known._replace(digest="")
            self.file.seek(0)
        if size <= self.memory:
            body = _read(self.file, size)
            stable: BinaryIO = io.BytesIO(body)
            if not self._same_as(stable, len(body)):
                return SkipReason.BUSY
            return self._content(body, digest=_digest(stable, size) if young else "")
        path, copy = self.outbox.copy(self.file, size)
        with copy:
            if not self._same_as(copy, copy.seek(0, os.SEEK_END)):
                return SkipReason.BUSY
            return self._content(path, length=size, digest=_digest(copy, size) if young else "")

    def _content(
        self, body: bytes | Path, tail: str = "", length: int | None = None, *, digest: str = ""
    ) -> FileSnapshot:
        if length is None:
            length = len(body) if isinstance(body, bytes) else self.signature.size
        return FileSnapshot(self.changed.relpath, body, LedgerEntry(self.signature, length, tail, digest))

    def _whole_end(self, stable: BinaryIO, *, last: bool, records: int | None = None) -> int | LedgerEntry | SkipReason:
        """Return where the whole records of an event file end, or the first new `records`, or why not to send it."""
        start = end = self._known_end(stable)
        found = 0
        for end in itertools.islice(boundaries(stable, start, self.signature.size), records):  # noqa: B007
            found += 1
        if end == 0:
            return SkipReason.NO_RECORD
        if end == start and self.known is not None:
            return self.known._replace(signature=self.signature)
        if not start and found == 1 and not last and _is_file_version(stable, end):
            return SkipReason.NO_EVENT
        return end

    def _known_end(self, stable: BinaryIO) -> int:
        """Return up to where the file is what the Hub already holds, if it only grew since, else 0."""
        known = self.known
        if known is None or known.length > self.signature.size or known.signature[:2] != self.signature[:2]:
            return 0
        return known.length if known.tail == _tail(stable, known.length) else 0

    def _same_as(self, stable: BinaryIO, length: int) -> bool:
        """Tell whether what was read is the file at one moment, and not two halves of two versions."""
        if length != self.signature.size:
            return False
        if Signature.of(os.fstat(self.file.fileno())) == self.signature:
            return True
        # Something was written meanwhile. That is no harm if it only was appended.
        return _digest(self.file, length) == _digest(stable, length)


def _read(file: BinaryIO, length: int) -> bytes:
    file.seek(0)
    chunks = []
    while length > 0 and (chunk := file.read(length)):
        chunks.append(chunk)
        length -= len(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _tail(file: BinaryIO, end: int) -> str:
    start = max(0, end - _TAIL_BYTES)
    file.seek(start)
    return hashlib.blake2b(file.read(end - start), digest_size=8).hexdigest()


def _digest(file: BinaryIO, length: int) -> str:
    file.seek(0)
    digest = hashlib.blake2b(digest_size=16)
    while length > 0 and (chunk := file.read(min(_DIGEST_CHUNK, length))):
        digest.update(chunk)
        length -= len(chunk)
    return digest.hexdigest()


def _is_file_version(file: BinaryIO, end: int) -> bool:
    """Tell whether the only record of an event file is the one that every writer begins with."""
    file.seek(0)
    return end < _TAIL_BYTES and b"brain.Event:" in file.read(end)


# The Hub advises under 100 files per commit.
MAX_FILES_PER_COMMIT = 100

# Bounds what one failed commit costs, and how long a commit takes.
MAX_BYTES_PER_COMMIT = 2**30

# Text travels within the request for the commit, of which the client holds several copies, and on a slow line a large
# one would never come to its end. A single file may be larger: the Hub takes up to 10 MB in this way.
MAX_POSTED_BYTES_PER_COMMIT = 8 * 2**20

# Content is handed over as bytes up to this sum, and from private copies on disk beyond it.
MAX_BYTES_IN_MEMORY = 32 * 2**20

# Bounds how long the lock is held over files of which nothing is to be sent.
MAX_FILES_READ = 1000


@dataclass(frozen=True, slots=True)
class Batch:
    """What one commit takes, and what was learned on the way of files that it does not take.

    Attributes:
        snapshots: The content to commit; may be empty.
        unchanged: Files whose content the Hub holds already, with their new signature, by relative path.
        skipped: Files with nothing to send, and why.
        failed: Files that could not be read or copied, and why.
    """

    snapshots: list[FileSnapshot] = field(default_factory=list)
    unchanged: dict[str, LedgerEntry] = field(default_factory=dict)
    skipped: dict[ChangedFile, SkipReason] = field(default_factory=dict)
    failed: dict[ChangedFile, OSError] = field(default_factory=dict)

    @property
    def files(self) -> int:
        """The number of files that were read."""
        return len(self.snapshots) + len(self.unchanged) + len(self.skipped) + len(self.failed)


def batches(
    changed: Iterable[ChangedFile],
    take: Callable[[ChangedFile, int], FileSnapshot | LedgerEntry | SkipReason],
    lock: contextlib.AbstractContextManager[object],
    interrupted: Callable[[], bool],
) -> Iterator[Batch]:
    """Yield batches until all changed are read. What was yielded must be sent before the next one is asked for.

    Args:
        changed: The files.
        take: Reads one of them; is told up to how many bytes it may return as `bytes`.
        lock: Held while a batch is read.
        interrupted: Asked before every file.

    Raises:
        InterruptedPushError: If there was an interruption.
    """
    remaining = iter(changed)
    while True:
        with lock:
            batch = _read_batch(remaining, take, interrupted)
        if not batch.files:
            return
        yield batch


def _read_batch(
    remaining: Iterator[ChangedFile],
    take: Callable[[ChangedFile, int], FileSnapshot | LedgerEntry | SkipReason],
    interrupted: Callable[[], bool],
) -> Batch:
    batch = Batch()
    memory, size = MAX_BYTES_IN_MEMORY, 0
    for file in remaining:
        if interrupted():
            raise InterruptedPushError("the push was interrupted")
        try:
            taken = take(file, memory)
        except OSError as error:
            batch.failed[file] = error
            continue
        if isinstance(taken, FileSnapshot):
            batch.snapshots.append(taken)
            memory -= taken.in_memory
            size += taken.entry.length
        elif isinstance(taken, LedgerEntry):
            batch.unchanged[file.relpath] = taken
        else:
            batch.skipped[file] = taken
        if (
            len(batch.snapshots) == MAX_FILES_PER_COMMIT
            or size >= MAX_BYTES_PER_COMMIT
            or batch.files >= MAX_FILES_READ
        ):
            break
    return batch
