"""Downloading files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from hf_summary_writer.localhub.errors import EntryNotFoundError, HubError
from hf_summary_writer.localhub.lfs import MAX_POINTER_BYTES, StoredFile, parse_pointer
from hf_summary_writer.localhub.ranges import content_response
from hf_summary_writer.localhub.routes import of_repo
from hf_summary_writer.localhub.routes.xetfiles import info_response, xet_headers
from hf_summary_writer.localhub.urls import base_url, param, revision_of

if TYPE_CHECKING:
    from collections.abc import Generator

    from starlette.requests import Request
    from starlette.responses import Response

    from hf_summary_writer.localhub.hub import Hub
    from hf_summary_writer.localhub.names import RepoId


@dataclass(frozen=True, slots=True)
class _Found:
    commit: str
    etag: str
    size: int
    content: bytes | StoredFile


async def resolve(hub: Hub, request: Request) -> Response:
    """Serve a file of a revision, whole or in ranges, from Git, LFS or Xet storage."""
    repo = await hub.readable(request, people=True)
    path = param(request, "path")
    found = await hub.run(_find, hub, repo, revision_of(request), path)
    headers, content = _headers(found, path), found.content
    if isinstance(content, bytes):
        return await _small(hub, request, content, headers)
    headers["X-Linked-Size"], headers["X-Linked-ETag"] = str(found.size), headers["ETag"]
    if content.xet_hash:
        token_path = f"/api/{repo.kind}/{repo.full_name}/xet-read-token/{found.commit}"
        headers |= xet_headers(base_url(request), token_path, content.xet_hash)
        if info := info_response(request, headers, found.size):
            return info

    def read(start: int, end: int) -> Generator[bytes, None, None]:
        return hub.repos.lfs(repo).read(content, start, end)

    return await content_response(hub, request, found.size, read, headers)


async def raw(hub: Hub, request: Request) -> Response:
    """Serve the Git blob of a file: for a large file, its LFS pointer."""
    repo = await hub.readable(request, people=True)
    path = param(request, "path")
    found = await hub.run(_find, hub, repo, revision_of(request), path, raw=True)
    return await _small(hub, request, found.content if isinstance(found.content, bytes) else b"", _headers(found, path))


def _headers(found: _Found, path: str) -> dict[str, str]:
    return {
        "ETag": f'"{found.etag}"',
        "X-Repo-Commit": found.commit,
        "Content-Disposition": f"inline; filename*=UTF-8''{quote(path.rpartition('/')[2])}",
        "X-Content-Type-Options": "nosniff",
    }


async def _small(hub: Hub, request: Request, content: bytes, headers: dict[str, str]) -> Response:
    # Files of other users must not be rendered as pages of this server.
    headers = {**headers, "Content-Type": "text/plain; charset=utf-8"}
    return await content_response(hub, request, len(content), lambda start, end: _part(content, start, end), headers)


def _part(content: bytes, start: int, end: int) -> Generator[bytes, None, None]:
    yield content[start:end]


def _find(hub: Hub, repo: RepoId, revision: str, path: str, *, raw: bool = False) -> _Found:
    with hub.repos.git(repo) as git:
        commit = git.resolve(revision)
        entry = git.entry(commit, path)
        if entry is None or entry.is_folder:
            error = EntryNotFoundError(path)
            # The client caches, for this commit, that the file does not exist.
            error.headers["X-Repo-Commit"] = commit
            raise error
        blob = git.blob(entry.oid)
    pointer = parse_pointer(blob) if len(blob) <= MAX_POINTER_BYTES and not raw else None
    if pointer is None:
        return _Found(commit, entry.oid, len(blob), blob)
    stored = hub.repos.lfs(repo).find(pointer.oid)
    if stored is None:
        raise HubError(500, f"The content of {path} is missing in the store of this Hub.")
    return _Found(commit, pointer.oid, pointer.size, stored)


ROUTES = [
    *of_repo("/resolve/{revision}/{path:path}", resolve, "GET", "HEAD"),
    *of_repo("/raw/{revision}/{path:path}", raw, "GET", "HEAD"),
]
