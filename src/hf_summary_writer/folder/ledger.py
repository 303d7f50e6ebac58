"""The ledger of a folder: the uploaded part of each file, in a file of JSON lines that survives a crash."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, TypeVar

from hf_summary_writer import checks
from hf_summary_writer.config import Destination, PushConfig
from hf_summary_writer.folder.disk import LAST_SECOND, MALFORMED, STATE_FOLDER, StateFolder, WarnOnce, seconds, text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

T = TypeVar("T")

_VERSION = 1

# Far above the 100,000 files that the Hub advises as the most for a repo.
_MAX_BYTES = 256 * 2**20

# A rewrite costs as much as the folder has files, so it waits until it at least halves the file.
_MIN_LINES_TO_COMPACT = 1000

_DIGEST = re.compile(r"(?:[0-9a-f]{8})?")

# The errors of opening an entry that is not a regular file: a folder or FIFO, a link, a socket.
_NO_FILE = frozenset({errno.EINVAL, errno.EISDIR, errno.ELOOP, errno.EMLINK, errno.ENXIO})


class LedgerError(Exception):
    """The ledger cannot be trusted; the message says why."""


class Signature(NamedTuple):
    """The identity and state of a file, compared with `!=`, never with `<`."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int = 0

    @classmethod
    def of(cls, status: os.stat_result) -> Signature:
        """Take the signature from the result of `os.fstat`."""
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    @property
    def written(self) -> float:
        """When the file was last written, in seconds since the epoch; some disks hold times beyond all calendars."""
        return min(max(0.0, self.mtime_ns / 10**9), LAST_SECOND)


class LedgerEntry(NamedTuple):
    """The part of one file that is on the Hub.

    Attributes:
        signature: The local file when it was read for the push.
        length: The number of its bytes on the Hub.
        tail: For event files, a fingerprint of the bytes before `length`, which tells an append from a rewrite.
        digest: For event files, a checksum of all of these bytes that can be continued.
        sha256: The hash of all of these bytes, by which the Hub knows large files.
        git_oid: The hash by which Git knows it, or its pointer to LFS.
        young: Whether the file was read so soon after a change that the next one may have left the same signature.
        verified: When all of an event file was last compared with `digest`, in seconds since the epoch.
        xet_hash: In a bucket, the hash by which it knows all of these bytes.
    """

    signature: Signature
    length: int
    tail: str = ""
    digest: str = ""
    sha256: str = ""
    git_oid: str = ""
    young: bool = False
    verified: int = 0
    xet_hash: str = ""


@dataclass(frozen=True, slots=True)
class CommitRecord:
    """The latest commit: its id, its page on the Hub and when it was acknowledged (seconds since the epoch).

    Of a batch to a bucket there is no id, and the page is that of the bucket.
    """

    oid: str | None
    url: str
    time: float


