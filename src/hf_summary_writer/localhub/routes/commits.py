"""Upload modes of files, and commits."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response

from hf_summary_writer.localhub.attributes import UploadRules
from hf_summary_writer.localhub.bodies import read_json, receive, text_field
from hf_summary_writer.localhub.errors import BadRequestError, ForbiddenError, HubError, RevisionNotFoundError
from hf_summary_writer.localhub.gitrepo import HEADS, MAIN, STALE, abbreviates
from hf_summary_writer.localhub.operations import MAX_COMMIT_BYTES, CommitRequest, check_path, read_commit
from hf_summary_writer.localhub.pulls import MAX_TITLE_CHARACTERS, OPEN, PULL, PULLS
from hf_summary_writer.localhub.routes import route
from hf_summary_writer.localhub.urls import base_url, is_true, revision_of

if TYPE_CHECKING:
    from starlette.requests import Request

    from hf_summary_writer.localhub.accounts import User
    from hf_summary_writer.localhub.gitrepo import GitRepo
    from hf_summary_writer.localhub.hub import Hub
    from hf_summary_writer.localhub.names import RepoId

MAX_PREUPLOAD_FILES = 1000


async def preupload(hub: Hub, request: Request) -> Response:
    """Return for each file its upload mode, whether it is ignored, and the id of the existing file at its path."""
    repo = await hub.uploadable(request)
    body = await read_json(request)
    files = body.get("files")
    if not isinstance(files, list) or not all(isinstance(file, dict) for file in files):
        raise BadRequestError("The body needs a list of files.")
    if len(files) > MAX_PREUPLOAD_FILES:
        raise BadRequestError(f"Ask about at most {MAX_PREUPLOAD_FILES} files at once; these are {len(files)}.")
    ignore = text_field(body, "gitIgnore", "") if body.get("gitIgnore") is not None else None
    answer = await hub.on_git(repo, _plan, revision_of(request), files, ignore)
    return JSONResponse({"files": answer})


def _plan(git: GitRepo, revision: str, files: list[dict[str, Any]], ignore: str | None) -> list[dict[str, Any]]:
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
        _, pointer = git.describe(entry)
        answer["oid"] = pointer.oid if pointer else entry.oid
    return answer


def _file(git: GitRepo, head: str, path: str) -> bytes:
    entry = git.entry(head, path)
    return git.blob(entry.oid) if entry and not entry.is_folder else b""


async def commit(hub: Hub, request: Request) -> Response:
    """Commit the operations of the body to a branch, to a pull request, or as a new pull request."""
    user, repo = hub.require_user(request), await hub.uploadable(request)
    revision, as_pull = revision_of(request), is_true(request.query_params.get("create_pr"))
    if as_pull and revision not in (MAIN, HEADS + MAIN):
        raise BadRequestError("A pull request is for the branch main.")
    ref = revision if revision.startswith(("refs/heads/", PULLS)) else HEADS + revision
    async with receive(request, hub.disk, MAX_COMMIT_BYTES) as upload:
        asked = await hub.run(read_commit, upload.file, hub.repos.lfs(repo))
        async with hub.lock(repo):
            oid, number = await hub.run(_propose if as_pull else _commit, hub, repo, ref, asked, user)
    base = f"{base_url(request)}{repo.page}"
    answer = {"success": True, "commitOid": oid, "commitUrl": f"{base}/commit/{oid}", "hookOutput": ""}
    if number:
        answer["pullRequestUrl"] = f"{base}/discussions/{number}"
    return JSONResponse(answer)


def _commit(hub: Hub, repo: RepoId, ref: str, asked: CommitRequest, user: User) -> tuple[str, int]:
    # The repo may have been deleted or changed during the upload of the body.
    hub.repos.settings(repo)
    pull = hub.repos.pulls(repo).get(int(ref.removeprefix(PULLS))) if PULL.fullmatch(ref) else None
    if pull and not (pull.author == user.name or hub.accounts.may_use(user, repo.namespace)):
        raise ForbiddenError("This pull request is somebody else's.")
    if pull and pull.is_settled:
        raise BadRequestError(f"This pull request is {pull.status}.")
    with hub.repos.git(repo) as git:
        head = git.ref(ref)
        if head is None:
            raise RevisionNotFoundError(ref.removeprefix(HEADS))
        if asked.parent is not None and not abbreviates(asked.parent, head):
            raise HubError(412, STALE)
        with hub.limits.commit():
            oid = git.commit(ref, head, asked.apply, asked.message, user.name)
    return oid, 0


def _propose(hub: Hub, repo: RepoId, ref: str, asked: CommitRequest, user: User) -> tuple[str, int]:
    """Create a pull request with the commit."""
    pulls = hub.repos.pulls(repo)
    with hub.repos.git(repo) as git:
        history = (commit.oid for commit in git.log(git.resolve(ref)))
        base = next((oid for oid in history if asked.parent is None or abbreviates(asked.parent, oid)), None)
        if base is None:
            raise HubError(412, STALE)
        summary, _, description = asked.message.partition("\n")
        pull = pulls.new(summary[:MAX_TITLE_CHARACTERS], user.name, base)
        with hub.limits.commit():
            oid = git.commit(pull.ref, None, asked.apply, asked.message, user.name, base=pull.base)
    if description.strip():
        pull.comment(user.name, description.strip())
    pull.status = OPEN
    pulls.save(pull)
    return oid, pull.number


ROUTES = [
    route("/api/{kind}/{namespace}/{name}/preupload/{revision}", preupload, "POST"),
    route("/api/{kind}/{namespace}/{name}/commit/{revision}", commit, "POST"),
]
