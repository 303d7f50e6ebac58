"""Files that wait for the disk, synced at the same time."""

from __future__ import annotations

import _thread
import contextlib
import errno
import queue
from collections import deque
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["sync_all"]

_AT_ONCE = 32

"""Files synced at the same time."""

_SLOW = 0.001

"""Seconds without a synced file after which the disk is slow. On a fast one, such as memory, threads cost more."""

# A file that was closed meanwhile is opened again for its fsync.
_TOO_MANY_OPEN = {errno.EMFILE, errno.ENFILE}


class Syncable(Protocol):
    """A file, or an object that owns one."""

    @property
    def is_dirty(self) -> bool: ...
    def sync(self) -> None: ...


F = TypeVar("F", bound=Syncable)

if TYPE_CHECKING:
    Outcome = tuple[F, BaseException | None]
    Done = queue.SimpleQueue[Outcome[F]]


def sync_all(files: Sequence[F]) -> Iterator[Outcome[F]]:
    """Sync each of `files`; yield it and the exception that `sync` raised, or `None`, as soon as it is done.

    If several are dirty, a thread syncs them, and on a slow disk more threads do at the same time, until no file is
    left: a journaling file system puts fsyncs that wait together into one commit. `syncfs` would also wait for the
    writes of other programs, and would not tell whose data a failing disk has lost. Where no thread can start, as late
    in the exit of some versions of Python, the calling thread syncs all.
    """
    clean = [file for file in files if not file.is_dirty]
    dirty = [file for file in files if file.is_dirty]
    yield from _in_turn(clean)
    if len(dirty) < 2:
        yield from _in_turn(dirty)
        return
    alone = []
    for file, error in _together(dirty):
        if isinstance(error, OSError) and error.errno in _TOO_MANY_OPEN:
            alone.append(file)
        else:
            yield file, error
    yield from _in_turn(alone)


def _in_turn(files: Sequence[F]) -> Iterator[Outcome[F]]:
    for file in files:
        yield file, _sync(file)


def _together(files: Sequence[F]) -> Iterator[Outcome[F]]:
    waiting = deque(files)
    done: Done[F] = queue.SimpleQueue()
    if not _start_thread(waiting, done):
        yield from _in_turn(files)
        return
    left = len(files)
    with contextlib.suppress(queue.Empty):
        while left:
            outcome = done.get(timeout=_SLOW)
            left -= 1
            yield outcome
    for _ in range(min(len(waiting), _AT_ONCE - 1)):
        _start_thread(waiting, done)
    for _ in range(left):
        yield done.get()


def _start_thread(files: deque[F], done: Done[F]) -> bool:
    """Have a thread sync `files` until none is left; return False if it cannot start."""
    # Not by the threading module: a caller may hold its lock whose signal handler waits for this flush.
    try:
        _thread.start_new_thread(_sync_each, (files, done))
    except (RuntimeError, MemoryError):
        return False
    return True


def _sync_each(files: deque[F], done: Done[F]) -> None:
    with contextlib.suppress(IndexError):
        while True:
            file = files.popleft()
            done.put((file, _sync(file)))


def _sync(file: Syncable) -> BaseException | None:
    try:
        file.sync()
    except BaseException as error:  # noqa: BLE001 - for the caller, who knows whose file it is
        return error
    return None