class Ledger:
    """The upload state of one folder at one destination, in memory and on disk.

    Every line of the file is one JSON object: the head, then one per file, commit, repo or settings, of which the last
    one counts. Not thread-safe: its owner uses it from one thread at a time, and is the only process that records.

    Args:
        path: The file; its folder is created when something is recorded.
        destination: The destination. A file about another one is set aside.

    Attributes:
        entries: The files on the Hub by relative path, the one that was uploaded longest ago first. For others to read.
        repo_id: The full id of the repo, once it is known to exist.
        is_new: Whether the repo was created for this folder.
        commit: The latest commit.
        config: How the folder is pushed.
        moved_from: If the file was made for another folder and came here by a copy or a move, the path of that folder.
    """

    def __init__(self, path: Path, destination: Destination) -> None:
        self.path = path
        self.destination = destination
        self._state = StateFolder(path.parent)
        self._swept = False
        self._reset()

    def _reset(self) -> None:
        self.repo_id: str | None = None
        self.is_new: bool = False
        self.commit: CommitRecord | None = None
        self.config: PushConfig | None = None
        self.moved_from: str | None = None
        self.entries: dict[str, LedgerEntry] = {}
        self._seen: Signature | None = None  # of the file that memory was read from or written to
        self._lines = self._whole_bytes = 0
        self._is_stale = False  # whether the file lacks something that memory holds, so that it must be rewritten

    @property
    def known_config(self) -> PushConfig:
        """How the folder is pushed: as recorded last, or by default."""
        return self.config or PushConfig.from_ledger(self.destination, {})

    def refresh(self, *, sets_aside: bool = True) -> bool:
        """Read the file, unless it is the one that this object read or wrote last; return whether it was read.

        Args:
            sets_aside: Whether to set aside a file that cannot be trusted, because another one is to take its place.

        Raises:
            LedgerError: If it cannot be trusted; the ledger is empty then.
            OSError: If the file is there but cannot be read; the ledger is unchanged.
        """
        if not self._swept:
            self._swept = True
            self._state.sweep()
        try:
            with self._state.open(self.path.name) as file:
                signature = Signature.of(os.fstat(file.fileno()))
                if signature == self._seen:
                    return False
                self._reset()
                self._read(file, signature.size)
                self._seen = signature
                return True
        except FileNotFoundError:
            return False  # gone with a deleted or recreated folder: the entries in memory are still true
        except LedgerError as error:
            raise self._distrusted(str(error), sets_aside=sets_aside) from None
        except OSError as error:
            if error.errno == errno.EPERM:
                self._reset()
                raise LedgerError(f"{self.path.name} belongs to another user") from None
            if error.errno not in _NO_FILE:
                raise
            raise self._distrusted("it is no file", sets_aside=sets_aside) from None

    def record(self, entries: Mapping[str, LedgerEntry], commit: CommitRecord | None = None) -> None:
        """Record the files of a commit, first in memory, then durably on disk.

        Raises:
            OSError: If it could not be written; memory holds it all the same.
        """
        changed = {relpath: entry for relpath, entry in entries.items() if self.entries.get(relpath) != entry}
        for relpath, entry in changed.items():
            self._put_last(relpath, entry)
        self.commit = commit or self.commit
        lines = [_file_line(relpath, entry) for relpath, entry in changed.items()]
        if commit is not None:
            lines.append({"commit": asdict(commit)})
        if lines:
            self._write(lines)

    def record_repo(self, repo_id: str, *, is_new: bool = False) -> None:
        """Record that the repo exists, under its full id, and whether it was created for this folder.

        The id of a repo that was renamed on the Hub is kept in memory only: a file that names it could not be trusted.

        Raises:
            OSError: If it could not be written; memory holds it all the same.
        """
        self.repo_id, self.is_new = repo_id, is_new
        if self._is_expected(repo_id):
            self._write([self._repo_line()])

    def record_config(self, config: PushConfig) -> None:
        """Record how the folder is pushed, if that has changed.

        Raises:
            OSError: If it could not be written; memory holds it all the same.
        """
        if config is self.config:
            return
        is_news = self.config is None or config.settings != self.config.settings or self.moved_from is not None
        self.config = config
        if is_news:
            self._write([{"settings": config.settings}])

    def forget(self, relpaths: Iterable[str]) -> None:
        """Forget, in memory, that these files were uploaded, so that the next push looks at them again."""
        for relpath in relpaths:
            self.entries.pop(relpath, None)

    def retract(self, relpaths: Iterable[str]) -> None:
        """Forget, durably, that these files were uploaded: they may not be on the Hub any more.

        Raises:
            OSError: If it could not be written; memory has forgotten them all the same.
        """
        before = len(self.entries)
        self.forget(relpaths)
        if len(self.entries) != before:
            self._is_stale = True
            self._write([])

    def _distrusted(self, why: str, *, sets_aside: bool) -> LedgerError:
        self._reset()
        if not sets_aside:
            return LedgerError(why)
        self._state.set_aside(self.path.name, f"set-aside-{time.time_ns()}")
        return LedgerError(f"{self.path.name} was set aside because {why}")

    def _read(self, file: BinaryIO, size: int) -> None:
        if size > _MAX_BYTES:
            raise LedgerError(f"it has {size} bytes")
        try:
            for line in file:
                if not line.endswith(b"\n"):
                    break  # torn by a crash; the next line overwrites it
                (self._apply if self._lines else self._apply_head)(json.loads(line))
                self._lines += 1
                self._whole_bytes += len(line)
        except MALFORMED:
            raise LedgerError(f"its line {self._lines + 1} does not mean anything") from None
        if not self._lines:
            raise LedgerError("it is empty")

    def _apply_head(self, head: dict[str, Any]) -> None:
        if head["version"] != _VERSION:
            raise LedgerError(f"its version is {head['version']!r} and this library knows {_VERSION}")
        if head["destination"] != asdict(self.destination):
            raise LedgerError("it is about another destination")
        path, inode = self._home()
        home = head["folder"]
        if path != _typed(home["path"], str) and inode != _integer(home["inode"]):
            # A copy has another inode, and a move over the border of a file system has; a moved folder keeps its own.
            self.moved_from, self._is_stale = home["path"], True

    def _apply(self, line: dict[str, Any]) -> None:
        if "file" in line:
            self._put_last(*_parsed_file(line))
        elif "repo" in line:
            self.repo_id, self.is_new = checks.check_repo_id(line["repo"]), _typed(line.get("new", False), bool)
            if not self._is_expected(self.repo_id):
                raise ValueError(self.repo_id)
        elif "settings" in line:
            self.config = _parsed_config(self.destination, line["settings"])
        else:
            commit = line["commit"]
            oid = None if commit["oid"] is None else text(commit["oid"])
            self.commit = CommitRecord(oid, text(commit["url"]), seconds(commit["time"]))

    def _put_last(self, relpath: str, entry: LedgerEntry) -> None:
        # A dictionary keeps the order in which its keys came.
        self.entries.pop(relpath, None)
        self.entries[relpath] = entry

    def _is_expected(self, repo_id: str) -> bool:
        # The Hub adds the user's name and may write it in another case; anything else would lead logs astray.
        return repo_id.casefold().rpartition("/")[2] == self.destination.name.casefold()

    def _home(self) -> tuple[str, int]:
        # Not the device: its number changes when a file system is mounted again, and so does the path in a container.
        return str(self._state.root), self._state.root.stat().st_ino

    def _write(self, news: list[dict[str, Any]]) -> None:
        outdated = self._lines - len(self.entries)
        compacts = self._is_stale or outdated > max(_MIN_LINES_TO_COMPACT, len(self.entries))
        self._is_stale = True
        if compacts or not self._append(news):
            self._rewrite()
        self._is_stale = False

    def _append(self, news: list[dict[str, Any]]) -> bool:
        """Append to the file, durably, if it is the one that this object knows; return whether it is.

        Raises:
            OSError: If it could not be written; the file is then, as far as the disk allows, as it was.
        """
        if self._seen is None:
            return False
        content = _encoded(news)
        try:
            # Without a buffer: data that a full disk did not take would be written once more when the file is closed.
            with self._state.open(self.path.name, "r+b", buffering=0) as file:
                if Signature.of(os.fstat(file.fileno())) != self._seen:
                    return False
                try:
                    file.truncate(self._whole_bytes)
                    file.seek(self._whole_bytes)
                    rest = memoryview(content)
                    while rest:
                        rest = rest[file.write(rest) :]
                    os.fsync(file.fileno())
                except OSError:
                    with contextlib.suppress(OSError):
                        file.truncate(self._whole_bytes)
                    raise
                finally:
                    # Even after a failure, or this change would be taken for that of another process.
                    self._seen = Signature.of(os.fstat(file.fileno()))
        except FileNotFoundError:
            return False
        self._whole_bytes += len(content)
        self._lines += len(news)
        return True

    def _rewrite(self) -> None:
        path, inode = self._home()
        lines = [
            {
                "version": _VERSION,
                "destination": asdict(self.destination),
                "folder": {"path": path, "inode": inode},
            }
        ]
        if self.repo_id is not None and self._is_expected(self.repo_id):
            lines.append(self._repo_line())
        if self.config is not None:
            lines.append({"settings": self.config.settings})
        lines.extend(_file_line(relpath, entry) for relpath, entry in self.entries.items())
        if self.commit is not None:
            lines.append({"commit": asdict(self.commit)})
        content = _encoded(lines)
        self._seen = Signature.of(self._state.write(self.path.name, content, durable=True))
        self._lines, self._whole_bytes = len(lines), len(content)
        self.moved_from = None

    def _repo_line(self) -> dict[str, Any]:
        return {"repo": self.repo_id, **({"new": True} if self.is_new else {})}


