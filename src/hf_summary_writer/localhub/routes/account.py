"""The caller's identity, and routes for the owner of this Hub alone: request statistics, ending event streams."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse, Response

from hf_summary_writer.localhub.accounts import OWNER
from hf_summary_writer.localhub.errors import ForbiddenError
from hf_summary_writer.localhub.routes import route
from hf_summary_writer.localhub.urls import is_true

if TYPE_CHECKING:
    from starlette.requests import Request

    from hf_summary_writer.localhub.hub import Hub


async def whoami(hub: Hub, request: Request) -> Response:
    """Describe the user of the token."""
    user = hub.require_user(request)
    role = "write" if user.may_write else "read"
    token = {"displayName": "localhub", "role": role, "createdAt": "2025-01-01T00:00:00.000Z"}
    organizations = hub.accounts.organizations_of(user)
    return JSONResponse(
        {
            "type": "user",
            "id": "0" * 24,
            "name": user.name,
            "fullname": user.name,
            "isPro": False,
            "anyNamespace": hub.accounts.any_namespace,  # a field of this Hub alone, for `hf-summary-writer check`
            "orgs": [{"type": "org", "name": each.name, "fullname": each.name} for each in organizations],
            "auth": {"type": "access_token", "accessToken": token},
        }
    )


def _require_owner(hub: Hub, request: Request) -> None:
    # Request paths contain the names of private repos.
    if hub.require_user(request).name != OWNER:
        raise ForbiddenError(f"Only the user {OWNER!r} can do this.")


async def stats(hub: Hub, request: Request) -> Response:
    """Return the counts of `LocalHub.stats`."""
    _require_owner(hub, request)
    if request.method == "DELETE":
        hub.recorder.reset()
        return Response(status_code=204)
    return JSONResponse(asdict(hub.recorder.stats))


async def requests(hub: Hub, request: Request) -> Response:
    """Return the last requests, oldest first."""
    _require_owner(hub, request)
    return JSONResponse([asdict(each) for each in list(hub.recorder.requests)])


async def end_streams(hub: Hub, request: Request) -> Response:
    """End all event streams, as `LocalHub.end_streams` does."""
    _require_owner(hub, request)
    hub.bell.end_streams("reset" if is_true(request.query_params.get("reset")) else "reconnect")
    return Response(status_code=204)


ROUTES = [
    route("/localhub/requests", requests, "GET"),
    route("/api/whoami-v2", whoami, "GET"),
    route("/localhub/streams", end_streams, "DELETE"),
    route("/localhub/stats", stats, "GET", "DELETE"),
]
