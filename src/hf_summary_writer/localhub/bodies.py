"""Reading request bodies, up to the announced and the allowed size; large ones go to disk."""

from __future__ import annotations

import hashlib
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from hf_summary_writer.localhub.errors import BadRequestError, HubError
from hf_summary_writer.localhub.urls import NUMBER

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from starlette.requests import Request

    from hf_summary_writer.localhub.disk import Disk

MAX_JSON_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Upload:
    """A complete body in a temporary file, positioned at its start."""

    file: IO[bytes]
    path: Path
    size: int
    sha256: str


async def _pieces(request: Request, limit: int) -> AsyncIterator[bytes]:
    announced = request.headers.get("content-length", "0")
    if not NUMBER.fullmatch(announced) or int(announced) > limit:
        raise HubError(413, f"The body is larger than {limit} bytes.")
    size = 0
    async for piece in request.stream():
        size += len(piece)
        if size > limit:
            raise HubError(413, f"The body is larger than {limit} bytes.")
        yield piece


async def read_bytes(request: Request, limit: int = MAX_JSON_BYTES) -> bytes:
    """Return a small body."""
    return b"".join([piece async for piece in _pieces(request, limit)])


async def read_json(request: Request) -> dict[str, Any]:
    """Return a body that is a JSON object; an empty body is an empty object."""
    body = await read_bytes(request)
    value = parse_json(body or b"{}", "The body")
    if not isinstance(value, dict):
        raise BadRequestError("The body is not a JSON object.")
    return value


def parse_json(text: bytes, where: str) -> Any:
    """Return the value of JSON text; `where` names the text in the error message."""
    try:
        value = json.loads(text)
        # A lone surrogate cannot be encoded.
        if b"\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise BadRequestError(f"{where} is not JSON: {str(error)[:200]}") from error
    return value


@asynccontextmanager
async def receive(request: Request, disk: Disk, limit: int) -> AsyncIterator[Upload]:
    """Receive a large body into a temporary file."""
    with disk.temporary() as (file, path):
        size, digest = 0, hashlib.sha256()
        async for piece in _pieces(request, limit):
            size += len(piece)
            digest.update(piece)
            file.write(piece)
        file.flush()
        file.seek(0)
        yield Upload(file, path, size, digest.hexdigest())


def text_field(body: dict[str, Any], name: str, default: str | None = None) -> str:
    """Return a field that must be text; without a default it is required."""
    value = body.get(name)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise BadRequestError(f"The field {name!r} must be text.")
    return value
