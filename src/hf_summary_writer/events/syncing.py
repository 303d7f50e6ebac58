"""Files that wait for the disk, synced at the same time."""

from __future__ import annotations

import _thread
import contextlib
import errno
import queue
from collections import deque
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hf_summary_writer.events.queue import EventQueue

_Outcome: TypeAlias = "tuple[EventQueue, BaseException | None]"

_AT_ONCE = 32

"""Files synced at the same time."""

_SLOW = 0.001

"""Seconds without a synced file after which the disk is slow. On a fast one, such as memory, threads cost more."""

# A file that was closed meanwhile is opened again for its fsync.
_TOO_MANY_OPEN = {errno.EMFILE, errno.ENFILE}


def sync_all(queues: Sequence[EventQueue]) -> Iterator[_Outcome]:
    """Sync the file of each queue; yield the queue and the exception, or `None`, as soon as it is done.

    If several are dirty, a thread syncs them, and on a slow disk more threads do at the same time, until no file is
    left: a journaling file system puts fsyncs that wait together into one commit. `syncfs` would also wait for the
    writes of other programs, and would not tell whose data a failing disk has lost. Where no thread can start, as late
    in the exit of some versions of Python, the calling thread syncs all.
    """
    clean = [each for each in queues if not each.file.dirty]
    dirty = [each for each in queues if each.file.dirty]
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


def _in_turn(queues: Sequence[EventQueue]) -> Iterator[_Outcome]:
    for each in queues:
        yield each, _sync(each)


def _together(queues: Sequence[EventQueue]) -> Iterator[_Outcome]:
    waiting = deque(queues)
    done: queue.SimpleQueue[_Outcome] = queue.SimpleQueue()
    if not _start_thread(waiting, done):
        yield from _in_turn(queues)
        return
    left = len(queues)
    with contextlib.suppress(queue.Empty):
        while left:
            outcome = done.get(timeout=_SLOW)
            left -= 1
            yield outcome
    for _ in range(min(len(waiting), _AT_ONCE - 1)):
        _start_thread(waiting, done)
    for _ in range(left):
        yield done.get()


def _start_thread(waiting: deque[EventQueue], done: queue.SimpleQueue[_Outcome]) -> bool:
    """Have a thread sync the files of `waiting` until none is left; return False if it cannot start."""
    # Not by the threading module: a caller may hold its lock whose signal handler waits for this flush.
    try:
        _thread.start_new_thread(_sync_each, (waiting, done))
    except (RuntimeError, MemoryError):
        return False
    return True


def _sync_each(waiting: deque[EventQueue], done: queue.SimpleQueue[_Outcome]) -> None:
    with contextlib.suppress(IndexError):
        while True:
            each = waiting.popleft()
            done.put((each, _sync(each)))


def _sync(events: EventQueue) -> BaseException | None:
    try:
        events.file.sync()
    except BaseException as error:  # noqa: BLE001 - for the caller, who knows whose file it is
        return error
    return None
