"""The event queue of one event file: pending values, their memory bound, and the segments they are written to."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from hf_summary_writer.events.encoding import Scalar, scalar_payloads
from hf_summary_writer.events.files import SEGMENT_BYTES, EventFile
from hf_summary_writer.events.tfrecord import frame, frames
from hf_summary_writer.events.thread import Ticket, drain

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Backlog", "Deferred", "Item", "Stream", "encoded", "held", "leading_scalars"]

_logger = logging.getLogger(__name__)

_SCALAR_BYTES = 192

"""What a pending scalar takes in memory: the tuple and its three numbers, rounded up."""


class Backlog:
    """What all streams of one writer may hold in memory, and what became of it when the disk failed.

    Callers count what comes in, under a lock; the drain counts what goes out, alone. So the drain never waits for a
    caller, who may be a thread whose signal handler waits for the drain.

    Args:
        max_bytes: The bound; a caller that meets it waits for the disk, or drops its event if the disk fails.

    Attributes:
        limit: Number of items that each stream may hold at the moment.
        waiting: Tickets of callers that wait for room.
        in_trouble: Whether a write has failed and none was a success since.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._streams: set[int] = set()
        self._failing: set[int] = set()
        self.in_trouble = False
        self._refused = 0
        self._lost = 0
        self.forget()

    @property
    def dropped(self) -> int:
        """Number of events that were never written."""
        return self._refused + self._lost

    def forget(self) -> None:
        """In a forked child: hold nothing, and take fresh locks."""
        self._lock = threading.RLock()
        self.waiting: deque[Ticket] = deque()
        self._failing.clear()
        self._came = self._went = 0
        self.limit = self.share()

    def join(self, stream: object) -> None:
        """Share the bound with one more stream."""
        self._streams.add(id(stream))
        self.limit = self.share()

    def leave(self, stream: object) -> None:
        """Share the bound with one stream less."""
        self._streams.discard(id(stream))
        self.limit = self.share()

    @property
    def is_held(self) -> bool:
        """Whether a stream cannot write what it holds, so that room may never come."""
        return bool(self._failing)

    def fail(self, stream: object) -> None:
        """Note that a stream cannot write what it holds."""
        self._failing.add(id(stream))

    def go_on(self, stream: object) -> None:
        """Note that a stream can write again, or holds nothing any more."""
        self._failing.discard(id(stream))

    def hold(self, nbytes: int) -> None:
        """Count bytes that a caller brings."""
        with self._lock:
            self._came += nbytes
        self.limit = self.share()

    def refuse(self) -> None:
        """Count an event that a caller could not bring."""
        with self._lock:
            self._refused += 1

    def give_back(self, nbytes: int) -> None:
        """Count bytes that the drain is done with."""
        self._went += nbytes
        self.limit = self.share()

    def lose(self, events: int) -> None:
        """Count events that the drain could not write."""
        self._lost += events

    def let_in(self) -> None:
        """Let those who wait for room look again."""
        with contextlib.suppress(IndexError):
            while True:
                self.waiting.popleft().release()

    def report(self, error: OSError, directory: str) -> None:
        """Say once that the disk is in trouble."""
        if not self.in_trouble:
            self.in_trouble = True
            _logger.error(
                "cannot write event files in %s: %s; events are kept in memory up to %d bytes, then dropped; logging"
                " goes on when there is space again",
                directory,
                error,
                self._max_bytes,
            )

    def recover(self, directory: str) -> None:
        """Say once that the disk is well again."""
        if self.in_trouble and not self.is_held:
            self.in_trouble = False
            _logger.warning("event files in %s are written again; %d events were dropped", directory, self.dropped)

    def share(self) -> int:
        """Return `limit` as it should be now."""
        held = self._came - self._went
        room = (self._max_bytes - held) // (_SCALAR_BYTES * max(len(self._streams), 1))
        # However small the bound, one item must get through when nothing else is held.
        return room if held > 0 else max(room, 1)


_OVERHEAD_BYTES = 256

_SLICE_BYTES = 1 << 20

"""Of ready events, how much is written at once."""


