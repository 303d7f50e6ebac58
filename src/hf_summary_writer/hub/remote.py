"""The interface of a remote, and the common part of all: a thread for requests, and whether the repo still exists."""

from __future__ import annotations

import contextlib
import functools
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

from hf_summary_writer.errors import DeadlineError, InterruptedPushError, PushError, TemporaryError
from hf_summary_writer.hub.thread import HubThread
from hf_summary_writer.notices import announce, logger

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from huggingface_hub import CommitInfo, HfApi

    from hf_summary_writer.config import PushConfig
    from hf_summary_writer.hub.client import Client

T = TypeVar("T")

# The Hub takes no more at once.
_PATHS_PER_REQUEST = 1000

# A call to the Hub may take this long, and longer by the time that its content takes over a slow line.
CALL_SECONDS = 120.0
SLOW_LINE_BYTES_PER_SECOND = 128 * 1024

# The Xet client holds uploads in memory, several times over: 16 MB take up to 100 MB, 1 GB takes 800 MB.
BYTES_AT_ONCE = 16 * 2**20

_HASH = re.compile(r"[0-9a-f]{0,64}")


@dataclass(frozen=True, slots=True)
class Upload:
    """A file to publish.

    Attributes:
        path: Its path in the repo.
        body: Its bytes, or the path of a file that holds exactly them and does not change.
        size: How many bytes it has.
        known_bytes: How many of them, from the start, the Hub already holds in an earlier version.
        file_id: Identifies the file on disk across pushes.
        is_intact: Returns whether `body` is unchanged since the upload was created.
        is_first: Whether its folder has uploaded nothing before, so that an earlier version on the Hub is not its own.
        only_new: Whether an earlier version on the Hub stays as it is.
    """

    path: str
    body: bytes | Path
    size: int
    known_bytes: int = 0
    file_id: Hashable = None
    is_intact: Callable[[], bool] = lambda: True
    is_first: bool = False
    only_new: bool = False


class RemoteFile(NamedTuple):
    """A file as the Hub lists it.

    Attributes:
        size: The number of its bytes.
        sha256: Its hash, if it is stored in LFS, else empty.
        git_oid: The hash by which Git knows it; empty in a bucket.
        xet_hash: The hash by which a bucket knows it; empty in a repo.
    """

    size: int
    sha256: str = ""
    git_oid: str = ""
    xet_hash: str = ""

    @property
    def is_sound(self) -> bool:
        """Whether all fields have valid values: the client passes on the response of the Hub unchecked."""
        size: Any = self.size
        hashes: tuple[Any, ...] = (self.sha256, self.git_oid, self.xet_hash)
        is_size = isinstance(size, int) and size >= 0
        return is_size and all(isinstance(each, str) and _HASH.fullmatch(each) for each in hashes)


class RateLimit(NamedTuple):
    """How often huggingface.co lets an account publish.

    Attributes:
        what: The limited operation; its name is safe in a file name.
        times: The operations allowed within the window, less some that are left to the user.
        seconds: The length of the window.
    """

    what: str
    times: float
    seconds: float


# Ordinary accounts have 128 commits an hour.
COMMITS = RateLimit("commits", 120.0, 3600.0)

