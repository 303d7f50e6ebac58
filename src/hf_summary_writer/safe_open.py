"""Open a file below a folder for reading without ever leaving the folder, waiting, or following a link."""

from __future__ import annotations

import errno
import os
import stat
from typing import BinaryIO

__all__ = ["regular_file"]

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
