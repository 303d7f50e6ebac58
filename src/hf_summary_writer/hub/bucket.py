"""A storage bucket as the remote end of a push: files that are overwritten in place, without commits or a history."""

from __future__ import annotations

import importlib.util
import re
from typing import TYPE_CHECKING, Any, ClassVar

import huggingface_hub

from hf_summary_writer.checks import BUCKET
from hf_summary_writer.errors import (
    ActionNeededError,
    PushError,
    TemporaryError,
)
from hf_summary_writer.hub import xet
from hf_summary_writer.hub.remote import BATCHES, BYTES_AT_ONCE, Published, Remote, RemoteFile, kept_path, longer
from hf_summary_writer.hub.responses import one_line
from hf_summary_writer.hub.uploads import grouped
from hf_summary_writer.notices import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from huggingface_hub import CommitInfo

    from hf_summary_writer.config import PushConfig
    from hf_summary_writer.hub.client import Client
    from hf_summary_writer.hub.remote import RateLimit, Upload

# Older clients do not report the failed files of a batch; clients before 1.5 have no buckets.
_OLDEST_CLIENT = (1, 33)

# The Hub takes no more operations in one batch.
_MAX_OPERATIONS = 1000

# The Xet client's message when the Hub refused its request for an upload token.
_NO_UPLOAD_TOKEN = re.compile(r"HTTP status client error \((?:401|403|404)\b[^)]*\), domain: \S+/api/")


def check_client(repo_type: str | None) -> None:
    """Check that the installed client can push to a destination of this type.

    Raises:
        ValueError: If it cannot; the message names the version to install.
    """
    if repo_type != BUCKET:
        return
    found = huggingface_hub.__version__
    if tuple(map(int, re.findall(r"\d+", found)[:2])) < _OLDEST_CLIENT:
        needed = ".".join(map(str, _OLDEST_CLIENT))
        raise ValueError(
            f"a bucket needs huggingface_hub {needed} or later, which tells of each file whether it was stored, and "
            f"this is {found}: pip install 'huggingface_hub>={needed}'"
        )
    if importlib.util.find_spec("hf_xet") is None:
        raise ValueError("a bucket needs hf_xet, since its files are stored in Xet: pip install hf_xet")


