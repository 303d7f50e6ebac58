"""Lookup of repos and buckets by name in any case, by former name, and by id."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from hf_summary_writer.localhub.disk import Disk
    from hf_summary_writer.localhub.names import RepoId


class NameIndex:
    """An in-memory index; only former names are stored on disk. Thread-safe.

    Args:
        path: the file of the former names.
        disk: writes that file.
    """

    def __init__(self, path: Path, disk: Disk) -> None:
        self._path = path
        self._disk = disk
        self._lock = threading.Lock()
        self._by_key: dict[RepoId, tuple[RepoId, str]] = {}
        self._by_uid: dict[str, RepoId] = {}
        self._former: dict[str, str] = json.loads(path.read_bytes()) if path.exists() else {}

    def add(self, repo: RepoId, uid: str) -> None:
        """Add a new repo; its name no longer redirects to another one."""
        with self._lock:
            self._by_key[repo.key] = repo, uid
            self._by_uid[uid] = repo
            if self._former.pop(_label(repo), None):
                self._save()

    def remove(self, repo: RepoId) -> None:
        """Remove a repo that was deleted."""
        with self._lock:
            _, uid = self._by_key.pop(repo.key)
            del self._by_uid[uid]

    def remember(self, repo: RepoId) -> None:
        """Record the current name of a repo as a former name, before it is renamed."""
        with self._lock:
            self._former[_label(repo)] = self._by_key[repo.key][1]
            self._save()

    def find(self, repo: RepoId) -> RepoId | None:
        """Return the repo with this name, in any case, in its original spelling."""
        found = self._by_key.get(repo.key)
        return found[0] if found else None

    def find_former(self, repo: RepoId) -> RepoId | None:
        """Return the current name of the repo that formerly had this name."""
        return self._by_uid.get(self._former.get(_label(repo), ""))

    def with_uid(self, uid: str) -> RepoId | None:
        """Return the repo with this id."""
        return self._by_uid.get(uid)

    def _save(self) -> None:
        self._disk.write(self._path, json.dumps(self._former).encode())


def _label(repo: RepoId) -> str:
    key = repo.key
    return f"{key.kind}/{key.full_name}"
