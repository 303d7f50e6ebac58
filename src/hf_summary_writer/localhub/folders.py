"""The store of named folders with settings, for repos and for buckets: create, find, rename, delete."""

from __future__ import annotations

import json
import secrets
import shutil
import time
from contextlib import suppress
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from hf_summary_writer.localhub.disk import make_folder, sync_folder
from hf_summary_writer.localhub.errors import RepoNotFoundError
from hf_summary_writer.localhub.index import NameIndex
from hf_summary_writer.localhub.names import RepoId, check_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from typing import ClassVar

    from _typeshed import DataclassInstance

    from hf_summary_writer.localhub.disk import Disk

    class _Settings(DataclassInstance, Protocol):
        @property
        def private(self) -> bool: ...
        @property
        def created(self) -> float: ...
        @property
        def uid(self) -> str: ...


S = TypeVar("S", bound="_Settings")


class FolderStore(Generic[S]):
    """Repos, or buckets, each in a folder of its own; any thread may use it.

    Args:
        folder: holds a folder for each kind, that one for each namespace.
        disk: writes the settings.
        kinds: the kinds that are kept here.
        settings_type: the class of the settings.
    """

    # The name of the file of the settings, and the end of the name of a folder.
    settings_name: ClassVar[str]
    suffix: ClassVar[str] = ""

    def __init__(self, folder: Path, disk: Disk, kinds: Sequence[str], settings_type: type[S]) -> None:
        self._folder = folder
        self._disk = disk
        self._kinds = kinds
        self._settings_type = settings_type
        self._trash = folder / ".trash"
        for kind in kinds:
            make_folder(folder / kind)
        # Deletions that a kill interrupted.
        shutil.rmtree(self._trash, ignore_errors=True)
        self.index: NameIndex = NameIndex(folder / "former-names.json", disk)
        for repo in self.all():
            self.index.add(repo, self.settings(repo).uid)

    def _path(self, repo: RepoId) -> Path:
        return self._folder / repo.kind / repo.namespace / f"{repo.name}{self.suffix}"

    def all(self) -> Iterator[RepoId]:
        """Yield all, by kind and name."""
        for kind in self._kinds:
            for path in sorted((self._folder / kind).glob(f"*/*{self.suffix}/{self.settings_name}")):
                yield RepoId(kind, path.parent.parent.name, path.parent.name.removesuffix(self.suffix))

    def visible(self, may_see: Callable[[RepoId, bool], bool]) -> Iterator[tuple[RepoId, S]]:
        """Yield the ones for which `may_see(repo, private)` is true, with their settings."""
        for repo in self.all():
            # A folder may be deleted during the iteration.
            with suppress(RepoNotFoundError):
                settings = self.settings(repo)
                if may_see(repo, settings.private):
                    yield repo, settings

    def settings(self, repo: RepoId) -> S:
        """Return the settings; any name is safe to pass, also an invalid one."""
        if not repo.is_possible:
            raise RepoNotFoundError
        try:
            return self._settings_type(**json.loads((self._path(repo) / self.settings_name).read_bytes()))
        except FileNotFoundError:
            raise RepoNotFoundError from None

    def create(self, repo: RepoId, settings: S, author: str) -> None:
        """Create a repo or bucket; it exists once its settings file does."""
        check_name(repo.namespace, repo.name)
        path = self._path(repo)
        shutil.rmtree(path, ignore_errors=True)
        make_folder(path)
        settings = replace(settings, created=time.time(), uid=secrets.token_hex(12))
        self._fill(path, author)
        self._write(repo, settings)
        self.index.add(repo, settings.uid)

    def _fill(self, path: Path, author: str) -> None:
        """Create the initial content of a new folder."""

    def change(self, repo: RepoId, **changes: Any) -> None:
        """Change settings."""
        self._write(repo, replace(self.settings(repo), **changes))

    def _write(self, repo: RepoId, settings: S) -> None:
        self._disk.write(self._path(repo) / self.settings_name, json.dumps(asdict(settings)).encode())

    def move(self, source: RepoId, target: RepoId) -> None:
        """Rename durably; the old name redirects to the new one until it is used again."""
        old, new, uid = self._path(source), self._path(target), self.settings(source).uid
        make_folder(new.parent)
        self.index.remember(source)
        old.rename(new)
        sync_folder(new.parent)
        sync_folder(old.parent)
        self.index.remove(source)
        self.index.add(target, uid)

    def delete(self, repo: RepoId) -> None:
        """Delete: it is gone immediately, its files soon after."""
        path = self._path(repo)
        make_folder(self._trash)
        grave = self._trash / f"{repo.kind}-{repo.namespace}-{repo.name}-{time.time_ns()}"
        path.rename(grave)
        self.index.remove(repo)
        sync_folder(path.parent)
        shutil.rmtree(grave, ignore_errors=True)