def ledgers_of(folder: Path, warn: Callable[[str, str], object] | None = None) -> Iterator[Ledger]:
    """Yield the readable ledgers of a folder; leave out those that were made for another folder.

    Args:
        folder: The folder.
        warn: Called, as `WarnOnce.warn`, if some of its state cannot be read, or all of it is of other folders.
    """
    warn = warn or WarnOnce().warn
    state = StateFolder(folder / STATE_FOLDER)
    moved, found = [], False
    try:
        names = state.names(".jsonl")
    except OSError as error:
        warn("state", f"{str(folder)!a} is left out: its upload state cannot be listed: {error.strerror}")
        return
    for name in names:
        try:
            with state.open(name) as file:
                destination = _destination_in(file.readline(_MAX_BYTES))
            ledger = Ledger(state.path / name, destination)
            ledger.refresh(sets_aside=False)  # it may be that of a later version of this library
        except (OSError, LedgerError) as error:
            warn("ledger", f"{str(folder)!a} is left out: {name!a} cannot be read: {error}")
            continue
        if ledger.moved_from is not None:
            moved.append(ledger)
        else:
            found = True
            yield ledger
    for ledger in [] if found else moved:
        command = ledger.known_config.sync_command(folder, "")
        warn(
            "copy",
            f"{str(folder)!a} holds the upload state of {ledger.moved_from!a}, of which it seems to be a copy: that"
            f" state is not used; to upload this folder to the place of the other one, run: {command}",
        )


