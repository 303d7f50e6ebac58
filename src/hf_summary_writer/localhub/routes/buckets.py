"""Buckets: creating, describing, listing and changing them, and their files."""

from __future__ import annotations

import mimetypes
from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from starlette.responses import JSONResponse, Response, StreamingResponse

from hf_summary_writer.localhub.bodies import parse_json, read_bytes, read_json
from hf_summary_writer.localhub.buckets.batch import MAX_BATCH_BYTES, Outcome, judge_batch, read_batch
from hf_summary_writer.localhub.buckets.events import follow
from hf_summary_writer.localhub.buckets.files import BucketFile, BucketFiles, iso
from hf_summary_writer.localhub.buckets.store import BucketSettings
from hf_summary_writer.localhub.connections import connection_limit
from hf_summary_writer.localhub.errors import BadRequestError, EntryNotFoundError, HubError, RepoNotFoundError
from hf_summary_writer.localhub.names import BUCKETS, RepoId, check_name, split_name
from hf_summary_writer.localhub.ranges import content_response
from hf_summary_writer.localhub.routes import route
from hf_summary_writer.localhub.routes.cas import READ, WRITE, xet_grant
from hf_summary_writer.localhub.routes.repos import kind_of_type, listed, wants_private
from hf_summary_writer.localhub.routes.xetfiles import info_response, xet_headers
from hf_summary_writer.localhub.urls import NUMBER, base_url, limit_of, page_response, param

if TYPE_CHECKING:
    from collections.abc import Generator

    from starlette.requests import Request

    from hf_summary_writer.localhub.accounts import User
    from hf_summary_writer.localhub.hub import Hub

_REGIONS = ("us", "eu")
_ME = "me"
_ENTRIES_PER_PAGE = 1000
_MOST_ENTRIES_PER_PAGE = 5000
_MAX_PATHS = 2000


async def create(hub: Hub, request: Request) -> Response:
    """Create a bucket."""
    user = hub.require_user(request)
    namespace = request.path_params["namespace"]
    bucket = RepoId(BUCKETS, user.name if namespace == _ME else namespace, request.path_params["name"])
    check_name(bucket.namespace, bucket.name)
    hub.require_writer(request, bucket.namespace)
    body = await read_json(request)
    region = body.get("region") or _REGIONS[0]
    if region not in _REGIONS:
        raise BadRequestError(f"There is no region {region!r}: use {' or '.join(_REGIONS)}.")
    settings = BucketSettings(private=wants_private(body), region=region)
    async with hub.lock(bucket):
        if there := hub.buckets.index.find(bucket):
            url = base_url(request) + there.page
            raise HubError(409, "You already created this bucket", url=url, name=there.full_name, id=there.full_name)
        await hub.run(hub.buckets.create, bucket, settings, user.name)
    return JSONResponse({"url": base_url(request) + bucket.page, "name": bucket.full_name, "id": bucket.full_name})


async def info(hub: Hub, request: Request) -> Response:
    """Describe a bucket."""
    return JSONResponse(await hub.run(_describe, hub, await hub.readable(request, BUCKETS)))


def _describe(hub: Hub, bucket: RepoId) -> dict[str, Any]:
    settings, files = hub.buckets.settings(bucket), hub.buckets.files(bucket)
    created = int(settings.created * 1000)
    return {
        "_id": settings.uid,
        "id": bucket.full_name,
        "author": bucket.namespace,
        "private": settings.private,
        "visibility": "private" if settings.private else "public",
        "region": settings.region,
        "createdAt": iso(created),
        "updatedAt": iso(max(created, files.updated)),
        "size": files.size,
        "totalFiles": len(files),
    }


async def listing(hub: Hub, request: Request) -> Response:
    """List the buckets of a namespace that the caller may see."""
    user, namespace = hub.caller(request), request.path_params["namespace"]
    if namespace == _ME:
        namespace = hub.require_user(request).name

    def find() -> list[RepoId]:
        named = [bucket for bucket in hub.buckets.all() if bucket.namespace.lower() == namespace.lower()]
        if not named and not hub.accounts.knows(namespace):
            raise RepoNotFoundError(anonymous=user is None)
        return [bucket for bucket, _ in hub.buckets.visible(partial(hub.may_read, user)) if bucket in named]

    return await listed(hub, request, find, partial(_describe, hub))


