"""Marks a folder whose content is pushed from outside, so that whoever logs below it leaves the pushing to that.

A mark is two files in the folder's state folder: one that says where the folder goes, and one whose lock is held by the
process that pushes it. The system gives the lock back when that process dies, however it dies. Where there are no
locks there are no marks, and both push.
"""

from __future__ import annotations

import contextlib
import random
import time
from typing import TYPE_CHECKING, Any

from hf_summary_writer import json_file
from hf_summary_writer.folder_lock import is_locked, new_lock
from hf_summary_writer.ledger import STATE_FOLDER
from hf_summary_writer.patterns import PathFilter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hf_summary_writer.arrival import Settings
    from hf_summary_writer.destination import Destination

__all__ = ["WatchMark", "watcher_of"]

_MAX_BYTES = 64 * 2**10
# Who looks at a lock holds it for a moment, and must not be taken for a watcher by another one who looks.
_LOOKS = 5
_PAUSE_SECONDS = 0.005
# What every writer calls its files, to find out whether a watcher means them.
_AN_EVENT_FILE = "events.out.tfevents.1.host"


class WatchMark:
    """Says for as long as it is held that a folder is pushed by this process.

    Not thread-safe: its owner uses it from one thread at a time.

    Args:
        folder: The folder, an absolute path without links.
        destination: Where it goes.
        settings: Which files of it.
    """

    def __init__(self, folder: Path, destination: Destination, settings: Settings) -> None:
        self._folder = folder
        self._path = folder / STATE_FOLDER / f"{destination.key}.watch.json"
        self._destination = destination
        self._settings = settings
        self._said: dict[str, Any] = {}
        self._lock: Any = None
        self._locked: tuple[int, int] | None = None

    def hold(self, repo_id: str) -> None:
        """Make the mark, or make it again; does nothing where it cannot be, or another process holds it.

        Args:
            repo_id: The repo's id as far as it is known, with its namespace once the Hub has said which.
        """
        where = self._destination
        said = {
            "endpoint": where.endpoint,
            "repo_type": where.repo_type,
            "repo_ids": sorted({where.repo_id, repo_id}),
            "revision": where.revision,
            "allow": self._settings.allow,
            "ignore": self._settings.ignore,
        }
        with contextlib.suppress(OSError, NotImplementedError):
            if not self._folder.is_dir():
                return  # whoever deleted it does not want it back
            if said != self._said or not self._path.exists():
                json_file.write(self._path, said)
                self._said = said
            path = self._path.with_suffix(".lock")
            if self._lock is not None and _file_id(path) != self._locked:
                self.drop()  # with its folder the file was deleted, and nobody else sees a lock on that
            if self._lock is None:
                lock = new_lock(path)
                lock.acquire(timeout=0)
                self._lock, self._locked = lock, _file_id(path)

    def drop(self) -> None:
        """Take the mark away."""
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()


def watcher_of(folder: Path, destination: Destination, repo_id: str) -> Path | None:
    """Return the folder, `folder` itself or one above it, that some process pushes to the same branch, if there is one.

    Args:
        folder: Where event files are written; an absolute path without links.
        destination: Where they would go otherwise.
        repo_id: The repo's id as far as it is known.
    """
    for above in (folder, *folder.parents):
        for path, said in _marks(above):
            with contextlib.suppress(KeyError, TypeError, ValueError):
                if (
                    said["endpoint"] == destination.endpoint
                    and said["repo_type"] == destination.repo_type
                    and said["revision"] == destination.revision
                    and {destination.repo_id, repo_id} & set(said["repo_ids"])
                    and PathFilter(said["allow"], said["ignore"])(
                        (folder / _AN_EVENT_FILE).relative_to(above).as_posix()
                    )
                    and _is_held(path.with_suffix(".lock"))
                ):
                    return above
    return None


def _marks(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    with contextlib.suppress(OSError):
        for path in sorted((folder / STATE_FOLDER).glob("*.watch.json")):
            with contextlib.suppress(OSError, ValueError, RecursionError):
                yield path, json_file.read(path, _MAX_BYTES)


def _file_id(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _is_held(path: Path) -> bool:
    for look in range(_LOOKS):
        if not is_locked(path):
            return False
        if look < _LOOKS - 1:
            time.sleep(_PAUSE_SECONDS * random.random())  # noqa: S311 - only so that two do not look in step
    return True
