"""A copy of the event files of a repo or bucket in a local folder, kept up to date with the new bytes alone."""

from __future__ import annotations

import contextlib
import inspect
import itertools
import math
import os
import shutil
import stat
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from hf_summary_writer.checks import BUCKET, check_path_in_repo, check_repo_id
from hf_summary_writer.errors import ActionNeededError, TemporaryError
from hf_summary_writer.hub.deadline import HubAnswerError
from hf_summary_writer.hub.downloads import MARGIN_BYTES, SECONDS, download, in_threads, repo_files
from hf_summary_writer.hub.remote import CALL_SECONDS, SLOW_LINE_BYTES_PER_SECOND
from hf_summary_writer.hub.responses import failure_of
from hf_summary_writer.hub.thread import in_time

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from pathlib import Path
    from typing import BinaryIO

    from huggingface_hub import HfApi

    from hf_summary_writer.config import PushConfig

# A refresh costs two requests for a repo, and one for a bucket until its event feed has reported a change.
REPO_SECONDS, BUCKET_SECONDS = 60.0, 5.0

# Bytes at the end of the local file that must equal the download before new data is appended.
_COMPARED_BYTES = 4096

# The Hub advises under 100,000 files in a repo; of a bucket, the client holds the listing in memory.
_MOST_FILES = 300_000

# The feed of changes is looked at this often, and not relied on for longer than that: a stream may hang.
_LOOK_SECONDS = 0.25
_RELIST_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Changed:
    """How many files grew or are new, and by how many bytes.

    Attributes:
        files: The number of files.
        bytes: The number of new bytes.
        failed: The files that could not be downloaded, and why.
    """

    files: int
    bytes: int
    failed: Mapping[str, str]

    @property
    def failure(self) -> str:
        """The first file that could not be downloaded, the number of others, and the reason; empty if there is none."""
        for path, reason in self.failed.items():
            more = f" and {len(self.failed) - 1} more" if len(self.failed) > 1 else ""
            return f"{path!a}{more} could not be downloaded: {reason}"
        return ""


class _Listed(NamedTuple):
    version: str
    size: int


class _Source(ABC):
    """The files of a repo or bucket.

    Args:
        api: The client.
        config: Names the place; its `repo_id` has a namespace.

    Attributes:
        api: As given.
        config: As given.
        commit: The commit whose files were listed.
    """

    def __init__(self, api: HfApi, config: PushConfig) -> None:
        self.api = api
        self.config = config
        self.commit: str | None = None

    @abstractmethod
    def files(self) -> Mapping[str, _Listed]:
        """Return the version and size of each file by its path."""

    def wait(self, seconds: float, ended: Callable[[float], bool]) -> None:
        """Wait for a possible change, at most `seconds`."""
        ended(seconds)


class _Repo(_Source):
    def __init__(self, api: HfApi, config: PushConfig) -> None:
        super().__init__(api, config)
        self._files: dict[str, _Listed] = {}

    def files(self) -> Mapping[str, _Listed]:
        self.commit, self._files = in_time(self._listed, SECONDS)
        return self._files

    def _listed(self) -> tuple[str | None, dict[str, _Listed]]:
        """Return the commit of the revision, and its files."""
        config = self.config
        info = self.api.repo_info(config.repo_id, repo_type=config.repo_type, revision=config.revision)
        if info.sha == self.commit:
            return self.commit, self._files
        # All files of one moment.
        files = list(itertools.islice(repo_files(self.api, config, info.sha), _MOST_FILES + 1))
        _check_number(len(files), config.repo_id)
        return info.sha, {each.path: _Listed(each.blob_id, each.size) for each in files}