async def delete(hub: Hub, request: Request) -> Response:
    """Delete a bucket."""
    bucket = await hub.writable(request, BUCKETS)
    async with hub.lock(bucket):
        uid = hub.uid_of(bucket)
        await hub.run(hub.buckets.delete, bucket)
    hub.bell.ring(uid)
    return Response(status_code=204)


async def change(hub: Hub, request: Request) -> Response:
    """Change the settings of a bucket."""
    bucket = await hub.writable(request, BUCKETS)
    body = await read_json(request)
    async with hub.lock(bucket):
        if body.get("private") is not None or body.get("visibility") is not None:
            await hub.run(hub.buckets.change, bucket, private=wants_private(body))
        settings = await hub.run(hub.buckets.settings, bucket)
    hub.bell.ring(settings.uid)
    return JSONResponse({"private": settings.private})


async def tree(hub: Hub, request: Request) -> Response:
    """List the files whose paths start with a prefix, one page at a time."""
    bucket = await hub.readable(request, BUCKETS)
    prefix = param(request, "prefix") if "prefix" in request.path_params else ""
    recursive = request.query_params.get("recursive", "true").lower() not in ("0", "false")
    limit = limit_of(request, _ENTRIES_PER_PAGE, _MOST_ENTRIES_PER_PAGE)
    after = request.query_params.get("cursor", "")

    def find() -> tuple[list[dict[str, Any]], str | None]:
        entries, more = hub.buckets.files(bucket).listing(prefix, after, limit, recursive=recursive)
        return [each.describe() for each in entries], more

    answer, more = await hub.run(find)
    return page_response(request, answer, cursor=more)


async def paths_info(hub: Hub, request: Request) -> Response:
    """Describe the given files; missing ones are omitted."""
    bucket = await hub.readable(request, BUCKETS)
    value = parse_json(await read_bytes(request), "The body")
    paths = value.get("paths") if isinstance(value, dict) else None
    if not isinstance(paths, list) or len(paths) > _MAX_PATHS or not all(isinstance(path, str) for path in paths):
        raise BadRequestError(f"The body needs a list of at most {_MAX_PATHS} paths.")
    files = await hub.run(hub.buckets.files, bucket)
    return JSONResponse([file.describe() for path in paths if (file := files.find(path))])


async def batch(hub: Hub, request: Request) -> Response:
    """Add, copy and delete files; each operation can fail on its own."""
    user, bucket = hub.require_user(request), await hub.writable(request, BUCKETS)
    operations = read_batch(await read_bytes(request, MAX_BATCH_BYTES))
    async with hub.lock(bucket):
        outcome = await hub.run(_carry_out, hub, user, bucket, operations)
    if outcome.changes:
        hub.bell.ring(hub.uid_of(bucket))
    return JSONResponse(outcome.describe(), outcome.status)


def _carry_out(hub: Hub, user: User, bucket: RepoId, operations: list[dict[str, Any]]) -> Outcome:
    files, uid = hub.buckets.files(bucket), hub.buckets.settings(bucket).uid
    may_read = hub.reader(user)

    def size_of(operation: dict[str, Any]) -> int:
        allowed = may_read
        if operation["type"] == "copyFile":
            allowed = _source_uid(hub, user, operation).__eq__
        return hub.xet.share_file(operation["xetHash"], [uid], allowed)

    outcome = judge_batch(operations, files, size_of)
    if outcome.changes:
        files.change(outcome.changes)
    return outcome


def _source_uid(hub: Hub, user: User, operation: dict[str, Any]) -> str:
    kind, name = operation.get("sourceRepoType"), operation.get("sourceRepoId")
    if not isinstance(name, str):
        raise BadRequestError("A copy needs the sourceRepoId of a bucket or repo.")
    kind = BUCKETS if kind == "bucket" else kind_of_type({"type": kind})
    return hub.uid_of(hub.find(RepoId(kind, *split_name(name)), user))


async def write_token(hub: Hub, request: Request) -> Response:
    """Issue a Xet token to upload to a bucket."""
    answer, headers = xet_grant(hub, request, WRITE, await hub.writable(request, BUCKETS))
    return JSONResponse(answer, headers=headers)


