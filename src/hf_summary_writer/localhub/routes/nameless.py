"""Names without a namespace: the error is that of a missing repo, not that of a missing route."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hf_summary_writer.localhub.errors import HubError, RepoNotFoundError
from hf_summary_writer.localhub.names import BUCKETS, KINDS
from hf_summary_writer.localhub.routes import route

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from hf_summary_writer.localhub.hub import Hub

_VIEWS = ("commits", "paths-info", "revision", "tree", "xet-read-token", "xet-write-token")


async def refuse(hub: Hub, request: Request) -> Response:
    """Respond that the repo does not exist."""
    if request.path_params.get("kind", "models") not in (*KINDS, BUCKETS):
        raise HubError(404, "Sorry, we can't find the page you are looking for.")
    raise RepoNotFoundError(anonymous=hub.caller(request) is None)


# These must come last, since a repo can be named "tree".
ROUTES = [
    route("/api/{kind}/{name}", refuse, "GET", "DELETE"),
    *(route(f"/api/{{kind}}/{{name}}/{view}/{{rest:path}}", refuse, "GET", "POST") for view in _VIEWS),
    route("/{name}/resolve/{revision}/{path:path}", refuse, "GET", "HEAD"),
]
