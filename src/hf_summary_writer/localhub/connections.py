"""Connections to the Hub: how many, and how long each may keep the Hub waiting."""

from __future__ import annotations

import math
import resource
from typing import TYPE_CHECKING, Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    import asyncio

# From the first byte of a request to the last one of its headers.
_HEADER_SECONDS = 10
# From one piece of a body to the next, and while the caller takes nothing of an answer.
_IDLE_SECONDS = 60
_MOST_CONNECTIONS = 2000


def connection_limit() -> int:
    """Return how many connections leave enough file descriptors for the files that requests open."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST_CONNECTIONS if limit == resource.RLIM_INFINITY else min(_MOST_CONNECTIONS, limit // 2)


class Connection(H11Protocol):
    """One connection, closed when its caller keeps the Hub waiting, or when a new one needs its place."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._timer: asyncio.TimerHandle | None = None
        self._awaited: str | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request, and make room where there are too many connections."""
        super().connection_made(transport)
        self._expect()
        open_ones = [each for each in self.connections if isinstance(each, Connection)]
        open_ones = [each for each in open_ones if not each.transport.is_closing()]
        if len(open_ones) > connection_limit():
            # The new one, unless another one has been waiting for a request for longer.
            min((self, *open_ones), key=Connection._worth).transport.abort()

    def _worth(self) -> float:
        """Return the less, the longer this connection has been waiting for a request; the most for one at work."""
        return self._timer.when() if self._timer and self._awaited == "headers" else math.inf

    def data_received(self, data: bytes) -> None:
        """Take a piece of a request."""
        super().data_received(data)
        self._expect(progress=True)

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._expect()

    def pause_writing(self) -> None:
        """Give the caller time to take what was sent."""
        self._set_timer("reader", _IDLE_SECONDS)
        super().pause_writing()

    def resume_writing(self) -> None:
        """Go on sending."""
        super().resume_writing()
        self._set_timer(None)
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._set_timer(None)
        super().connection_lost(exc)

    def _expect(self, *, progress: bool = False) -> None:
        """Give what the caller has to send next its time; none while it is the Hub's turn."""
        if self._awaited == "reader":
            return
        state = self.conn.their_state
        if state is h11.SEND_BODY:
            if progress or self._awaited != "body":
                self._set_timer("body", _IDLE_SECONDS)
        elif state is h11.IDLE and self.timeout_keep_alive_task is None:
            if self._awaited != "headers":
                self._set_timer("headers", _HEADER_SECONDS)
        else:
            self._set_timer(None)

    def _set_timer(self, awaited: str | None, seconds: float = 0) -> None:
        if self._timer:
            self._timer.cancel()
        self._awaited = awaited
        self._timer = self.loop.call_later(seconds, self._expired) if awaited else None

    def _expired(self) -> None:
        if self._awaited == "body" and self.flow.read_paused:
            # It is the Hub that takes its time.
            self._set_timer("body", _IDLE_SECONDS)
        else:
            self.transport.abort()
