"""The buckets of this Hub: their settings, and their files."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hf_summary_writer.localhub.buckets.files import BucketFiles
from hf_summary_writer.localhub.folders import FolderStore
from hf_summary_writer.localhub.names import BUCKETS

if TYPE_CHECKING:
    from pathlib import Path

    from hf_summary_writer.localhub.disk import Disk
    from hf_summary_writer.localhub.names import RepoId


@dataclass(frozen=True, slots=True)
class BucketSettings:
    """The settings of a bucket.

    Args:
        private: whether only those who may use the namespace see the bucket.
        region: its storage region on the real Hub.
        created: the Unix time of its creation.
        uid: its id, which stays when it is renamed.
    """

    private: bool = False
    region: str = "us"
    created: float = 0.0
    uid: str = ""


class BucketStore(FolderStore[BucketSettings]):
    """All buckets, each in a folder; any thread may use it."""

    settings_name = "bucket.json"

    def __init__(self, folder: Path, disk: Disk) -> None:
        super().__init__(folder, disk, [BUCKETS], BucketSettings)
        self._lock = threading.Lock()
        self._opened: dict[str, BucketFiles] = {}

    def files(self, bucket: RepoId) -> BucketFiles:
        """Return the files of a bucket."""
        uid = self.settings(bucket).uid
        with self._lock:
            if uid not in self._opened:
                self._opened[uid] = BucketFiles(self._path(bucket), self._disk)
            return self._opened[uid]

    def move(self, source: RepoId, target: RepoId) -> None:
        """Rename durably; the old name redirects to the new one until it is used again."""
        super().move(source, target)
        self._forget(self.settings(target).uid)

    def delete(self, repo: RepoId) -> None:
        """Delete: it is gone immediately, its files soon after."""
        uid = self.settings(repo).uid
        super().delete(repo)
        self._forget(uid)

    def _forget(self, uid: str) -> None:
        with self._lock:
            self._opened.pop(uid, None)
