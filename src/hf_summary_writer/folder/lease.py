"""The right to push a folder: the lease that a scheduler holds while it lives, and the push lock."""

from __future__ import annotations

import contextlib
import errno
import math
import os
from typing import TYPE_CHECKING, Any

from hf_summary_writer.errors import FolderBusyError
from hf_summary_writer.folder import disk
from hf_summary_writer.folder.copies import most_open_files
from hf_summary_writer.folder.disk import STATE_FOLDER
from hf_summary_writer.folder.patterns import PathFilter
from hf_summary_writer.process import Registry, let_imports_end_before_forks, shared

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import filelock

    from hf_summary_writer.config import Destination, PushConfig
    from hf_summary_writer.folder.disk import StateFolder

PUSH_LOCK = "push.lock"

# `is_locked` holds a lock for a moment, and must not be taken for its owner.
_LOOK_SECONDS = 0.05
_POLL_SECONDS = 0.005


def prepare_for_forks() -> None:
    """Let no fork fall into an import of another thread; called before there is one.

    `filelock` has a hook for forks that keeps its own import from ending, so it is imported here.
    """
    import filelock  # noqa: F401

    let_imports_end_before_forks()


def new_lock(path: Path) -> filelock.BaseFileLock:
    """Return a lock of the operating system on the file `path`, which any thread may release."""
    import filelock  # not with this module: it would be a good part of this package's import time

    # A soft lock in place of a missing real one would outlive a killed process.
    return filelock.FileLock(path, mode=0o600, thread_local=False, fallback_to_soft=False)


def _release(lock: filelock.BaseFileLock) -> None:
    try:
        lock.release()
    except OSError:  # of a failing disk; then it still holds the descriptor, and with it the lock
        with contextlib.suppress(OSError):
            lock.release(force=True)


def is_locked(path: Path) -> bool:
    """Return whether the lock file `path` is held; creates no file, and holds the lock for a moment itself."""
    import filelock

    if not os.path.exists(path):  # noqa: PTH110 - raises nothing, unlike the method of Path
        return False
    lock = new_lock(path)
    try:
        lock.acquire(timeout=_LOOK_SECONDS, poll_interval=_POLL_SECONDS)
    except filelock.Timeout:
        return True
    except (OSError, NotImplementedError):
        return False  # there are no locks here, or not for us
    _release(lock)
    return False


def _acquired(state: StateFolder, name: str, most_open: float = math.inf) -> filelock.BaseFileLock:
    """Return a lock on a file of a state folder, which is created if need be, once it is held.

    Args:
        state: The state folder.
        name: The file.
        most_open: The number of descriptors in use that leaves none for the lock.

    Raises:
        filelock.Timeout: If another process or thread holds it.
        OSError, NotImplementedError: If there can be no lock here.
    """
    with state.opened(create=True) as folder:  # neither a link nor a file
        if folder >= most_open:  # a new descriptor is the lowest one that is free
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    lock = new_lock(state.path / name)
    lock.acquire(timeout=_LOOK_SECONDS, poll_interval=_POLL_SECONDS)
    return lock


@contextlib.contextmanager
def push_lock(state: StateFolder) -> Iterator[OSError | NotImplementedError | None]:
    """Hold the lock that keeps pushes of one folder apart, across threads and processes, without waiting for it.

    The operating system frees the lock of a process that dies; a forked child closes its copy of the descriptor without
    unlocking.

    Yields:
        `None`, or why there can be no lock here.

    Raises:
        FolderBusyError: If another process or thread pushes the folder.
    """
    import filelock

    unusable: OSError | NotImplementedError | None = None
    with contextlib.ExitStack() as held:
        try:
            held.callback(_release, _acquired(state, PUSH_LOCK))
        except filelock.Timeout:
            raise FolderBusyError("another process is pushing this folder") from None
        except (OSError, NotImplementedError) as error:
            unusable = error
        yield unusable


