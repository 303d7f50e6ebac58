"""Raw requests that no real client would send."""

from __future__ import annotations

import base64
import http.client
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hub_process import HasEndpoint


@dataclass(frozen=True, slots=True)
class Reply:
    """A response of a Hub."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def send(
    hub: HasEndpoint,
    method: str,
    path: str,
    body: object = None,
    *,
    token: str | None = "",
    headers: Mapping[str, str] | None = None,
) -> Reply:
    """Send one request with a body of bytes or JSON, and with the Hub's token, another token, or none."""
    data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
    known = {} if token is None else {"Authorization": f"Bearer {token or hub.token}"}
    connection = http.client.HTTPConnection(urlsplit(hub.endpoint).netloc, timeout=60)
    try:
        connection.request(method, path.removeprefix(hub.endpoint), data, {**known, **(headers or {})})
        answer = connection.getresponse()
        return Reply(answer.status, dict(answer.headers), answer.read())
    finally:
        connection.close()


def line(key: str, **value: object) -> bytes:
    """Return one line of a commit."""
    return json.dumps({"key": key, "value": value}).encode() + b"\n"


def file_line(path: str, content: bytes = b"content") -> bytes:
    """Return the line of a commit that adds a small file."""
    return line("file", path=path, content=base64.b64encode(content).decode(), encoding="base64")


def send_commit(hub: HasEndpoint, repo_id: str, *lines: bytes, revision: str = "main", **header: object) -> Reply:
    """Send a commit to a model repo."""
    body = b"".join([line("header", **{"summary": "Add", **header}), *lines])
    kind = {"Content-Type": "application/x-ndjson"}
    return send(hub, "POST", f"/api/models/{repo_id}/commit/{revision}", body, headers=kind)
