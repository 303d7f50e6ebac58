"""What stands in front of the event files of one directory: the queue that callers append to, and what comes of it.

Order is everything here. Events, requests to flush and requests to close go through one deque, so that a request is
met exactly when all that was appended before it is on disk, whichever thread appended it.
"""

from __future__ import annotations

import itertools
import logging
import os
import time
from collections import deque
from typing import TYPE_CHECKING

from hf_summary_writer.drain import drain
from hf_summary_writer.encode import scalar_payloads
from hf_summary_writer.event_file import SEGMENT_BYTES, EventFile
from hf_summary_writer.pending import encoded, held, leading_scalars
from hf_summary_writer.tfrecord import frames
from hf_summary_writer.ticket import Ticket

if TYPE_CHECKING:
    from hf_summary_writer.backlog import Backlog
    from hf_summary_writer.encode import Scalar
    from hf_summary_writer.pending import Deferred, Item

__all__ = ["Stream"]

_logger = logging.getLogger(__name__)

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
