"""Private copies of files that may change during an upload, and files that are handed over as they were opened."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from hf_summary_writer.folder.disk import OUT_OF_DESCRIPTORS, new_temporary

if TYPE_CHECKING:
    from hf_summary_writer.folder.disk import StateFolder

_COPY_CHUNK = 4 * 2**20

_LEAST_RESERVE, _MOST_RESERVE = 16 * 2**20, 2**30

# The request of Linux to let one file share the blocks of another (`linux/fs.h`).
_FICLONE = 0x40049409

# Opening a name in here opens the very file of a descriptor, even if its path is gone. `/dev/fd` will not do: on other
# systems all who open it share one position.
_DESCRIPTORS = Path("/proc/self/fd")


def reserve(disk: int) -> int:
    """Return how many bytes of a disk of so many a copy leaves free: a twentieth, at least 16 MB and at most 1 GB.

    The training writes to the same disk and comes first.
    """
    return min(max(disk // 20, _LEAST_RESERVE), _MOST_RESERVE)


def most_open_files() -> int:
    """Return how many files one push holds open: a quarter of the process's limit; the training needs the rest."""
    try:
        import resource

        return max(1, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)
    except (ImportError, OSError, ValueError):  # not on this system
        return 64


class PrivateCopies:
    """The files that one push hands to the Hub's client by path; no other process can exchange them.

    Where the system allows, they are handed over by descriptor: copies then have no name at all, and nothing is left
    behind by a kill. Elsewhere a copy has a random name in the state folder.

    Args:
        state: Where the copies go; on the file system of the originals, a copy may cost no space. A folder for
            temporary files takes its place if need be.
    """

    def __init__(self, state: StateFolder) -> None:
        self._state = state
        self._held = contextlib.ExitStack()

    def hold(self, file: BinaryIO) -> Path | None:
        """Return a path that opens `file` itself until `clear`; `None` if this system has none."""
        if _path_of(file) is None:
            return None
        held = os.dup(file.fileno())
        self._held.callback(os.close, held)
        return _DESCRIPTORS / str(held)

    def copy(self, source: BinaryIO, length: int) -> tuple[Path, BinaryIO]:
        """Return a path and the open file of a copy of the first `length` bytes, or as many as there are.

        Both are valid until `clear`.

        Raises:
            OSError: If it could not be made, or would not leave enough of the disk to others.
        """
        path, copy, folder = self._new_file()
        self._held.callback(_discard, copy)
        try:
            if not _shared(source, copy, length):
                _check_room(folder, length)
                _copy(source, copy, length)
        except BaseException:
            copy.truncate(0)
            raise
        return path, copy

    def clear(self) -> None:
        """Remove all copies and close all files."""
        self._held.close()

    def _new_file(self) -> tuple[Path, BinaryIO, Path]:
        try:
            with self._state.opened(create=True) as folder:
                name, file = new_temporary(folder)
                return self._path_for(file, self._state.path / name, folder), file, self._state.path
        except OSError as error:
            if error.errno in OUT_OF_DESCRIPTORS:
                raise
        descriptor, name = tempfile.mkstemp(prefix="hf-summary-writer-")
        file = open(descriptor, "w+b")  # noqa: SIM115 - `clear` closes it
        return self._path_for(file, Path(name)), file, Path(name).parent

    def _path_for(self, file: BinaryIO, path: Path, folder: int | None = None) -> Path:
        """Return a path that opens a new file until `clear`; remove its own where the system has another one."""
        nameless = _path_of(file)
        if nameless is None:
            self._held.callback(_remove, path)
            return path
        os.unlink(path if folder is None else path.name, dir_fd=folder)
        return nameless


def _discard(copy: BinaryIO) -> None:
    with contextlib.suppress(OSError), copy:
        copy.truncate(0)  # a forked process may hold the descriptor, and with it the space, for days


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def _path_of(file: BinaryIO) -> Path | None:
    """Return a path that opens the file of a descriptor, even after it is unlinked; `None` if this system has none."""
    path = _DESCRIPTORS / str(file.fileno())
    try:
        os.close(os.open(path, os.O_RDONLY))
    except OSError:
        return None
    return path


def _shared(source: BinaryIO, target: BinaryIO, length: int) -> bool:
    """Share the blocks of `source` with `target`, which costs neither time nor space; return whether the disk can."""
    try:
        from fcntl import ioctl

        ioctl(target.fileno(), _FICLONE, source.fileno())
    except (ImportError, OSError):
        return False
    if os.fstat(target.fileno()).st_size > length:
        target.truncate(length)
    return True


def _check_room(folder: Path, length: int) -> None:
    size, _, free = shutil.disk_usage(folder)
    # Some network file systems report a size of 0.
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
            if not done:  # the end, or a file system that does not say that it cannot
                break
            copied += done
    source.seek(copied)
    target.seek(copied)
    while copied < length and (chunk := source.read(min(_COPY_CHUNK, length - copied))):
        target.write(chunk)
        copied += len(chunk)
    target.flush()
