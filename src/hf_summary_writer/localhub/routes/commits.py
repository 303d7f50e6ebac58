"""Asking how to upload, and committing."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from hf_summary_writer.localhub.attributes import UploadRules
from hf_summary_writer.localhub.bodies import read_json, receive, text_field
from hf_summary_writer.localhub.errors import BadRequestError, HubError, RevisionNotFoundError
from hf_summary_writer.localhub.gitrepo import HEADS, STALE
from hf_summary_writer.localhub.hub import Hub, base_url
from hf_summary_writer.localhub.operations import MAX_COMMIT_BYTES, CommitRequest, check_path, read_commit
from hf_summary_writer.localhub.urls import revision_of

if TYPE_CHECKING:
    from starlette.requests import Request

    from hf_summary_writer.localhub.gitrepo import GitRepo
    from hf_summary_writer.localhub.names import RepoId

MAX_PREUPLOAD_FILES = 1000


async def preupload(request: Request) -> Response:
    """Say of each file whether it is wanted, how to upload it, and what is there under its name."""
    hub: Hub = request.app.state.hub
    repo = await hub.writable(request)
    body = await read_json(request)
    files = body.get("files")
    if not isinstance(files, list) or not all(isinstance(file, dict) for file in files):
        raise BadRequestError("The body needs a list of files.")
    if len(files) > MAX_PREUPLOAD_FILES:
        raise BadRequestError(f"Ask about at most {MAX_PREUPLOAD_FILES} files at once; these are {len(files)}.")
    ignore = text_field(body, "gitIgnore", "") if body.get("gitIgnore") is not None else None
    answer = await hub.run(_plan, hub, repo, revision_of(request), files, ignore)
    return JSONResponse({"files": answer})


def _plan(
    hub: Hub, repo: RepoId, revision: str, files: list[dict[str, Any]], ignore: str | None
) -> list[dict[str, Any]]:
    with hub.repos.git(repo) as git:
        head = git.resolve(revision)
        ignored = _file(git, head, ".gitignore") if ignore is None else ignore.encode()
        rules = UploadRules(_file(git, head, ".gitattributes"), ignored)
        return [_plan_one(git, head, rules, file) for file in files]


def _plan_one(git: GitRepo, head: str, rules: UploadRules, file: dict[str, Any]) -> dict[str, Any]:
    path, size = text_field(file, "path"), file.get("size")
    check_path(path)
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise BadRequestError(f"The size of {path} must be a number of bytes.")
    try:
        sample = base64.b64decode(text_field(file, "sample", ""), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRequestError(f"The sample of {path} is not base64.") from error
    answer: dict[str, Any] = {
        "path": path,
        "uploadMode": "lfs" if rules.is_large(path, size, sample) else "regular",
        "shouldIgnore": rules.is_ignored(path),
    }
    if (entry := git.entry(head, path)) and not entry.is_folder:
        pointer = git.pointer(entry)
        answer["oid"] = pointer.oid if pointer else entry.oid
    return answer


def _file(git: GitRepo, head: str, path: str) -> bytes:
    entry = git.entry(head, path)
    return git.blob(entry.oid) if entry and not entry.is_folder else b""


async def commit(request: Request) -> Response:
    """Commit what the lines of the body say."""
    hub: Hub = request.app.state.hub
    user, repo = hub.require_user(request), await hub.writable(request)
    branch = revision_of(request).removeprefix(HEADS)
    if request.query_params.get("create_pr") in ("1", "true"):
        raise HubError(403, "Pull requests are not part of the local Hub: commit to a branch.")
    async with receive(request, hub.disk, MAX_COMMIT_BYTES) as upload:
        asked = await hub.run(read_commit, upload.file, hub.repos.lfs(repo))
        async with hub.lock(repo):
            oid = await hub.run(_commit, hub, repo, branch, asked, user.name)
    url = f"{base_url(request)}{repo.page}/commit/{oid}"
    return JSONResponse({"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": ""})


def _commit(hub: Hub, repo: RepoId, branch: str, asked: CommitRequest, author: str) -> str:
    # The repo may have gone, or changed, while the body arrived.
    hub.repos.settings(repo)
    with hub.repos.git(repo) as git:
        head = git.ref(HEADS + branch)
        if head is None:
            raise RevisionNotFoundError(branch)
        if asked.parent not in (None, head):
            raise HubError(412, STALE)
        hub.limits.check_commit()
        oid = git.commit(branch, head, asked.apply, asked.message, author)
        hub.limits.count_commit()
        return oid


ROUTES = [
    Route("/api/{kind}/{namespace}/{name}/preupload/{revision}", preupload, methods=["POST"]),
    Route("/api/{kind}/{namespace}/{name}/commit/{revision}", commit, methods=["POST"]),
]
