"""The error responses of the Hub.

HubError                  any refusal: a status, a message and, for some, an error code of the Hub
├── BadRequestError            400: the request is malformed, or contradicts the data that it refers to
├── ForbiddenError             403: the caller is known, and has no right to do this
├── MovedError                 307: the repo has another name now
├── RepoNotFoundError          404, or 401 to anonymous callers: no such repo, or one that the caller may not see
├── RevisionNotFoundError      404: no such branch, tag or commit
└── EntryNotFoundError         404: no such file or folder at that revision
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import JSONResponse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request
    from starlette.responses import Response


class HubError(Exception):
    """An error response of the Hub."""

    code: str | None = None

    def __init__(self, status: int, message: str, *, headers: Mapping[str, str] | None = None, **extra: object) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers: dict[str, str] = dict(headers or {})
        self.extra = extra

    def response(self) -> Response:
        """Return the response for this error."""
        # A header is one line of printable ASCII, but the message may quote any name that the caller sent.
        line = self.message.encode("unicode_escape").decode()
        headers = {"X-Error-Message": line[:1000].strip(), **self.headers}
        if self.code:
            headers["X-Error-Code"] = self.code
        return JSONResponse({"error": self.message, **self.extra}, self.status, headers)


class BadRequestError(HubError):
    """The request is malformed, or contradicts the data that it refers to."""

    def __init__(self, message: str) -> None:
        super().__init__(400, message)


class ForbiddenError(HubError):
    """The caller is known, and has no right to do this."""

    def __init__(self, message: str) -> None:
        super().__init__(403, message)


class MovedError(HubError):
    """The repo has another name now: `location` is the path of the request with the new name."""

    def __init__(self, location: str) -> None:
        # A path without a host: clients do not follow the redirect of a download to another host.
        super().__init__(307, "This repository has moved.", headers={"Location": location})


class RepoNotFoundError(HubError):
    """No such repo, or a private one that the caller may not see: the response is the same for both."""

    def __init__(self, *, anonymous: bool = False) -> None:
        if anonymous:
            # Without a code, as the real Hub answers.
            super().__init__(401, "Invalid username or password.")
        else:
            super().__init__(404, "Repository not found")
            self.code: str | None = "RepoNotFound"


class RevisionNotFoundError(HubError):
    """No such branch, tag or commit."""

    code: str | None = "RevisionNotFound"

    def __init__(self, revision: str) -> None:
        super().__init__(404, f"Invalid rev id: {revision}")


class EntryNotFoundError(HubError):
    """No such file or folder at that revision."""

    code: str | None = "EntryNotFound"

    def __init__(self, path: str) -> None:
        super().__init__(404, f"Entry not found: {path}")


async def answer_hub_error(_request: Request, error: Exception) -> Response:
    """Return the response for a `HubError` that a route raised."""
    if not isinstance(error, HubError):
        raise error
    return error.response()