class Lease:
    """The right of one scheduler to push a folder to a destination in the background, held while it lives.

    A lock of the operating system, so that it ends with the process, and a small file beside it that says where the
    folder is pushed. Where there are no locks, or a process has half of its file descriptors in use, everybody has the
    right.

    One thread at a time may use it.

    Args:
        folder: The folder, an absolute path without links.
        config: The destination, and the patterns of the files.
        waits: Whether to leave the first interval to others, as ranks other than 0 do, so that rank 0 comes first where
            they share a file system.
        covers_below: Whether writers in folders below leave their pushes to the owner of this lease.

    Attributes:
        path: The file that says where the folder is pushed.
    """

    def __init__(self, folder: Path, config: PushConfig, *, waits: bool, covers_below: bool) -> None:
        self._config = config
        self.path: Path = folder / STATE_FOLDER / f"{config.destination.key}.lease.json"
        self._lock_path = self.path.with_suffix(".lock")
        self._waits = waits
        self._covers_below = covers_below
        self._written: dict[str, Any] = {}
        self._lock: filelock.BaseFileLock | None = None
        self._locked: tuple[int, int] | None = None
        # A forked child has its own, without the leases that its parent holds.
        self._of_this_process: Registry = shared("leases", Registry)
        self._of_this_process.add(self)

    @property
    def held(self) -> bool:
        """Whether this process is the owner."""
        return self._lock is not None and _file_id(self._lock_path) == self._locked

    @property
    def is_held_elsewhere(self) -> bool:
        """Whether another process is the owner."""
        if self.held or not is_locked(self._lock_path):
            return False
        return not any(each.held for each in self._of_this_process.newest_first() if each.path == self.path)

    def may_claim(self) -> bool:
        """Return whether a scheduled push has reason to go on; called once an interval."""
        if self.held:
            return True
        if self._waits:
            self._waits = False
            return False
        return not (is_locked(self._lock_path) and self._includes_ours())

    def claim(self, repo_id: str) -> bool:
        """Become the owner, or stay it; return False while another owner pushes the same files.

        Args:
            repo_id: The repo's id, with its namespace once that is known from the Hub.
        """
        import filelock

        try:
            if not self.held:
                self.release()  # the lock's file was deleted with its folder
                # Those of a thousand folders would leave no descriptor to the training, and none to their own pushes.
                most_open = 2 * most_open_files()
                self._lock = _acquired(disk.StateFolder(self.path.parent), self._lock_path.name, most_open)
                self._locked = _file_id(self._lock_path)
            self._write(repo_id)
        except filelock.Timeout:
            return not self._includes_ours()
        except (OSError, NotImplementedError):
            pass
        return True

    def release(self) -> None:
        """Give the lease back, so that another process can become the owner."""
        lock, self._lock = self._lock, None
        if lock is not None:
            _release(lock)

    def _write(self, repo_id: str) -> None:
        where = self._config.destination
        value = {
            "endpoint": where.endpoint,
            "repo_type": where.repo_type,
            "repo_ids": sorted({where.repo_id, repo_id}),
            "revision": where.revision,
            "allow": self._config.allow_patterns,
            "ignore": self._config.ignore_patterns,
            "covers_below": self._covers_below,
        }
        if value != self._written or not self.path.exists():
            disk.write_json(self.path, value)
            self._written = value

    def _includes_ours(self) -> bool:
        """Return whether the owner's patterns include all files that ours do, as far as they tell."""
        try:
            owner = disk.read_json(self.path)
            theirs = (_patterns(owner["allow"]), _patterns(owner["ignore"]))
        except (OSError, *disk.MALFORMED):
            return True  # between its lock and its file
        return theirs in ((self._config.allow_patterns, self._config.ignore_patterns), (None, None))


def owner_above(folder: Path, destination: Destination, repo_id: str) -> Path | None:
    """Return the folder, `folder` or one above it, whose owner pushes the event files in `folder` to the same branch.

    Args:
        folder: Where event files are written; an absolute path without links.
        destination: Where they would go otherwise.
        repo_id: The repo's id as far as it is known.
    """
    for above in (folder, *folder.parents):
        reldir = folder.relative_to(above).as_posix()
        paths: list[Path] = []
        with contextlib.suppress(OSError):
            paths = sorted((above / STATE_FOLDER).glob("*.lease.json"))
        for path in paths:
            with contextlib.suppress(OSError, *disk.MALFORMED):
                owner = disk.read_json(path)
                if (
                    owner["covers_below"] is True
                    and owner["endpoint"] == destination.endpoint
                    and owner["repo_type"] == destination.repo_type
                    and owner["revision"] == destination.revision
                    and {destination.repo_id, repo_id} & set(owner["repo_ids"])
                    and PathFilter(owner["allow"], owner["ignore"]).takes_events_in(reldir)
                    and is_locked(path.with_suffix(".lock"))
                ):
                    return above
    return None


def _patterns(value: Any) -> tuple[str, ...] | None:
    return None if value is None else tuple(value)


def _file_id(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
