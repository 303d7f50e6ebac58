"""Atomic and durable writes of files."""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

_READ_BYTES = 256 * 1024


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` survive a power loss."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Create `folder` and its parents durably, accessible to this user only."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(0o700, exist_ok=True)
    sync_folder(folder.parent)


def sync_all(folder: Path) -> None:
    """Make everything in `folder` survive a power loss."""
    for name, _, files in os.walk(folder):
        for file in files:
            with (Path(name) / file).open("rb") as opened:
                os.fsync(opened.fileno())
        sync_folder(Path(name))


def sharded(folder: Path, name: str) -> Path:
    """Return the path of a file named by a hash, below two levels of folders, so that no folder becomes large."""
    return folder / name[:2] / name[2:4] / name


def append(path: Path, line: bytes) -> None:
    """Append to a file durably, and create it if need be; an error, as of a full disk, can leave a part of the line."""
    is_new = not path.exists()
    # Without a buffer: the rest of one that could not be written would be written when the file is closed.
    with path.open("ab", buffering=0) as file:
        rest = memoryview(line)
        while rest:
            rest = rest[file.write(rest) :]
        os.fsync(file.fileno())
    if is_new:
        sync_folder(path.parent)


def read_range(path: Path, start: int, end: int) -> Generator[bytes, None, None]:
    """Yield bytes `start` to `end` (exclusive) of a file, a piece at a time."""
    with path.open("rb") as file:
        file.seek(start)
        while start < end and (piece := file.read(min(_READ_BYTES, end - start))):
            start += len(piece)
            yield piece


class Disk:
    """Writes files of one file system durably; unfinished files stay in one folder, which is emptied at the next start.

    Args:
        folder: holds the unfinished files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        make_folder(folder)
        for leftover in folder.iterdir():
            leftover.unlink()

    @contextmanager
    def temporary(self) -> Iterator[tuple[IO[bytes], Path]]:
        """Open a temporary file, deleted at the end unless it was moved into place."""
        descriptor, name = tempfile.mkstemp(dir=self._folder)
        try:
            with os.fdopen(descriptor, "w+b") as file:
                yield file, Path(name)
        finally:
            Path(name).unlink(missing_ok=True)

    def scratch(self) -> IO[bytes]:
        """Open an unnamed temporary file."""
        return tempfile.TemporaryFile(dir=self._folder)

    def part(self, name: str) -> Path:
        """Return the temporary path of one part of a multipart upload."""
        return self._folder / f"part-{name}"

    def move(self, temporary: Path, target: Path) -> None:
        """Rename a finished temporary file to its final name, durably."""
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        make_folder(target.parent)
        temporary.replace(target)
        sync_folder(target.parent)

    def write(self, target: Path, content: bytes) -> None:
        """Write a small file atomically and durably, replacing an existing one."""
        with self.temporary() as (file, temporary):
            file.write(content)
            file.flush()
            self.move(temporary, target)
