"""A branch of a model, dataset or Space repo as the remote end of a push."""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from hf_summary_writer.errors import InterruptedPushError, PushError, RejectedError, TemporaryError
from hf_summary_writer.hub import xet
from hf_summary_writer.hub.deadline import HubThread
from hf_summary_writer.hub.uploads import (
    CARD_PATH,
    PieceReader,
    PreparedCommit,
    exists,
    is_identical,
    is_left_out,
    posted_bytes,
    together,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from huggingface_hub import CommitInfo, CommitOperationAdd, HfApi

    from hf_summary_writer.config import PushConfig
    from hf_summary_writer.hub.client import Client
    from hf_summary_writer.hub.uploads import Upload

__all__ = ["MAX_FILES_PER_COMMIT", "MAX_POSTED_BYTES_PER_COMMIT", "Published", "RemoteFile", "RepoRemote"]

logger: logging.Logger = logging.getLogger("hf_summary_writer")

T = TypeVar("T")

# The Hub advises under 100 files per commit.
MAX_FILES_PER_COMMIT = 100
# Text travels within the commit request, of which the client holds several copies, and over a slow line a large request
# would never end. A single file may be larger: the Hub takes up to 10 MB in this way.
MAX_POSTED_BYTES_PER_COMMIT = 8 * 2**20

# The Hub takes no more at once.
_PATHS_PER_REQUEST = 1000

# A call to the Hub may take this long, and longer by the time that its content takes over a slow line.
CALL_SECONDS = 120.0
SLOW_LINE_BYTES_PER_SECOND = 128 * 1024

# The Xet client holds what it uploads in memory, several times over: 16 MB take up to 100 MB, 1 GB takes 800 MB.
BYTES_AT_ONCE = 16 * 2**20
# Each call that the Xet client does not return from costs a thread and two descriptors.
_MOST_LEFT_BEHIND = 2

# A token that may not create repos, or not this one, may still push to one that exists.
_MAY_EXIST = frozenset({401, 402, 403})


@dataclass(frozen=True, slots=True)
class Published:
    """The receipt of one commit, by paths in the repo.

    Attributes:
        commit: The commit; `None` if the Hub already held everything.
        committed: The files in the commit.
        arrived: The files that the Hub holds now for certain.
        left_out: The files that the repo's `.gitignore` excludes.
        settled: All files that this receipt is about, the three kinds above and those in doubt.
    """

    commit: CommitInfo | None
    committed: frozenset[str]
    arrived: frozenset[str]
    left_out: frozenset[str]
    settled: frozenset[str]


class RemoteFile(NamedTuple):
    """A file as the Hub lists it.

    Attributes:
        size: The number of its bytes.
        sha256: Its hash, if it is not stored in Git itself, else empty.
        git_oid: The hash by which Git knows it.
    """

    size: int
    sha256: str
    git_oid: str


class RepoRemote:
    """One branch of one repo.

    One thread at a time may call its methods; any thread may read its properties. Every method raises `PushError` and
    nothing else. Requests run in a thread of their own, which is left behind when the client does not return in time.

    Args:
        config: Names the branch, and says whether a repo that does not exist is created private.
        client: Makes the requests.

    Attributes:
        repo_id: The full id, once the repo is known to exist.
        known: Whether the repo took commits before; it is then never created again.
        losses: How often the repo or the branch was found gone.
        call_seconds: How long a call may take, besides the time for its content.
    """

    def __init__(self, config: PushConfig, client: Client) -> None:
        where = config.destination
        self.repo_id: str = where.repo_id
        self.known: bool = False
        self.losses: int = 0
        self.call_seconds = CALL_SECONDS
        self._given_repo_id = where.repo_id
        self._repo_type = where.repo_type
        self._revision = where.revision
        self._private = config.private
        self._client = client
        self._thread = HubThread("hf-summary-writer-hub")
        # What to check before the next push, after the repo or the branch was found gone.
        self._check: Callable[[], None] | None = None
        # Paths of a commit that was requested and not answered. It may still be made, after a newer one, and put back
        # an older version; so such a file has arrived only when a later push finds it on the Hub as it is.
        self._in_doubt: set[str] = set()
        self._piece_reader = PieceReader()
        self._takes_card = True
        self._created = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name}>"

    @property
    def api(self) -> HfApi:
        """The `HfApi` that makes every request."""
        return self._client.api

    @property
    def endpoint(self) -> str:
        """The Hub's address."""
        return self._client.endpoint

    @property
    def account_key(self) -> str:
        """A name for the account of the next request; see `Client.account_key`."""
        return self._client.account_key

    @property
    def key(self) -> Hashable:
        """The same for all remotes whose commits may be made together. Holds no token; makes no request."""
        return self._client.key, self._repo_type, self._given_repo_id, self._revision

    def start(self) -> None:
        """Start the thread for requests, before the interpreter begins to exit.

        Raises:
            RuntimeError: If no thread can be started any more.
        """
        self._thread.start()

    def stop(self) -> None:
        """End that thread once it has nothing to do."""
        self._thread.stop()

    def after_fork_in_child(self) -> None:
        """Forget the thread, which the child does not have."""
        self._thread.after_fork_in_child()

    def check_token(self) -> None:
        """Check, without a request, that there is a token that can be sent.

        Raises:
            ActionNeededError: If there is none.
        """
        self._client.check_token(self._name)

    def secret(self) -> str | None:
        """Return the access token of the next request, so that no file that holds it is uploaded."""
        return self._client.secret()

    def use(self, repo_id: str) -> None:
        """Go on with a repo that took commits before, under its full id."""
        self.repo_id, self.known = repo_id, True

    def recheck(self) -> None:
        """Make sure that a repo or branch that was found gone is back; costs nothing otherwise."""
        if self._check is not None:
            self._call(self._check)
            self._check = None

    def ensure(self) -> bool:
        """Create the repo and the branch unless they are known to exist; return whether this created the repo."""
        if self.known:
            return False
        self._call(self._create)
        self.known = True
        return self._created

    def lost_repo(self) -> None:
        """Note that the repo is gone: it must come back before the next push, and is not created again."""
        self.losses += 1
        self._check = self._find

    def lost_branch(self) -> None:
        """Note that the branch is gone: the next push creates it again."""
        self.losses += 1
        self._check = self._create_branch

    def publish(
        self,
        uploads: Sequence[Upload],
        title: Callable[[frozenset[str]], str],
        commit_slot: Callable[[], AbstractContextManager[object]],
        *,
        card: bytes | None = None,
        interrupted: Callable[[], bool] = lambda: False,
    ) -> Iterator[Published]:
        """Upload files and commit them, in several commits where text exceeds what one commit should carry.

        Args:
            uploads: The files; no two have the same path.
            title: Makes the title of a commit from the paths in it.
            commit_slot: Entered around each commit request; may raise instead of letting it happen.
            card: The README.md for a branch that has none.
            interrupted: Asked between commits; true ends the publishing.

        Raises:
            RejectedError: If the Hub refuses one of the files; commits that were yielded before stand.
            PushError: If anything else fails.
        """
        prepared = self._prepare(uploads, card if self._takes_card else None)
        remaining = {upload.path for upload in uploads}
        shares = prepared.shares(MAX_POSTED_BYTES_PER_COMMIT)
        later = {addition.path_in_repo for share in shares for addition in share.additions}
        for share in shares:
            later.difference_update(addition.path_in_repo for addition in share.additions)
            # Files that need no commit are settled with the first one.
            settled = frozenset(remaining - later)
            remaining &= later
            yield self._commit_share(share, settled, title, commit_slot)
            if remaining and interrupted():
                raise InterruptedPushError("the push was interrupted")

    def files(self, paths: Sequence[str], interrupted: Callable[[], bool] = lambda: False) -> dict[str, RemoteFile]:
        """Return those of the files that exist on the branch, with a request per 1,000 of them.

        Args:
            paths: Their paths in the repo.
            interrupted: Asked between requests; true ends them.

        Raises:
            BranchGoneError: If the branch does not exist.
            RepoGoneError: If the repo does not.
            InterruptedPushError: If there was no time for all requests.
        """
        found = {}
        for start in range(0, len(paths), _PATHS_PER_REQUEST):
            if interrupted():
                raise InterruptedPushError("there is no time to compare the folder with the Hub")
            for each in self._call(functools.partial(self._list, list(paths[start : start + _PATHS_PER_REQUEST]))):
                lfs = getattr(each, "lfs", None)
                if hasattr(each, "size"):  # a folder has none
                    found[each.path] = RemoteFile(each.size, lfs.sha256 if lfs else "", each.blob_id)
        return found

    def _list(self, paths: list[str]) -> list[Any]:
        return list(self.api.get_paths_info(self.repo_id, paths, repo_type=self._repo_type, revision=self._revision))

    def squash(self, title: str) -> None:
        """Squash the history of the branch into one commit."""
        self._call(
            lambda: self.api.super_squash_history(
                self.repo_id, repo_type=self._repo_type, branch=self._revision, commit_message=title
            )
        )

    def _prepare(self, uploads: Sequence[Upload], card: bytes | None) -> PreparedCommit:
        if self._thread.left_behind >= _MOST_LEFT_BEHIND:
            # Requests of our own end at their deadline, so it is the Xet client that hangs.
            xet.switch_off(f"its client has not returned from {self._thread.left_behind} calls")
        if xet.over_xet():
            for upload in uploads:
                self._upload_in_pieces(upload)
        seconds = self._seconds_to_send(sum(upload.size for upload in uploads))
        try:
            prepared = self._call(lambda: self._preupload(uploads, card), seconds)
        except RejectedError:
            if card is None:
                raise
            self._takes_card = False  # the card may be what is refused, and no card is worth a log
            prepared = self._call(lambda: self._preupload(uploads, None), seconds)
        for upload in uploads:
            if not upload.is_intact():
                raise TemporaryError(f"{upload.path!a} changed while it was uploaded")
        return replace(prepared, kept=self._to_keep(prepared, uploads))

    def _to_keep(self, prepared: PreparedCommit, uploads: Sequence[Upload]) -> dict[str, str]:
        """Return the files of the branch that would be replaced by less, and the paths under which to keep them.

        A container that begins anew on an empty disk writes to the same names, and knows of no earlier upload.
        """
        # A README.md may be ours or the Hub's own.
        sizes = {each.path: each.size for each in uploads if each.is_first and each.path != CARD_PATH}
        replaced = [each.path_in_repo for each in prepared.additions if exists(each) and each.path_in_repo in sizes]
        return {
            path: f"{path}.replaced-{file.git_oid[:8]}"
            for path, file in self.files(replaced).items()
            if file.size > sizes[path]
        }

    def _commit_share(
        self,
        share: PreparedCommit,
        settled: frozenset[str],
        title: Callable[[frozenset[str]], str],
        commit_slot: Callable[[], AbstractContextManager[object]],
    ) -> Published:
        commit = None
        if share.additions:
            try:
                commit = self._commit(share, settled, title, commit_slot)
                self._tell_what_is_kept(share)
            except PushError as error:
                if error.in_doubt:
                    self._in_doubt |= settled
                raise
        left_out = share.left_out & settled
        certain = settled - left_out
        if commit is not None:
            certain -= self._in_doubt
        self._in_doubt -= settled
        committed = frozenset(addition.path_in_repo for addition in share.additions) & settled
        return Published(commit, committed, frozenset(certain), left_out, settled)

    def _tell_what_is_kept(self, share: PreparedCommit) -> None:
        for addition in share.additions:
            to = share.kept.get(addition.path_in_repo)
            if to is not None:
                logger.warning(
                    "%a in %s was longer than the file that replaces it: it is kept there as %a",
                    addition.path_in_repo,
                    self.repo_id,
                    to,
                )

    def _commit(
        self,
        share: PreparedCommit,
        settled: frozenset[str],
        title: Callable[[frozenset[str]], str],
        commit_slot: Callable[[], AbstractContextManager[object]],
    ) -> CommitInfo:
        from huggingface_hub import CommitOperationCopy

        kept = {
            each.path_in_repo: share.kept[each.path_in_repo]
            for each in share.additions
            if each.path_in_repo in share.kept
        }
        copies = [CommitOperationCopy(path, to) for path, to in kept.items()]

        def commit(additions: Sequence[CommitOperationAdd]) -> CommitInfo:
            message = title(frozenset(addition.path_in_repo for addition in additions) & settled)
            on_the_wire = posted_bytes(additions) * 4 / 3  # base64
            with commit_slot():
                return self._call(
                    lambda: self.api.create_commit(
                        repo_id=self.repo_id,
                        repo_type=self._repo_type,
                        revision=self._revision,
                        operations=[*copies, *additions],
                        commit_message=message,
                    ),
                    self._seconds_to_send(on_the_wire),
                )

        try:
            return commit(share.additions)
        except RejectedError:
            if share.card is None:
                raise
        self._takes_card = False
        return commit([addition for addition in share.additions if addition is not share.card])

    def _preupload(self, uploads: Sequence[Upload], card: bytes | None) -> PreparedCommit:
        from huggingface_hub import CommitOperationAdd

        additions = [CommitOperationAdd(path_in_repo=each.path, path_or_fileobj=each.body) for each in uploads]
        readme = None if card is None else CommitOperationAdd(CARD_PATH, card)
        for some in together([*additions, readme] if readme else additions, BYTES_AT_ONCE if xet.over_xet() else 0):
            self._preupload_some(some)
        left_out = [addition for addition in additions if is_left_out(addition)]
        wanted = [addition for addition in additions if addition not in left_out and not is_identical(addition)]
        if not wanted or (readme and (is_left_out(readme) or exists(readme))):
            readme = None
        return PreparedCommit(
            (*wanted, readme) if readme else tuple(wanted), readme, frozenset(each.path_in_repo for each in left_out)
        )

    def _preupload_some(self, additions: list[CommitOperationAdd]) -> None:
        self.api.preupload_lfs_files(
            repo_id=self.repo_id, repo_type=self._repo_type, revision=self._revision, additions=additions
        )

    def _upload_in_pieces(self, upload: Upload) -> None:
        from huggingface_hub import CommitOperationAdd

        for piece in self._piece_reader.pieces(upload, BYTES_AT_ONCE):
            addition = CommitOperationAdd(path_in_repo=upload.path, path_or_fileobj=piece)
            self._call(lambda addition=addition: self._preupload_some([addition]))  # type: ignore[misc]

    def _find(self) -> None:
        self.api.repo_info(self.repo_id, repo_type=self._repo_type)

    def _create_branch(self) -> None:
        self.api.create_branch(self.repo_id, branch=self._revision, repo_type=self._repo_type, exist_ok=True)

    def _create(self) -> None:
        self.repo_id, created = self._create_repo()
        self._created = self._created or created  # also when the branch fails and all is tried again
        if self._revision != "main":
            self._create_branch()

    def _create_repo(self) -> tuple[str, bool]:
        from huggingface_hub import RepoUrl
        from huggingface_hub.errors import HfHubHTTPError

        options: dict[str, Any] = {"repo_type": self._repo_type, "private": self._private}
        if self._repo_type == "space":
            options["space_sdk"] = "static"
        try:
            return str(self.api.create_repo(self.repo_id, **options).repo_id), True
        except HfHubHTTPError as error:
            status = error.response.status_code
            if status == 409:  # it exists; the answer says under which name, which spares a request
                return str(RepoUrl(error.response.json()["url"], endpoint=self.api.endpoint).repo_id), False
            if status not in _MAY_EXIST:
                raise
            try:
                return str(self.api.repo_info(self.repo_id, repo_type=self._repo_type).id), False
            except HfHubHTTPError:
                raise error from None

    def _seconds_to_send(self, nbytes: float) -> float:
        return self.call_seconds + nbytes / SLOW_LINE_BYTES_PER_SECOND

    def _call(self, call: Callable[[], T], seconds: float | None = None) -> T:
        return self._thread.call(
            lambda: self._client.guarded(call, repo=self._name, known=self.known),
            self.call_seconds if seconds is None else seconds,
        )

    @property
    def _name(self) -> str:
        return f"the {self._repo_type} repo {self.repo_id}"
