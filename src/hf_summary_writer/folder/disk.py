"""Access to the disk that never follows a link or waits, small JSON files, private copies, and warnings given once."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

__all__ = ["OUT_OF_DESCRIPTORS", "PrivateCopies", "WarnOnce", "read_json", "regular_file", "reserve", "write_json"]

logger = logging.getLogger("hf_summary_writer")

# O_NONBLOCK: opening a FIFO for reading must not wait for a writer. The names missing on Windows mean nothing there.
_FLAGS = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)

_FILE_FLAGS = _FLAGS | getattr(os, "O_NONBLOCK", 0)

_FOLDER_FLAGS = _FLAGS | getattr(os, "O_DIRECTORY", 0)


def regular_file(root: str, relpath: str, buffering: int = 0) -> BinaryIO:
    """Open the regular file `relpath` below the folder `root`, unbuffered unless told otherwise.

    Every part is opened relative to the one before it and none may be a link, so that a link swapped in after the
    scan leads nowhere.

    Raises:
        OSError: If it is not there, not readable, a link, or not a regular file.
    """
    descriptor = _open_below(root, relpath.split("/"))
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", relpath)
        return open(descriptor, "rb", buffering=buffering)
    except BaseException:
        os.close(descriptor)
        raise


def _open_below(root: str, parts: list[str]) -> int:
    if os.open not in os.supports_dir_fd:
        return os.open(os.path.join(root, *parts), _FILE_FLAGS)
    folder = os.open(root, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | os.O_DIRECTORY)
    try:
        for part in parts[:-1]:
            deeper = os.open(part, _FOLDER_FLAGS, dir_fd=folder)
            os.close(folder)
            folder = deeper
        return os.open(parts[-1], _FILE_FLAGS, dir_fd=folder)
    finally:
        os.close(folder)


def read_json(path: Path, most_bytes: int) -> Any:
    """Return what the file at `path` holds, of which no more than `most_bytes` are read.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is no JSON, or RecursionError if it nests too far.
    """
    with path.open("rb") as file:
        return json.loads(file.read(most_bytes))


def write_json(path: Path, value: Any) -> None:
    """Put `value` into the file at `path`, readable by this user alone; makes its folder if need be.

    Raises:
        OSError: If it cannot be written; the file is then what it was.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        json.dump(value, file, separators=(",", ":"))
    temporary.replace(path)


# Trouble of this process or machine and not of one file: a scan that passed over it would take a full folder for empty.
OUT_OF_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE})

_COPY_CHUNK = 4 * 2**20

_LEAST_RESERVE, _MOST_RESERVE = 16 * 2**20, 2**30

# The request of Linux to let one file share the blocks of another (`linux/fs.h`).
_FICLONE = 0x40049409


def reserve(disk: int) -> int:
    """Return how many bytes of a disk of so many a copy leaves free: a twentieth, at least 16 MB and at most 1 GB.

    Whoever trains writes to the same disk, and comes first.
    """
    return min(max(disk // 20, _LEAST_RESERVE), _MOST_RESERVE)


class PrivateCopies:
    """A folder for private copies, emptied after every push whatever happens.

    Args:
        folder: Where the copies go; on the same file system as the originals, a copy may cost no space. Where it
            cannot be, a folder for temporary files takes its place.
    """

    def __init__(self, folder: Path) -> None:
        """Make nothing yet."""
        self._folder = folder
        self._elsewhere: Path | None = None

    def copy(self, source: BinaryIO, length: int) -> tuple[Path, BinaryIO]:
        """Return a copy of the first `length` bytes, or of what there is of them, and its path.

        Raises:
            OSError: If it could not be made, or would not leave enough of the disk to others.
        """
        path, copy = self.new_file()
        try:
            if not _shared(source, copy, length):
                _check_room(copy, length)
                _copy(source, copy, length)
        except BaseException:
            copy.close()
            path.unlink(missing_ok=True)
            raise
        return path, copy

    def new_file(self) -> tuple[Path, BinaryIO]:
        """Return a fresh file, readable by this user alone, and its path.

        Raises:
            OSError: If there can be none, here or elsewhere.
        """
        if self._elsewhere is None:
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                return self._created(self._folder)
            except OSError as error:
                if error.errno in OUT_OF_DESCRIPTORS:
                    raise
            import tempfile

            self._elsewhere = Path(tempfile.mkdtemp(prefix="hf-summary-writer-"))
        return self._created(self._elsewhere)

    def _created(self, folder: Path) -> tuple[Path, BinaryIO]:
        # Never a name that somebody else may choose, too: in containers that share a folder, pids are the same.
        path = folder / os.urandom(16).hex()
        return path, open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "w+b")

    def clear(self) -> None:
        """Remove all copies, also those that a killed process left in the folder."""
        elsewhere, self._elsewhere = self._elsewhere, None
        for folder in filter(None, (self._folder, elsewhere)):
            with contextlib.suppress(OSError):
                for path in folder.iterdir():
                    with contextlib.suppress(OSError):
                        path.unlink()
                folder.rmdir()


def _shared(source: BinaryIO, target: BinaryIO, length: int) -> bool:
    """Let `target` share the blocks of `source`, which costs neither time nor space; tell whether the disk can."""
    try:
        from fcntl import ioctl

        ioctl(target.fileno(), _FICLONE, source.fileno())
    except (ImportError, OSError):
        return False
    if os.fstat(target.fileno()).st_size > length:
        target.truncate(length)
    return True


def _check_room(target: BinaryIO, length: int) -> None:
    disk = os.fstatvfs(target.fileno())
    size, free = disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize
    # Some file systems of a network tell nothing, which reads as none.
    if size and length > free - reserve(size):
        raise OSError(
            errno.ENOSPC,
            f"a private copy takes {length / 1e6:.1f} MB, and {free / 1e6:.1f} MB of the disk are free, of which"
            f" {reserve(size) / 1e6:.1f} MB are left to others",
        )


def _copy(source: BinaryIO, target: BinaryIO, length: int) -> None:
    source.seek(0)
    copied = 0
    with contextlib.suppress(OSError, AttributeError):  # not on this system, or not between these file systems
        # Within the kernel, or on the server of a network's file system.
        while copied < length:
            done = os.copy_file_range(source.fileno(), target.fileno(), length - copied, copied, copied)
            if not done:
                return
            copied += done
    source.seek(copied)
    target.seek(copied)
    while copied < length and (chunk := source.read(min(_COPY_CHUNK, length - copied))):
        target.write(chunk)
        copied += len(chunk)
    target.flush()


# Of so many files a user wants to know by name that something is wrong with them; more only hide other lines.
_NAMED = 10


class WarnOnce:
    """Logs each warning once, and of many alike only the first few.

    Not thread-safe, which costs at most a line that stands twice.
    """

    def __init__(self) -> None:
        """Have said nothing yet."""
        self._said: dict[str, set[str]] = {}

    def warn(self, kind: str, message: str, about: str = "") -> None:
        """Log `message`, unless one of this `kind` was logged `about` the same thing, or about many."""
        said = self._said.setdefault(kind, set())
        if about in said or len(said) > _NAMED:
            return
        said.add(about)
        if len(said) > _NAMED:
            message = f"{message}; more like it are not named"
        logger.warning("%s", message)
