"""Xet: the tokens that the Hub hands out, and the storage API that they open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response

from hf_summary_writer.localhub.bodies import read_bytes, receive
from hf_summary_writer.localhub.disk import read_range
from hf_summary_writer.localhub.errors import BadRequestError, HubError
from hf_summary_writer.localhub.gitrepo import GitRepo
from hf_summary_writer.localhub.hub import Hub, owner_of
from hf_summary_writer.localhub.ranges import content_response, parse_range
from hf_summary_writer.localhub.routes import route
from hf_summary_writer.localhub.urls import base_url, hash_of, is_true, revision_of
from hf_summary_writer.localhub.xet.shard import MAX_SHARD_BYTES
from hf_summary_writer.localhub.xet.xorb import MAX_XORB_BYTES

if TYPE_CHECKING:
    from starlette.requests import Request

    from hf_summary_writer.localhub.lfs import LfsStore
    from hf_summary_writer.localhub.names import RepoId
    from hf_summary_writer.localhub.xet.owners import MayRead
    from hf_summary_writer.localhub.xet.store import Piece, Recipe, RegisteredFile

READ, WRITE, _XORB = "xet-read", "xet-write", "xorb"
# The headers of the chunks, and the footer of older clients, come on top of the data.
_XORB_BODY_BYTES = MAX_XORB_BYTES + 8 * 1024 * 1024
_PREFIXES = ("default", "default-merkledb")


async def write_token(hub: Hub, request: Request) -> Response:
    """Issue a token to upload to a repo."""
    return await _token(hub, request, await hub.uploadable(request), WRITE)


async def read_token(hub: Hub, request: Request) -> Response:
    """Issue a token to download from a repo."""
    return await _token(hub, request, await hub.readable(request), READ)


async def _token(hub: Hub, request: Request, repo: RepoId, scope: str) -> Response:
    # A pull request creates its own ref.
    if not is_true(request.query_params.get("create_pr")):
        await hub.on_git(repo, GitRepo.resolve, revision_of(request))
    answer, headers = xet_grant(hub, request, scope, repo)
    return JSONResponse(answer, headers=headers)


def xet_grant(hub: Hub, request: Request, scope: str, repo: RepoId) -> tuple[dict[str, Any], dict[str, str]]:
    """Return a token of the storage API for a repo, as a response body and as headers."""
    user = hub.caller(request)
    subject = f"{user.name if user else ''}/{hub.uid_of(repo)}"
    grant, expires = hub.signer.grant(scope, subject)
    url, token = base_url(request), f"{scope}:{subject}:{grant}"
    headers = {"X-Xet-Cas-Url": url, "X-Xet-Access-Token": token, "X-Xet-Token-Expiration": str(expires)}
    return {"casUrl": url, "accessToken": token, "exp": expires}, headers


@dataclass(frozen=True, slots=True)
class _Bearer:
    """The permissions of a token of the storage API."""

    uid: str
    owners: tuple[str, ...]
    may_read: MayRead


def _authorize(hub: Hub, request: Request, scope: str) -> _Bearer:
    token = request.headers.get("authorization", "").removeprefix("Bearer ")
    granted, _, rest = token.partition(":")
    subject, _, grant = rest.rpartition(":")
    try:
        hub.signer.check(grant, granted, subject)
    except HubError:
        raise HubError(401, "The access token is wrong or has expired: ask the Hub for a new one.") from None
    if scope == WRITE and granted != WRITE:
        raise HubError(403, "This access token is for reading.")
    name, _, uid = subject.partition("/")
    user = hub.accounts.named(name)
    return _Bearer(uid, (uid, owner_of(user)) if user else (uid,), hub.reader(user))


async def chunk(hub: Hub, request: Request) -> Response:
    """Return a shard for deduplication: the chunks around a known chunk."""
    bearer = _authorize(hub, request, READ)
    answer = await hub.run(hub.xet.dedup_answer, hash_of(request), bearer.may_read)
    if answer is None:
        raise HubError(404, "The chunk is not known.")
    return Response(answer, media_type="application/octet-stream")


async def add_xorb(hub: Hub, request: Request) -> Response:
    """Store a xorb."""
    bearer = _authorize(hub, request, WRITE)
    if request.path_params["prefix"] not in _PREFIXES:
        raise BadRequestError("The only prefix is default.")
    name = hash_of(request)
    async with receive(request, hub.disk, _XORB_BODY_BYTES) as body:
        new = await hub.run(hub.xet.add_xorb, body.file, body.path, name, bearer.owners)
    return JSONResponse({"was_inserted": new})


async def add_shard(hub: Hub, request: Request) -> Response:
    """Register the files of a shard in the repo of the token."""
    bearer = _authorize(hub, request, WRITE)
    async with receive(request, hub.disk, MAX_SHARD_BYTES) as body:
        files = await hub.run(hub.xet.add_shard, body.file, bearer.owners, bearer.may_read)
    if repo := hub.repos.index.with_uid(bearer.uid):
        await hub.run(_link, hub.repos.lfs(repo), files)
    return JSONResponse({"result": 1})


def _link(lfs: LfsStore, files: list[RegisteredFile]) -> None:
    for file in files:
        if file.sha256 is None:
            raise BadRequestError(f"The shard gives no sha256 for the file {file.xet_hash}, which a repo needs.")
        lfs.add_link(file.sha256, file.xet_hash, file.size)


async def telemetry(_hub: Hub, request: Request) -> Response:
    """Ignore telemetry."""
    await read_bytes(request)
    return JSONResponse({})


async def reconstruction(hub: Hub, request: Request) -> Response:
    """Return the parts of xorbs that make up a file, or a range of it."""
    recipe = await _recipe(hub, request)
    fetch: dict[str, list[dict[str, Any]]] = {}
    for piece in recipe.fetches():
        place = {"url": _xorb_url(hub, request, piece), "url_range": _bytes(piece), "range": _chunks(piece)}
        fetch.setdefault(piece.xorb, []).append(place)
    return JSONResponse({"offset_into_first_range": recipe.skip, "terms": _terms(recipe), "fetch_info": fetch})


async def reconstruction_v2(hub: Hub, request: Request) -> Response:
    """Return the same in the format of version 2."""
    recipe = await _recipe(hub, request)
    xorbs: dict[str, list[dict[str, Any]]] = {}
    for piece in recipe.fetches():
        ranges = [{"chunks": _chunks(piece), "bytes": _bytes(piece)}]
        xorbs.setdefault(piece.xorb, []).append({"url": _xorb_url(hub, request, piece), "ranges": ranges})
    return JSONResponse({"offset_into_first_range": recipe.skip, "terms": _terms(recipe), "xorbs": xorbs})


async def _recipe(hub: Hub, request: Request) -> Recipe:
    bearer = _authorize(hub, request, READ)
    start, end = parse_range(request.headers.get("range"), None) or (0, None)
    return await hub.run(hub.xet.recipe, hash_of(request), start, end, bearer.may_read)


def _terms(recipe: Recipe) -> list[dict[str, Any]]:
    return [{"hash": piece.xorb, "range": _chunks(piece), "unpacked_length": piece.size} for piece in recipe.pieces]


def _bytes(piece: Piece) -> dict[str, int]:
    return {"start": piece.byte_start, "end": piece.byte_end - 1}


def _chunks(piece: Piece) -> dict[str, int]:
    return {"start": piece.chunk_start, "end": piece.chunk_end}


def _xorb_url(hub: Hub, request: Request, piece: Piece) -> str:
    # Other parts of the xorb may belong to files that the caller may not read.
    part = f"{piece.byte_start}-{piece.byte_end}"
    grant, _ = hub.signer.grant(_XORB, f"{piece.xorb}/{part}")
    return f"{base_url(request)}/xorbs/{piece.xorb}?part={part}&grant={grant}"


async def xorb(hub: Hub, request: Request) -> Response:
    """Serve bytes of a xorb as it was uploaded, within the part that the URL is for."""
    name, part = hash_of(request), request.query_params.get("part", "")
    hub.signer.check(request.query_params.get("grant", ""), _XORB, f"{name}/{part}")
    first, last = map(int, part.split("-"))
    path = hub.xet.xorb_path(name)
    size = (await hub.run(path.stat)).st_size
    start, end = parse_range(request.headers.get("range"), size) or (0, size)
    if start < first or end is None or end > last:
        raise HubError(403, f"This URL is for the bytes {part} of the xorb: ask for no others.")
    return await content_response(hub, request, size, lambda start, end: read_range(path, start, end), {})


_REPO = "/api/{kind}/{namespace}/{name}"
ROUTES = [
    route(_REPO + "/xet-write-token/{revision}", write_token, "GET"),
    route(_REPO + "/xet-read-token/{revision}", read_token, "GET"),
    route("/v1/chunks/{prefix}/{hash}", chunk, "GET"),
    route("/v1/xorbs/{prefix}/{hash}", add_xorb, "POST"),
    route("/v1/shards", add_shard, "POST"),
    route("/v1/telemetry", telemetry, "POST"),
    route("/v1/reconstructions/{hash}", reconstruction, "GET"),
    route("/v2/reconstructions/{hash}", reconstruction_v2, "GET"),
    route("/xorbs/{hash}", xorb, "GET", "HEAD"),
]
