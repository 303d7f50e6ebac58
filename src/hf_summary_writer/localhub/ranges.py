"""Answering with file content: ranges, and streams that hold a piece of the file at a time."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from starlette.responses import Response, StreamingResponse

from hf_summary_writer.localhub.errors import HubError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from starlette.requests import Request

    from hf_summary_writer.localhub.hub import Hub

# Not more digits: Python refuses to read thousands of them.
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


def parse_range(value: str | None, size: int | None) -> tuple[int, int | None] | None:
    """Return start and end (exclusive) of a Range header; None where there is none, or none that we serve.

    Without a size, an open end is None and a range that counts from the end is not served.
    """
    match = _RANGE.fullmatch(value or "")
    if not match or not any(match.groups()):
        return None
    first, last = match.groups()
    if not first:
        if size is None:
            return None
        start, end = max(size - int(last), 0), None
    else:
        start, end = int(first), int(last) + 1 if last else None
    if end is not None and end <= start:
        return None
    if size is None:
        return start, end
    if start >= size:
        raise HubError(416, "The range begins after the end.", headers={"Content-Range": f"bytes */{size}"})
    return start, size if end is None else min(end, size)


async def content_response(
    hub: Hub,
    request: Request,
    size: int,
    read: Callable[[int, int], Generator[bytes, None, None]],
    headers: Mapping[str, str],
) -> Response:
    """Answer with `size` bytes of content that `read(start, end)` yields, or the range of it that was asked for."""
    headers = {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream", **headers}
    if headers.get("ETag") in [each.strip() for each in request.headers.get("if-none-match", "").split(",")]:
        return Response(status_code=304, headers={name: headers[name] for name in headers if name != "Content-Type"})
    part = parse_range(request.headers.get("range"), size)
    start, end = part or (0, size)
    end = size if end is None else end
    headers["Content-Length"] = str(end - start)
    if part:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    status = 206 if part else 200
    if request.method == "HEAD" or start == end:
        return Response(status_code=status, headers=headers)
    return StreamingResponse(hub.stream(read(start, end)), status, headers)
