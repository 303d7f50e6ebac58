"""A branch of a model, dataset or Space repo as the remote end of a push."""

from __future__ import annotations

import functools
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from hf_summary_writer.checks import PULL_REQUESTS
from hf_summary_writer.errors import (
    DeadlineError,
    PushError,
    RejectedError,
    TemporaryError,
)
from hf_summary_writer.hub import xet
from hf_summary_writer.hub.remote import BYTES_AT_ONCE, COMMITS, Published, Remote, RemoteFile, kept_path, longer
from hf_summary_writer.hub.uploads import (
    CARD_PATH,
    PieceReader,
    PreparedCommit,
    exists,
    git_oid,
    grouped,
    is_identical,
    is_in_lfs,
    is_left_out,
    posted_bytes,
)
from hf_summary_writer.notices import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from huggingface_hub import CommitInfo, CommitOperationAdd

    from hf_summary_writer.config import PushConfig
    from hf_summary_writer.hub.client import Client
    from hf_summary_writer.hub.remote import RateLimit, Upload

T = TypeVar("T")
Result = TypeVar("Result")

# The Hub advises under 100 files per commit.
MAX_FILES_PER_COMMIT = 100
# Text travels within the commit request, of which the client holds several copies, and over a slow line a large request
# would never end. A single file may be larger: the Hub takes up to 10 MB in this way.
MAX_POSTED_BYTES_PER_COMMIT = 8 * 2**20

# Each call that the Xet client does not return from costs a thread and two descriptors.
_MOST_LEFT_BEHIND = 2

# A token that may not create repos, or not this one, may still push to one that exists.
_MAY_EXIST = frozenset({401, 402, 403})