def _destination_in(line: bytes) -> Destination:
    try:
        destination = json.loads(line)["destination"]
        return Destination(
            endpoint=checks.check_endpoint(destination["endpoint"]),
            repo_type=checks.check_repo_type(destination["repo_type"]),
            repo_id=checks.check_repo_id(destination["repo_id"]),
            revision=""
            if destination["repo_type"] == checks.BUCKET
            else checks.check_revision(destination["revision"]),
            path=checks.check_path_in_repo(destination["path"]),
        )
    except MALFORMED:
        raise LedgerError("its head does not mean anything") from None


def _file_line(relpath: str, entry: LedgerEntry) -> dict[str, Any]:
    # Fields with their defaults are left out.
    rest = {name: value for name, value in entry._asdict().items() if value and name != "length"}
    return {"file": relpath, **rest, "length": entry.length}


def _parsed_file(line: dict[str, Any]) -> tuple[str, LedgerEntry]:
    relpath = _typed(line["file"], str)
    signature = Signature(*map(_integer, line["signature"]))
    length = _integer(line["length"])
    if not 0 <= length <= signature.size or relpath.startswith("/") or ".." in relpath.split("/"):
        raise ValueError(relpath)
    digest = text(line.get("digest", ""))
    if not _DIGEST.fullmatch(digest):
        raise ValueError(digest)
    young = _typed(line.get("young", False), bool)
    verified = _integer(line.get("verified", 0))
    tail, sha256, git_oid, xet_hash = (text(line.get(name, "")) for name in ("tail", "sha256", "git_oid", "xet_hash"))
    return relpath, LedgerEntry(signature, length, tail, digest, sha256, git_oid, young, verified, xet_hash)


def _parsed_config(destination: Destination, settings: dict[str, Any]) -> PushConfig:
    for value in settings.values():
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, str):
                text(each)
    return PushConfig.from_ledger(destination, settings)


def _typed(value: Any, kind: type[T]) -> T:
    if type(value) is not kind:
        raise TypeError(value)
    return value


def _integer(value: Any) -> int:
    number = _typed(value, int)
    if abs(number) >= 2**64:
        raise ValueError(number)
    return number


def _encoded(lines: Iterable[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in lines)
