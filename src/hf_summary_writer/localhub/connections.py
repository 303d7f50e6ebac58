"""Connection limits: the number of connections, and time-outs for headers, bodies and slow readers."""

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
# Between two parts of a body, and while a client does not read its response.
_IDLE_SECONDS = 60
_MOST_CONNECTIONS = 2000


def connection_limit() -> int:
    """Return the number of connections that leaves enough file descriptors for open files."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST_CONNECTIONS if limit == resource.RLIM_INFINITY else min(_MOST_CONNECTIONS, limit // 2)


class Connection(H11Protocol):
    """A connection that is closed after a time-out, or if it is idle while there are too many connections."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._timer: asyncio.TimerHandle | None = None
        self._awaited: str | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the header time-out, and close a waiting connection if there are too many."""
        super().connection_made(transport)
        self._expect()
        open_ones = [each for each in self.connections if isinstance(each, Connection)]
        open_ones = [each for each in open_ones if not each.transport.is_closing()]
        if len(open_ones) > connection_limit():
            # Close the new connection only if no other one is waiting for a request.
            min((self, *open_ones), key=Connection._worth).transport.abort()

    def _worth(self) -> float:
        """Return a sort key: lowest for the connection that has waited longest, infinite for a busy one."""
        return self._timer.when() if self._timer and self._awaited == "headers" else math.inf

    def data_received(self, data: bytes) -> None:
        """Handle received bytes, and restart the time-out."""
        super().data_received(data)
        self._expect(progress=True)

    def on_response_complete(self) -> None:
        """Start waiting for the next request."""
        super().on_response_complete()
        self._expect()

    def pause_writing(self) -> None:
        """Start the time-out for a slow reader."""
        self._set_timer("reader", _IDLE_SECONDS)
        super().pause_writing()

    def resume_writing(self) -> None:
        """Stop the time-out for a slow reader."""
        super().resume_writing()
        self._set_timer(None)
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the time-out."""
        self._set_timer(None)
        super().connection_lost(exc)

    def _expect(self, *, progress: bool = False) -> None:
        """Start the time-out for the next data of the client; none while the server is processing a request."""
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
            # The server is the slow side.
            self._set_timer("body", _IDLE_SECONDS)
        else:
            self.transport.abort()