@dataclass(frozen=True, slots=True)
class Deferred:
    """An event whose encoding is left to the drain.

    Attributes:
        encode: Returns the event's bytes, or `None` if it wrote what it had to write itself.
        nbytes: What it holds in memory until then.
    """

    encode: Callable[[], bytes | None]
    nbytes: int


Item = Scalar | bytes | Deferred | Ticket


def held(item: Item) -> int:
    """Return the bytes of memory that count for an item; plain scalars are counted by their number."""
    if type(item) is bytes:
        return len(item) + _OVERHEAD_BYTES
    return item.nbytes if isinstance(item, Deferred) else 0


def leading_scalars(items: list[Item]) -> list[Scalar]:
    """Return the plain scalars before the first item that is something else."""
    kinds = list(map(type, items))
    scalars = items
    if kinds.count(tuple) < len(kinds):
        scalars = items[: next(n for n, kind in enumerate(kinds) if kind is not tuple)]
    return cast("list[Scalar]", scalars)


def encoded(items: list[Item], backlog: Backlog, directory: str) -> list[bytes]:
    """Return one record for each item up to the next request, or as many as are enough for once.

    Args:
        items: What is encoded on the way is replaced in it, so that another try does not encode it again.
        backlog: Told of what memory that sets free, and of what cannot be encoded.
        directory: Where the records will lie, for messages.
    """
    payloads: list[bytes] = []
    nbytes = 0
    for item in items:
        if isinstance(item, Deferred):
            payload = _encoded(item, backlog, directory)
            items[len(payloads)] = payload
            payloads.append(payload)
            break  # what took long goes to disk before the next one
        if type(item) is not bytes or nbytes > _SLICE_BYTES:
            break
        payloads.append(item)
        nbytes += len(item)
    # An item without an event has an empty record.
    return [frame(payload) if payload else b"" for payload in payloads]


def _encoded(item: Deferred, backlog: Backlog, directory: str) -> bytes:
    try:
        payload = item.encode() or b""
    except Exception:
        _logger.exception("an event of %s could not be encoded and is dropped", directory)
        backlog.lose(1)
        payload = b""
    backlog.give_back(item.nbytes - held(payload))
    return payload


_RETRY_SECONDS = 1.0

_LOOK_SECONDS = 1.0

_VERIFY_SECONDS = 1.0

_IDLE_SECONDS = 10.0

"""How long a file stays open with nothing appended."""


