"""The repos of this Hub: their settings, and the folder each lives in."""

from __future__ import annotations

import json
import secrets
import shutil
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from hf_summary_writer.localhub.disk import Disk, make_folder, sync_folder
from hf_summary_writer.localhub.errors import RepoNotFoundError
from hf_summary_writer.localhub.gitrepo import MAIN, GitRepo
from hf_summary_writer.localhub.index import NameIndex
from hf_summary_writer.localhub.lfs import LfsStore
from hf_summary_writer.localhub.names import KINDS, RepoId, check_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from hf_summary_writer.localhub.xet.store import XetStore

SDKS = ("gradio", "streamlit", "docker", "static")

_SETTINGS = "localhub.json"


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a repo.

    Args:
        private: whether only those who may use the namespace see the repo.
        sdk: the kind of Space.
        created: the Unix time of its creation.
        uid: its id, which stays when it is renamed.
    """

    private: bool = False
    sdk: str | None = None
    created: float = 0.0
    uid: str = ""


@dataclass(frozen=True, slots=True)
class ListedRepo:
    """A repo in a list, with the Unix time of the last commit on its main branch."""

    repo: RepoId
    settings: Settings
    changed: float


class RepoStore:
    """All repos, each a bare Git repository in a folder; any thread may use it."""

    def __init__(self, folder: Path, xet: XetStore, disk: Disk) -> None:
        self._disk = disk
        self._folder = folder
        self._xet = xet
        self._trash = folder / ".trash"
        for kind in KINDS:
            make_folder(folder / kind)
        # Deletions that a kill cut short.
        shutil.rmtree(self._trash, ignore_errors=True)
        self.index = NameIndex(folder / "former-names.json", disk)
        for repo in self.all():
            GitRepo.remove_stale_locks(self._path(repo))
            self.index.add(repo, self.settings(repo).uid)

    def _path(self, repo: RepoId) -> Path:
        return self._folder / repo.kind / repo.namespace / f"{repo.name}.git"

    def _settings_path(self, repo: RepoId) -> Path:
        return self._path(repo) / _SETTINGS

    def all(self) -> Iterator[RepoId]:
        """Yield every repo, by kind and name."""
        for kind in KINDS:
            for path in sorted((self._folder / kind).glob(f"*/*.git/{_SETTINGS}")):
                yield RepoId(kind, path.parent.parent.name, path.parent.name.removesuffix(".git"))

    def settings(self, repo: RepoId) -> Settings:
        """Return the settings of a repo; names that no repo can have are safe to ask about."""
        if not repo.is_possible:
            raise RepoNotFoundError
        try:
            return Settings(**json.loads(self._settings_path(repo).read_bytes()))
        except FileNotFoundError:
            raise RepoNotFoundError from None

    def git(self, repo: RepoId) -> AbstractContextManager[GitRepo]:
        """Open the Git side of a repo that exists."""
        return GitRepo.open(self._path(repo))

    def lfs(self, repo: RepoId) -> LfsStore:
        """Return the large files of a repo that exists."""
        return LfsStore(self._path(repo), self._xet, self._disk)

    def create(self, repo: RepoId, settings: Settings, author: str) -> None:
        """Create a repo with its first commit; it is there once its settings are."""
        check_name(repo.namespace, repo.name)
        path = self._path(repo)
        shutil.rmtree(path, ignore_errors=True)
        make_folder(path)
        GitRepo.create(path, author)
        settings = replace(settings, created=time.time(), uid=secrets.token_hex(12))
        self._write(repo, settings)
        self.index.add(repo, settings.uid)

    def change(self, repo: RepoId, **changes: Any) -> None:
        """Change settings of a repo."""
        self._write(repo, replace(self.settings(repo), **changes))

    def _write(self, repo: RepoId, settings: Settings) -> None:
        self._disk.write(self._settings_path(repo), json.dumps(asdict(settings)).encode())

    def listed(self, visible: Callable[[RepoId, bool], bool]) -> Iterator[ListedRepo]:
        """Yield what a list of repos says of each that is visible: `visible(repo, private)`."""
        for repo in self.all():
            # A repo may go while others are being looked at.
            with suppress(RepoNotFoundError):
                settings = self.settings(repo)
                if visible(repo, settings.private):
                    with self.git(repo) as git:
                        yield ListedRepo(repo, settings, next(git.log(git.resolve(MAIN))).time)

    def move(self, source: RepoId, target: RepoId) -> None:
        """Give a repo another name, for good; the old name leads to it until a new repo takes that name."""
        old, new, uid = self._path(source), self._path(target), self.settings(source).uid
        make_folder(new.parent)
        self.index.remember(source)
        old.rename(new)
        sync_folder(new.parent)
        sync_folder(old.parent)
        self.index.remove(source)
        self.index.add(target, uid)

    def delete(self, repo: RepoId) -> None:
        """Delete a repo; it is gone at once, its files soon after."""
        path = self._path(repo)
        make_folder(self._trash)
        grave = self._trash / f"{repo.kind}-{repo.namespace}-{repo.name}-{time.time_ns()}"
        path.rename(grave)
        self.index.remove(repo)
        sync_folder(path.parent)
        shutil.rmtree(grave, ignore_errors=True)