class RepoRemote(Remote):
    """One branch of one repo; see `Remote`."""

    max_files: ClassVar[int] = MAX_FILES_PER_COMMIT
    rate_limit: ClassVar[RateLimit] = COMMITS

    def __init__(self, config: PushConfig, client: Client) -> None:
        super().__init__(config, client)
        self._piece_reader = PieceReader()
        # Whether the Hub refuses the small files that come along, and whether it may, as of this push.
        self._refuses_along = self._may_refuse_along = False
        # Whether the last ones needed an upload, of which the client makes only one at a time in its caller's thread.
        self._along_in_lfs = False
        self._created = False

    def recheck(self) -> None:
        """Make sure that a repo or branch found gone is back, and retry small files not known as refused."""
        super().recheck()
        self._may_refuse_along = self._refuses_along

    def publish(
        self,
        uploads: Sequence[Upload],
        title: str,
        commit_slot: Callable[[], AbstractContextManager[object]],
        along: Sequence[Upload] = (),
    ) -> Iterator[Published]:
        """Upload files and commit them, in several commits where text exceeds the size limit of one."""
        prepared = self._prepare(uploads, () if self._may_refuse_along else along)
        # Files that need no commit are settled with the first one.
        settled = frozenset(upload.path for upload in uploads) - _paths(prepared.additions)
        for share in prepared.shares(MAX_POSTED_BYTES_PER_COMMIT):
            commit = None
            committed = _paths(share.additions)
            settled |= committed
            arrived = settled - share.left_out
            if committed:
                with self._doubting(settled):
                    commit = self._commit(share, f"{title}: {counted(len(committed), 'file')}", commit_slot)
                arrived -= self._in_doubt
            self._in_doubt -= settled
            yield Published(
                commit=commit,
                committed=committed,
                arrived=arrived,
                left_out=share.left_out,
                settled=settled,
                listed=share.listed,
            )
            settled = frozenset()

    def _list(self, paths: list[str]) -> dict[str, RemoteFile]:
        found = self.api.get_paths_info(self.repo_id, paths, repo_type=self._repo_type, revision=self._revision)
        # A folder has no size.
        return {each.path: _remote_file(each) for each in found if hasattr(each, "size")}

    def squash(self, title: str) -> None:
        """Squash the history of the branch into one commit."""
        self._call(
            lambda: self.api.super_squash_history(
                self.repo_id, repo_type=self._repo_type, branch=self._revision, commit_message=title
            )
        )

    def _prepare(self, uploads: Sequence[Upload], along: Sequence[Upload]) -> PreparedCommit:
        if self.thread.left_behind >= _MOST_LEFT_BEHIND:
            # Requests of our own end at their deadline, so it is the Xet client that hangs.
            xet.switch_off(f"its client has not returned from {self.thread.left_behind} calls")
        prepared = self._upload_over_either(uploads, along)
        self._check_intact(uploads)
        return replace(prepared, kept=self._to_keep(prepared, uploads))

    def _upload_over_either(self, uploads: Sequence[Upload], along: Sequence[Upload]) -> PreparedCommit:
        """Upload files over Xet, or over plain LFS where only that works; for good if Xet has not worked before."""
        seconds = self._seconds_to_send(sum(upload.size for upload in uploads))
        until = time.monotonic() + seconds
        if not xet.over_xet():
            return self._upload(uploads, along, seconds)
        try:
            return self._upload_over_xet(uploads, along)
        except TemporaryError as error:
            left = until - time.monotonic()
            # The first upload has less time than a slow Hub may need for its part of it.
            if left <= 0 or not (error.is_outside_requests or isinstance(error, DeadlineError)):
                raise
            failure = error
        with xet.switched_off():
            try:
                prepared = self._upload(uploads, along, left)
            except PushError:
                raise failure from None  # it is not Xet that fails
        if failure.is_outside_requests:
            is_late = isinstance(failure, DeadlineError)
            xet.note_failure("an upload over it " + ("did not end in time" if is_late else f"failed ({failure})"))
        return prepared

    def _upload_over_xet(self, uploads: Sequence[Upload], along: Sequence[Upload]) -> PreparedCommit:
        if not xet.has_worked.is_set():
            self._call(xet.load)
        for upload in uploads:
            self._upload_in_pieces(upload)
        prepared = self._upload(uploads, along, self._seconds_over_xet(sum(upload.size for upload in uploads)))
        # Another thread may have switched it off meanwhile.
        if any(map(is_in_lfs, prepared.additions)) and not xet.is_off():
            xet.has_worked.set()
        return prepared

    def _upload(self, uploads: Sequence[Upload], along: Sequence[Upload], seconds: float) -> PreparedCommit:
        return self._with_or_without(along, lambda some: self._call(lambda: self._preupload(uploads, some), seconds))

    def _seconds_over_xet(self, nbytes: float) -> float:
        longest = self.call_seconds if xet.has_worked.is_set() else xet.FIRST_UPLOAD_SECONDS
        return self._seconds_to_send(nbytes, min(self.call_seconds, longest))

    def _to_keep(self, prepared: PreparedCommit, uploads: Sequence[Upload]) -> dict[str, str]:
        """Return the files of the branch that would be replaced by less, and the paths under which to keep them."""
        # A README.md may be ours or the Hub's own.
        existing = _paths(filter(exists, prepared.additions)) - {CARD_PATH}
        sizes = {each.path: each.size for each in uploads if each.is_first and each.path in existing}
        found = longer(self.files([*sizes]), sizes) if sizes else {}
        return {path: kept_path(path, file.git_oid) for path, file in found.items()}

    def _commit(
        self, share: PreparedCommit, message: str, commit_slot: Callable[[], AbstractContextManager[object]]
    ) -> CommitInfo:
        from huggingface_hub import CommitOperationCopy

        copies = [CommitOperationCopy(path, to) for path, to in share.kept.items()]

        def attempt(along: Sequence[CommitOperationAdd]) -> CommitInfo:
            additions = [*share.additions, *along]
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

        commit = self._with_or_without(share.along, attempt)
        self._tell_kept(share.kept)
        return commit

    def _with_or_without(self, along: Sequence[T], attempt: Callable[[Sequence[T]], Result]) -> Result:
        """Attempt something with the small files; without them where the Hub may have refused because of them."""
        try:
            return attempt(along)
        except RejectedError:
            if not along:
                raise
        self._may_refuse_along = True  # they are not worth a log
        result = attempt(())
        self._refuses_along = True
        return result

    def _preupload(self, uploads: Sequence[Upload], along: Sequence[Upload]) -> PreparedCommit:
        from huggingface_hub import CommitOperationAdd

        additions, others = (
            [CommitOperationAdd(path_in_repo=each.path, path_or_fileobj=each.body) for each in some]
            for some in (uploads, along)
        )
        # Over plain LFS one by one: given several, the client uploads them from a thread pool, which cannot be used
        # while the interpreter exits, and of which one hung upload would hold the exit for ever.
        most = BYTES_AT_ONCE if xet.over_xet() else 0
        groups = list(grouped(additions, lambda each: each.upload_info.size, most))
        # Text needs no upload, and asked for together with a file no request of its own.
        groups[:1] = [groups[0], others] if self._along_in_lfs else [groups[0] + others]
        for some in filter(None, groups):
            self._preupload_some(some)
        self._along_in_lfs = any(map(is_in_lfs, others))
        self._tell_other_runs(
            each for each, added in zip(along, others, strict=True) if each.is_first and exists(added)
        )
        left_out = [addition for addition in additions if is_left_out(addition)]
        wanted = [addition for addition in additions if addition not in left_out and not is_identical(addition)]
        others = [
            addition
            for addition, upload in zip(others, along, strict=True)
            if not is_left_out(addition) and not (upload.only_new and exists(addition))
        ]
        return PreparedCommit(
            tuple(wanted),
            _paths(left_out),
            along=tuple(others),
            listed={each.path_in_repo: _to_be_listed(each) for each in additions},
        )

    def _preupload_some(self, additions: list[CommitOperationAdd]) -> None:
        self.api.preupload_lfs_files(
            repo_id=self.repo_id, repo_type=self._repo_type, revision=self._revision, additions=additions
        )

    def _upload_in_pieces(self, upload: Upload) -> None:
        from huggingface_hub import CommitOperationAdd

        for piece in self._piece_reader.pieces(upload, BYTES_AT_ONCE):
            if xet.is_off():  # another thread has switched it off: over plain LFS, pieces would be files
                return
            addition = CommitOperationAdd(path_in_repo=upload.path, path_or_fileobj=piece)
            self._call(functools.partial(self._preupload_some, [addition]), self._seconds_over_xet(len(piece)))

    def _find(self) -> None:
        self.api.repo_info(self.repo_id, repo_type=self._repo_type)

    def _create_branch(self) -> None:
        if self._revision.startswith(PULL_REQUESTS):
            # It cannot be created: it exists as long as its pull request does.
            self.api.repo_info(self.repo_id, repo_type=self._repo_type, revision=self._revision)
            return
        self.api.create_branch(self.repo_id, branch=self._revision, repo_type=self._repo_type, exist_ok=True)

    def _create(self) -> bool:
        repo_id, created = self._create_repo()
        self.repo_id: str = repo_id
        self._created = self._created or created  # also when the branch fails and all is tried again
        if self._revision != "main":
            self._create_branch()
        return self._created

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
            if status == 409:  # it exists; the answer has its full name, which saves a request
                return str(RepoUrl(error.response.json()["url"], endpoint=self.api.endpoint).repo_id), False
            if status not in _MAY_EXIST:
                raise
            try:
                return str(self.api.repo_info(self.repo_id, repo_type=self._repo_type).id), False
            except HfHubHTTPError:
                raise error from None


def _paths(additions: Iterable[CommitOperationAdd]) -> frozenset[str]:
    return frozenset(each.path_in_repo for each in additions)


def _to_be_listed(addition: CommitOperationAdd) -> RemoteFile:
    info = addition.upload_info
    return RemoteFile(info.size, info.sha256.hex(), git_oid(addition))


def _remote_file(file: Any) -> RemoteFile:
    lfs = getattr(file, "lfs", None)
    return RemoteFile(file.size, lfs.sha256 if lfs else "", file.blob_id)
