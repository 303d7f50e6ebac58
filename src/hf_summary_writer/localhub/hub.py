"""The stores, accounts and limits that every route works with."""

from __future__ import annotations

import asyncio
import base64
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar
from urllib.parse import unquote

from hf_summary_writer.localhub.buckets.events import Bell
from hf_summary_writer.localhub.buckets.store import BucketStore
from hf_summary_writer.localhub.disk import Disk
from hf_summary_writer.localhub.errors import ForbiddenError, HubError, MovedError, RepoNotFoundError
from hf_summary_writer.localhub.limits import Limits
from hf_summary_writer.localhub.names import BUCKETS, KINDS, RepoId
from hf_summary_writer.localhub.pulls import PULLS
from hf_summary_writer.localhub.repos import RepoStore
from hf_summary_writer.localhub.runs.find import RunFinder
from hf_summary_writer.localhub.signing import Signer
from hf_summary_writer.localhub.stats import Recorder
from hf_summary_writer.localhub.urls import is_true
from hf_summary_writer.localhub.xet.store import XetStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator
    from pathlib import Path

    from starlette.requests import HTTPConnection

    from hf_summary_writer.localhub.accounts import Accounts, User
    from hf_summary_writer.localhub.gitrepo import GitRepo
    from hf_summary_writer.localhub.hosts import Hosts

# The disk limits the speed, so more threads would only wait for each other.
_WORKERS = 16

P = ParamSpec("P")
T = TypeVar("T")


