"""A foreign server that records all requests and answers each like the Hub's endpoint for Xet tokens."""

from __future__ import annotations

import http.server
import json
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Stranger"]

_SECONDS = 10


class Stranger:
    """The server; it serves inside a `with` block.

    Attributes:
        received: Every request in full: request line, headers and body.
    """

    def __init__(self) -> None:
        self.received: list[bytes] = []
        stranger = self

        class Handler(http.server.BaseHTTPRequestHandler):
            timeout = _SECONDS

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", "0")))
                stranger.received.append(f"{self.requestline}\r\n{self.headers}".encode("utf-8", "replace") + body)
                token = {"casUrl": stranger.endpoint, "exp": int(time.time()) + 3600, "accessToken": "a-strangers"}
                said = json.dumps(token).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(said)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(said)

            do_GET = do_POST = do_PUT = do_HEAD = answer  # noqa: N815 - names of the base class

            def log_message(self, *_: object) -> None:
                """Print nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, name="stranger", daemon=True)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(_SECONDS)
