"""Listing, renaming and changing repos, and validating the metadata of their cards."""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response

from hf_summary_writer.localhub.bodies import read_json, text_field
from hf_summary_writer.localhub.cards import check_card
from hf_summary_writer.localhub.errors import BadRequestError, HubError
from hf_summary_writer.localhub.names import BUCKETS, KINDS, RepoId, check_name, split_name
from hf_summary_writer.localhub.routes import route
from hf_summary_writer.localhub.routes.repos import describe, iso, kind_of_type, listed, wants_private
from hf_summary_writer.localhub.urls import base_url

if TYPE_CHECKING:
    from starlette.requests import Request

    from hf_summary_writer.localhub.hub import Hub


async def change(hub: Hub, request: Request) -> Response:
    """Change the visibility of a repo; the Hub's other settings have no effect here."""
    repo = await hub.writable(request)
    body = await read_json(request)
    if body.get("gated") not in (None, False):
        raise BadRequestError("The local Hub has no gated repos.")
    async with hub.lock(repo):
        if body.get("private") is not None or body.get("visibility") is not None:
            await hub.run(hub.repos.change, repo, private=wants_private(body))
        settings = await hub.run(hub.repos.settings, repo)
    return JSONResponse({"private": settings.private, "gated": False})


async def move(hub: Hub, request: Request) -> Response:
    """Rename a repo or bucket."""
    user = hub.require_user(request)
    body = await read_json(request)
    kind = BUCKETS if body.get("type") == "bucket" else kind_of_type(body)
    asked, target = (RepoId(kind, *split_name(text_field(body, name))) for name in ("fromRepo", "toRepo"))
    check_name(target.namespace, target.name)
    store = hub.store(target)
    async with AsyncExitStack() as locks:
        # Always in the same order, so that two moves never wait for each other.
        for key in sorted({asked.key, target.key}, key=lambda repo: repo.full_name):
            await locks.enter_async_context(hub.lock(key))
        source, there = await hub.run(hub.find, asked, user), store.index.find(target)
        hub.require_writer(request, source.namespace)
        hub.require_writer(request, target.namespace)
        if there not in (None, source):
            raise HubError(409, f"There is a {kind[:-1]} {target.full_name} already.")
        await hub.run(store.move, source, target)
    return JSONResponse({"url": base_url(request) + target.page})


async def auth_check(hub: Hub, request: Request) -> Response:
    """Check that the caller may read a repo."""
    await hub.readable(request)
    return JSONResponse({})


async def listing(hub: Hub, request: Request) -> Response:
    """List the repos of a kind that the caller may see."""
    kind = request.path_params["kind"]
    if kind not in KINDS:
        raise HubError(404, "Sorry, we can't find the page you are looking for.")
    author, user = request.query_params.get("author"), hub.caller(request)

    def find() -> list[RepoId]:
        seen = hub.repos.visible(partial(hub.may_read, user))
        return [repo for repo, _ in seen if repo.kind == kind and author in (None, repo.namespace)]

    return await listed(hub, request, find, partial(describe, hub))


async def own_repos(hub: Hub, request: Request) -> Response:
    """List the repos of the caller, or of an organization of the caller."""
    user = hub.require_user(request)
    namespace = request.path_params.get("namespace")

    def find() -> list[dict[str, Any]]:
        return [
            {
                "id": listed.repo.full_name,
                "type": listed.repo.kind[:-1],
                "updatedAt": iso(listed.changed),
                "visibility": "private" if listed.settings.private else "public",
                "storage": 0,
            }
            for listed in hub.repos.listed(lambda repo, _: hub.accounts.may_use(user, repo.namespace))
            if namespace in (None, listed.repo.namespace)
        ]

    return JSONResponse(await hub.run(find))


async def validate_yaml(hub: Hub, request: Request) -> Response:
    """Check the metadata of a README.md before it is committed, for anybody, as the client sends no token."""
    body = await read_json(request)
    text_field(body, "repoType", "model")
    warnings, errors = await hub.run(check_card, text_field(body, "content"))
    answer = {"warnings": [{"message": text} for text in warnings], "errors": [{"message": text} for text in errors]}
    return JSONResponse(answer, 400 if errors else 200)


_REPO = "/api/{kind}/{namespace}/{name}"
ROUTES = [
    route("/api/validate-yaml", validate_yaml, "POST"),
    route("/api/repos/move", move, "POST"),
    route("/api/settings/repositories", own_repos, "GET"),
    route("/api/organizations/{namespace}/settings/repositories", own_repos, "GET"),
    route("/api/{kind}", listing, "GET"),
    route(_REPO + "/settings", change, "PUT"),
    route(_REPO + "/auth-check", auth_check, "GET"),
]
