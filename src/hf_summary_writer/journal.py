"""The file of a ledger: a text file of JSON lines that grows with what is noted.

The first line is a head that names the destination, each further one an entry; a later entry about the same thing
replaces an earlier one. The file is written anew by the usual steps of temporary file, fsync, rename, fsync of the
folder.

A last line without its newline is what a crash in the middle of a write leaves; it is ignored and overwritten. Anything
else that does not parse means that the file cannot be trusted: it is set aside and the folder is planned afresh, which
costs time but never data, since the Hub's client drops what is already there.

The caller holds the folder's lock while it writes. Reading needs no lock.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import time
from typing import TYPE_CHECKING, Any

from hf_summary_writer import entries, safe_open
from hf_summary_writer.arrival import Signature

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from io import FileIO
    from pathlib import Path

    from hf_summary_writer.destination import Destination

__all__ = ["Journal", "LedgerError", "destination_of"]

_VERSION = 1
# Far above the 100,000 files that the Hub advises as the most for a repo; a larger file is not one of ours.
_MAX_BYTES = 256 * 2**20
_MAX_HEAD_BYTES = 64 * 2**10
# What opening something else than a regular file gives: a folder or FIFO, a link, a socket.
_NO_FILE = frozenset({errno.EINVAL, errno.EISDIR, errno.ELOOP, errno.EMLINK, errno.ENXIO})


class LedgerError(Exception):
    """The journal cannot be trusted; the message says why."""


class Journal:
    """One file, and what of it was read or written last.

    Not thread-safe: its owner uses it from one thread at a time.

    Args:
        path: The file; its folder is made when something is written.
        destination: What it is about. One that speaks of another destination cannot be trusted.

    Attributes:
        lines: How many lines it holds.
    """

    def __init__(self, path: Path, destination: Destination) -> None:
        """Read nothing yet."""
        self.path = path
        self.lines = 0
        self._head = {"version": _VERSION, **entries.of_destination(destination)}
        self._whole_bytes = 0
        self._seen: Signature | None = None

    def read(self, begin: Callable[[], None], apply: Callable[[dict[str, Any]], None]) -> None:
        """Read the file if it is not what this object read or wrote last: call `begin`, then `apply` with each entry.

        Raises:
            LedgerError: If the file could not be trusted and was set aside.
            OSError: If the file is there but cannot be read; nothing was called then.
        """
        try:
            with safe_open.regular_file(str(self.path.parent), self.path.name, buffering=-1) as file:
                signature = Signature.of(os.fstat(file.fileno()))
                if signature == self._seen:
                    return
                if signature.size > _MAX_BYTES:
                    raise LedgerError(f"it has {signature.size} bytes")
                self._forget()
                begin()
                self._parse(file, apply)
            self._seen = signature
        except FileNotFoundError:
            # Gone with a deleted or recreated folder. What this process knows of the Hub is still true.
            self._seen = None
        except LedgerError as error:
            self._set_aside()
            raise LedgerError(f"{self.path.name} was set aside because {error}") from None
        except OSError as error:
            if error.errno not in _NO_FILE:
                raise
            self._set_aside()
            raise LedgerError(f"{self.path.name} was set aside because it is no file") from None

    def is_outdated(self) -> bool:
        """Tell whether somebody else has written the file since this object read or wrote it."""
        try:
            with safe_open.regular_file(str(self.path.parent), self.path.name, buffering=-1) as file:
                return self._seen is not None and Signature.of(os.fstat(file.fileno())) != self._seen
        except OSError:
            return False  # gone, or not to be read: nothing else is known

    def append(self, news: list[dict[str, Any]]) -> bool:
        """Append to the file, durably, if it is the one that this object knows; tell whether it is.

        Raises:
            OSError: If it could not be written; the file is then, as far as the disk allows, what it was before.
        """
        if self._seen is None:
            return False
        content = b"".join(map(_encoded, news))
        try:
            # Without a buffer: what a full disk did not take would be written once more when the file is closed.
            with self.path.open("r+b", buffering=0) as file:
                if Signature.of(os.fstat(file.fileno())) != self._seen:
                    return False
                try:
                    file.truncate(self._whole_bytes)
                    file.seek(self._whole_bytes)
                    _write_all(file, content)
                    os.fsync(file.fileno())
                except OSError:
                    with contextlib.suppress(OSError):
                        file.truncate(self._whole_bytes)
                    raise
                finally:
                    # However it went, or what was changed here would be taken for what somebody else wrote.
                    self._seen = Signature.of(os.fstat(file.fileno()))
        except FileNotFoundError:
            return False
        self._whole_bytes += len(content)
        self.lines += len(news)
        return True

    def rewrite(self, all_entries: list[dict[str, Any]]) -> None:
        """Replace the file, durably, by one that holds these entries.

        Raises:
            OSError: If it could not be written.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content = b"".join(map(_encoded, [self._head, *all_entries]))
        temporary = self.path.with_name(f"{self.path.name}.{os.getpid()}.tmp")
        try:
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
                signature = Signature.of(os.fstat(file.fileno()))
            temporary.replace(self.path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        _fsync_folder(self.path.parent)
        self._seen, self.lines, self._whole_bytes = signature, 1 + len(all_entries), len(content)

    def sweep(self) -> None:
        """Remove what processes that were killed in the middle of a rewrite left; only while the folder is locked."""
        for path in self.path.parent.glob(f"{self.path.name}.*.tmp"):
            with contextlib.suppress(OSError):
                path.unlink()

    def _forget(self) -> None:
        self.lines = self._whole_bytes = 0
        self._seen = None

    def _parse(self, lines: Iterable[bytes], apply: Callable[[dict[str, Any]], None]) -> None:
        try:
            for line in lines:
                if not line.endswith(b"\n"):
                    break
                understand = apply if self.lines else self._check
                understand(json.loads(line))
                self.lines += 1
                self._whole_bytes += len(line)
        except entries.MEANINGLESS:
            raise LedgerError(f"its line {self.lines + 1} does not mean anything") from None
        if not self.lines:
            raise LedgerError("it is empty")

    def _check(self, head: dict[str, Any]) -> None:
        if head["version"] != _VERSION:
            raise LedgerError(f"its version is {head['version']!r} and this library knows {_VERSION}")
        if head["destination"] != self._head["destination"]:
            raise LedgerError("it is about another destination")

    def _set_aside(self) -> None:
        self._forget()
        with contextlib.suppress(OSError):
            self.path.replace(self.path.with_name(f"{self.path.name}.set-aside-{time.time_ns()}"))


def destination_of(path: Path) -> Destination:
    """Return what the journal at `path` is about.

    Raises:
        LedgerError: If it cannot be trusted.
        OSError: If it cannot be read.
    """
    with safe_open.regular_file(str(path.parent), path.name, buffering=-1) as file:
        head = file.readline(_MAX_HEAD_BYTES)
    try:
        return entries.parsed_destination(json.loads(head))
    except entries.MEANINGLESS:
        raise LedgerError("its head does not mean anything") from None


def _encoded(entry: dict[str, Any]) -> bytes:
    return json.dumps(entry, separators=(",", ":")).encode() + b"\n"


def _write_all(file: FileIO, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]


def _fsync_folder(folder: Path) -> None:
    # The rename itself must survive a power loss; not every system can open a folder (Windows cannot).
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
