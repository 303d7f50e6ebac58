"""Creating, describing, changing and deleting repos."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response

from hf_summary_writer.localhub.bodies import read_json, text_field
from hf_summary_writer.localhub.errors import BadRequestError, HubError, RepoNotFoundError
from hf_summary_writer.localhub.gitrepo import MAIN
from hf_summary_writer.localhub.names import KINDS, RepoId, check_name
from hf_summary_writer.localhub.repos import SDKS, Settings
from hf_summary_writer.localhub.routes import route
from hf_summary_writer.localhub.urls import base_url, count_of, is_true, limit_of, page_response, revision_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

    from hf_summary_writer.localhub.accounts import User
    from hf_summary_writer.localhub.gitrepo import Entry, GitRepo
    from hf_summary_writer.localhub.hub import Hub


_MOST_LISTED = 1000


def iso(seconds: float) -> str:
    """Return a Unix time as the Hub writes it."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def kind_of_type(body: dict[str, Any]) -> str:
    """Return the kind that the field `type` of a request names."""
    kind = f"{text_field(body, 'type', 'model')}s"
    if kind not in KINDS:
        raise BadRequestError(f"There is no repo type {body['type']!r}: use model, dataset or space.")
    return kind


def _named(body: dict[str, Any], user: User) -> RepoId:
    repo = RepoId(kind_of_type(body), text_field(body, "organization", user.name), text_field(body, "name"))
    check_name(repo.namespace, repo.name)
    return repo


def wants_private(body: dict[str, Any]) -> bool:
    """Return whether a request asks for a private repo."""
    visibility: object = body.get("visibility")
    if visibility is None:
        return body.get("private") is True
    if visibility not in ("public", "private"):
        raise BadRequestError(f"There is no visibility {visibility!r} here: use public or private.")
    return visibility == "private"


async def listed(
    hub: Hub, request: Request, find: Callable[[], list[RepoId]], describe: Callable[[RepoId], dict[str, Any]]
) -> Response:
    """Return a page of the repos or buckets that `find` returns and the query searches."""
    search = request.query_params.get("search", "").lower()
    start, limit = count_of(request, "cursor", 0, 10**9), limit_of(request, _MOST_LISTED, _MOST_LISTED)

    def page() -> tuple[list[dict[str, Any]], int | None]:
        found = [repo for repo in find() if search in repo.full_name.lower()]
        items = []
        for repo in found[start : start + limit]:
            # A repo may be deleted during the iteration.
            with suppress(RepoNotFoundError):
                items.append(describe(repo))
        return items, start + limit if len(found) > start + limit else None

    items, cursor = await hub.run(page)
    return page_response(request, items, cursor=cursor)


async def create(hub: Hub, request: Request) -> Response:
    """Create a repo."""
    user = hub.require_user(request)
    body = await read_json(request)
    repo = _named(body, user)
    hub.require_writer(request, repo.namespace)
    settings = Settings(private=wants_private(body))
    if repo.kind == "spaces":
        sdk = text_field(body, "sdk", "")
        if sdk not in SDKS:
            raise BadRequestError(f"A Space needs an sdk: one of {', '.join(SDKS)}.")
        settings = Settings(private=settings.private, sdk=sdk)
    async with hub.lock(repo):
        if there := hub.repos.index.find(repo):
            url = base_url(request) + there.page
            raise HubError(409, f"You already created this {repo.kind[:-1]} repo", url=url)
        await hub.run(hub.repos.create, repo, settings, user.name)
    url = base_url(request) + repo.page
    return JSONResponse({"url": url, "name": repo.full_name, "id": repo.full_name, "private": settings.private})


async def delete(hub: Hub, request: Request) -> Response:
    """Delete a repo."""
    user = hub.require_user(request)
    asked = _named(await read_json(request), user)
    async with hub.lock(asked):
        repo = hub.repos.index.find(asked)
        if repo is None or not hub.may_read(user, repo, (await hub.run(hub.repos.settings, repo)).private):
            raise RepoNotFoundError
        hub.require_writer(request, repo.namespace)
        await hub.run(hub.repos.delete, repo)
    return Response(status_code=200)


async def info(hub: Hub, request: Request) -> Response:
    """Describe a repo, at its main branch or at a revision."""
    repo = await hub.readable(request)
    revision = revision_of(request) if "revision" in request.path_params else None
    return JSONResponse(await hub.run(describe, hub, repo, revision, blobs=is_true(request.query_params.get("blobs"))))


def describe(hub: Hub, repo: RepoId, revision: str | None = None, *, blobs: bool = False) -> dict[str, Any]:
    """Return the Hub's description of a repo; with `blobs`, also the size and hash of each file."""
    settings = hub.repos.settings(repo)
    with hub.repos.git(repo) as git:
        head = git.resolve(revision or MAIN)
        files = [entry for entry in git.walk(git.root(head), recursive=True) if not entry.is_folder]
        siblings = [{"rfilename": entry.path, **(_blob(git, entry) if blobs else {})} for entry in files]
        changed = next(git.log(head)).time
    about = {
        "_id": settings.uid,
        "id": repo.full_name,
        "author": repo.namespace,
        "sha": head,
        "private": settings.private,
        "gated": False,
        "disabled": False,
        "createdAt": iso(settings.created),
        "lastModified": iso(changed),
        "likes": 0,
        "downloads": 0,
        "tags": [],
        "siblings": siblings,
    }
    if repo.kind == "models":
        about["modelId"] = repo.full_name
    if settings.sdk:
        about["sdk"] = settings.sdk
    return about


def _blob(git: GitRepo, entry: Entry) -> dict[str, Any]:
    size, pointer = git.describe(entry)
    if pointer is None:
        return {"blobId": entry.oid, "size": size}
    lfs = {"sha256": pointer.oid, "size": pointer.size, "pointerSize": size}
    return {"blobId": entry.oid, "size": pointer.size, "lfs": lfs}


ROUTES = [
    route("/api/repos/create", create, "POST"),
    route("/api/repos/delete", delete, "DELETE"),
    route("/api/{kind}/{namespace}/{name}", info, "GET"),
    route("/api/{kind}/{namespace}/{name}/revision/{revision}", info, "GET"),
]
