"""The web application: its routes, and the limits, counts and headers of every request."""

from __future__ import annotations

import asyncio
import errno
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from hf_summary_writer.localhub.errors import HubError, answer_hub_error
from hf_summary_writer.localhub.routes import (
    account,
    bucket_pages,
    buckets,
    cas,
    commits,
    git,
    history,
    lfs,
    nameless,
    pages,
    pulls,
    repos,
    resolve,
    settings,
    trees,
)
from hf_summary_writer.localhub.stats import LoggedRequest, kind_of

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from hf_summary_writer.localhub.hub import Hub


_MAX_REST_BYTES = 16 * 1024 * 1024
# For each piece.
_REST_SECONDS = 2
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


async def _answer_http_exception(_request: Request, _error: Exception) -> Response:
    # Many unknown paths have the form of a page's path, so 405 becomes 404 as well: clients that try a newer version
    # of the API first need a 404 to fall back to the older one.
    return HubError(404, "Sorry, we can't find the page you are looking for.").response()


async def _answer_full_disk(_request: Request, error: Exception) -> Response:
    if not isinstance(error, OSError) or error.errno not in _FULL:
        raise error
    return HubError(507, f"The local Hub cannot write to its disk: {error.strerror}").response()


async def _answer_crash(_request: Request, error: Exception) -> Response:
    return JSONResponse({"error": f"The local Hub failed: {type(error).__name__}"}, 500)


def build_app(hub: Hub) -> ASGIApp:
    """Return the application that serves `hub`."""
    areas = (
        account,
        git,
        buckets,
        settings,
        repos,
        commits,
        history,
        trees,
        cas,
        lfs,
        resolve,
        pulls,
        nameless,
        bucket_pages,
        pages,
    )
    app = Starlette(
        routes=[route for area in areas for route in area.ROUTES],
        exception_handlers={
            HubError: answer_hub_error,
            HTTPException: _answer_http_exception,
            OSError: _answer_full_disk,
            Exception: _answer_crash,
        },
    )
    app.state.hub = hub
    return _Gate(app, hub)


class _Gate:
    """ASGI middleware: route by the encoded path, apply the limits, count the request and give it an id."""

    def __init__(self, app: ASGIApp, hub: Hub) -> None:
        self._app = app
        self._hub = hub

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # Routes match on the encoded path: in it, a %2F in a branch name is no separator.
        raw: bytes = scope["raw_path"]
        scope = {**scope, "path": raw.decode("ascii", "replace")}
        exchange = _Exchange(scope, receive, send, self._hub)
        headers = Headers(scope=scope)
        try:
            if "content-length" in headers and "transfer-encoding" in headers:
                # A proxy in front may take the other length, and the rest of the body for the next request: RFC 9112,
                # section 6.1. https://www.rfc-editor.org/rfc/rfc9112#section-6.1
                raise HubError(400, "The request has two lengths.", headers={"Connection": "close"})
            await self._hub.hosts.check(headers.get("host"))
            if exchange.kind == "api":
                self._hub.limits.count_request()
            await self._app(scope, exchange.receive, exchange.send)
        except HubError as error:
            await error.response()(scope, exchange.receive, exchange.send)
        except ClientDisconnect:
            pass
        finally:
            exchange.record()


class _Exchange:
    """One request and its response; counts their bytes."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, hub: Hub) -> None:
        self.kind = kind_of(scope["method"], scope["path"])
        self._scope = scope
        self._receive = receive
        self._send = send
        self._hub = hub
        self._headers = {"X-Request-Id": secrets.token_hex(8)}
        self._received = self._sent = self._status = 0
        self._length: int | None = None
        self._recorded = self._is_whole = False

    def record(self) -> None:
        """Count the request, once."""
        if self.kind and not self._recorded:
            self._recorded = True
            request = LoggedRequest(self._scope["method"], self._scope["path"], self._status)
            self._hub.recorder.add(self.kind, request, self._received, self._sent)

    async def receive(self) -> Message:
        message = await self._receive()
        self._received += len(message.get("body", b""))
        self._is_whole = not message.get("more_body")
        return message

    async def _read_rest(self) -> None:
        """Read the rest of a rejected request; closing the connection early would hide the error from the client."""
        most = self._received + _MAX_REST_BYTES
        with suppress(asyncio.TimeoutError):
            while not self._is_whole and self._received < most:
                await asyncio.wait_for(self.receive(), _REST_SECONDS)

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            if self._status >= 300:
                await self._read_rest()
            raw: list[tuple[bytes, bytes]] = list(message["headers"])
            known = {name for name, _ in raw}
            length = dict(raw).get(b"content-length")
            self._length = None if length is None else int(length)
            if self.kind == "api":
                self._headers |= self._hub.limits.headers()
            extra = [(name.lower().encode(), value.encode()) for name, value in self._headers.items()]
            message = {**message, "headers": raw + [pair for pair in extra if pair[0] not in known]}
        elif message["type"] == "http.response.body":
            self._sent += len(message.get("body", b""))
            if not message.get("more_body") or self._sent == self._length:
                # Before the client can see the end of the response, so that its next request finds this one counted.
                self.record()
        await self._send(message)
