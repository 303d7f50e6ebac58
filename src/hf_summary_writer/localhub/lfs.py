"""The large files of one repo: their LFS pointers in Git, and the storage of their content."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hf_summary_writer.localhub.disk import Disk, read_range, sharded

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from hf_summary_writer.localhub.xet.store import XetStore

SHA256 = re.compile(r"[0-9a-f]{64}")
MAX_POINTER_BYTES = 1024
# The Hub's limit for one file.
MAX_FILE_BYTES = 500 * 10**9
_POINTER = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\noid sha256:(?P<oid>[0-9a-f]{64})\nsize (?P<size>\d{1,18})\n"
)


@dataclass(frozen=True, slots=True)
class Pointer:
    """An LFS pointer, which Git stores in place of a large file."""

    oid: str
    size: int

    def encode(self) -> bytes:
        """Return the pointer as a blob."""
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.oid}\nsize {self.size}\n".encode()


def parse_pointer(blob: bytes) -> Pointer | None:
    """Return the pointer in a blob, or None if the blob is an ordinary file."""
    match = _POINTER.fullmatch(blob)
    return Pointer(match["oid"].decode(), int(match["size"])) if match else None


@dataclass(frozen=True, slots=True)
class StoredFile:
    """An uploaded large file: one object, or chunks in xorbs."""

    size: int
    path: Path | None
    xet_hash: str | None


class LfsStore:
    """The uploaded large files of one repo, by sha256; any thread may use it."""

    def __init__(self, repo: Path, xet: XetStore, disk: Disk) -> None:
        self._disk = disk
        self._objects = repo / "lfs" / "objects"
        self._links = repo / "lfs" / "xet"
        self._xet = xet

    def find(self, oid: str) -> StoredFile | None:
        """Return the file with this sha256, or None if it was never uploaded."""
        path, size, xet_hash = sharded(self._objects, oid), None, None
        try:
            link = json.loads(sharded(self._links, oid).read_bytes())
            size, xet_hash = link["size"], link["xetHash"]
        except FileNotFoundError:
            pass
        try:
            return StoredFile(path.stat().st_size, path, xet_hash)
        except FileNotFoundError:
            return None if size is None else StoredFile(size, None, xet_hash)

    def add_object(self, temporary: Path, oid: str) -> None:
        """Store a file that was uploaded as one object and has this sha256."""
        self._disk.move(temporary, sharded(self._objects, oid))

    def add_link(self, sha256: str, xet_hash: str, size: int) -> None:
        """Record a file that a shard registered for this repo."""
        link = json.dumps({"xetHash": xet_hash, "size": size})
        self._disk.write(sharded(self._links, sha256), link.encode())

    def read(self, file: StoredFile, start: int, end: int) -> Generator[bytes, None, None]:
        """Yield bytes `start` to `end` (exclusive) of the file, a piece at a time."""
        if file.path is None:
            return self._xet.read(file.xet_hash or "", start, end)
        return read_range(file.path, start, end)
