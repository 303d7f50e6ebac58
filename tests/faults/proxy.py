"""A proxy in front of a Hub that injects faults into single requests.

It does not rewrite URLs: the Hub makes them from the Host header, so they point to the proxy. Every connection carries
one request. The first matching rule with turns left is applied to a request; without one it passes.

    with FaultProxy(hub) as proxy:
        proxy.add("POST", r"/commit/", Answer(503), times=2)
        proxy.add("POST", r"/commit/", LoseAnswer())
        api = client(proxy)
"""

from __future__ import annotations

import itertools
import re
import socket
import struct
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from io import BufferedReader

    from typing_extensions import Self

    from hub_process import HasEndpoint

_PIECE = 64 * 1024
_MAX_HEAD = 256 * 1024
_STOP_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Pass:
    """Let the request through."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer instead of the Hub, which never gets the request; a `Location` header makes it a redirect."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b"{}"


@dataclass(frozen=True, slots=True)
class Delay:
    """Let the request through, and delay the answer by `seconds`."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Hold:
    """Accept the request, and let it through when the rules are cleared, even if the client is gone."""


@dataclass(frozen=True, slots=True)
class Drip:
    """Let the request through, and pass the answer on byte by byte; the rest at once when the rules are cleared."""

    seconds_per_byte: float = 1.0


@dataclass(frozen=True, slots=True)
class Throttle:
    """Let the request through, with its body at this rate."""

    bytes_per_second: float


@dataclass(frozen=True, slots=True)
class Reset:
    """Reset the connection; the Hub never gets the request."""


@dataclass(frozen=True, slots=True)
class CutRequest:
    """Pass on `after` bytes of the request's body, then reset both connections."""

    after: int


@dataclass(frozen=True, slots=True)
class CutAnswer:
    """Let the request through, and close the connection after `after` bytes of the answer's body."""

    after: int


@dataclass(frozen=True, slots=True)
class LoseAnswer:
    """Let the request through, wait for the Hub's answer, and reset the connection."""


@dataclass(frozen=True, slots=True)
class Hang:
    """Accept the request and do not answer until the rules are cleared or the proxy stops."""


Action = Pass | Answer | Delay | Hold | Drip | Throttle | Reset | CutRequest | CutAnswer | LoseAnswer | Hang


@dataclass(frozen=True, slots=True)
class Seen:
    """A request that reached the proxy, the action applied to it, and whether it had the token."""

    method: str
    path: str
    action: Action
    with_token: bool


@dataclass(slots=True)
class _Rule:
    method: str
    path: re.Pattern[str]
    action: Action
    turns: float
    body: bytes

    def means(self, head: _Head, body: bytes) -> bool:
        return (
            self.turns > 0
            and self.method in ("*", head.method)
            and self.path.search(head.path) is not None
            and self.body in body
        )


@dataclass(frozen=True, slots=True)
class _Head:
    raw: bytes
    method: str
    path: str
    headers: Mapping[str, str]


class FaultProxy:
    """The proxy; it serves inside a `with` block, in separate threads. Rules may change at any time."""

    def __init__(self, hub: HasEndpoint, port: int = 0) -> None:
        self.token = hub.token
        upstream = urlsplit(hub.endpoint)
        self._upstream = (upstream.hostname or "127.0.0.1", upstream.port or 80)
        self._rules: list[_Rule] = []
        self._seen: list[Seen] = []
        self._lock = threading.Lock()
        self._released = threading.Event()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", port), backlog=256)
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()
        # `shutdown` wakes a blocked `accept`, `close` does not.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for each in self._open:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(_STOP_SECONDS)

    def add(self, method: str, path: str, action: Action, times: float = 1, body: bytes = b"") -> None:
        """Apply `action` to the next `times` requests with this method ("*": any) whose path matches `path`.

        With `body` only to requests whose body, as sent over the wire, contains these bytes.
        """
        with self._lock:
            self._rules.append(_Rule(method, re.compile(path), action, times, body))

    def clear(self) -> None:
        """Remove all rules, and release the requests that they hold."""
        with self._lock:
            self._rules.clear()
            self._released.set()
            self._released = threading.Event()

    @property
    def requests(self) -> list[Seen]:
        """The requests so far, in order of arrival."""
        with self._lock:
            return list(self._seen)

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, name="fault-proxy", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                caller, _ = self._listener.accept()
            except OSError:
                return
            self._start(self._serve, caller)

    def _decide(self, head: _Head, body: bytes) -> tuple[Action, threading.Event]:
        with self._lock:
            action: Action = Pass()
            for rule in self._rules:
                if rule.means(head, body):
                    rule.turns -= 1
                    action = rule.action
                    break
            self._seen.append(Seen(head.method, head.path, action, self.token in head.headers.get("authorization", "")))
            return action, self._released

    def _looks_into_bodies(self) -> bool:
        with self._lock:
            return any(rule.body for rule in self._rules)

    def _serve(self, caller: socket.socket) -> None:
        # Broken pipes on either side are expected.
        with self._tracked(caller), suppress(OSError, ValueError):
            stream = caller.makefile("rb")
            with stream:
                head = _read_head(stream)
                if head is None:
                    return
                body = _body(stream, head.headers)
                known = b"".join(body) if self._looks_into_bodies() else b""
                body = itertools.chain([known], body)
                action, released = self._decide(head, known)
                if isinstance(action, Answer):
                    for _ in body:
                        pass
                    caller.sendall(_format(action, head.method))
                elif isinstance(action, Hang):
                    released.wait()
                elif isinstance(action, Reset):
                    _reset_at_close(caller)
                else:
                    if isinstance(action, Hold):
                        body = iter([b"".join(body)])
                        released.wait()
                    self._forward(caller, body, head, action, released)

    def _forward(
        self, caller: socket.socket, body: Iterator[bytes], head: _Head, action: Action, released: threading.Event
    ) -> None:
        with self._tracked(socket.create_connection(self._upstream)) as hub, hub.makefile("rb") as answer:
            hub.sendall(head.raw)
            if isinstance(action, CutRequest):
                for piece in _first(action.after, body):
                    hub.sendall(piece)
                _reset_at_close(hub)
                _reset_at_close(caller)
                return
            for piece in body:
                if isinstance(action, Throttle):
                    released.wait(len(piece) / action.bytes_per_second)
                hub.sendall(piece)
            start, rest = _read_until_blank_line(answer), _pieces(answer)
            if isinstance(action, LoseAnswer):
                _reset_at_close(caller)
                return
            if isinstance(action, Delay):
                released.wait(action.seconds)
            if isinstance(action, Drip):
                _drip(caller, start, rest, action, released)
                return
            caller.sendall(start)
            for piece in _first(action.after, rest) if isinstance(action, CutAnswer) else rest:
                caller.sendall(piece)

    def _tracked(self, connection: socket.socket) -> _Tracked:
        return _Tracked(connection, self._open, self._lock)