# Ordinary accounts have 1,000 requests of the API in 5 minutes, of which a batch to a bucket takes two.
BATCHES = RateLimit("batches", 450.0, 300.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """The receipt of one commit or batch, by paths in the repo or bucket.

    Attributes:
        commit: The commit; `None` if the Hub already held everything.
        committed: The files in the commit.
        arrived: The files that are on the Hub for certain.
        left_out: The files that the repo's `.gitignore` excludes.
        settled: All files that this receipt is about, the kinds above and below and those in doubt.
        refused: The files that the Hub does not take, and why.
        listed: How the Hub lists each file from now on, with the hashes that the client has computed.
    """

    commit: CommitInfo | None = None
    committed: frozenset[str] = frozenset()
    arrived: frozenset[str] = frozenset()
    left_out: frozenset[str] = frozenset()
    settled: frozenset[str]
    refused: Mapping[str, str] = field(default_factory=dict)
    listed: Mapping[str, RemoteFile] = field(default_factory=dict)


def kept_path(path: str, content_hash: str) -> str:
    """Return the path under which a file of the Hub is kept that a shorter one replaces.

    A container that restarts on an empty disk writes to the same names, and knows of no earlier upload.
    """
    return f"{path}.replaced-{content_hash[:8]}"


def longer(found: Mapping[str, RemoteFile], sizes: Mapping[str, int]) -> dict[str, RemoteFile]:
    """Return the files found at the Hub that files of these sizes would replace by less."""
    return {path: found[path] for path, size in sizes.items() if path in found and found[path].size > size}


class Remote(ABC):
    """The remote end of a push: a branch of a repo, or a bucket.

    One thread at a time may call its methods; any thread may read its properties. Every method raises `PushError` and
    nothing else. Requests run in a thread of their own, which is left behind when the client does not return in time.

    Args:
        config: The destination, and whether a new repo is private.
        client: Makes the requests.

    Attributes:
        max_files: The most files that one commit or batch should hold.
        rate_limit: How often huggingface.co lets an account publish.
        client: As given.
        thread: Runs the requests. To be started before the interpreter begins to exit, and stopped in the end.
        repo_id: The full id, once the repo is known to exist.
        known: Whether the repo took files before; it is then never created again.
        losses: How often the repo or the branch was found gone.
        call_seconds: How long a call may take, besides the time for its content.
    """

    max_files: ClassVar[int]
    rate_limit: ClassVar[RateLimit]

    def __init__(self, config: PushConfig, client: Client) -> None:
        where = config.destination
        self.client: Client = client
        self.repo_id: str = where.repo_id
        self.known: bool = False
        self.losses: int = 0
        self.call_seconds: float = CALL_SECONDS
        self._given_repo_id = where.repo_id
        self._repo_type = where.repo_type
        self._revision = where.revision
        self._private = config.private
        self.thread: HubThread = HubThread()
        # The check to make before the next push, after the repo or the branch was found gone.
        self._check: Callable[[], None] | None = None
        # Paths of a commit or batch that was requested and not answered. It may still be carried out, after a newer
        # one, and put back an older version. So such a file has arrived only when a later push finds it on the Hub as
        # it is, or a second batch holds it.
        self._in_doubt: set[str] = set()
        self._other_runs: set[str] = set()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name}>"

    @property
    def api(self) -> HfApi:
        """The `HfApi` that makes every request."""
        return self.client.api

    @property
    def key(self) -> Hashable:
        """The same for all remotes whose files may be published together. Holds no token; makes no request."""
        return self.client.key, self._repo_type, self._given_repo_id, self._revision, self._private

    def check_token(self) -> None:
        """Look up the token, and check that it can be sent.

        Raises:
            ActionNeededError: If there is none.
        """
        self._guarded_call(lambda: None, self.call_seconds)

    def use(self, repo_id: str) -> None:
        """Go on with a repo that took files before, under its full id."""
        self.repo_id, self.known = repo_id, True

    def recheck(self) -> None:
        """Make sure that a repo or branch that was found gone is back; costs nothing otherwise."""
        if self._check is not None:
            self._call(self._check)
            self._check = None

    def ensure(self) -> bool:
        """Create the repo or bucket, and the branch, if they may be missing; return whether the repo was created."""
        if self.known:
            return False
        created = self._call(self._create)
        self.known = True
        return created

    def lost_repo(self) -> None:
        """Note that the repo is gone: it must exist again before the next push, and is not recreated."""
        self.losses += 1
        self._check = self._find

    def lost_branch(self) -> None:
        """Note that the branch is gone: the next push creates it again."""
        self.losses += 1
        self._check = self._create_branch

    @abstractmethod
    def publish(
        self,
        uploads: Sequence[Upload],
        title: str,
        commit_slot: Callable[[], AbstractContextManager[object]],
        along: Sequence[Upload] = (),
    ) -> Iterator[Published]:
        """Upload files and publish them, in several commits or batches if need be.

        Each is made when its receipt is asked for; a caller that asks for no more leaves the rest unpublished.

        Args:
            uploads: The files; no two have the same path.
            title: The title of each commit, to which the number of its files is added.
            commit_slot: Entered around each request that publishes; may raise instead of letting it happen.
            along: Small files that come along with the first commit. None is made for them alone, no receipt is about
                them, and where the Hub refuses them it gets the others without.

        Raises:
            RejectedError: If the Hub refuses one of the files; results yielded before stay valid.
            PushError: If anything else fails.
        """

    def publish_small(  # noqa: B027 - only a bucket has something to do
        self, uploads: Sequence[Upload], commit_slot: Callable[[], AbstractContextManager[object]]
    ) -> None:
        """Publish small files by themselves, unless that makes a commit; leave out those that the Hub refuses."""

    def files(self, paths: Sequence[str], interrupted: Callable[[], bool] = lambda: False) -> dict[str, RemoteFile]:
        """Return the files that exist on the Hub, with one request per 1,000 paths.

        Args:
            paths: Their paths in the repo or bucket.
            interrupted: Asked between requests; true ends them.

        Raises:
            BranchGoneError: If the branch does not exist.
            RepoGoneError: If the repo or bucket does not.
            InterruptedPushError: If there was no time for all requests.
        """
        found: dict[str, RemoteFile] = {}
        for start in range(0, len(paths), _PATHS_PER_REQUEST):
            if interrupted():
                raise InterruptedPushError("there is no time to compare the folder with the Hub")
            some = list(paths[start : start + _PATHS_PER_REQUEST])
            listed = self._call(functools.partial(self._list, some))
            found |= {path: listed[path] for path in some if path in listed and listed[path].is_sound}
        return found

    def squash(self, title: str) -> None:  # noqa: B027 - only a repo has a history
        """Squash the history, if there is one, into one commit."""

    @abstractmethod
    def _list(self, paths: list[str]) -> dict[str, RemoteFile]: ...

    @abstractmethod
    def _find(self) -> Any: ...

    @abstractmethod
    def _create(self) -> bool: ...

    def _create_branch(self) -> None:
        self._find()

    @contextlib.contextmanager
    def _doubting(self, paths: Collection[str]) -> Iterator[None]:
        """Remember these files if a request in the block is not answered."""
        try:
            yield
        except PushError as error:
            if error.in_doubt:
                self._in_doubt.update(paths)
            raise

    def _tell_other_runs(self, states: Iterable[Upload]) -> None:
        """Announce once for each first upload of a run that its place in the repo has the state of another run."""
        for place in {each.path.rpartition("/")[0] for each in states} - self._other_runs:
            self._other_runs.add(place)
            announce(
                "%a in %s already holds a run: if this one does not continue it, give it a logdir of another name, or"
                " another path_in_repo, since their curves mix",
                place,
                self.repo_id,
            )

    def _tell_kept(self, kept: Mapping[str, str]) -> None:
        for path, to in kept.items():
            logger.warning(
                "%a in %s was longer than the file that replaces it: it is kept there as %a", path, self.repo_id, to
            )

    def _check_intact(self, uploads: Iterable[Upload]) -> None:
        for upload in uploads:
            if not upload.is_intact():
                raise TemporaryError(f"{upload.path!a} changed while it was uploaded")

    def _seconds_to_send(self, nbytes: float, call_seconds: float | None = None) -> float:
        seconds = self.call_seconds if call_seconds is None else call_seconds
        return seconds + nbytes / SLOW_LINE_BYTES_PER_SECOND

    def _call(self, call: Callable[[], T], seconds: float | None = None) -> T:
        seconds = self.call_seconds if seconds is None else seconds
        try:
            return self._guarded_call(call, seconds)
        except DeadlineError as error:
            if not (error.is_outside_requests and self.known):
                raise
            late = DeadlineError(
                f"the upload did not end within {seconds:.0f} s, though the Hub answers: check the firewall and the"
                " proxy in front of its storage"
            )
            late.is_outside_requests, late.in_doubt = True, error.in_doubt
            raise late from None

    def _guarded_call(self, call: Callable[[], T], seconds: float) -> T:
        return self.thread.call(lambda: self.client.guarded(call, repo=self._name, known=self.known), seconds)

    @property
    def _name(self) -> str:
        return f"the {self._repo_type} repo {self.repo_id}"