async def read_token(hub: Hub, request: Request) -> Response:
    """Issue a Xet token to download from a bucket."""
    answer, headers = xet_grant(hub, request, READ, await hub.readable(request, BUCKETS))
    return JSONResponse(answer, headers=headers)


async def resolve(hub: Hub, request: Request) -> Response:
    """Serve a file of a bucket, whole or in ranges."""
    bucket = await hub.readable(request, BUCKETS, people=True)
    path = param(request, "path")
    file = (await hub.run(hub.buckets.files, bucket)).find(path)
    if file is None:
        raise EntryNotFoundError(path)
    token_path = f"/api/{BUCKETS}/{bucket.full_name}/xet-read-token"
    headers = {
        **xet_headers(base_url(request), token_path, file.xet_hash),
        "ETag": f'"{file.xet_hash}"',
        "X-Linked-ETag": f'"{file.xet_hash}"',
        "X-Linked-Size": str(file.size),
        "Content-Disposition": f"inline; filename*=UTF-8''{quote(path.rpartition('/')[2])}",
        "Content-Type": _harmless(file),
        "X-Content-Type-Options": "nosniff",
    }
    if answer := info_response(request, headers, file.size):
        return answer

    def read(start: int, end: int) -> Generator[bytes, None, None]:
        return hub.xet.read(file.xet_hash, start, end)

    return await content_response(hub, request, file.size, read, headers)


def _harmless(file: BucketFile) -> str:
    # Files of other users must not be rendered as pages of this server.
    kind = file.content_type or mimetypes.guess_type(file.path)[0] or ""
    return "text/plain; charset=utf-8" if kind.startswith("text/") else "application/octet-stream"


async def events(hub: Hub, request: Request) -> Response:
    """Stream the changes of a bucket as they happen."""
    bucket, user = await hub.readable(request, BUCKETS), hub.caller(request)
    if hub.bell.listeners >= connection_limit() // 2:
        raise HubError(503, "There are too many event streams.", headers={"Retry-After": "30"})
    files = await hub.run(hub.buckets.files, bucket)
    uid, may_read = hub.uid_of(bucket), hub.reader(user)

    def current() -> BucketFiles | None:
        named = hub.buckets.index.with_uid(uid)
        return hub.buckets.files(named) if named and may_read(uid) else None

    start = _start(request, files)
    stream = follow(hub.bell, uid, start, current)
    return StreamingResponse(stream, headers={"Cache-Control": "no-store"}, media_type="text/event-stream")


def _start(request: Request, files: BucketFiles) -> int | None:
    cursor, since = request.query_params.get("cursor"), request.query_params.get("since")
    if cursor is not None:
        if not NUMBER.fullmatch(cursor):
            raise BadRequestError("This is no cursor of this Hub.")
        return int(cursor)
    if since is None:
        return None
    try:
        moment = datetime.fromisoformat(since.replace("Z", "+00:00"))
        seconds = moment.replace(tzinfo=moment.tzinfo or timezone.utc).timestamp()
    except (ValueError, OverflowError) as error:
        raise BadRequestError("`since` is no ISO 8601 time.") from error
    return files.sequence_at(round(seconds * 1000))


_BUCKET = "/api/buckets/{namespace}/{name}"
ROUTES = [
    route("/api/buckets/{namespace}", listing, "GET"),
    route(_BUCKET, create, "POST"),
    route(_BUCKET, info, "GET"),
    route(_BUCKET, delete, "DELETE"),
    route(_BUCKET + "/settings", change, "PUT"),
    route(_BUCKET + "/tree", tree, "GET"),
    route(_BUCKET + "/tree/{prefix:path}", tree, "GET"),
    route(_BUCKET + "/paths-info", paths_info, "POST"),
    route(_BUCKET + "/batch", batch, "POST"),
    route(_BUCKET + "/xet-write-token", write_token, "GET"),
    route(_BUCKET + "/xet-read-token", read_token, "GET"),
    route(_BUCKET + "/events", events, "GET"),
    route("/buckets/{namespace}/{name}/resolve/{path:path}", resolve, "GET", "HEAD"),
]
