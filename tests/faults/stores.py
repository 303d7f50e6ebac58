"""Stores for the state machine: a Hub in a separate process with the real client, or a dictionary."""

from __future__ import annotations

import contextlib
import os
import threading
import uuid
from dataclasses import dataclass, field
from hashlib import sha256
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Protocol

from huggingface_hub import get_session, hf_hub_url
from huggingface_hub.hf_api import RepoFile

import remote
from events import wait_until
from faults.proxy import Answer, CutRequest, Hold, LoseAnswer
from hf_summary_writer.errors import TemporaryError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from huggingface_hub import HfApi
    from typing_extensions import Self

    from faults.proxy import Action, FaultProxy

__all__ = ["FAILURES", "PUSHED_BY_A_CHILD", "BucketDictionary", "Dictionary", "RealBucket", "RealHub", "Store"]

FAILURES = ["the commit is refused", "the commit breaks off", "the answer to the commit is lost"]
PUSHED_BY_A_CHILD = 77
"""The exit code of a child that pushes to a dictionary, since its parent would not see the push."""


@dataclass(slots=True)
class Holdings:
    """The content of a store.

    Attributes:
        files: The current content by path.
        versions: Every content that was ever committed, by path.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    versions: dict[str, list[bytes]] = field(default_factory=dict)

    def commit(self, files: Mapping[str, bytes]) -> None:
        for path, content in files.items():
            if self.files.get(path) != content:
                self.versions.setdefault(path, []).append(content)
        self.files.update(files)


class Store(Protocol):
    """The interface of a store. It is a context manager: schedulers that are made inside push to it."""

    repo_id: str
    api: Any
    repo_type: str

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def fails(self, how: str) -> AbstractContextManager[None]:
        """Let the next commit fail in one of the ways of `FAILURES`."""

    def pauses(self) -> AbstractContextManager[Callable[[], None]]:
        """Hold the next commit until the block ends, and yield a function that waits until the commit is held."""

    def asked(self) -> int:
        """Return the number of requests."""

    def delete(self, path: str) -> None:
        """Delete a file, as another user may."""

    def replace(self, path: str, content: bytes) -> None:
        """Replace a file, as another user may."""

    def look(self) -> Holdings:
        """Return the content of the store."""


class RealHub:
    """A new repo on a Hub, behind a proxy that injects faults."""

    repo_type = "model"
    _commit_route = "/commit/"
    _actions: Mapping[str, Action] = dict(zip(FAILURES, (Answer(503), CutRequest(after=20), LoseAnswer()), strict=True))

    def __init__(self, api: HfApi, proxy: FaultProxy) -> None:
        self.repo_id = f"tester/machine-{uuid.uuid4().hex[:12]}"
        self.api = api
        self._proxy = proxy
        self._holdings = Holdings()
        self._seen: set[str] = set()
        self._contents: dict[str, bytes] = {}
        self._looked_at = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._proxy.clear()

    @contextlib.contextmanager
    def fails(self, how: str) -> Iterator[None]:
        self._proxy.add("POST", self._commit_route, self._actions[how])
        try:
            yield
        finally:
            self._proxy.clear()

    @contextlib.contextmanager
    def pauses(self) -> Iterator[Callable[[], None]]:
        self._proxy.add("POST", self._commit_route, Hold())
        before = self.asked()
        try:
            yield lambda: wait_until(lambda: any(seen.action == Hold() for seen in self._proxy.requests[before:]))
        finally:
            self._proxy.clear()

    def asked(self) -> int:
        return len(self._proxy.requests)

    def delete(self, path: str) -> None:
        self.api.delete_file(path, self.repo_id)

    def replace(self, path: str, content: bytes) -> None:
        self.api.upload_file(path_or_fileobj=content, path_in_repo=path, repo_id=self.repo_id)

    def look(self) -> Holdings:
        if self.asked() != self._looked_at and self.api.repo_exists(self.repo_id):
            for commit in reversed(self.api.list_repo_commits(self.repo_id)):
                if commit.commit_id not in self._seen:
                    self._seen.add(commit.commit_id)
                    tree = self._files(commit.commit_id)
                    self._holdings.commit(tree)
                    self._holdings.files = tree
            self._looked_at = self.asked()
        return self._holdings

    def _files(self, revision: str) -> dict[str, bytes]:
        """Return the files of a commit; each content is fetched once, since most commits change one or two files."""
        found: dict[str, bytes] = {}
        for entry in self.api.list_repo_tree(self.repo_id, revision=revision, recursive=True):
            if isinstance(entry, RepoFile) and entry.path != ".gitattributes":
                if entry.blob_id not in self._contents:
                    url = hf_hub_url(self.repo_id, entry.path, revision=revision, endpoint=self.api.endpoint)
                    headers = self.api._build_hf_headers()
                    answer = get_session().get(url, headers=headers, follow_redirects=True)
                    answer.raise_for_status()
                    self._contents[entry.blob_id] = answer.content
                found[entry.path] = self._contents[entry.blob_id]
        return found


class RealBucket(RealHub):
    """A new bucket on a Hub, whose versions are known only as of each call of `look`."""

    repo_type = "bucket"
    _commit_route = "/api/buckets/.*/batch"

    def delete(self, path: str) -> None:
        self.api.batch_bucket_files(self.repo_id, delete=[path])

    def replace(self, path: str, content: bytes) -> None:
        self.api.batch_bucket_files(self.repo_id, add=[(content, path)])

    def look(self) -> Holdings:
        if self.asked() != self._looked_at:
            found = {}
            if any(f"{self.repo_id}/batch" in seen.path for seen in self._proxy.requests):
                found = remote.files(self.api, self.repo_id, repo_type=self.repo_type)
            self._holdings.commit(found)
            self._holdings.files = found
            self._looked_at = self.asked()
        return self._holdings


class Dictionary:
    """A replacement of a Hub and its client that is fast enough for many more examples."""

    repo_id = "tester/run"
    repo_type = "model"

    def __init__(self) -> None:
        self.api = self
        self._pid = os.getpid()
        self._holdings = Holdings()
        self._failure: str | None = None
        self._reached, self._released = threading.Event(), threading.Event()
        self._released.set()
        self._uploaded: dict[str, bytes] = {}
        self._commits = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing was opened."""

    @contextlib.contextmanager
    def fails(self, how: str) -> Iterator[None]:
        self._failure = how
        try:
            yield
        finally:
            self._failure = None

    @contextlib.contextmanager
    def pauses(self) -> Iterator[Callable[[], None]]:
        self._reached.clear()
        self._released.clear()
        try:
            yield lambda: wait_until(self._reached.is_set)
        finally:
            self._released.set()

    def asked(self) -> int:
        return self._commits

    def delete(self, path: str) -> None:
        del self._holdings.files[path]

    def replace(self, path: str, content: bytes) -> None:
        self._holdings.commit({path: content})

    def look(self) -> Holdings:
        return self._holdings

    # The methods of `HfApi` that `RepoRemote` calls.

    endpoint = "http://nowhere"
    token = "nobody"

    def create_repo(self, repo_id: str, **_: object) -> Any:
        return SimpleNamespace(repo_id=repo_id)

    def repo_info(self, repo_id: str, **_: object) -> Any:
        return SimpleNamespace(id=repo_id)

    def get_paths_info(self, repo_id: str, paths: Sequence[str], **_: object) -> list[Any]:
        assert repo_id == self.repo_id
        return [
            SimpleNamespace(
                path=path, size=len(content), blob_id="", lfs=SimpleNamespace(sha256=sha256(content).hexdigest())
            )
            for path in paths
            if (content := self._holdings.files.get(path)) is not None
        ]

    def preupload_lfs_files(self, repo_id: str, additions: Sequence[Any], **_: object) -> None:
        assert repo_id == self.repo_id
        for addition in additions:
            with addition.as_file() as file:
                content = file.read()
            self._uploaded[addition.path_in_repo] = content
            addition._should_ignore = False
            addition._upload_mode = "lfs"
            is_there = self._holdings.files.get(addition.path_in_repo) == content
            addition._remote_oid = addition._local_oid if is_there else None
            addition.path_or_fileobj = b""

    def create_commit(self, operations: Sequence[Any], commit_message: str, **_: object) -> Any:
        assert commit_message
        self._make_commit({each.path_in_repo: self._uploaded[each.path_in_repo] for each in operations})
        return SimpleNamespace(oid="0" * 40, commit_url="http://nowhere")

    def _make_commit(self, files: Mapping[str, bytes]) -> None:
        if os.getpid() != self._pid:
            os._exit(PUSHED_BY_A_CHILD)
        self._commits += 1
        self._reached.set()
        assert self._released.wait(60)
        failure, self._failure = self._failure, None
        if failure in FAILURES[:2]:
            raise TemporaryError(failure)
        self._holdings.commit(files)
        if failure is not None:
            error = TemporaryError(failure)
            error.in_doubt = True
            raise error


class BucketDictionary(Dictionary):
    """A dictionary in place of a bucket."""

    repo_type = "bucket"

    def __init__(self) -> None:
        super().__init__()
        self._by_hash: dict[str, bytes] = {}

    def create_bucket(self, bucket_id: str, **_: object) -> Any:
        return SimpleNamespace(bucket_id=bucket_id)

    def get_bucket_paths_info(self, bucket_id: str, paths: Sequence[str]) -> list[Any]:
        assert bucket_id == self.repo_id
        found = {path: content for path in paths if (content := self._holdings.files.get(path)) is not None}
        self._by_hash |= {sha256(content).hexdigest(): content for content in found.values()}
        return [
            SimpleNamespace(path=path, size=len(content), xet_hash=sha256(content).hexdigest())
            for path, content in found.items()
        ]

    def batch_bucket_files(
        self,
        bucket_id: str,
        add: Sequence[tuple[bytes | Path, str]] = (),
        copy: Sequence[tuple[str, str, str, str]] = (),
    ) -> None:
        assert bucket_id == self.repo_id
        files = {path: body if isinstance(body, bytes) else body.read_bytes() for body, path in add}
        self._make_commit(files | {path: self._by_hash[content] for *_, content, path in copy})
