"""The repos of this Hub: their settings, Git repositories and large files."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hf_summary_writer.localhub.errors import RepoNotFoundError
from hf_summary_writer.localhub.folders import FolderStore
from hf_summary_writer.localhub.gitrepo import MAIN, GitRepo
from hf_summary_writer.localhub.lfs import LfsStore
from hf_summary_writer.localhub.names import KINDS
from hf_summary_writer.localhub.pulls import PullStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from hf_summary_writer.localhub.disk import Disk
    from hf_summary_writer.localhub.names import RepoId
    from hf_summary_writer.localhub.xet.store import XetStore

SDKS = ("gradio", "streamlit", "docker", "static")


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


class RepoStore(FolderStore[Settings]):
    """All repos, each a bare Git repository in a folder; any thread may use it."""

    settings_name = "localhub.json"
    suffix = ".git"

    def __init__(self, folder: Path, xet: XetStore, disk: Disk) -> None:
        super().__init__(folder, disk, KINDS, Settings)
        self._xet = xet
        for repo in self.all():
            GitRepo.remove_stale_locks(self._path(repo))

    def _fill(self, path: Path, author: str) -> None:
        GitRepo.create(path, author)

    def git(self, repo: RepoId) -> AbstractContextManager[GitRepo]:
        """Open the Git repository of an existing repo."""
        return GitRepo.open(self._path(repo))

    def lfs(self, repo: RepoId) -> LfsStore:
        """Return the large files of an existing repo."""
        return LfsStore(self._path(repo), self._xet, self._disk)

    def pulls(self, repo: RepoId) -> PullStore:
        """Return the pull requests of an existing repo."""
        return PullStore(self._path(repo) / "pulls", self._disk)

    def listed(self, may_see: Callable[[RepoId, bool], bool]) -> Iterator[ListedRepo]:
        """Yield the repos for which `may_see(repo, private)` is true, with the times of their last commits."""
        for repo, settings in self.visible(may_see):
            with suppress(RepoNotFoundError), self.git(repo) as git:
                yield ListedRepo(repo, settings, next(git.log(git.resolve(MAIN))).time)
