"""The Git protocol over HTTP, read-only: `git clone` and `git fetch`."""

from __future__ import annotations

import gzip
from io import BytesIO
from typing import IO, TYPE_CHECKING

from starlette.responses import Response, StreamingResponse

from hf_summary_writer.localhub.bodies import read_bytes
from hf_summary_writer.localhub.errors import BadRequestError, ForbiddenError, HubError
from hf_summary_writer.localhub.routes import of_repo

if TYPE_CHECKING:
    from collections.abc import Generator

    from starlette.requests import Request

    from hf_summary_writer.localhub.hub import Hub
    from hf_summary_writer.localhub.names import RepoId

_SERVICE = "git-upload-pack"
# The object ids in a request.
_MAX_REQUEST_BYTES = 16 * 1024 * 1024
_PIECE_BYTES = 256 * 1024


async def refs(hub: Hub, request: Request) -> Response:
    """Advertise the refs to a Git client."""
    repo = await _readable(hub, request)
    if request.query_params.get("service") != _SERVICE:
        raise ForbiddenError("The local Hub serves git clone and git fetch only: commit over its HTTP API.")
    return await _answer(hub, repo, b"", advertise=True)


async def fetch(hub: Hub, request: Request) -> Response:
    """Send the objects that a Git client requests."""
    repo = await _readable(hub, request)
    body = await read_bytes(request, _MAX_REQUEST_BYTES)
    if request.headers.get("content-encoding") == "gzip":
        body = _unpack(body)
    return await _answer(hub, repo, body, advertise=False)


async def refuse_push(hub: Hub, request: Request) -> Response:
    """Reject `git push`."""
    await _readable(hub, request)
    raise ForbiddenError("The local Hub takes no git push: commit over its HTTP API.")


async def _readable(hub: Hub, request: Request) -> RepoId:
    try:
        return await hub.readable(request, people=True)
    except HubError as error:
        if error.status == 401:
            # Git sends credentials only after this header.
            error.headers["WWW-Authenticate"] = 'Basic realm="The token is the password", charset="UTF-8"'
        raise


def _unpack(body: bytes) -> bytes:
    try:
        with gzip.GzipFile(fileobj=BytesIO(body)) as packed:
            return packed.read(_MAX_REQUEST_BYTES)
    except (OSError, EOFError) as error:
        raise BadRequestError("The body is not packed with gzip.") from error


async def _answer(hub: Hub, repo: RepoId, body: bytes, *, advertise: bool) -> Response:
    kind = "advertisement" if advertise else "result"
    pieces = _pieces(await hub.run(_serve, hub, repo, body, advertise=advertise))
    headers = {"Cache-Control": "no-cache", "Content-Type": f"application/x-{_SERVICE}-{kind}"}
    return StreamingResponse(hub.stream(pieces), headers=headers)


def _serve(hub: Hub, repo: RepoId, body: bytes, *, advertise: bool) -> IO[bytes]:
    answer = hub.disk.scratch()
    try:
        with hub.repos.git(repo) as git:
            git.upload_pack(BytesIO(body), answer, advertise=advertise)
        answer.seek(0)
    except BaseException:
        answer.close()
        raise
    return answer


def _pieces(file: IO[bytes]) -> Generator[bytes, None, None]:
    with file:
        while piece := file.read(_PIECE_BYTES):
            yield piece


# Git URLs work with and without ".git".
ROUTES = [
    each
    for end in (".git", "")
    for each in (
        *of_repo(f"{end}/info/refs", refs, "GET"),
        *of_repo(f"{end}/git-upload-pack", fetch, "POST"),
        *of_repo(f"{end}/git-receive-pack", refuse_push, "POST"),
    )
]
