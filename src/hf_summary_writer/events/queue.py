"""The event queue of one folder: pending events, and how they get into event files."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import deque
from typing import TYPE_CHECKING, Any, cast

from hf_summary_writer.events.device import HostCopies
from hf_summary_writer.events.encoding import Scalar, scalar_payloads
from hf_summary_writer.events.items import ON_DEVICE, Deferred, Item, OnDevice, ScalarOnDevice, memory_of
from hf_summary_writer.events.signals import FlushRequest, Signal
from hf_summary_writer.events.tfrecord import frame, frames
from hf_summary_writer.events.thread import writer_thread
from hf_summary_writer.notices import logger
from hf_summary_writer.process import exit_is_over

if TYPE_CHECKING:
    from collections.abc import Callable

    from hf_summary_writer.events.failures import WriteFailures
    from hf_summary_writer.events.files import EventFile
    from hf_summary_writer.events.memory import MemoryLimit

_SLICE_BYTES = 1 << 20

"""Encoded events that are written at once."""

_DEVICE_ITEMS = 1 << 16

"""Items whose values are copied from a device at once: a copy of many costs little more than one of few."""

_RETRY_SECONDS = 1.0

_REGISTER_SECONDS = 1.0

_VERIFY_SECONDS = 1.0

_IDLE_SECONDS = 10.0

"""How long a file stays open with nothing appended."""

_of_parent: list[Any] = []

"""Items and copies that a forked child has inherited and must never free."""


class EventQueue:
    """Pending events of one folder. Callers only append to `items`; the writer thread does the rest.

    Args:
        directory: Folder of the event files, as callers name it.
        file: The file that is written to, by the writer thread. Another thread may sync it while that leaves it alone.
        memory: Shared by the queues of one writer.
        failures: Likewise.
        flush_secs: Seconds between two fsyncs while events come.
        late: Returns the function to call when an event came after `close`, or after the exit of the interpreter;
            `None` if its writer is gone.

    Attributes:
        items: Pending items, oldest first.
        register_at: Time (of `time.time`) from which a caller that appended must call `register`; 0 when closed or
            forked.
        closed: Whether no more items are expected; any that come all the same go to a new file.
        has_metadata: Whether events get a step or time from `use_metadata`, so that `add_scalar` must not append.
    """

    def __init__(
        self,
        directory: str,
        file: EventFile,
        memory: MemoryLimit,
        failures: WriteFailures,
        *,
        flush_secs: float = 120,
        late: Callable[[], Callable[[], object] | None] = lambda: None,
    ) -> None:
        self.directory = directory
        self.file = file
        self.memory = memory
        self.failures = failures
        self.items: deque[Item] = deque()
        self.register_at: float = 0.0
        self.closed: bool = False
        self.has_metadata = False
        self._flush_secs = flush_secs
        self.late: Callable[[], Callable[[], object] | None] = late
        # Taken from `items` and not yet written, so that a failed write has something to try again.
        self._taken: list[Item] = []
        # Copies from devices for the items in `_taken`.
        self._copies: HostCopies | None = None
        # Requests with events in front of them, and those whose events are all written, for the next sync.
        self._requests: set[FlushRequest] = set()
        self._reached: list[FlushRequest] = []
        self._done = 0
        self._retry_at = 0.0
        self._verify_at = 0.0
        self._sync_at: float | None = None
        self._idle_at = 0.0
        memory.join(self)

    # For callers, from any thread.

    def open(self) -> None:
        """Create the first file, before anything is appended."""
        try:
            self.file.open()
        except OSError as error:
            self._fall_back(error, time.monotonic())
        writer_thread.register(self)

    def put(self, item: Scalar | bytes | Deferred | OnDevice | ScalarOnDevice) -> None:
        """Append an item, waiting for room if there is none."""
        has_room = False
        try:
            has_room = len(self.items) < self.memory.items or self.wait_for_room()
        finally:
            if not has_room and type(item) is OnDevice:
                self.memory.give_back_on_device(item.device_bytes)
        if not has_room:
            return
        # In this order: after an exception from a signal handler, memory counted for nothing would block all callers.
        self.items.append(item)
        if nbytes := memory_of(item):
            self.memory.acquire(nbytes)
        if (now := time.time()) >= self.register_at:
            self.register(now)

    def register(self, now: float) -> None:
        """Make sure that the writer thread serves the queue; `now` is of `time.time`."""
        self.register_at = now + _REGISTER_SECONDS
        # Read after the write above: `close` sets `closed` first and `register_at` then, and so does the exit.
        is_late = self.closed or exit_is_over()
        if is_late:
            self.register_at = 0.0
        writer_thread.register(self)
        if is_late and (function := self.late()) is not None:
            function()

    def wait_for_room(self) -> bool:
        """Wait until an item may be appended; return False, and count it as dropped, if the disk fails or hangs."""
        memory = self.memory
        while len(self.items) >= memory.items:
            if self._is_hopeless or writer_thread.is_stuck:
                self.failures.refuse_one()
                return False
            signal = Signal()
            memory.waiting.append(signal)
            writer_thread.register(self)
            # The thread wakes those that it sees waiting: look again now that this one can be seen.
            if len(self.items) < memory.items or self._is_hopeless:
                continue
            if not writer_thread.wait(signal, at_most=_REGISTER_SECONDS) and not writer_thread.is_stuck:
                return True
        return True

    @property
    def _is_hopeless(self) -> bool:
        """Whether no room may come: the disk fails for this queue, or for another that holds all the memory."""
        return self.failing or (self.failures.any_failing and not self.items)

    def request_flush(self, *, closes: bool = False) -> FlushRequest:
        """Return a request that is set when all earlier items are on disk, or cannot be written for now."""
        request = FlushRequest(closes=closes)
        if writer_thread.is_stuck and not closes:
            # Nobody waits for it, and a loop that flushes all the time must not fill the memory with requests.
            request.set()
            return request
        self._requests.add(request)
        self.items.append(request)
        writer_thread.register(self)
        return request

    def close(self) -> FlushRequest:
        """Expect no more; the request is set when the file is on disk and closed, or its events are given up."""
        self.end()
        return self.request_flush(closes=True)

    def end(self) -> None:
        """Expect no more; the file is closed once all is written, however long the disk fails."""
        if not self.closed:
            self.memory.leave(self)
        self.closed = True
        self.register_at = 0.0
        writer_thread.register(self)

    def retire(self) -> None:
        """Have callers register after each item, once the interpreter has exited."""
        self.register_at = 0.0
        # Weak references are dead already in a finalizer of the same garbage.
        function = self.late()
        self.late = lambda: function

    def reopen(self) -> None:
        """Expect more again; it goes to a new file."""
        if self.closed:
            self.memory.join(self)
        self.closed = False

    # For the writer thread, one thread at a time.

    @property
    def has_waiting_callers(self) -> bool:
        return bool(self._requests or self._reached or self.memory.waiting)

    @property
    def pending(self) -> int:
        """Number of items."""
        return len(self.items) + len(self._taken)

    @property
    def is_done(self) -> bool:
        """Whether the queue is closed and nothing of it is left."""
        return self._is_at_end and self.file.path is None

    @property
    def _is_at_end(self) -> bool:
        return self.closed and not self.items and not self._taken

    @property
    def failing(self) -> bool:
        """Whether the last write failed."""
        return self.failures.is_failing(self)

    @property
    def device_wait_began(self) -> float | None:
        """Time (monotonic) since which the values of a device are waited for."""
        copies = self._copies  # read once: a caller may look while the thread forgets them
        return None if copies is None else copies.began

    @property
    def logged(self) -> int:
        """Number of events that were appended; fewer once some had to be dropped."""
        return self._done + self.pending - len(self._requests)

    def is_ready(self, now: float) -> bool:
        """Whether there is work at the monotonic time `now`; a failing disk is tried now and then, and on request."""
        if self._reached:
            return True
        if not self.items and not self._taken:
            return False
        if self._awaits_device:
            return self._is_copied
        return now >= self._retry_at or bool(self._requests) or not self.failing

    def work(self, most: int, now: float) -> int:
        """Write up to `most` items, or reach requests, which wait for a sync then; return how many items were done.

        Never raises `OSError`.
        """
        if not self._taken:
            self._take(most)
            if not set(ON_DEVICE).isdisjoint(map(type, self._taken)):
                self._take(_DEVICE_ITEMS - len(self._taken))
                on_device = [item for item in self._taken if isinstance(item, ON_DEVICE)]
                snapshots = itertools.chain.from_iterable(item.snapshots for item in on_device)
                self._copies = HostCopies(snapshots, lambda error: self.failures.report_device(error, self.directory))
        if self._awaits_device:
            if not self._is_copied:
                return 0
            self._read_from_devices()
        before = len(self._taken)
        try:
            if self._taken and not isinstance(self._taken[0], FlushRequest):
                self._write(most, now)
            self._reach_requests()
            # Requests that come close one behind the other, as from several threads, share a sync.
            nbytes = 0
            while self._is_close_to_another_request and before - len(self._taken) < most and nbytes < _SLICE_BYTES:
                nbytes += self._write(most, now)
                self._reach_requests()
        except OSError as error:
            self._fall_back(error, now)
        if self.memory.waiting and (self.failing or not self.items or len(self.items) <= self.memory.items // 2):
            self.memory.wake_waiting()
        return before - len(self._taken)

    def needs_sync(self, now: float) -> bool:
        """Return whether requests were reached, `flush_secs` are over, or the file is not expected to grow."""
        if self._reached:
            return True
        is_overdue = self.file.dirty and self._sync_at is not None and now >= self._sync_at
        return self.file.path is not None and (self._is_at_end or is_overdue) and not self.failing

    def end_sync(self, error: OSError | None) -> None:
        """Answer the requests that were reached before the sync; log its error; close a file at its end."""
        self._sync_at = None
        if error is not None:
            self.failures.report_sync(error, self.directory)
        is_flushed_in_one_go = bool(self._reached) and self.file.in_one_go
        if self._is_at_end or is_flushed_in_one_go or any(request.closes for request in self._reached):
            self.file.forget()
        while self._reached:
            self._reached.pop().set()

    def tidy(self, now: float) -> None:
        """Give back the descriptor of an idle file."""
        if self.file.is_open and now >= self._idle_at and not self.file.in_one_go and not self.failing:
            self.file.rest()

    def drop(self) -> None:
        """Drop the item that made `work` raise, and continue in a new file."""
        self._copies = None
        if not self._taken:
            self._take(len(self.items))
        lost, self._taken = self._taken, []
        self.file.forget()
        self.failures.forget(self)
        self._lose(lost)
        self.memory.wake_waiting()

    def leave_to_parent(self, *, keep_items: bool) -> None:
        """Leave pending events and the open file to the parent, in a forked child."""
        # Values on a device are neither read nor freed here: a forked child must not touch the parent's devices.
        _of_parent.append((self.items, self._taken, self._copies))
        has_events = bool(self.items or self._taken or self.file.appended)
        self.items = deque(item for item in self.items if keep_items and not isinstance(item, ON_DEVICE))
        self._taken = []
        self._copies = None
        self._requests = set()
        self._reached = []
        self.file.belongs_to_parent(has_events=has_events)
        self.register_at = 0.0
        self.memory.reset()
        self.failures.reset()

    def _take(self, most: int) -> None:
        # One call into C, so that an exception from a signal handler cannot come between taking and keeping.
        self._taken.extend(itertools.starmap(self.items.popleft, itertools.repeat((), min(most, len(self.items)))))

    @property
    def _awaits_device(self) -> bool:
        """Whether the next item to write is on a device; those before it need not wait for the device."""
        return bool(self._taken) and isinstance(self._taken[0], ON_DEVICE)

    @property
    def _is_copied(self) -> bool:
        return self._copies is None or self._copies.are_ready()

    def _read_from_devices(self) -> None:
        """Bring all values of `_taken` to the host."""
        if self._copies is not None:
            self._copies.read()
        finished: list[Item] = []
        released = on_device = 0
        for item in self._taken:
            if not isinstance(item, ON_DEVICE):
                finished.append(item)
                continue
            released += item.nbytes
            on_device += item.device_bytes
            event = item.finish()
            if event is None:  # the device failed
                self.failures.lose(1)
            else:
                released -= memory_of(event)
                finished.append(event)
        self.memory.release(released)
        self.memory.release_on_device(on_device)
        self._taken = finished
        self._copies = None

    def _write(self, most: int, now: float) -> int:
        """Write items up to the next request, or as many as are enough for one write; return the number of bytes."""
        taken = self._taken
        scalars = _leading_scalars(taken[:most])
        records = frames(scalar_payloads(scalars)) if scalars else self._encode(taken)
        if now >= self._verify_at:
            self._verify_at = now + _VERIFY_SECONDS
            self.file.verify()
        before = self.file.appended
        try:
            self.file.append(records)
        finally:
            done = self.file.appended - before
            if not scalars:
                self.memory.release(sum(map(memory_of, taken[:done])))
            del taken[:done]
            self._done += done
        self.failures.recover(self, self.directory)
        self._idle_at = now + _IDLE_SECONDS
        if self._sync_at is None:
            self._sync_at = now + self._flush_secs
        return sum(map(len, records))

    def _encode(self, items: list[Item]) -> list[bytes]:
        """Return a record for each item up to the next request, or for as many as are enough for one write.

        An encoded event takes the place of its item in `items`, so that another try does not encode it again.
        """
        payloads: list[bytes] = []
        nbytes = 0
        for item in items:
            if isinstance(item, Deferred):
                payload = self._encode_one(item)
                items[len(payloads)] = payload
                payloads.append(payload)
                break  # encoding is slow: this event goes to disk before the next one
            if type(item) is not bytes or nbytes > _SLICE_BYTES:
                break
            payloads.append(item)
            nbytes += len(item)
        # An item without an event has an empty record.
        return [frame(payload) if payload else b"" for payload in payloads]

    def _encode_one(self, item: Deferred) -> bytes:
        try:
            payload = item.encode(*item.values) or b""
        except Exception:
            logger.exception("an event of %s could not be encoded and is dropped", self.directory)
            self.failures.lose(1)
            payload = b""
        self.memory.release(item.nbytes - memory_of(payload))
        return payload

    def _reach_requests(self) -> None:
        """Take the requests that stand at the beginning, up to one that closes the file."""
        while self._taken and isinstance(request := self._taken[0], FlushRequest):
            self._reached.append(request)
            self._requests.discard(request)
            del self._taken[0]
            if request.closes:
                return

    @property
    def _is_close_to_another_request(self) -> bool:
        """Whether another request may follow, in the same file, after events that are only to be written."""
        if not self._reached or self._reached[-1].closes or not self._requests:
            return False
        return bool(self._taken) and type(self._taken[0]) in (tuple, bytes)

    def _fall_back(self, error: OSError, now: float) -> None:
        """Keep unwritten events for another try, and let no caller wait for them."""
        is_new = not self.failing
        self._retry_at = now + _RETRY_SECONDS
        self.failures.fail(self, error, self.directory)
        if is_new and any(request.closes for request in list(self._requests)):
            return  # try once more, and at once, before events are given up
        # Emptied, not replaced: a caller may be about to add to it.
        requests = list(itertools.islice(iter(self._requests.pop, None), len(self._requests)))
        if any(request.closes for request in requests):
            self._give_up()
        for request in requests:
            # A loop that flushes all the time must not fill the queue with requests without a waiting caller.
            for pending in (self._taken, self.items):
                with contextlib.suppress(ValueError):
                    pending.remove(request)
            request.set()

    def _give_up(self) -> None:
        """Drop pending items up to the last close request, because no caller waits for them."""
        self._take(len(self.items))
        pending, self._taken = self._taken, []
        last = max((i for i, item in enumerate(pending) if isinstance(item, FlushRequest) and item.closes), default=-1)
        lost, rest = pending[: last + 1], pending[last + 1 :]
        self._copies = None
        self.items.extendleft(reversed(rest))
        self.file.forget()
        if all(isinstance(item, FlushRequest) for item in rest):
            # It may never be written to again.
            self.failures.forget(self)
        self._lose(lost)

    def _lose(self, items: list[Item]) -> None:
        """Log and count lost events, and then answer waiting callers."""
        lost = sum(not isinstance(item, FlushRequest) for item in items)
        self.failures.lose(lost)
        self.memory.release(sum(map(memory_of, items)))
        self.memory.release_on_device(sum(item.device_bytes for item in items if isinstance(item, OnDevice)))
        if lost:
            logger.error("events of %s could not be written and are lost: %d", self.directory, lost)
        for item in items:
            if isinstance(item, FlushRequest):
                self._requests.discard(item)
                item.set()


def _leading_scalars(items: list[Item]) -> list[Scalar]:
    kinds = list(map(type, items))
    if kinds.count(tuple) < len(kinds):
        items = items[: next(n for n, kind in enumerate(kinds) if kind is not tuple)]
    return cast("list[Scalar]", items)
