"""Names without a namespace: the client tells by the answer that there is no such repo, and not no such route."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.routing import Route

from hf_summary_writer.localhub.errors import HubError, RepoNotFoundError
from hf_summary_writer.localhub.names import BUCKETS, KINDS

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from hf_summary_writer.localhub.hub import Hub

_VIEWS = ("commits", "paths-info", "revision", "tree", "xet-read-token", "xet-write-token")


async def refuse(request: Request) -> Response:
    """Answer that there is no repo of this name."""
    hub: Hub = request.app.state.hub
    if request.path_params.get("kind", "models") not in (*KINDS, BUCKETS):
        raise HubError(404, "Sorry, we can't find the page you are looking for.")
    raise RepoNotFoundError(anonymous=hub.caller(request) is None)


# After all others: a repo may be called "tree".
ROUTES = [
    Route("/api/{kind}/{name}", refuse, methods=["GET", "DELETE"]),
    *(Route(f"/api/{{kind}}/{{name}}/{view}/{{rest:path}}", refuse, methods=["GET", "POST"]) for view in _VIEWS),
    Route("/{name}/resolve/{revision}/{path:path}", refuse, methods=["GET", "HEAD"]),
]