class _Tracked:
    """A connection that the proxy can end while a thread waits on it."""

    def __init__(self, connection: socket.socket, known: set[socket.socket], lock: threading.Lock) -> None:
        self._connection = connection
        self._known = known
        self._lock = lock

    def __enter__(self) -> socket.socket:
        with self._lock:
            self._known.add(self._connection)
        return self._connection

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._known.discard(self._connection)
        self._connection.close()


def _drip(caller: socket.socket, start: bytes, rest: Iterator[bytes], action: Drip, released: threading.Event) -> None:
    for piece in itertools.chain([start], rest):
        for sent in range(len(piece)):
            if released.wait(action.seconds_per_byte):
                caller.sendall(piece[sent:])
                break
            caller.sendall(piece[sent : sent + 1])


def _read_until_blank_line(stream: BufferedReader) -> bytes:
    lines = []
    while (line := stream.readline(_MAX_HEAD)) not in (b"\r\n", b"\n", b""):
        lines.append(line)
    return b"".join([*lines, line])


def _read_head(stream: BufferedReader) -> _Head | None:
    lines = _read_until_blank_line(stream).decode("latin-1").split("\r\n")
    if not lines[0]:
        return None
    method, path, _ = lines[0].split(" ", 2)
    pairs = [line.split(":", 1) for line in lines[1:] if line]
    headers = {name.lower(): value.strip() for name, value in pairs}
    kept = [line for line in lines if line and not line.lower().startswith(("connection:", "keep-alive:"))]
    raw = "\r\n".join([*kept, "Connection: close", "", ""]).encode("latin-1")
    return _Head(raw, method, path, headers)


def _body(stream: BufferedReader, headers: Mapping[str, str]) -> Iterator[bytes]:
    """Yield the body of a request as sent over the wire."""
    if headers.get("transfer-encoding", "").lower() == "chunked":
        size = -1
        while size:
            line = stream.readline(_MAX_HEAD)
            size = int(line.split(b";")[0], 16)
            # The last chunk is empty; every chunk ends with a line break.
            yield line + stream.read(size) + stream.readline(_MAX_HEAD)
        return
    left = int(headers.get("content-length", "0"))
    while left > 0 and (piece := stream.read1(min(left, _PIECE))):
        left -= len(piece)
        yield piece


def _pieces(stream: BufferedReader) -> Iterator[bytes]:
    while piece := stream.read1(_PIECE):
        yield piece


def _first(count: int, pieces: Iterator[bytes]) -> Iterator[bytes]:
    while count > 0 and (piece := next(pieces, b"")):
        yield piece[:count]
        count -= len(piece)


def _format(answer: Answer, method: str) -> bytes:
    headers = {"Content-Type": "application/json", **answer.headers}
    headers |= {"Content-Length": str(len(answer.body)), "Connection": "close"}
    lines = [f"HTTP/1.1 {answer.status} Scripted", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1") + (b"" if method == "HEAD" else answer.body)


def _reset_at_close(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
