"""The routes of the local Hub, an area of its API in each module."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.routing import Route

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.responses import Response

    from hf_summary_writer.localhub.hub import Hub

    Handler = Callable[[Hub, Request], Awaitable[Response]]

__all__ = ["Handler", "of_repo", "route"]


def route(path: str, handler: Handler, *methods: str) -> Route:
    """Return a route that calls its handler with the Hub and the request."""

    async def answer(request: Request) -> Response:
        return await handler(request.app.state.hub, request)

    return Route(path, answer, methods=methods)


def of_repo(path: str, handler: Handler, *methods: str) -> list[Route]:
    """Return the routes of a path below that of a repo: of any kind, and of a model without a kind."""
    return [route(repo + path, handler, *methods) for repo in ("/{kind}/{namespace}/{name}", "/{namespace}/{name}")]
