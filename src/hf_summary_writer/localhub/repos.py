"""The repos of this Hub: their names, their settings, and the folder each lives in."""

from __future__ import annotations

import json
import re
import shutil
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from hf_summary_writer.localhub.disk import Disk, make_folder, sync_folder
from hf_summary_writer.localhub.errors import BadRequestError, RepoNotFoundError
from hf_summary_writer.localhub.gitrepo import MAIN, GitRepo
from hf_summary_writer.localhub.lfs import LfsStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from hf_summary_writer.localhub.xet.store import XetStore

KINDS = ("models", "datasets", "spaces")
SDKS = ("gradio", "streamlit", "docker", "static")

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")
_ROUTES = {*KINDS, "api", "v1", "v2", "xorbs", "lfs-objects", "lfs-verify", "localhub", "login"}
_SETTINGS = "localhub.json"


@dataclass(frozen=True, slots=True)
class RepoId:
    """Which repo: its kind as in URLs of the API, its namespace and its name."""

    kind: str
    namespace: str
    name: str

    @property
    def full_name(self) -> str:
        """Return namespace and name, as users write it."""
        return f"{self.namespace}/{self.name}"

    @property
    def page(self) -> str:
        """Return the path of the repo's page."""
        return f"/{self.full_name}" if self.kind == "models" else f"/{self.kind}/{self.full_name}"


@dataclass(frozen=True, slots=True)
class Settings:
    """What is known of a repo beside its Git history."""

    private: bool = False
    sdk: str | None = None
    created: float = 0.0


@dataclass(frozen=True, slots=True)
class ListedRepo:
    """A repo in a list, with the Unix time of the last commit on its main branch."""

    repo: RepoId
    settings: Settings
    changed: float


def check_name(namespace: str, name: str) -> None:
    """Refuse names that the Hub would not give to a repo."""
    if namespace in _ROUTES:
        raise BadRequestError(f"The name {namespace!r} is taken by the Hub itself.")
    for part in (namespace, name):
        if not _NAME.fullmatch(part) or "--" in part or ".." in part or part.endswith(".git"):
            raise BadRequestError(
                f"Invalid name {part!r}: use letters, digits, '-', '_' and '.', at most 96, "
                "no '--' or '..', and do not begin or end with '-' or '.' or end with '.git'."
            )


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
        for repo in self.all():
            GitRepo.remove_stale_locks(self._path(repo))

    def _path(self, repo: RepoId) -> Path:
        return self._folder / repo.kind / repo.namespace / f"{repo.name}.git"

    def _settings_path(self, repo: RepoId) -> Path:
        return self._path(repo) / _SETTINGS

    def all(self) -> Iterator[RepoId]:
        """Yield every repo, by kind and name."""
        for kind in KINDS:
            for path in sorted((self._folder / kind).glob(f"*/*.git/{_SETTINGS}")):
                yield RepoId(kind, path.parent.parent.name, path.parent.name.removesuffix(".git"))

    def exists(self, repo: RepoId) -> bool:
        """Return whether there is such a repo; names that no repo can have are safe to ask about."""
        names = (repo.namespace, repo.name)
        return all(_NAME.fullmatch(name) for name in names) and self._settings_path(repo).exists()

    def settings(self, repo: RepoId) -> Settings:
        """Return the settings of a repo."""
        if not self.exists(repo):
            raise RepoNotFoundError
        return Settings(**json.loads(self._settings_path(repo).read_bytes()))

    def git(self, repo: RepoId) -> AbstractContextManager[GitRepo]:
        """Open the Git side of a repo that exists."""
        return GitRepo.open(self._path(repo))

    def lfs(self, repo: RepoId) -> LfsStore:
        """Return the large files of a repo that exists."""
        return LfsStore(self._path(repo), self._xet, self._disk)

    def create(self, repo: RepoId, settings: Settings) -> None:
        """Create a repo with its first commit; it is there once its settings are."""
        check_name(repo.namespace, repo.name)
        path = self._path(repo)
        shutil.rmtree(path, ignore_errors=True)
        make_folder(path)
        GitRepo.create(path)
        self._write(repo, replace(settings, created=time.time()))

    def change(self, repo: RepoId, **changes: Any) -> None:
        """Change settings of a repo."""
        self._write(repo, replace(self.settings(repo), **changes))

    def _write(self, repo: RepoId, settings: Settings) -> None:
        self._disk.write(self._settings_path(repo), json.dumps(asdict(settings)).encode())

    def listed(self, *, private: bool) -> Iterator[ListedRepo]:
        """Yield what a list of repos says of each, private ones too if asked."""
        for repo in self.all():
            # A repo may go while others are being looked at.
            with suppress(RepoNotFoundError):
                settings = self.settings(repo)
                if private or not settings.private:
                    with self.git(repo) as git:
                        yield ListedRepo(repo, settings, next(git.log(git.resolve(MAIN))).time)

    def move(self, source: RepoId, target: RepoId) -> None:
        """Give a repo another name, for good."""
        old, new = self._path(source), self._path(target)
        make_folder(new.parent)
        old.rename(new)
        sync_folder(new.parent)
        sync_folder(old.parent)

    def delete(self, repo: RepoId) -> None:
        """Delete a repo; it is gone at once, its files soon after."""
        path = self._path(repo)
        make_folder(self._trash)
        grave = self._trash / f"{repo.kind}-{repo.namespace}-{repo.name}-{time.time_ns()}"
        path.rename(grave)
        sync_folder(path.parent)
        shutil.rmtree(grave, ignore_errors=True)