class _Bucket(_Source):
    """The files of a bucket, which the client's file system caches and keeps fresh by the bucket's event feed.

    The client does not show whether a Hub serves the feed, so it is relied on once it has reported two changes in a
    row: the client lists a bucket again when it begins to follow it, whether or not the Hub serves the feed.
    """

    def __init__(self, api: HfApi, config: PushConfig) -> None:
        from huggingface_hub import HfFileSystem

        super().__init__(api, config)
        # Clients before 2.3 do not follow the feed.
        follows = "live_follow" in inspect.signature(HfFileSystem.__init__).parameters
        options = {"live_follow": True} if follows else {}
        self._system = HfFileSystem(
            endpoint=api.endpoint, token=api.token, use_listings_cache=True, skip_instance_cache=True, **options
        )
        self._root = f"buckets/{config.repo_id}/"
        self._folder = f"{self._root}{config.path_in_repo}".rstrip("/")
        self._seen: dict[str, _Listed] | None = None
        self._told = 0
        self._listed_at = -math.inf
        self._relist = False

    def files(self) -> Mapping[str, _Listed]:
        relist = self._relist or self._seen is None
        if relist:
            self._system.invalidate_cache()
            self._listed_at = time.monotonic()
        found = self._found()
        if relist and found != self._seen:
            self._told = 0  # the feed has not reported it
        self._seen, self._relist = found, False
        return found

    def wait(self, seconds: float, ended: Callable[[float], bool]) -> None:
        if not self._seen:  # the feed reports nothing about a folder that does not exist
            ended(seconds)
            self._relist = True
            return
        until = self._listed_at + (_RELIST_SECONDS if self._told > 1 else seconds)
        while time.monotonic() < until:
            if self._found() != self._seen:
                self._told += 1
                return
            if ended(_LOOK_SECONDS):
                return
        self._relist = True

    def _found(self) -> dict[str, _Listed]:
        found = in_time(self._find, SECONDS)
        _check_number(len(found), self.config.repo_id)
        return {name.removeprefix(self._root): _Listed(each["xet_hash"], each["size"]) for name, each in found.items()}

    def _find(self) -> Any:
        try:
            # Makes a request only if something has changed.
            return self._system.find(self._folder, detail=True)
        except FileNotFoundError:
            # Raises if there is no bucket; otherwise the folder does not exist yet.
            self.api.bucket_info(self.config.repo_id)
            return {}


class Mirror:
    """Keeps a folder equal to the event files of a repo or bucket. Files that are gone from there stay.

    Args:
        api: The client.
        config: Names the place; its `repo_id` has a namespace.
        folder: The folder; its files are kept and not downloaded again.
        wanted: Returns whether a path is that of an event file.
        tell: Called with one line about a file that is left out.
    """

    def __init__(
        self,
        api: HfApi,
        config: PushConfig,
        folder: Path,
        wanted: Callable[[str], bool],
        tell: Callable[[str], object],
    ) -> None:
        self._source = (_Bucket if config.repo_type == BUCKET else _Repo)(api, config)
        self._prefix = f"{config.path_in_repo}/" if config.path_in_repo else ""
        self._folder = folder
        self._wanted = wanted
        self._tell = tell
        self._known: dict[str, str] = {}
        self._told: set[str] = set()

    @property
    def paths(self) -> Collection[str]:
        """The files that were downloaded, or were there already, by their paths in the repo or bucket."""
        return self._known.keys()

    def wait(self, seconds: float, ended: Callable[[float], bool]) -> None:
        """Wait until something may have changed.

        Args:
            seconds: How long to wait where the Hub does not report changes.
            ended: Waits for so many seconds, and returns true when there is no more need for the mirror.
        """
        self._source.wait(seconds, ended)

    def refresh(self, progress: Callable[[int, int], Callable[[int], object]] | None = None) -> Changed:
        """Download the new bytes of all files that have changed.

        Args:
            progress: Called with the numbers of changed files and of their bytes, if it is given. Returns a function
                that is called with the bytes of each file when its download has ended.
        """
        changed = {
            path: listed
            for path, listed in self._source.files().items()
            if path.startswith(self._prefix)
            and self._wanted(path)
            and self._known.get(path) != listed.version
            and self._is_safe(path, listed.size)
        }
        done = progress(len(changed), sum(listed.size for listed in changed.values())) if progress else None
        files = size = 0
        changed, failed = self._that_fit(changed)
        with contextlib.closing(
            in_threads(lambda path: self._download(path, changed[path].size), changed)
        ) as downloads:
            for path, new_bytes in downloads:
                if done is not None:
                    done(changed[path].size)
                if isinstance(new_bytes, Exception):
                    failed[path] = failure_of(new_bytes)
                    continue
                self._known[path] = changed[path].version
                files += new_bytes > 0
                size += new_bytes
        return Changed(files, size, failed)

    def _that_fit(self, changed: dict[str, _Listed]) -> tuple[dict[str, _Listed], dict[str, str]]:
        """Return the files that fit on the disk, and the errors of the others by path."""
        self._folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self._folder).free
        left = free - free // 20
        fit, failed = {}, {}
        for path, listed in changed.items():
            try:
                have = (self._folder / path).lstat().st_size
            except OSError:
                have = 0
            if listed.size - have > left:
                failed[path] = f"it has {listed.size / 1e6:,.1f} MB, and the disk has too little space"
            else:
                left -= max(listed.size - have, 0)
                fit[path] = listed
        return fit, failed

    def _download(self, path: str, size: int) -> int:
        """Bring one file up to date; return the number of its new bytes."""
        # It may be requested twice: to append to the local file, and as a whole. Bytes received in time are kept.
        seconds = CALL_SECONDS + size / SLOW_LINE_BYTES_PER_SECOND
        return in_time(lambda: self._update(path, size), seconds, 2 * (size + MARGIN_BYTES), downloads=True)

    def _update(self, path: str, size: int) -> int:
        with self._open(path) as file:
            had = file.seek(0, os.SEEK_END)
            try:
                start = self._complete(path, file, size)
            except (TemporaryError, HubAnswerError):
                # Of many files, one broken connection would fail the whole read.
                start = self._complete(path, file, size)
            return size - min(start, had)

    def _complete(self, path: str, file: BinaryIO, size: int) -> int:
        """Download the missing bytes of a file; return how many of the local ones are kept.

        Raises:
            TemporaryError: If the Hub sends too few.
        """
        have = file.seek(0, os.SEEK_END)
        if have > size or (size and not self._append(path, file, have, size)):
            file.truncate(0)
            have = 0
            if size:
                self._append(path, file, 0, size)
        end = file.seek(0, os.SEEK_END)
        if end < size:
            raise TemporaryError(f"the Hub sent {end} of {size} bytes")
        return have

    def _open(self, path: str) -> BinaryIO:
        """Open the local copy of a file, and nothing else that is in its place, when no other mirror writes to it.

        Raises:
            OSError: If it cannot be opened, or is not a file in the folder.
        """
        target = self._folder / path
        # Before folders are made, which would be made behind the link.
        if not target.parent.resolve().is_relative_to(self._folder.resolve()):
            raise OSError("a link leads out of the folder")
        target.parent.mkdir(parents=True, exist_ok=True)
        # Not followed if it is a link, and not waited for if it is a pipe.
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        file = os.fdopen(os.open(target, flags | getattr(os, "O_CLOEXEC", 0), 0o666), "a+b")
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            file.close()
            raise OSError(
                "it is not a file on this machine, or has another name (hard link), whose content would change"
            )
        if fcntl is not None:
            # Two views may keep the same folder, and each would append the same bytes.
            with contextlib.suppress(OSError):  # the file system has no locks
                fcntl.flock(file, fcntl.LOCK_EX)
        return file

    def _append(self, path: str, file: BinaryIO, have: int, size: int) -> bool:
        """Append the bytes after `have` to the local file, if the two agree shortly before; return whether they do."""
        start = max(0, have - _COMPARED_BYTES)
        file.seek(start)
        expected = file.read(have - start)
        source = self._source
        with download(source.api, source.config, path, source.commit, start) as pieces:
            for piece in _up_to(pieces, size - start):
                same, expected = expected[: len(piece)], expected[len(piece) :]
                if not piece.startswith(same):
                    return False
                file.write(piece[len(same) :])
        if expected:  # as of a login page that takes no ranges
            raise TemporaryError(f"the Hub sent {have - len(expected)} of {size} bytes")
        return True

    def _is_safe(self, path: str, size: object) -> bool:
        # The Hub's listing is untrusted: nothing is written outside of the folder.
        with contextlib.suppress(ValueError):
            if (
                check_path_in_repo(path) == path
                and ":" not in path.partition("/")[0]
                and isinstance(size, int)
                and size >= 0
            ):
                return True
        if path not in self._told:
            self._told.add(path)
            self._tell(f"{path!a} is left out: it is no path of a file below a folder")
        return False