class BucketRemote(Remote):
    """One bucket; see `Remote`.

    Raises:
        ValueError: If the installed client cannot push to buckets.
    """

    max_files: ClassVar[int] = _MAX_OPERATIONS
    rate_limit: ClassVar[RateLimit] = BATCHES

    def __init__(self, config: PushConfig, client: Client) -> None:
        check_client(BUCKET)
        super().__init__(config, client)

    def publish(
        self,
        uploads: Sequence[Upload],
        title: str,
        commit_slot: Callable[[], AbstractContextManager[object]],
        along: Sequence[Upload] = (),
    ) -> Iterator[Published]:
        """Upload files and add them to the bucket, in as many batches as the memory of the Xet client asks for."""
        xet.over_xet()  # gives the client a folder for its cache
        # As many files as the Xet client holds in little memory.
        for group in grouped(uploads, lambda each: each.size, BYTES_AT_ONCE):
            # One batch takes no more; others come along with the next push.
            extras = along[: _MAX_OPERATIONS - len(group)]
            along = ()
            paths = frozenset(upload.path for upload in group)
            self._keep_others(group, extras, commit_slot)
            listed: dict[str, RemoteFile] = {}
            with self._doubting(paths):
                failed = self._send([*group, *extras], commit_slot, listed)
                # The Hub may fail single files for a moment.
                again = [upload for upload in group if upload.path in failed]
                refused = self._send(again, commit_slot, listed) if again else {}
            stored = paths - refused.keys()
            self._check_intact(group)
            arrived = stored - self._in_doubt
            self._in_doubt -= stored
            size = sum(upload.size for upload in group if upload.path in stored)
            yield Published(
                commit=self._receipt(title, len(stored), size) if stored else None,
                committed=stored,
                arrived=arrived,
                settled=paths,
                refused=refused,
                listed=listed,
            )

    def publish_small(
        self, uploads: Sequence[Upload], commit_slot: Callable[[], AbstractContextManager[object]]
    ) -> None:
        """Add small files to the bucket."""
        self._send(uploads, commit_slot, {})

    def _keep_others(
        self,
        uploads: Sequence[Upload],
        along: Sequence[Upload],
        commit_slot: Callable[[], AbstractContextManager[object]],
    ) -> None:
        """Name other runs at the places of new ones, and copy files that would be replaced by less to other names.

        Buckets keep no old versions: the replaced file of another writer would be lost for good.

        Raises:
            TemporaryError: If a file cannot be copied.
        """
        sizes = {each.path: each.size for each in uploads if not each.known_bytes and each.path not in self._in_doubt}
        firsts = [each for each in along if each.is_first]
        found = self.files([*sizes, *(each.path for each in firsts)])
        self._tell_other_runs(each for each in firsts if each.path in found)
        replaced = longer(found, sizes)
        if not replaced:
            return
        kept = {path: kept_path(path, file.xet_hash) for path, file in replaced.items()}
        copies = [(BUCKET, self.repo_id, file.xet_hash, kept[path]) for path, file in replaced.items()]
        # Before the new files are sent: of one batch, the copy could fail and the rest not.
        with commit_slot():
            failed = self._call(lambda: self._batch(copy=copies))
        for path, reason in failed.items():
            raise TemporaryError(f"the longer file that was to be kept as {path!a} could not be copied: {reason}")
        self._tell_kept(kept)

    def _send(
        self,
        uploads: Sequence[Upload],
        commit_slot: Callable[[], AbstractContextManager[object]],
        listed: dict[str, RemoteFile],
    ) -> dict[str, str]:
        """Upload files and add them to the bucket, and note how it lists them; return those that failed, and why."""

        def send() -> dict[str, str]:
            try:
                add = [_addition(upload) for upload in uploads]
                failed = self._batch(add=add)
            except (ImportError, TypeError):  # it is private, and may change
                return self._batch(add=[(upload.body, upload.path) for upload in uploads])
            listed.update(_listed(add))
            return failed

        seconds = self._seconds_to_send(sum(upload.size for upload in uploads))
        with commit_slot():
            try:
                return self._call(send, seconds)
            except PushError as error:
                if error.in_doubt or not _NO_UPLOAD_TOKEN.search(str(error)):
                    raise
                self._call(self._find)  # raises with the Hub's own reason
                said = one_line(str(error))
                raise ActionNeededError(
                    f"the token may not write to {self._name} ({said}): use one with write access to it"
                ) from None

    def _batch(self, **operations: Any) -> dict[str, str]:
        from huggingface_hub.errors import BucketBatchError

        try:
            self.api.batch_bucket_files(self.repo_id, **operations)
        except BucketBatchError as error:
            return {str(each["path"]): one_line(str(each["error"])) for each in error.failures}
        return {}

    def _receipt(self, title: str, files: int, nbytes: int) -> CommitInfo:
        from hf_summary_writer.hub.receipt import BucketReceipt

        url = f"{self.client.endpoint}/buckets/{self.repo_id}"
        return BucketReceipt(url, f"{title}: {counted(files, 'file')}", files, nbytes)

    def _list(self, paths: list[str]) -> dict[str, RemoteFile]:
        found = self.api.get_bucket_paths_info(self.repo_id, paths)
        return {each.path: RemoteFile(each.size, xet_hash=each.xet_hash) for each in found}

    def _find(self) -> Any:
        return self.api.bucket_info(self.repo_id)

    def _create(self) -> bool:
        url = self.api.create_bucket(self.repo_id, private=self._private, exist_ok=True)
        self.repo_id: str = url.bucket_id
        return False  # a bucket gets no README.md

    @property
    def _name(self) -> str:
        return f"the bucket {self.repo_id}"


def _addition(upload: Upload) -> Any:
    """Return a file for the client to upload, in the client's own class, into which it writes the file's hash."""
    from huggingface_hub._buckets import _BucketAddFile

    return _BucketAddFile(upload.body, upload.path)


def _listed(additions: Sequence[Any]) -> Iterator[tuple[str, RemoteFile]]:
    """Yield the bucket's listing of each file, as far as the client has reported it."""
    for each in additions:
        size, xet_hash = getattr(each, "size", None), getattr(each, "xet_hash", None)
        if isinstance(size, int) and isinstance(xet_hash, str):
            yield each.destination, RemoteFile(size, xet_hash=xet_hash)
