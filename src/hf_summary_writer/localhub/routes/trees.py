"""Listing the files of a revision."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from starlette.responses import JSONResponse, Response

from hf_summary_writer.localhub.bodies import parse_json, read_bytes
from hf_summary_writer.localhub.errors import BadRequestError, EntryNotFoundError
from hf_summary_writer.localhub.routes import route
from hf_summary_writer.localhub.routes.repos import iso
from hf_summary_writer.localhub.urls import is_true, limit_of, page_response, param, revision_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import Request

    from hf_summary_writer.localhub.gitrepo import Entry, GitRepo
    from hf_summary_writer.localhub.hub import Hub
    from hf_summary_writer.localhub.lfs import LfsStore

_ENTRIES_PER_PAGE = 1000
_EXPANDED_ENTRIES_PER_PAGE = 50
_MAX_PATHS = 1000
_CURSOR = re.compile(r"(?P<commit>[0-9a-f]{40})-(?P<after>.+)", re.DOTALL)


async def tree(hub: Hub, request: Request) -> Response:
    """List a folder, or all below it, a page at a time."""
    repo = await hub.readable(request)
    path = param(request, "path").rstrip("/") if "path" in request.path_params else ""
    recursive, expand = (is_true(request.query_params.get(name)) for name in ("recursive", "expand"))
    most = _EXPANDED_ENTRIES_PER_PAGE if expand else _ENTRIES_PER_PAGE
    limit = limit_of(request, most, most)
    revision, after = _position(request)

    def find(git: GitRepo) -> tuple[list[dict[str, Any]], str | None]:
        head = git.resolve(revision)
        folder = git.entry(head, path)
        if folder is None or not folder.is_folder:
            raise EntryNotFoundError(path)
        entries = list(itertools.islice(git.walk(folder, recursive=recursive, after=after), limit + 1))
        cursor = f"{head}-{entries[limit - 1].path}" if len(entries) > limit else None
        return describe_all(git, hub.repos.lfs(repo), head, entries[:limit], expand=expand), cursor

    answer, cursor = await hub.on_git(repo, find)
    return page_response(request, answer, cursor=cursor)


def _position(request: Request) -> tuple[str, str]:
    """Return the revision, and the path of the last entry before the page."""
    cursor = request.query_params.get("cursor")
    if cursor is None:
        return revision_of(request), ""
    # All pages are of one commit: a branch may move between two of them.
    match = _CURSOR.fullmatch(cursor)
    if match is None:
        raise BadRequestError("This is no cursor of this Hub.")
    return match["commit"], match["after"]


async def paths_info(hub: Hub, request: Request) -> Response:
    """Describe the given files and folders; missing ones are omitted."""
    repo = await hub.readable(request)
    paths, expand = await _read_paths(request)

    def find(git: GitRepo) -> list[dict[str, Any]]:
        head = git.resolve(revision_of(request))
        found = [entry for path in paths if path.strip("/") and (entry := git.entry(head, path.strip("/")))]
        return describe_all(git, hub.repos.lfs(repo), head, found, expand=expand)

    return JSONResponse(await hub.on_git(repo, find))


async def _read_paths(request: Request) -> tuple[list[str], bool]:
    body = await read_bytes(request)
    try:
        if request.headers.get("content-type", "").startswith("application/json"):
            value = parse_json(body, "The body")
            paths, expand = value.get("paths", []), is_true(value.get("expand"))
        else:
            fields = parse_qsl(body.decode(), keep_blank_values=True)
            paths = [value for key, value in fields if key == "paths"]
            expand = any(is_true(value) for key, value in fields if key == "expand")
    except (ValueError, AttributeError) as error:
        raise BadRequestError(f"The body is no form and no JSON object: {error}") from error
    if isinstance(paths, str):
        paths = [paths]
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths) or len(paths) > _MAX_PATHS:
        raise BadRequestError(f"Give at most {_MAX_PATHS} paths.")
    return paths, expand


def describe_all(
    git: GitRepo, lfs: LfsStore, head: str, entries: Sequence[Entry], *, expand: bool
) -> list[dict[str, Any]]:
    """Return the Hub's description of tree entries; with `expand`, also the last commit that changed each."""
    answer = [_describe(git, lfs, entry) for entry in entries]
    if expand:
        last = git.last_commits(head, entries)
        for item in answer:
            commit = last[item["path"]]
            item["lastCommit"] = {"id": commit.oid, "title": commit.title, "date": iso(commit.time)}
    return answer


def _describe(git: GitRepo, lfs: LfsStore, entry: Entry) -> dict[str, Any]:
    if entry.is_folder:
        return {"type": "directory", "oid": entry.oid, "size": 0, "path": entry.path}
    size, pointer = git.describe(entry)
    answer: dict[str, Any] = {"type": "file", "oid": entry.oid, "size": size, "path": entry.path}
    if pointer:
        answer["size"] = pointer.size
        answer["lfs"] = {"oid": pointer.oid, "size": pointer.size, "pointerSize": size}
        if (stored := lfs.find(pointer.oid)) and stored.xet_hash:
            answer["xetHash"] = stored.xet_hash
    return answer


_REPO = "/api/{kind}/{namespace}/{name}"
ROUTES = [
    route(_REPO + "/tree/{revision}", tree, "GET"),
    route(_REPO + "/tree/{revision}/{path:path}", tree, "GET"),
    route(_REPO + "/paths-info/{revision}", paths_info, "POST"),
]
