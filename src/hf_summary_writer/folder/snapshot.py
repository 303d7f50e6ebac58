"""Snapshots of changed files: the whole, stable content that one push sends.

Nothing here hands over content that may still change. A file is read through a descriptor that was opened without
following links, its content is checked on the bytes that were read and not on the disk a moment later, and event files
are cut at the last whole record. Small content is handed over as `bytes`; large content as a private copy, or as the
opened file of a sealed segment of our own writer, which by its name is known never to change again.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import itertools
import os
import stat
import time
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from hf_summary_writer.checks import SHORTEST_SECRET
from hf_summary_writer.events import boundaries, extend_crc, followed, is_torn, next_record
from hf_summary_writer.folder import disk
from hf_summary_writer.folder.copies import PrivateCopies
from hf_summary_writer.folder.ledger import LedgerEntry, Signature

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from hf_summary_writer.folder.disk import StateFolder, WarnOnce
    from hf_summary_writer.folder.scan import ChangedFile

# Two changes within the coarsest clock tick of a file system in use (2 s: FAT; NFS caches about as long) may leave the
# same signature, so a file this young is looked at once more.
YOUNG_NS = 2 * 10**9

# A file that was not written to for this long is taken for complete, even if its last record is not.
_SETTLED_NS = 60 * 10**9

# A full comparison costs as much as the file is long, so a file that only grows is compared once a day.
_SECONDS_UNTIL_DUE = 24 * 3600

_TAIL_BYTES = 4096

# Errors for a file that is gone since the scan, or not a regular file any more. All others are failures of the disk.
_NO_FILE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL, errno.ENXIO, errno.ENODEV, errno.EOPNOTSUPP}

# How long a file that is listed may be impossible to open, and after how long it is tried again.
_SECONDS_UNTIL_OPENED, _OPEN_AGAIN_SECONDS = 0.1, 0.005

# Content up to this size is handed over as bytes even where the file could be: one open file less to depend on.
_SMALL = 2**20

_DIGEST_CHUNK = 4 * 2**20

# The Hub stores nothing larger in Git itself.
_MOST_BYTES_IN_GIT = 10 * 2**20

# The first record of an event file is no event, the second is one.
_RECORDS_WORTH_A_COPY = 2


@dataclass(frozen=True, slots=True)
class FileSnapshot:
    """The content that a commit will hold of one file.

    Attributes:
        relpath: The file's path in the folder.
        body: The bytes, or a path that opens a file with exactly them.
        entry: The entry for the ledger once the content is on the Hub. Of an event file it lacks the hash, which the
            upload computes anyway.
        is_original: Whether `body` opens the file itself and not a copy of it.
    """

    relpath: str
    body: bytes | Path
    entry: LedgerEntry
    is_original: bool = False

    @property
    def in_memory(self) -> int:
        """The number of bytes of memory that the body takes."""
        return len(self.body) if isinstance(self.body, bytes) else 0

    def is_intact(self) -> bool:
        """Return whether the content is still that of the entry, for a check between upload and commit."""
        return not self.is_original or Signature.of(os.stat(self.body)) == self.entry.signature  # noqa: PTH116 - or bytes


class SkipReason(Enum):
    """Why a changed file has nothing to send right now."""

    NO_EVENT = "holds no event yet"
    NO_RECORD = "holds no whole record"
    BUSY = "changes while it is read"
    DAMAGED = "ends in a damaged record and may still grow"
    GONE = "is no file any more"
    DENIED = "may not be read"
    SECRET = "holds the access token"  # noqa: S105 - no password


def is_event_file(relpath: str) -> bool:
    """Return whether a file is made of TFRecord frames, by its name."""
    return ".tfevents." in relpath.rpartition("/")[2]


class SnapshotReader:
    """Reads changed files of a folder for one push.

    Not thread-safe. Results are valid until `clear`.

    Args:
        folder: The folder's real path.
        state: Where private copies go.
        warn_once: Names damaged and rewritten files.
        secrets: Tokens; a file in which one of them is found is never sent.
        verify: Whether to compare all of every file with the ledger.
    """

    def __init__(
        self,
        folder: str,
        state: StateFolder,
        warn_once: WarnOnce,
        secrets: Iterable[str] = (),
        *,
        verify: bool = False,
    ) -> None:
        self.folder = folder
        self.copies: PrivateCopies = PrivateCopies(state)
        self.warn_once = warn_once
        self.verify = verify
        self._secrets = [secret.encode() for secret in secrets if len(secret) >= SHORTEST_SECRET]
        self._sealed: dict[str, frozenset[str]] = {}

    def take(
        self, changed: ChangedFile, known: LedgerEntry | None, *, memory: int, last: bool
    ) -> FileSnapshot | LedgerEntry | SkipReason:
        """Read one file.

        Args:
            changed: The file, as the scan saw it.
            known: The part of it that is on the Hub.
            memory: Up to how many bytes content is handed over as `bytes`; larger content becomes a path.
            last: Whether to send event files that hold no event, or that are damaged and may still grow.

        Returns:
            The content to send; or, if the Hub already has it, the new entry for the ledger; or why there is nothing.

        Raises:
            OSError: If it could not be read to its end, or no private copy could be made.
        """
        try:
            file = self._open(changed.target)
        except PermissionError:
            return SkipReason.DENIED
        if file is None:
            return SkipReason.GONE
        with file:
            signature = Signature.of(os.fstat(file.fileno()))
            read = _EventFile if is_event_file(changed.relpath) else _PlainFile
            taken = read(self, changed, file, signature, known, memory).take(last=last)
        if isinstance(taken, FileSnapshot) and self._holds_secret(taken):
            return SkipReason.SECRET
        return taken

    def clear(self) -> None:
        """Remove all private copies and close all files."""
        self.copies.clear()

    def is_sealed(self, relpath: str) -> bool:
        """Return whether a file is a segment of our own writer that never changes again, since a later one follows."""
        reldir, _, name = relpath.rpartition("/")
        if reldir not in self._sealed:
            names: list[str] = []
            with contextlib.suppress(OSError):
                names = os.listdir(os.path.join(self.folder, reldir))  # noqa: PTH208 - names are wanted
            self._sealed[reldir] = frozenset(followed(names))
        return name in self._sealed[reldir]

    def _open(self, relpath: str) -> BinaryIO | None:
        """Open a file; return `None` if it is gone."""
        until = time.monotonic() + _SECONDS_UNTIL_OPENED
        while True:
            try:
                return disk.regular_file(self.folder, relpath)
            except OSError as error:  # noqa: PERF203 - it is what the loop is for
                if error.errno not in _NO_FILE:
                    raise
                if error.errno != errno.ENOENT or not self._is_listed(relpath):
                    return None
                # Deleted and created again; or on the mount of an object store, which lists a file that is being
                # written, and opens it only once it is closed.
                if time.monotonic() > until:
                    raise
                time.sleep(_OPEN_AGAIN_SECONDS)

    def _is_listed(self, relpath: str) -> bool:
        with contextlib.suppress(OSError):
            return stat.S_ISREG(os.lstat(os.path.join(self.folder, relpath)).st_mode)
        return False

    def _holds_secret(self, taken: FileSnapshot) -> bool:
        if not self._secrets or (not isinstance(taken.body, bytes) and taken.entry.length > _SMALL):
            return False
        body = taken.body if isinstance(taken.body, bytes) else taken.body.read_bytes()
        return any(secret in body for secret in self._secrets)


@dataclass(frozen=True, slots=True)
class _OpenFile:
    """One open file on its way to a snapshot."""

    reader: SnapshotReader
    changed: ChangedFile
    file: BinaryIO
    signature: Signature
    known: LedgerEntry | None
    memory: int

    def is_older_than(self, nanoseconds: int) -> bool:
        """Return whether the last change is at least so long ago, or, after a clock went back, so far in the future."""
        now = time.time_ns()
        return all(abs(now - then) >= nanoseconds for then in (self.signature.mtime_ns, self.signature.ctime_ns))

    def copied(self) -> tuple[Path, BinaryIO]:
        return self.reader.copies.copy(self.file, self.signature.size)

    @property
    def name(self) -> str:
        return f"{self.changed.relpath!a} of {self.reader.folder!a}"


class _PlainFile(_OpenFile):
    __slots__ = ()

    def take(self, *, last: bool) -> FileSnapshot | LedgerEntry | SkipReason:  # noqa: ARG002 - as event files are taken
        known, size = self.known, self.signature.size
        young = not self.is_older_than(YOUNG_NS)
        if known is not None and known.sha256 and known.length == size and _sha256(self.file, size) == known.sha256:
            return known._replace(signature=self.signature, young=young)
        stable: BinaryIO
        body: bytes | Path
        if size <= self.memory:
            body = _read(self.file, size)
            stable = io.BytesIO(body)
            length = len(body)
        else:
            body, stable = self.copied()
            length = stable.seek(0, os.SEEK_END)
        if not self._is_one_version(stable, length):
            return SkipReason.BUSY
        git_oid = _git_oid(stable, length) if length <= _MOST_BYTES_IN_GIT else ""
        entry = LedgerEntry(self.signature, length, sha256=_sha256(stable, length), git_oid=git_oid, young=young)
        return FileSnapshot(self.changed.relpath, body, entry)

    def _is_one_version(self, stable: BinaryIO, length: int) -> bool:
        """Return whether the bytes that were read are the file at one moment, and not two halves of two versions."""
        if length != self.signature.size:
            return False
        if Signature.of(os.fstat(self.file.fileno())) == self.signature:
            return True
        # Something was written meanwhile. That is no harm if it only was appended.
        return _sha256(self.file, length) == _sha256(stable, length)


class _Extent(NamedTuple):
    """The part of an event file to send: up to `end`, of which the first `start` bytes are on the Hub already."""

    start: int
    end: int
    is_damaged: bool = False
    is_final: bool = True  # whether nothing behind `end` is to be sent


class _EventFile(_OpenFile):
    __slots__ = ()

    def take(self, *, last: bool) -> FileSnapshot | LedgerEntry | SkipReason:
        size = self.signature.size
        sealed = size > _SMALL and self.reader.is_sealed(self.changed.target)
        if size <= self.memory and not sealed:
            content = _read(self.file, size)
            stable = io.BytesIO(content)
            extent = self._extent(stable, last=last)
            return self._snapshot(content[: extent.end], stable, extent) if isinstance(extent, _Extent) else extent
        # To look through a large file takes long: for an original that is to be copied, see only that it is worth it.
        most_records = None if sealed or self._was_damaged else _RECORDS_WORTH_A_COPY
        extent = self._extent(self.file, last=last, most_records=most_records)
        if not isinstance(extent, _Extent):
            return extent
        path = self.reader.copies.hold(self.file) if sealed and extent.end == size else None
        if path is not None:
            return self._snapshot(path, self.file, extent, is_original=True)
        path, copy = self.copied()
        extent = self._extent(copy, last=last)
        if not isinstance(extent, _Extent):
            return extent
        copy.truncate(extent.end)
        return self._snapshot(path, copy, extent)

    def _snapshot(
        self, body: bytes | Path, stable: BinaryIO, extent: _Extent, *, is_original: bool = False
    ) -> FileSnapshot:
        if extent.is_damaged:
            text = f"{self.name} holds damaged records: it is uploaded as it is, but viewers may stop there"
            self.reader.warn_once.warn("damaged", text, self.changed.relpath)
        start = extent.start
        checksum = _checksum(stable, start, extent.end, self.known.digest if self.known and start else "")
        # A hole that a network file system has yet to fill looks like damage, so such a file is compared every time.
        verified = 0 if extent.is_damaged else self._verified if start else _now()
        entry = LedgerEntry(
            self.signature,
            extent.end,
            tail=_tail(stable, extent.end),
            digest=checksum,
            young=not extent.is_final,
            verified=verified,
        )
        return FileSnapshot(self.changed.relpath, body, entry, is_original)

    def _extent(
        self, stable: BinaryIO, *, last: bool, most_records: int | None = None
    ) -> _Extent | LedgerEntry | SkipReason:
        """Return the part to send, up to the first new `most_records` if there are so many."""
        size, start = self.signature.size, self._known_end(stable)
        settled = last or self.is_older_than(_SETTLED_NS)
        # What was uploaded of a damaged file need not end with a record, so its records are found from the start again.
        end = 0 if self._was_damaged else start
        at: int | None = end
        records, damaged, final = 0, False, True
        while at is not None:
            for end in itertools.islice(boundaries(stable, at, size), most_records):  # noqa: B007
                records += 1
            if (records and most_records is not None) or is_torn(stable, end, size):
                break
            if not (records or start or settled):
                # Perhaps no event file at all: search it for records only once it is complete.
                return SkipReason.DAMAGED
            at = next_record(stable, end + 1, size)
            if at is not None or settled:
                damaged, end = True, size
            else:
                final = False
        end = max(end, start)
        if end == 0:
            return SkipReason.NO_RECORD
        if end == start and self.known is not None:
            if not final:
                return SkipReason.DAMAGED
            return self.known._replace(signature=self.signature, verified=self._verified)
        if not start and records == 1 and not last and _is_file_version(stable, end):
            return SkipReason.NO_EVENT
        return _Extent(start, end, damaged, final)

    def _known_end(self, stable: BinaryIO) -> int:
        """Return the length of the part that is on the Hub, if the file only grew since, else 0."""
        known = self.known
        if known is None or known.tail != _tail(stable, known.length):
            return 0
        if known.digest and self._is_due and _checksum(stable, 0, known.length) != known.digest:
            text = f"{self.name} was rewritten in place: all of it is uploaded again"
            self.reader.warn_once.warn("rewritten", text, self.changed.relpath)
            return 0
        return known.length

    @property
    def _was_damaged(self) -> bool:
        return self.known is not None and bool(self.known.digest) and not self.known.verified

    @property
    def _is_due(self) -> bool:
        """Whether all of the known part is to be compared."""
        known = self.known
        if known is None:
            return False
        # A change that kept the size is one of the content, or only of the time or the owner.
        return (
            self.reader.verify
            or known.signature.size == self.signature.size
            # Another file, or the same one on a file system that was mounted again.
            or known.signature[:2] != self.signature[:2]
            or not 0 <= _now() - known.verified < _SECONDS_UNTIL_DUE
        )

    @property
    def _verified(self) -> int:
        if self.known is None or self._was_damaged:
            return 0
        return _now() if self._is_due else self.known.verified


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


def _sha256(file: BinaryIO, length: int) -> str:
    return _hashed(hashlib.sha256(), file, length)


def _git_oid(file: BinaryIO, length: int) -> str:
    return _hashed(hashlib.sha1(b"blob %d\0" % length, usedforsecurity=False), file, length)


def _hashed(digest: hashlib._Hash, file: BinaryIO, length: int) -> str:
    file.seek(0)
    while length > 0 and (chunk := file.read(min(_DIGEST_CHUNK, length))):
        digest.update(chunk)
        length -= len(chunk)
    return digest.hexdigest()


def _checksum(file: BinaryIO, start: int, end: int, before: str = "") -> str:
    """Return the CRC-32C of the first `end` bytes, of which the first `start` have the checksum `before`."""
    crc, start = (int(before, 16), start) if before else (0, 0)
    file.seek(start)
    while start < end and (chunk := file.read(min(_DIGEST_CHUNK, end - start))):
        crc = extend_crc(crc, chunk)
        start += len(chunk)
    return f"{crc:08x}"


def _now() -> int:
    return int(time.time())


def _is_file_version(file: BinaryIO, end: int) -> bool:
    """Return whether the only record of an event file is the one that every writer begins with."""
    file.seek(0)
    return end < _TAIL_BYTES and b"brain.Event:" in file.read(end)
