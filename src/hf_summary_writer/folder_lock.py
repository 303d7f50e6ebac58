"""One push at a time per folder, across threads and processes."""

from __future__ import annotations

import contextlib
import errno
import time
from typing import TYPE_CHECKING

from hf_summary_writer.errors import TemporaryError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import filelock

__all__ = ["LockUnavailableError", "folder_lock", "is_locked", "new_lock"]

_POLL_SECONDS = 0.1
_UNSUPPORTED = frozenset(
    {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EROFS, errno.EACCES, errno.EPERM}
)


class LockUnavailableError(Exception):
    """The file system has no locks, or the folder cannot be written to; the message says which."""


def new_lock(path: Path) -> filelock.BaseFileLock:
    """Return a fresh lock of the system's own on the file `path`, which any thread may release."""
    import filelock  # in the thread that pushes: it would be a good part of what importing this package costs

    # A soft lock in place of a missing real one would outlive a killed process.
    return filelock.FileLock(path, thread_local=False, fallback_to_soft=False)


def is_locked(path: Path) -> bool:
    """Tell whether somebody holds the lock file `path`; makes no file, and looks like a very short holder itself."""
    import filelock

    if not path.exists():
        return False
    lock = new_lock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        return True
    except (OSError, NotImplementedError):
        return False  # there are no locks here, or not for us
    lock.release()
    return False


@contextlib.contextmanager
def folder_lock(path: Path, seconds: float, interrupted: Callable[[], bool]) -> Iterator[None]:
    """Hold the lock file `path` for the length of a `with` block.

    A fresh lock object each time: it is never shared between threads. The operating system frees the lock of a process
    that dies; the copy of the descriptor that a forked child inherits is closed there by filelock, without unlocking.

    Args:
        path: The lock's file; its folder must exist.
        seconds: How long to wait for another holder.
        interrupted: Asked while waiting; true ends the wait.

    Raises:
        LockUnavailableError: If there can be no lock here.
        TemporaryError: If another process or thread held it for all that time.
    """
    import filelock

    lock = new_lock(path)
    deadline = time.monotonic() + seconds
    try:
        while True:
            try:
                lock.acquire(timeout=min(_POLL_SECONDS, seconds), poll_interval=_POLL_SECONDS / 2)
                break
            except filelock.Timeout:
                if interrupted() or time.monotonic() >= deadline:
                    raise TemporaryError("another process is pushing this folder") from None
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in _UNSUPPORTED:
            raise
        raise LockUnavailableError(str(error)) from None
    try:
        yield
    finally:
        lock.release()
