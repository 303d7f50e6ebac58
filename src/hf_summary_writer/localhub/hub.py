"""What every route works with."""

from __future__ import annotations

import asyncio
import base64
import hmac
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from hf_summary_writer.localhub.disk import Disk
from hf_summary_writer.localhub.errors import HubError, RepoNotFoundError
from hf_summary_writer.localhub.limits import Limits
from hf_summary_writer.localhub.repos import KINDS, RepoId, RepoStore
from hf_summary_writer.localhub.signing import Signer
from hf_summary_writer.localhub.stats import Recorder
from hf_summary_writer.localhub.xet.store import XetStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator
    from pathlib import Path

    from starlette.requests import HTTPConnection

USER = "local"
# More would only wait for each other: the work is on the disk.
_WORKERS = 16

P = ParamSpec("P")
T = TypeVar("T")


class Hub:
    """The stores, limits and counts of one running Hub; routes find it at `request.app.state.hub`."""

    def __init__(
        self,
        root: Path,
        token: str,
        *,
        commits_per_hour: int | None = None,
        requests_per_5min: int | None = None,
        multipart_bytes: int,
    ) -> None:
        self.token = token
        self.multipart_bytes = multipart_bytes
        self.disk = Disk(root / "unfinished")
        self.signer = Signer(root / "secret", self.disk)
        self.xet = XetStore(root / "xet", self.disk)
        self.repos = RepoStore(root / "repos", self.xet, self.disk)
        self.limits = Limits(commits_per_hour, requests_per_5min)
        self.recorder = Recorder()
        self._workers = ThreadPoolExecutor(_WORKERS, "hf-summary-writer-localhub-worker")
        self._locks: dict[RepoId, asyncio.Lock] = {}

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function that uses the disk, without holding up other requests."""
        return await asyncio.wrap_future(self._workers.submit(function, *args, **kwargs))

    async def stream(self, pieces: Generator[bytes, None, None]) -> AsyncIterator[bytes]:
        """Yield pieces that come from the disk, without holding up other requests, and close what they come from."""
        coming = None
        try:
            while True:
                coming = self._workers.submit(next, pieces, b"")
                piece = await asyncio.wrap_future(coming)
                if not piece:
                    return
                yield piece
        finally:
            # A caller who goes away leaves a worker at its piece; only after it can the file be closed.
            if coming is not None:
                coming.add_done_callback(lambda _: pieces.close())

    def lock(self, repo: RepoId) -> asyncio.Lock:
        """Return the lock that whoever changes a repo holds meanwhile: its changes come one after the other."""
        return self._locks.setdefault(repo, asyncio.Lock())

    def close(self) -> None:
        """Wait for the work under way."""
        self._workers.shutdown(wait=True)

    def knows(self, request: HTTPConnection, *, people: bool = False) -> bool:
        """Return whether the caller has shown the token; refuse a caller who shows another one.

        People may show it as a password, on pages: these only read, so another site that makes a browser
        send the password changes nothing.
        """
        shown = request.headers.get("authorization")
        if shown is None:
            return False
        scheme, _, token = shown.partition(" ")
        scheme = scheme.lower()
        if people and scheme == "basic":
            scheme, token = "bearer", _password(token)
        if scheme != "bearer" or not hmac.compare_digest(token.strip().encode(), self.token.encode()):
            raise HubError(401, "Invalid credentials in Authorization header")
        return True

    def require_user(self, request: HTTPConnection) -> None:
        """Refuse a caller who has not shown the token."""
        if not self.knows(request):
            raise HubError(401, "Invalid username or password.")

    async def readable(self, request: HTTPConnection, kind: str | None = None, *, people: bool = False) -> RepoId:
        """Return the repo that the path names, if the caller may read it."""
        repo = repo_of(request, kind)
        known = self.knows(request, people=people)
        settings = await self.run(self.repos.settings, repo)
        if settings.private and not known:
            raise RepoNotFoundError
        return repo

    async def writable(self, request: HTTPConnection, kind: str | None = None) -> RepoId:
        """Return the repo that the path names, if the caller may write to it."""
        repo = await self.readable(request, kind)
        self.require_user(request)
        return repo


def _password(credentials: str) -> str:
    try:
        return base64.b64decode(credentials).decode().partition(":")[2]
    except ValueError:
        return ""


def repo_of(request: HTTPConnection, kind: str | None = None) -> RepoId:
    """Return the repo that the path names."""
    params = request.path_params
    kind = kind or params["kind"]
    if kind not in KINDS:
        raise HubError(404, "Sorry, we can't find the page you are looking for.")
    return RepoId(kind, params["namespace"], params["name"])


def base_url(request: HTTPConnection) -> str:
    """Return how the caller reached the Hub, so that links lead back the same way, through a proxy too."""
    host = request.headers.get("host") or "{}:{}".format(*(request.scope.get("server") or ("127.0.0.1", 80)))
    return f"{request.url.scheme}://{host}"