class Hub:
    """The stores, limits and counts of one running Hub; routes are called with it."""

    def __init__(
        self,
        root: Path,
        accounts: Accounts,
        hosts: Hosts,
        *,
        commits_per_hour: int | None = None,
        requests_per_5min: int | None = None,
        multipart_bytes: int,
    ) -> None:
        self.accounts = accounts
        self.hosts = hosts
        self.multipart_bytes = multipart_bytes
        self.disk: Disk = Disk(root / "unfinished")
        self.signer: Signer = Signer(root / "secret", self.disk)
        self.xet: XetStore = XetStore(root / "xet", self.disk)
        self.repos: RepoStore = RepoStore(root / "repos", self.xet, self.disk)
        self.buckets: BucketStore = BucketStore(root / "buckets", self.disk)
        self.bell: Bell = Bell()
        self.run_finder: RunFinder = RunFinder()
        self.limits: Limits = Limits(commits_per_hour, requests_per_5min)
        self.recorder: Recorder = Recorder()
        self._workers = ThreadPoolExecutor(_WORKERS, "hf-summary-writer-localhub-worker")
        self._locks: dict[RepoId, asyncio.Lock] = {}

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function that uses the disk, without blocking other requests."""
        return await asyncio.wrap_future(self._workers.submit(function, *args, **kwargs))

    async def on_git(
        self, repo: RepoId, function: Callable[Concatenate[GitRepo, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a function on the Git repository of a repo, without blocking other requests."""

        def work() -> T:
            with self.repos.git(repo) as git:
                return function(git, *args, **kwargs)

        return await self.run(work)

    async def stream(self, pieces: Generator[bytes, None, None]) -> AsyncIterator[bytes]:
        """Yield the pieces of a generator that reads the disk, without blocking other requests; close it at the end."""
        coming = None
        try:
            while True:
                coming = self._workers.submit(next, pieces, b"")
                piece = await asyncio.wrap_future(coming)
                if not piece:
                    return
                yield piece
        finally:
            # After a disconnect a worker may still read a piece, and a running generator cannot be closed.
            if coming is not None:
                coming.add_done_callback(lambda _: pieces.close())

    def lock(self, repo: RepoId) -> asyncio.Lock:
        """Return the lock of a repo, for its name in any case; hold it to change the repo."""
        return self._locks.setdefault(repo.key, asyncio.Lock())

    def close(self) -> None:
        """Wait for the work under way."""
        self._workers.shutdown(wait=True)

    def caller(self, request: HTTPConnection, *, people: bool = False) -> User | None:
        """Return the user of the token in a request, or None for an anonymous caller.

        Browsers and Git may send the token as a password (`people`). Only read-only routes accept that, so another
        site that makes a browser send it cannot change anything.

        Raises:
            HubError: 401, the token is unknown.
        """
        shown = request.headers.get("authorization")
        if shown is None:
            return None
        scheme, _, token = shown.partition(" ")
        scheme = scheme.lower()
        if people and scheme == "basic":
            scheme, token = "bearer", _password(token)
        if scheme != "bearer":
            raise HubError(401, "Invalid credentials in Authorization header")
        return self.accounts.with_token(token.strip())

    def require_user(self, request: HTTPConnection) -> User:
        """Return the user of the token in a request; reject anonymous callers."""
        user = self.caller(request)
        if user is None:
            raise HubError(401, "Invalid username or password.")
        return user

    def require_writer(self, request: HTTPConnection, namespace: str) -> User:
        """Return the caller; reject callers without write access to a namespace."""
        user = self.require_user(request)
        if not user.may_write:
            raise ForbiddenError("This token gives read access only: use a token with write access.")
        if not self.accounts.may_use(user, namespace):
            raise ForbiddenError(f"You don't have the rights to write under the namespace {namespace!r}.")
        return user

    def may_read(self, user: User | None, repo: RepoId, private: bool) -> bool:
        """Return whether a user, or an anonymous caller, may read a repo."""
        return not private or (user is not None and self.accounts.may_use(user, repo.namespace))

    async def readable(self, request: HTTPConnection, kind: str | None = None, *, people: bool = False) -> RepoId:
        """Return the repo in the path, in its original spelling; the caller must have read access.

        Raises:
            MovedError: the repo was renamed.
            RepoNotFoundError: the repo does not exist, or the caller has no read access.
        """
        asked, user = repo_of(request, kind), self.caller(request, people=people)
        current = await self.run(self.find, asked, user)
        if current.key != asked.key:
            raise MovedError(_renamed(request, asked, current))
        return current

    def find(self, asked: RepoId, user: User | None) -> RepoId:
        """Return a repo or bucket by its current or a former name; the caller must have read access."""
        index = self.store(asked).index
        found = index.find(asked) or index.find_former(asked)
        if found is None or not self.may_read(user, found, self.store(found).settings(found).private):
            raise RepoNotFoundError(anonymous=user is None)
        return found

    def store(self, repo: RepoId) -> RepoStore | BucketStore:
        """Return the store of repos or of buckets."""
        return self.buckets if repo.kind == BUCKETS else self.repos

    async def writable(self, request: HTTPConnection, kind: str | None = None) -> RepoId:
        """Return the repo in the path; the caller must have write access."""
        self.require_user(request)
        repo = await self.readable(request, kind)
        self.require_writer(request, repo.namespace)
        return repo

    async def proposable(self, request: HTTPConnection) -> tuple[RepoId, User]:
        """Return the repo in the path, and the caller, who may open pull requests: anyone with read access."""
        user, repo = self.require_user(request), await self.readable(request)
        return repo, self.require_writer(request, user.name)

    async def uploadable(self, request: HTTPConnection) -> RepoId:
        """Return the repo in the path; the caller must have write access, unless the upload is for a pull request."""
        is_proposal = is_true(request.query_params.get("create_pr")) or unquote(
            request.path_params.get("revision", "")
        ).startswith(PULLS)
        return (await self.proposable(request))[0] if is_proposal else await self.writable(request)

    def uid_of(self, repo: RepoId) -> str:
        """Return the id of a repo, which stays when it is renamed."""
        return self.store(repo).settings(repo).uid

    def reader(self, user: User | None) -> Callable[[str], bool]:
        """Return a predicate: whether a caller may read the chunks of an owner."""

        def may_read(owner: str) -> bool:
            if user is not None and owner == owner_of(user):
                return True
            repo = self.repos.index.with_uid(owner) or self.buckets.index.with_uid(owner)
            try:
                return repo is not None and self.may_read(user, repo, self.store(repo).settings(repo).private)
            except RepoNotFoundError:
                return False

        return may_read


def owner_of(user: User) -> str:
    """Return the label of a user as an owner of chunks."""
    return f"user:{user.name}"


def _password(credentials: str) -> str:
    try:
        return base64.b64decode(credentials).decode().partition(":")[2]
    except ValueError:
        return ""


def repo_of(request: HTTPConnection, kind: str | None = None) -> RepoId:
    """Return the repo that the path names: of a kind in the path, of models without one; of another kind if given."""
    params = request.path_params
    named = params.get("kind", KINDS[0])
    if kind is None and named not in KINDS:
        raise HubError(404, "Sorry, we can't find the page you are looking for.")
    return RepoId(kind or named, params["namespace"], params["name"])


def _renamed(request: HTTPConnection, asked: RepoId, current: RepoId) -> str:
    path, query = request.scope["path"], request.scope["query_string"].decode("ascii", "replace")
    path = path.replace(f"/{asked.full_name}", f"/{current.full_name}", 1)
    return f"{path}?{query}" if query else path
