"""Running a Hub: in a thread of this process, or as a process of its own."""

from __future__ import annotations

import math
import os
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import uvicorn
from filelock import FileLock, Timeout

from hf_summary_writer.localhub.access import Access
from hf_summary_writer.localhub.accounts import OWNER, Accounts, Organization, User, check_token, new_token
from hf_summary_writer.localhub.app import build_app
from hf_summary_writer.localhub.connections import Connection
from hf_summary_writer.localhub.disk import make_folder
from hf_summary_writer.localhub.hosts import Hosts
from hf_summary_writer.localhub.hub import Hub

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Sequence
    from types import TracebackType

    from typing_extensions import Self

    from hf_summary_writer.localhub.buckets.events import StreamEnd
    from hf_summary_writer.localhub.stats import LoggedRequest, Stats

_MULTIPART_BYTES = 64 * 1024 * 1024
# The address for clients on this machine if the Hub listens on every address.
_REACHED_BY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
_BACKLOG = 256
# The time that open requests get to end when the Hub stops.
_GRACE_SECONDS = 3

_LOOK_SECONDS = 0.2
# Longer than clients keep an idle connection, so that the Hub never closes one while a request is being sent on it.
_IDLE_SECONDS = 75


class LocalHub:
    """A Hub on this machine, for tests, demos and places without internet.

    It serves while the `with` block runs, in a thread of its own. Its repos stay in `root`.

    Args:
        root: the folder that holds the repos; created if need be. One Hub at a time serves it.
        port: where to listen; 0 takes a free port.
        token: the access token of the user `local`; None makes one up.
        host: the address to listen on.
        commits_per_hour: answer 429 to more commits than this; None for no limit.
        requests_per_5min: answer 429 to more API requests than this; None for no limit.
        multipart_bytes: plain LFS objects over this size are uploaded in parts of this size.
        users: additional users.
        organizations: namespaces that several users share.
        any_namespace: allow every user to write to every namespace.
        allowed_hosts: additional host names in requests, besides IP addresses and the names of this machine.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: `host` or one of `allowed_hosts` is empty, a number is too small, or no client can send `token`.
        RuntimeError: another Hub serves `root`.
        OSError: the address is taken, or `root` cannot be written.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        port: int = 0,
        token: str | None = None,
        host: str = "127.0.0.1",
        commits_per_hour: int | None = None,
        requests_per_5min: int | None = None,
        multipart_bytes: int = _MULTIPART_BYTES,
        users: Sequence[User] = (),
        organizations: Sequence[Organization] = (),
        any_namespace: bool = False,
        allowed_hosts: Sequence[str] = (),
    ) -> None:
        if not all([host, *allowed_hosts]):
            # As an unset variable of a shell gives it; to a socket it means all addresses of this machine.
            raise ValueError("a host name is empty: leave it out, or write 0.0.0.0 to listen on all addresses")
        if isinstance(allowed_hosts, str):
            raise TypeError("allowed_hosts must be a list of str, not str")
        for kind, given in ((User, users), (Organization, organizations)):
            if wrong := [each for each in given if not isinstance(each, kind)]:
                raise TypeError(f"users and organizations must be of their classes, not {type(wrong[0]).__name__}")
        _check_number("port", port, 0, 2**16 - 1)
        _check_number("multipart_bytes", multipart_bytes, 1)
        for name, limit in (("commits_per_hour", commits_per_hour), ("requests_per_5min", requests_per_5min)):
            if limit is not None:
                _check_number(name, limit, 1)
        self.token: str = new_token() if token in {None, ""} else check_token(token)
        self._accounts = Accounts([User(OWNER, self.token), *users], organizations, any_namespace=any_namespace)
        self._hosts = Hosts([*allowed_hosts, host])
        self._root = Path(root).absolute()
        self._address = (host, port)
        self._limits = {"commits_per_hour": commits_per_hour, "requests_per_5min": requests_per_5min}
        self._multipart_bytes = multipart_bytes
        self._lock = FileLock(self._root / "hub.lock")
        self._hub: Hub | None = None
        self._socket: socket.socket | None = None
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._root.parent.mkdir(parents=True, exist_ok=True)
        make_folder(self._root)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise RuntimeError(f"Another local Hub serves {self._root}: stop it, or choose another folder.") from None
        try:
            self._start()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _start(self) -> None:
        self._hub = Hub(self._root, self._accounts, self._hosts, **self._limits, multipart_bytes=self._multipart_bytes)
        family = socket.AF_INET6 if ":" in self._address[0] else socket.AF_INET
        self._socket = socket.create_server(self._address, family=family, backlog=_BACKLOG)
        config = uvicorn.Config(
            build_app(self._hub),
            http=Connection,
            log_config=None,
            log_level="warning",
            access_log=False,
            lifespan="off",
            ws="none",
            server_header=False,
            timeout_keep_alive=_IDLE_SECONDS,
        )
        self._server = uvicorn.Server(config)
        # Outside the main thread the server installs no signal handlers. Clients may connect from here on, and wait.
        arguments = {"sockets": [self._socket]}
        name = "hf-summary-writer-localhub"
        self._thread = threading.Thread(target=self._server.run, kwargs=arguments, name=name, daemon=True)
        self._thread.start()

    def _close(self) -> None:
        if self._hub is not None:
            self._hub.bell.close()
        if self._server is not None:
            self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(_GRACE_SECONDS)
            self._abort_connections()
            self._thread.join()
        if self._socket is not None:
            self._socket.close()
        if self._hub is not None:
            self._hub.close()
        self._socket = self._server = self._thread = None
        self._lock.release()

    def _abort_connections(self) -> None:
        # The server itself would cancel the requests, and log a traceback for each.
        for each in list(self._server.server_state.connections) if self._server else ():
            # The loop has ended if the last request just did.
            with suppress(RuntimeError):
                each.loop.call_soon_threadsafe(each.transport.abort)

    def _running(self) -> Hub:
        if self._hub is None:
            raise RuntimeError("The local Hub has not been started: use it in a `with` block.")
        return self._hub

    @property
    def endpoint(self) -> str:
        """The URL of the Hub, for `HF_ENDPOINT`."""
        if self._socket is None:
            raise RuntimeError("The local Hub is not running: use it in a `with` block.")
        host, port = self._socket.getsockname()[:2]
        host = _REACHED_BY.get(host, host)
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def keep_access(self, generated_token: str) -> None:
        """Keep the port and a generated token in the root, for the next start by command."""
        Access(urlsplit(self.endpoint).port or 0, generated_token).write(self._root, self._running().disk)

    @property
    def stats(self) -> Stats:
        """A snapshot of the request counts since the start, or since `reset_stats`."""
        return self._running().recorder.stats

    @property
    def requests(self) -> deque[LoggedRequest]:
        """The last requests, oldest first; pages for people are not among them."""
        return self._running().recorder.requests

    def reset_stats(self) -> None:
        """Forget `stats` and `requests`."""
        self._running().recorder.reset()

    def end_streams(self, end: StreamEnd = "reconnect") -> None:
        """End all event streams of buckets, to test how a client resumes.

        Args:
            end: the last event: `reconnect` has the client resume at its cursor, `reset` has it list the bucket again.
        """
        self._running().bell.end_streams(end)


def _check_number(name: str, value: object, least: int, most: float = math.inf) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, not {type(value).__name__}")
    if not least <= value <= most:
        raise ValueError(
            f"{name} must be {least} or more{f', and at most {most}' if most < math.inf else ''}, not {value}"
        )


def serve(hub: LocalHub, generated_token: str = "") -> None:
    """Serve until SIGINT or SIGTERM; print one line with address and token once clients can connect.

    Args:
        hub: the Hub to serve.
        generated_token: a token that is kept in the root, with the port, for the next start.
    """
    came: list[int] = []
    signals = (signal.SIGINT, signal.SIGTERM)
    previous = [signal.signal(each, lambda number, _: came.append(number)) for each in signals]
    # Other users of the machine must not read private repos.
    mask = os.umask(0o077)
    try:
        with hub:
            hub.keep_access(generated_token)
            print(f"HF_ENDPOINT={hub.endpoint} HF_TOKEN={hub.token}", flush=True)  # noqa: T201
            if sys.stderr.isatty():
                print(f"Open {hub.endpoint} in a browser. Press Ctrl-C to stop.", file=sys.stderr)  # noqa: T201
            # Not an event: a signal may interrupt the handler of another one, or come just before a wait.
            while not came:
                time.sleep(_LOOK_SECONDS)
    finally:
        os.umask(mask)
        for each, handler in zip(signals, previous, strict=True):
            signal.signal(each, handler)
