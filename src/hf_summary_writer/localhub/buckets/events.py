"""The event feed of a bucket: live changes as server-sent events."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from hf_summary_writer.localhub.buckets.files import BucketFiles

_KEEP_ALIVE_SECONDS = 30
# The client reconnects after that, so its permission is checked again.
_STREAM_SECONDS = 3600


# How a stream ends: the client resumes at its cursor, or lists the bucket again.
StreamEnd = Literal["reconnect", "reset"]


@dataclass(eq=False, slots=True)
class Listener:
    """One stream; `rung` is set at each change of its bucket, and when the stream has to end."""

    rung: asyncio.Event = field(default_factory=asyncio.Event)
    end: StreamEnd | None = None


class Bell:
    """Notifies the streams of a bucket about changes; any thread may call `ring`, `end_streams` and `close`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, set[Listener]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self.is_closed: bool = False

    def listen(self, uid: str) -> Listener:
        """Register a stream of a bucket."""
        self._loop = asyncio.get_running_loop()
        listener = Listener()
        with self._lock:
            self._waiting.setdefault(uid, set()).add(listener)
        return listener

    def leave(self, uid: str, listener: Listener) -> None:
        """Unregister a stream."""
        with self._lock:
            listeners = self._waiting.get(uid, set())
            listeners.discard(listener)
            if not listeners:
                self._waiting.pop(uid, None)

    @property
    def listeners(self) -> int:
        """Return the number of streams."""
        with self._lock:
            return sum(map(len, self._waiting.values()))

    def ring(self, uid: str) -> None:
        """Notify the streams of a bucket."""
        with self._lock:
            listeners = list(self._waiting.get(uid, ()))
        self._wake(listeners)

    def end_streams(self, end: StreamEnd) -> None:
        """End the streams of all buckets; new ones may begin."""
        with self._lock:
            listeners = [listener for each in self._waiting.values() for listener in each]
        for listener in listeners:
            listener.end = end
        self._wake(listeners)

    def close(self) -> None:
        """End all streams for good."""
        self.is_closed = True
        self.end_streams("reconnect")

    def _wake(self, listeners: list[Listener]) -> None:
        if self._loop is not None and not self._loop.is_closed():
            for listener in listeners:
                self._loop.call_soon_threadsafe(listener.rung.set)


async def follow(
    bell: Bell, uid: str, start: int | None, files: Callable[[], BucketFiles | None]
) -> AsyncIterator[str]:
    """Yield the events of a bucket.

    Args:
        bell: notifies about changes.
        uid: the bucket.
        start: the batch after which the replay starts; -1 if the log does not go back that far, None for no replay.
        files: returns the files, or None if the caller may no longer read them.
    """
    listener = bell.listen(uid)
    try:
        current = files()
        at = start if start is not None or current is None else current.sequence
        is_ready, end = False, time.monotonic() + _STREAM_SECONDS
        while at is not None and (current := files()) is not None:
            listener.rung.clear()
            batches = current.since(at)
            if batches is None or listener.end == "reset":
                yield _event("reset", {"reason": "The changes since the cursor are no longer known."})
                return
            for batch in batches:
                at = batch.sequence
                yield _event("changes", {"cursor": str(at), "changes": [each.describe() for each in batch.changes]})
            if not is_ready:
                is_ready = True
                yield _event("ready", {"cursor": str(at)} if at else {})
            if listener.end or bell.is_closed or time.monotonic() > end:
                break
            try:
                await asyncio.wait_for(listener.rung.wait(), _KEEP_ALIVE_SECONDS)
            except asyncio.TimeoutError:
                yield ": keep-alive\n\n"
        yield _event("reconnect", {"cursor": str(at)} if at else {})
    finally:
        bell.leave(uid, listener)


def _event(name: str, data: dict[str, object]) -> str:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"
