"""Large files as one object each: the Git LFS batch API, and the URLs it hands out."""

from __future__ import annotations

import hashlib
import math
import re
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response

from hf_summary_writer.localhub.bodies import read_json, receive, text_field
from hf_summary_writer.localhub.errors import BadRequestError, HubError, RepoNotFoundError
from hf_summary_writer.localhub.gitrepo import MAIN
from hf_summary_writer.localhub.lfs import MAX_FILE_BYTES, SHA256
from hf_summary_writer.localhub.names import RepoId, split_name
from hf_summary_writer.localhub.ranges import content_response
from hf_summary_writer.localhub.routes import of_repo, route
from hf_summary_writer.localhub.routes.cas import WRITE, xet_grant
from hf_summary_writer.localhub.routes.repos import kind_of_type
from hf_summary_writer.localhub.urls import NUMBER, base_url, hash_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from starlette.requests import Request

    from hf_summary_writer.localhub.hub import Hub

_TYPE = {"Content-Type": "application/vnd.git-lfs+json"}
_MAX_OBJECTS = 1000
_MAX_PARTS = 10_000
_PART = re.compile(r"[1-9]\d{0,4}")
_UPLOAD, _PART_UPLOAD, _COMPLETION, _DOWNLOAD = "lfs-upload", "lfs-part", "lfs-complete", "lfs-download"


def _objects(body: dict[str, Any]) -> list[tuple[str, int]]:
    objects = body.get("objects")
    if not isinstance(objects, list) or len(objects) > _MAX_OBJECTS:
        raise BadRequestError(f"The body needs a list of at most {_MAX_OBJECTS} objects.")
    return [_object(item) for item in objects]


def _object(item: Any) -> tuple[str, int]:
    oid, size = (item.get("oid"), item.get("size")) if isinstance(item, dict) else (None, None)
    if not isinstance(oid, str) or not SHA256.fullmatch(oid):
        raise HubError(422, "An object needs an oid, 64 hexadecimal digits.")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= MAX_FILE_BYTES:
        raise HubError(422, f"An object needs a size, at most {MAX_FILE_BYTES} bytes.")
    return oid, size


class _Links:
    """Creates the signed URLs of one batch response."""

    def __init__(self, hub: Hub, repo: RepoId, base: str, part_bytes: int = MAX_FILE_BYTES) -> None:
        self._hub = hub
        self._part_bytes = part_bytes
        self._repo = repo
        self._url = f"{base}/lfs-objects/{repo.kind}/{repo.full_name}"

    def link(self, purpose: str, oid: str, size: int, part: int | None = None) -> str:
        """Return a URL that allows its bearer one action for a limited time."""
        subject = _subject(self._repo, oid, size, part)
        grant, _ = self._hub.signer.grant(purpose, subject)
        path = f"{oid}/{size}" if part is None else f"{oid}/{size}/{part}"
        return f"{self._url}/{path}?grant={grant}"

    def actions(self, oid: str, size: int) -> dict[str, Any]:
        """Return the upload actions of an object: one request, or one for each part of a large object."""
        verify = {"href": self._url.replace("/lfs-objects/", "/lfs-verify/", 1)}
        if size <= self._part_bytes:
            return {"upload": {"href": self.link(_UPLOAD, oid, size)}, "verify": verify}
        parts = math.ceil(size / self._part_bytes)
        header = {str(part): self.link(_PART_UPLOAD, oid, size, part) for part in range(1, parts + 1)}
        header["chunk_size"] = str(self._part_bytes)
        return {"upload": {"href": self.link(_COMPLETION, oid, size), "header": header}, "verify": verify}


class _XetLinks(_Links):
    """Upload actions for Xet clients: the URL and the headers of a Xet token."""

    def __init__(self, hub: Hub, request: Request, repo: RepoId) -> None:
        base = base_url(request)
        super().__init__(hub, repo, base)
        _, header = xet_grant(hub, request, WRITE, repo)
        self._upload = {"href": f"{base}/api/{repo.kind}/{repo.full_name}/xet-write-token/{MAIN}", "header": header}

    def actions(self, oid: str, size: int) -> dict[str, Any]:
        """Return the upload action of an object; it is the same for all objects."""
        return {"upload": self._upload, "verify": super().actions(oid, size)["verify"]}


def _subject(repo: RepoId, oid: str, size: int, part: int | None) -> str:
    return f"{repo.kind}/{repo.full_name}/{oid}/{size}/{part or ''}"


