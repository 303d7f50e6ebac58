"""Branches, tags and commits."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response

from hf_summary_writer.localhub.bodies import read_json, text_field
from hf_summary_writer.localhub.errors import BadRequestError, HubError, RevisionNotFoundError
from hf_summary_writer.localhub.gitrepo import HEADS, MAIN, TAGS
from hf_summary_writer.localhub.pulls import PULLS
from hf_summary_writer.localhub.routes import route
from hf_summary_writer.localhub.routes.repos import iso
from hf_summary_writer.localhub.urls import count_of, is_true, limit_of, page_response, param, revision_of

if TYPE_CHECKING:
    from starlette.requests import Request

    from hf_summary_writer.localhub.gitrepo import GitRepo
    from hf_summary_writer.localhub.hub import Hub

_MAX_SQUASH_MESSAGE = 500
_COMMITS_PER_PAGE = 50
_MOST_COMMITS_PER_PAGE = 1000


async def create_branch(hub: Hub, request: Request) -> Response:
    """Create a branch at a revision, at main's head without one."""
    repo, branch = await hub.writable(request), param(request, "branch")
    user, body = hub.require_user(request), await read_json(request)
    start, overwrite = text_field(body, "startingPoint", MAIN), body.get("overwrite") is True
    async with hub.lock(repo):
        if body.get("emptyBranch") is True:
            await hub.on_git(repo, _start, branch, user.name, overwrite=overwrite)
        else:
            await hub.on_git(repo, _point, HEADS + branch, start, overwrite=overwrite)
    return JSONResponse({"success": True}, 201)


async def create_tag(hub: Hub, request: Request) -> Response:
    """Create a tag at a revision."""
    repo = await hub.writable(request)
    body = await read_json(request)
    async with hub.lock(repo):
        await hub.on_git(repo, _point, TAGS + text_field(body, "tag"), revision_of(request))
    return JSONResponse({"success": True}, 201)


def _point(git: GitRepo, ref: str, revision: str, *, overwrite: bool = False) -> None:
    git.set_ref(ref, git.resolve(revision), _replaced(git, ref, overwrite=overwrite))


def _start(git: GitRepo, branch: str, author: str, *, overwrite: bool) -> None:
    git.start(branch, "Start an empty branch", author, _replaced(git, HEADS + branch, overwrite=overwrite))


def _replaced(git: GitRepo, ref: str, *, overwrite: bool) -> str | None:
    there = git.ref(ref)
    if there is not None and not overwrite:
        raise HubError(409, f"Reference {ref} already exists")
    return there


async def delete_branch(hub: Hub, request: Request) -> Response:
    """Delete a branch other than main."""
    repo, branch = await hub.writable(request), param(request, "branch")
    if branch == MAIN:
        raise HubError(403, "The branch main cannot be deleted.")
    async with hub.lock(repo):
        await hub.on_git(repo, _delete, HEADS + branch)
    return Response(status_code=204)


async def delete_tag(hub: Hub, request: Request) -> Response:
    """Delete a tag."""
    repo = await hub.writable(request)
    async with hub.lock(repo):
        await hub.on_git(repo, _delete, TAGS + revision_of(request))
    return Response(status_code=204)


def _delete(git: GitRepo, ref: str) -> None:
    if git.ref(ref) is None:
        raise RevisionNotFoundError(ref)
    git.delete_ref(ref)


async def refs(hub: Hub, request: Request) -> Response:
    """List branches and tags."""
    repo = await hub.readable(request)
    with_pulls = is_true(request.query_params.get("include_prs"))
    return JSONResponse(await hub.on_git(repo, _refs, with_pulls=with_pulls))


def _refs(git: GitRepo, *, with_pulls: bool) -> dict[str, Any]:
    branches, tags = (
        [{"name": name, "ref": prefix + name, "targetCommit": oid} for name, oid in git.refs(prefix).items()]
        for prefix in (HEADS, TAGS)
    )
    pulls = [{"name": PULLS + name, "ref": PULLS + name, "targetCommit": oid} for name, oid in git.refs(PULLS).items()]
    answer = {"branches": branches, "converts": [], "tags": tags}
    return {**answer, "pullRequests": pulls} if with_pulls else answer


async def squash(hub: Hub, request: Request) -> Response:
    """Make one commit of a branch's history."""
    user = hub.require_user(request)
    repo, branch = await hub.writable(request), param(request, "branch").removeprefix(HEADS)
    body = await read_json(request)
    message = text_field(body, "message", f"Super-squash branch '{branch}'")
    if len(message) > _MAX_SQUASH_MESSAGE:
        raise BadRequestError(f"The message of a squash has at most {_MAX_SQUASH_MESSAGE} characters.")
    async with hub.lock(repo):
        await hub.on_git(repo, _squash, branch, message, user.name)
    return JSONResponse({"success": True})


def _squash(git: GitRepo, branch: str, message: str, author: str) -> None:
    if git.ref(HEADS + branch) is None:
        raise RevisionNotFoundError(branch)
    git.squash(branch, message, author)


async def commits(hub: Hub, request: Request) -> Response:
    """List the commits that led to a revision, newest first, a page at a time."""
    repo = await hub.readable(request)
    page = count_of(request, "p", 0, 10**9)
    limit = limit_of(request, _COMMITS_PER_PAGE, _MOST_COMMITS_PER_PAGE)
    answer, total = await hub.on_git(repo, _commits, revision_of(request), page * limit, limit)
    response = page_response(request, answer, p=page + 1 if total > (page + 1) * limit else None)
    response.headers["X-Total-Count"] = str(total)
    return response


def _commits(git: GitRepo, revision: str, start: int, limit: int) -> tuple[list[dict[str, Any]], int]:
    ids = git.ids(git.resolve(revision))
    shown = list(itertools.islice(git.log(ids[start]), limit)) if start < len(ids) else []
    answer = [
        {
            "id": commit.oid,
            "title": commit.title,
            "message": commit.description,
            "authors": [{"user": commit.author}],
            "date": iso(commit.time),
        }
        for commit in shown
    ]
    return answer, len(ids)


_REPO = "/api/{kind}/{namespace}/{name}"
ROUTES = [
    route(_REPO + "/branch/{branch}", create_branch, "POST"),
    route(_REPO + "/branch/{branch}", delete_branch, "DELETE"),
    route(_REPO + "/tag/{revision}", create_tag, "POST"),
    route(_REPO + "/tag/{revision}", delete_tag, "DELETE"),
    route(_REPO + "/refs", refs, "GET"),
    route(_REPO + "/super-squash/{branch}", squash, "POST"),
    route(_REPO + "/commits/{revision}", commits, "GET"),
]