def refresh_seconds(config: PushConfig) -> float:
    """Return the default refresh interval in seconds."""
    return BUCKET_SECONDS if config.repo_type == BUCKET else REPO_SECONDS


def with_full_name(config: PushConfig, api: HfApi) -> PushConfig:
    """Return a config whose repo has the namespace of the token's user, unless it has one.

    Raises:
        ActionNeededError: If there is no token that names the user.
        ValueError: If the Hub gives the user a name that none can have.
    """
    if "/" in config.repo_id:
        return config
    from huggingface_hub.errors import LocalTokenNotFoundError

    try:
        user = in_time(api.whoami, SECONDS)["name"]
    except LocalTokenNotFoundError:
        raise ActionNeededError(
            f"there is no token that names the user: write user/{config.repo_id}, or log in with hf auth login"
        ) from None
    return replace(config, repo_id=check_repo_id(f"{user}/{config.repo_id}"))


def _check_number(files: int, repo_id: str) -> None:
    if files > _MOST_FILES:
        raise ActionNeededError(f"{repo_id} has more than {_MOST_FILES:,} files, which are too many to show")


def _up_to(pieces: Iterator[bytes], size: int) -> Iterator[bytes]:
    """Yield the first `size` bytes: a file may have grown since it was listed."""
    for piece in pieces:
        yield piece[:size]
        size -= len(piece)
        if size <= 0:
            return