async def batch(hub: Hub, request: Request) -> Response:
    """Return for each object whether it exists, and its upload or download actions."""
    # Git sends the token as a password, which is accepted for downloads.
    repo = await hub.readable(request, people=True)
    body = await read_json(request)
    operation, transfers = body.get("operation"), body.get("transfers") or ["basic"]
    if operation not in ("upload", "download") or not isinstance(transfers, list):
        raise BadRequestError("The operation must be upload or download, and the transfers a list.")
    if operation == "upload":
        # The request does not tell whether it is for a branch or a pull request; the commit checks that.
        await hub.proposable(request)
    objects = _objects(body)
    # Only a client that names the transfer "multipart" can upload in parts.
    part_bytes = hub.multipart_bytes if "multipart" in transfers else MAX_FILE_BYTES
    if sum(size // part_bytes for _, size in objects) > _MAX_PARTS:
        raise HubError(422, f"These objects take more than {_MAX_PARTS} parts: ask about fewer at once.")
    by_xet = operation == "upload" and "xet" in transfers
    links = _XetLinks(hub, request, repo) if by_xet else _Links(hub, repo, base_url(request), part_bytes)
    answer = await hub.run(_batch, hub, repo, objects, links, operation)
    transfer = "xet" if by_xet else "basic"
    if transfer == "basic" and any("header" in item.get("actions", {}).get("upload", {}) for item in answer):
        transfer = "multipart"
    return JSONResponse({"transfer": transfer, "objects": answer, "hash_algo": "sha256"}, headers=_TYPE)


def _batch(
    hub: Hub, repo: RepoId, objects: list[tuple[str, int]], links: _Links, operation: str
) -> list[dict[str, Any]]:
    lfs, answer = hub.repos.lfs(repo), []
    for oid, size in objects:
        item: dict[str, Any] = {"oid": oid, "size": size}
        stored = lfs.find(oid)
        if stored and stored.size != size:
            item["error"] = {"code": 422, "message": f"The object {oid} has {stored.size} bytes, not {size}."}
        elif operation == "download":
            if stored:
                item["actions"] = {"download": {"href": links.link(_DOWNLOAD, oid, size)}}
            else:
                item["error"] = {"code": 404, "message": f"The object {oid} is not there."}
        elif not stored:
            item["actions"] = links.actions(oid, size)
        answer.append(item)
    return answer


def _granted(hub: Hub, request: Request, purpose: str) -> tuple[RepoId, str, int, int | None]:
    params = request.path_params
    repo = RepoId(params["kind"], params["namespace"], params["name"])
    if not NUMBER.fullmatch(params["size"]):
        raise BadRequestError(f"{params['size'][:80]!r} is no size.")
    oid, size = hash_of(request, "oid"), int(params["size"])
    part = params.get("part")
    if part is not None and (not _PART.fullmatch(part) or int(part) > _MAX_PARTS):
        raise BadRequestError(f"{part!r} is no number of a part.")
    number = int(part) if part else None
    hub.signer.check(request.query_params.get("grant", ""), purpose, _subject(repo, oid, size, number))
    return _current(hub, repo), oid, size, number


def _current(hub: Hub, repo: RepoId) -> RepoId:
    """Return a repo by its current or a former name."""
    found = hub.repos.index.find(repo) or hub.repos.index.find_former(repo)
    if found is None:
        raise RepoNotFoundError
    return found


async def upload(hub: Hub, request: Request) -> Response:
    """Receive a whole object."""
    repo, oid, size, _ = _granted(hub, request, _UPLOAD)
    async with receive(request, hub.disk, size) as body:
        if body.size != size or body.sha256 != oid:
            raise BadRequestError(f"The body is not the object {oid} of {size} bytes.")
        # The repo may have been renamed or deleted during the upload.
        await hub.run(hub.repos.lfs(_current(hub, repo)).add_object, body.path, oid)
    return Response(status_code=200)


def _part_path(hub: Hub, repo: RepoId, oid: str, size: int, part: int) -> Path:
    return hub.disk.part(f"{hub.uid_of(repo)}-{oid}-{size}-{part}")


async def upload_part(hub: Hub, request: Request) -> Response:
    """Receive one part of an object."""
    repo, oid, size, part = _granted(hub, request, _PART_UPLOAD)
    number = part or 1
    expected = min(hub.multipart_bytes, size - (number - 1) * hub.multipart_bytes)
    async with receive(request, hub.disk, hub.multipart_bytes) as body:
        if body.size != expected:
            raise BadRequestError(f"Part {number} of the object {oid} must have {expected} bytes.")
        await hub.run(body.path.replace, _part_path(hub, repo, oid, size, number))
        etag = body.sha256
    return Response(status_code=200, headers={"ETag": f'"{etag}"'})


async def complete(hub: Hub, request: Request) -> Response:
    """Join the parts of an object."""
    repo, oid, size, _ = _granted(hub, request, _COMPLETION)
    body = await read_json(request)
    parts = body.get("parts")
    expected = list(range(1, math.ceil(size / hub.multipart_bytes) + 1))
    if not isinstance(parts, list) or [isinstance(p, dict) and p.get("partNumber") for p in parts] != expected:
        raise BadRequestError(f"The completion must list the parts 1 to {len(expected)}.")
    await hub.run(_join, hub, repo, oid, size, [str(part.get("etag", "")).strip('"') for part in parts])
    return JSONResponse({"success": True})


def _join(hub: Hub, repo: RepoId, oid: str, size: int, etags: list[str]) -> None:
    lfs, digest = hub.repos.lfs(repo), hashlib.sha256()
    if lfs.find(oid):
        return
    paths = [_part_path(hub, repo, oid, size, part) for part in range(1, len(etags) + 1)]
    with hub.disk.temporary() as (whole, whole_path):
        for path, etag in zip(paths, etags, strict=True):
            part_digest = hashlib.sha256()
            try:
                with path.open("rb") as file:
                    while piece := file.read(1024 * 1024):
                        digest.update(piece)
                        part_digest.update(piece)
                        whole.write(piece)
            except FileNotFoundError as error:
                raise BadRequestError(f"A part of the object {oid} was never uploaded.") from error
            if part_digest.hexdigest() != etag:
                raise BadRequestError(f"The ETag of a part of the object {oid} is wrong.")
        if digest.hexdigest() != oid:
            raise BadRequestError(f"The parts do not make the object {oid}.")
        whole.flush()
        lfs.add_object(whole_path, oid)
    for path in paths:
        path.unlink(missing_ok=True)


async def verify(hub: Hub, request: Request) -> Response:
    """Check that an object was uploaded with its size."""
    repo, _ = await hub.proposable(request)
    oid, size = _object(await read_json(request))
    stored = await hub.run(hub.repos.lfs(repo).find, oid)
    if stored is None:
        raise HubError(404, f"The object {oid} is not there.")
    if stored.size != size:
        raise HubError(422, f"The object {oid} has {stored.size} bytes, not {size}.")
    return JSONResponse({"message": "ok"}, headers=_TYPE)


async def duplicate(hub: Hub, request: Request) -> Response:
    """Register large files of a repo in another one, so that a commit there can use them."""
    source = await hub.readable(request)
    user = hub.require_user(request)
    body = await read_json(request)
    target, files = body.get("target"), body.get("files")
    if not isinstance(target, dict) or not isinstance(files, list) or len(files) > _MAX_OBJECTS:
        raise BadRequestError(f"The body needs a target and at most {_MAX_OBJECTS} files.")
    asked = RepoId(kind_of_type(target), *split_name(text_field(target, "name")))
    destination = hub.repos.index.find(asked)
    if destination is None:
        raise RepoNotFoundError
    hub.require_writer(request, destination.namespace)
    hashes = [text_field(file if isinstance(file, dict) else {}, "sha256") for file in files]
    failed = await hub.run(_duplicate, hub, source, destination, hashes, hub.reader(user))
    return JSONResponse({"failed": failed})


def _duplicate(
    hub: Hub, source: RepoId, target: RepoId, hashes: list[str], may_read: Callable[[str], bool]
) -> list[dict[str, str]]:
    there, here, failed = hub.repos.lfs(source), hub.repos.lfs(target), []
    uid = hub.repos.settings(target).uid
    for oid in hashes:
        stored = there.find(oid) if SHA256.fullmatch(oid) else None
        if stored is None or stored.xet_hash is None:
            failed.append({"sha256": oid, "error": "The file is not there, or was not uploaded with Xet."})
            continue
        hub.xet.share_file(stored.xet_hash, [uid], may_read)
        here.add_link(oid, stored.xet_hash, stored.size)
    return failed


async def download(hub: Hub, request: Request) -> Response:
    """Serve a whole object, or ranges of it."""
    repo, oid, size, _ = _granted(hub, request, _DOWNLOAD)
    lfs = hub.repos.lfs(repo)
    stored = await hub.run(lfs.find, oid)
    if stored is None:
        raise HubError(404, f"The object {oid} is not there.")
    return await content_response(hub, request, size, lambda start, end: lfs.read(stored, start, end), {})


_OBJECT = "/lfs-objects/{kind}/{namespace}/{name}/{oid}/{size}"
ROUTES = [
    *of_repo(".git/info/lfs/objects/batch", batch, "POST"),
    route(_OBJECT, download, "GET", "HEAD"),
    route(_OBJECT, upload, "PUT"),
    route(_OBJECT, complete, "POST"),
    route(_OBJECT + "/{part}", upload_part, "PUT"),
    route("/api/{kind}/{namespace}/{name}/lfs-files/duplicate", duplicate, "POST"),
    route("/lfs-verify/{kind}/{namespace}/{name}", verify, "POST"),
]
