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

__all__ = ["Syncable", "sync_all"]


class Syncable(Protocol):
    """The owner of a file."""

    @property
    def is_dirty(self) -> bool: ...

    def sync(self) -> None: ...


T = TypeVar("T", bound=Syncable)

_AT_ONCE = 32

"""Files synced at the same time."""

_SLOW = 0.001

"""Seconds without a synced file after which the disk is slow. On a fast one, such as memory, threads cost more."""

# A file that was closed meanwhile is opened again for its fsync.
_TOO_MANY_OPEN = {errno.EMFILE, errno.ENFILE}


def sync_all(owners: Sequence[T]) -> Iterator[tuple[T, BaseException | None]]:
    """Sync the file of each owner; yield the owner and the exception, or `None`, as soon as it is done.

    If several are dirty, a thread syncs them, and on a slow disk more threads do at the same time, until no file is
    left: a journaling file system puts fsyncs that wait together into one commit. `syncfs` would also wait for the
    writes of other programs, and would not tell whose data a failing disk has lost. Where no thread can start, as late
    in the exit of some versions of Python, the calling thread syncs all.
    """
    clean = [each for each in owners if not each.is_dirty]
    dirty = [each for each in owners if each.is_dirty]
    yield from _in_turn(clean)
    if len(dirty) < 2:
        yield from _in_turn(dirty)
        return
    alone = []
    for each, error in _together(dirty):
        if isinstance(error, OSError) and error.errno in _TOO_MANY_OPEN:
            alone.append(each)
        else:
            yield each, error
    yield from _in_turn(alone)


def _in_turn(owners: Sequence[T]) -> Iterator[tuple[T, BaseException | None]]:
    for each in owners:
        yield each, _sync(each)


def _together(owners: Sequence[T]) -> Iterator[tuple[T, BaseException | None]]:
    waiting = deque(owners)
    done: queue.SimpleQueue[tuple[T, BaseException | None]] = queue.SimpleQueue()
    if not _start_thread(waiting, done):
        yield from _in_turn(owners)
        return
    left = len(owners)
    with contextlib.suppress(queue.Empty):
        while left:
            outcome = done.get(timeout=_SLOW)
            left -= 1
            yield outcome
    for _ in range(min(len(waiting), _AT_ONCE - 1)):
        _start_thread(waiting, done)
    for _ in range(left):
        yield done.get()


def _start_thread(waiting: deque[T], done: queue.SimpleQueue[tuple[T, BaseException | None]]) -> bool:
    """Have a thread sync the files of `waiting` until none is left; return False if it cannot start."""
    # Not by the threading module: a caller may hold its lock whose signal handler waits for this flush.
    try:
        _thread.start_new_thread(_sync_each, (waiting, done))
    except (RuntimeError, MemoryError):
        return False
    return True


def _sync_each(waiting: deque[T], done: queue.SimpleQueue[tuple[T, BaseException | None]]) -> None:
    with contextlib.suppress(IndexError):
        while True:
            each = waiting.popleft()
            done.put((each, _sync(each)))


def _sync(owner: Syncable) -> BaseException | None:
    try:
        owner.sync()
    except BaseException as error:  # noqa: BLE001 - for the caller, who knows whose file it is
        return error
    return None
