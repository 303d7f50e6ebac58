"""A TLS server with an untrusted certificate."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import trustme

if TYPE_CHECKING:
    from typing_extensions import Self

_SECONDS = 10


class SelfSignedServer:
    """The server; it serves inside a `with` block.

    Attributes:
        callers: The number of connections.
        received: Data from clients that completed the handshake.
    """

    def __init__(self) -> None:
        self.callers = 0
        self.received = b""
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA().issue_cert("127.0.0.1").configure_cert(self._context)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, name="self-signed", daemon=True)
        self.endpoint = f"https://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # `shutdown` wakes a blocked `accept`, `close` does not.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(_SECONDS)

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                caller, _ = self._listener.accept()
                self.callers += 1
                caller.settimeout(_SECONDS)
                with caller, suppress(OSError), self._context.wrap_socket(caller, server_side=True) as trusting:
                    while piece := trusting.recv(65536):
                        self.received += piece