class Stream:
    """The queue of one directory. `append` on `queue` is all a caller does; the drain does the rest.

    Args:
        directory: Where the event files lie, as callers name it.
        backlog: Shared by the streams of one writer.
        base: The folder that `directory` is relative to.
        suffix: Ends every file name.
        flush_secs: Seconds between two fsyncs while events come.
        segment_bytes: Size at which the stream goes on in a new file.

    Attributes:
        folder: The absolute path of `directory`.
        queue: What is pending, oldest first.
        look_again: Time (of `time.time`) from which a caller that appended must call `look`; 0 when closed or forked.
        closed: Whether no more is expected; what is appended all the same goes to a new file.
        failing: Whether the last write failed.
        has_metadata: Whether events get a step or time from `use_metadata`, so that the short way is closed.
    """

    def __init__(
        self,
        directory: str,
        backlog: Backlog,
        *,
        base: str = "",
        suffix: str = "",
        flush_secs: float = 120,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        self.directory = directory
        self.folder = os.path.join(base, directory)
        self.backlog = backlog
        self.queue: deque[Item] = deque()
        self.look_again = 0.0
        self.closed = False
        self.failing = False
        self.has_metadata = False
        self._file = EventFile(self.folder, suffix, segment_bytes)
        self._flush_secs = flush_secs
        # Taken from the queue and not yet done, so that a failed write has something to try again.
        self._taken: list[Item] = []
        self._asked: set[Ticket] = set()
        self._retry_at = 0.0
        self._verify_at = 0.0
        self._sync_at: float | None = None
        self._idle_at = 0.0
        backlog.join(self)

    # What callers use, from any thread.

    def open(self) -> None:
        """Create the first file, before anything is appended, and have the stream attended."""
        try:
            self._file.open()
        except OSError as error:
            self._fall_back(error, time.monotonic())
        drain.attend(self)

    def put(self, item: bytes | Deferred | Scalar) -> None:
        """Append an item that is counted by its size, waiting for room if there is none."""
        if not self.has_room():
            return
        if nbytes := held(item):
            self.backlog.hold(nbytes)
        self.queue.append(item)
        if (now := time.time()) >= self.look_again:
            self.look(now)

    def look(self, now: float) -> None:
        """Make sure that somebody attends the stream; `now` is of `time.time`."""
        self.look_again = now + _LOOK_SECONDS
        # Read after the write above: one who closes sets `closed` first and `look_again` then.
        if self.closed:
            self.look_again = 0.0
        drain.attend(self)

    def has_room(self) -> bool:
        """Wait until an item may be appended; return False, and count it as dropped, if the disk fails meanwhile."""
        backlog = self.backlog
        while len(self.queue) >= backlog.share():
            if self._is_hopeless:
                backlog.refuse()
                return False
            ticket = Ticket()
            backlog.waiting.append(ticket)
            drain.attend(self)
            # Whoever makes room lets in those it sees waiting: look again now that this one can be seen.
            if len(self.queue) < backlog.share() or self._is_hopeless:
                continue
            if not drain.wait(ticket, at_most=_LOOK_SECONDS):
                return True
        return True

    @property
    def _is_hopeless(self) -> bool:
        """Whether no room may come: the disk fails for this stream, or for another that holds all there is."""
        return self.failing or (self.backlog.is_held and not self.queue)

    def ask(self, *, closes: bool = False) -> Ticket:
        """Return a ticket that is released when all that was appended before is on disk, or cannot be for now."""
        ticket = None if closes else self._last_ticket()
        if ticket is None:
            ticket = Ticket(closes=closes)
            self._asked.add(ticket)
            self.queue.append(ticket)
        drain.attend(self)
        return ticket

    def _last_ticket(self) -> Ticket | None:
        """Return the ticket behind which nothing was appended, to wait for once more.

        On a failing disk, tickets are released but stay where they are: many requests must not fill the queue.
        """
        try:
            ticket = self.queue[-1]
        except IndexError:
            return None
        if not isinstance(ticket, Ticket) or ticket.closes:
            return None
        ticket.renew()
        self._asked.add(ticket)
        if ticket.met:
            self._be_done_with(ticket)
        return ticket

    def close(self) -> Ticket:
        """Expect no more; the ticket is released when the file is on disk and closed."""
        if not self.closed:
            self.backlog.leave(self)
        self.closed = True
        self.look_again = 0.0
        return self.ask(closes=True)

    def reopen(self) -> None:
        """Expect more again; it goes to a new file."""
        if self.closed:
            self.backlog.join(self)
        self.closed = False

    # What the drain uses, one thread at a time.

    @property
    def event_file(self) -> str | None:
        """Path of the file that is written to."""
        return self._file.path

    @property
    def holds_descriptor(self) -> bool:
        """Whether a file is open."""
        return self._file.is_open

    @property
    def pending(self) -> int:
        """Number of items that wait."""
        return len(self.queue) + len(self._taken)

    @property
    def is_done(self) -> bool:
        """Whether the stream is closed and nothing of it is left."""
        return self.closed and not self.queue and not self._taken and self._file.path is None

    def is_ready(self, now: float) -> bool:
        """Whether there is something to do at the monotonic time `now`; a failing disk is tried now and then."""
        if not self.queue and not self._taken:
            return False
        return not self.failing or now >= self._retry_at or bool(self._asked)

    def work(self, most: int, now: float) -> int:
        """Write up to `most` items, or meet one request; return how many items were done."""
        taken = self._taken
        if not taken:
            # One call into C, so that an exception from a signal handler cannot come between taking and keeping.
            taken.extend(itertools.starmap(self.queue.popleft, itertools.repeat((), min(most, len(self.queue)))))
        before = len(taken)
        if not before:
            return 0
        try:
            if isinstance(taken[0], Ticket):
                self._meet(taken[0])
                del taken[0]
            else:
                self._write(taken, now)
                self._recover()
        except OSError as error:
            self._fall_back(error, now)
        if self.backlog.waiting and (self.failing or not self.queue or len(self.queue) <= self.backlog.share() // 2):
            self.backlog.let_in()
        return before - len(self._taken)

    def tidy(self, now: float) -> None:
        """Sync when `flush_secs` are over, close what is idle or no longer expected to grow."""
        file = self._file
        if file.path is None or self.failing:
            return
        try:
            if self.closed and not self.queue and not self._taken:
                file.finish()
            elif file.dirty and self._sync_at is not None and now >= self._sync_at:
                self._sync_at = None
                file.sync()
        except OSError as error:
            self.backlog.report(error, self.directory)
        if file.is_open and now >= self._idle_at:
            file.rest()

    def drop(self) -> None:
        """After `work` failed in a way that no other try mends: lose what it was at, and go on in a new file."""
        doomed = self._taken or list(itertools.starmap(self.queue.popleft, itertools.repeat((), len(self.queue))))
        self._taken = []
        self._file.forget()
        self.backlog.go_on(self)
        self._lose(doomed)
        self.backlog.let_in()

    def rest(self) -> None:
        """Give back the descriptor for now."""
        self._file.rest()

    def leave_to_parent(self, *, keep_queue: bool) -> None:
        """In a forked child: what is queued and the open file are the parent's; start afresh when something comes."""
        if not keep_queue:
            self.queue = deque()
        self._taken = []
        self._asked = set()
        self._file.belongs_to_parent()
        self.failing = False
        self.look_again = 0.0
        self.backlog.forget()

    def _write(self, taken: list[Item], now: float) -> None:
        scalars = leading_scalars(taken)
        records = frames(scalar_payloads(scalars)) if scalars else encoded(taken, self.backlog, self.directory)
        if now >= self._verify_at:
            self._verify_at = now + _VERIFY_SECONDS
            self._file.verify()
        before = self._file.appended
        try:
            self._file.append(records)
        finally:
            done = self._file.appended - before
            if not scalars:
                self.backlog.give_back(sum(map(held, taken[:done])))
            del taken[:done]
        self._idle_at = now + _IDLE_SECONDS
        if self._sync_at is None:
            self._sync_at = now + self._flush_secs

    def _meet(self, ticket: Ticket) -> None:
        if ticket.closes:
            self._file.finish()
        else:
            self._file.sync()
        self._sync_at = None
        self._be_done_with(ticket)

    def _be_done_with(self, ticket: Ticket) -> None:
        # In this order: one who renews it meanwhile either is released here, or sees that nobody else will do it.
        ticket.met = True
        self._asked.discard(ticket)
        ticket.release()

    def _recover(self) -> None:
        if self.failing or self.backlog.in_trouble:
            self.failing = False
            self.backlog.go_on(self)
            self.backlog.recover(self.directory)

    def _fall_back(self, error: OSError, now: float) -> None:
        """Keep what could not be written for another try, and let nobody wait for it."""
        self.failing = True
        self._retry_at = now + _RETRY_SECONDS
        self.backlog.fail(self)
        self.backlog.report(error, self.directory)
        # Emptied, not replaced: a caller may be about to add to it.
        asked = list(itertools.islice(iter(self._asked.pop, None), len(self._asked)))
        if any(ticket.closes for ticket in asked):
            self._give_up()
        for ticket in asked:
            ticket.release()

    def _give_up(self) -> None:
        """Drop what is pending up to the last request to close: nobody is left who would wait for the disk."""
        pending = [*self._taken, *itertools.starmap(self.queue.popleft, itertools.repeat((), len(self.queue)))]
        last = max((i for i, item in enumerate(pending) if isinstance(item, Ticket) and item.closes), default=-1)
        self._taken = pending[last + 1 :]
        self._file.forget()
        if not self._taken:
            # It may never be written to again.
            self.backlog.go_on(self)
        self._lose(pending[: last + 1])

    def _lose(self, items: list[Item]) -> None:
        """Say and count what was not written, and then release those who wait for it."""
        lost = sum(not isinstance(item, Ticket) for item in items)
        self.backlog.lose(lost)
        self.backlog.give_back(sum(map(held, items)))
        if lost:
            _logger.error("%d events of %s could not be written and are lost", lost, self.directory)
        for item in items:
            if isinstance(item, Ticket):
                self._be_done_with(item)
